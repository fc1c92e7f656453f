"""Every shared case on every backend: loss, terms, counts and both gradients are those of float64."""

from __future__ import annotations

import functools

import pytest
import torch
from agreement import Truth, assert_agrees, run, truth_of
from cases import CASES, FLOAT_DTYPES, RELATIONS, Case
from engines import ENGINES, Engine

pytestmark = pytest.mark.usefixtures("poisoned_memory")


@functools.lru_cache(maxsize=1)
def _truth_of(case: Case) -> Truth:
    return truth_of(case.build())


# The engines vary fastest, so that the dense truth is computed once a case and not once a backend.
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_agrees_with_the_float64_reference(case: Case, engine: Engine) -> None:
    engine.skip_unless_it_takes(case.dtype)
    inputs = case.build(engine.device)
    assert_agrees(run(engine, inputs), inputs, _truth_of(case))


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
@pytest.mark.parametrize("relation", RELATIONS)
def test_every_dtype_meets_every_relation_over_several_tiles(
    engine: Engine, relation: str, dtype: torch.dtype
) -> None:
    """The product, and not only the pairwise choice, for the two axes with the most code behind them."""
    engine.skip_unless_it_takes(dtype)
    inputs = Case(relation=relation, n=600, d=48, dtype=dtype, seed=3).build(engine.device)
    result = run(engine, inputs)
    assert_agrees(result, inputs)
    assert int(result.stats.positive_count) > 0
    assert int(result.stats.negative_count) > 0


def test_the_cases_cover_what_they_promise() -> None:
    ids = [case.id for case in CASES]
    assert len(set(ids)) == len(ids), "two cases have one name"
    for axis in ("relation", "n", "d", "labels", "look", "dtype", "memory", "label_dtype"):
        assert len({getattr(case, axis) for case in CASES}) > 1, f"{axis} never changes"
