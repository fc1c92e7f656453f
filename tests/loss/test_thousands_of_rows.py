"""Matrices so large that the GPU backends screen them as they are, against the reference in float64.

Shared cases end at 1,100 rows, where no screening is worth its launches. On a GPU the truth is computed
there, too, and there are up to 9,000 rows; on a CPU the smaller of these cases show the other backends, and
that this file is right.
"""

from __future__ import annotations

import dataclasses
import functools

import pytest
import torch
from agreement import Truth, assert_agrees, run, truth_of
from cases import FLOAT_DTYPES, Case, Inputs
from engines import ENGINES, Engine

ON_GPU = torch.cuda.is_available()
MOST_ON_CPU = 3000 * 3500  # pairs; a float64 matrix of them takes 80 MB, and the truth several

SHAPES = {
    "lists": Case(n=3000, d=128, look="clustered"),
    "patterns": Case(n=3000, d=100, look="random", labels="unbalanced"),
    "whole tiles": Case(n=2500, d=64, look="collapsed", labels="sorted"),
    "a reference set": Case(
        n=2400, d=72, extra=700, look="clustered", relation="rectangular_with_self_offset"
    ),
    "long rows": Case(n=4100, d=513, look="clustered", labels="sorted"),
    "many rows": Case(n=9000, d=96, look="clustered"),
    "many rows of one class": Case(n=9000, d=64, look="clustered", labels="unbalanced"),
    "many rows and a reference set": Case(
        n=3100, d=128, extra=3000, look="random", relation="rectangular_with_self_offset"
    ),
}
CASES = {
    f"{name}, {dtype}".replace("torch.", ""): dataclasses.replace(case, dtype=dtype, seed=11)
    for name, case in SHAPES.items()
    for dtype in FLOAT_DTYPES
}


def build(case: Case, device: str) -> Inputs:
    """Where classes are clusters, their centres are random directions: a few negatives in 10,000 are hard."""
    inputs = case.build(device)
    if case.look != "clustered":
        return inputs
    return dataclasses.replace(inputs, margin_minus=3.4 / case.d**0.5)


HERE = {name: case for name, case in CASES.items() if ON_GPU or case.pairs <= MOST_ON_CPU}


@functools.lru_cache(maxsize=1)
def _truth_of(case: Case, device: str) -> Truth:
    return truth_of(build(case, device), device)


# The engines vary fastest, so that the dense truth is computed once a case and not once a backend.
@pytest.mark.slow
@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", HERE.values(), ids=HERE)
def test_agrees_with_the_float64_reference(case: Case, engine: Engine) -> None:
    engine.skip_unless_it_takes(case.dtype)
    if engine.device == "cpu" and case.pairs > MOST_ON_CPU:
        pytest.skip("a GPU does this, and a CPU shows it on fewer rows")
    inputs = build(case, engine.device)
    result = run(engine, inputs)
    assert_agrees(result, inputs, _truth_of(case, engine.device))
    assert int(result.stats.negative_count) > 0


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
def test_pairs_enough_to_be_screened_meet_every_dtype(dtype: torch.dtype) -> None:
    """From 2,048 rows squared both backends screen: whoever changes that has to change the cases."""
    screened = [case for case in CASES.values() if case.dtype == dtype and case.pairs >= 2048**2]
    assert len(screened) == len(SHAPES)
    assert any(case in screened for case in HERE.values())


@pytest.mark.parametrize("look", ["clustered", "random"])
def test_the_truth_is_the_same_on_every_device(look: str) -> None:
    """Where there is no GPU this compares the CPU with itself, as named or not."""
    inputs = Case(n=130, d=20, look=look, relation="rectangular_with_self_offset").build()
    here, there = truth_of(inputs), truth_of(inputs, "cuda" if ON_GPU else "cpu")
    assert here.loss == pytest.approx(there.loss, rel=1e-13)
    assert [sign.counted for sign in here.signs] == [sign.counted for sign in there.signs]
    for one, other in zip(here.sides, there.sides, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-12, atol=1e-15)
