"""Backends add P and Q of a part of the matrix to what other parts have left there."""

from __future__ import annotations

import pytest
import torch
from agreement import assert_agrees
from cases import Case
from engines import Engine
from in_parts import run_in_parts

DTYPES = (torch.float32, torch.float64, torch.bfloat16)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("cut", [0, 1, 67, 150])
@pytest.mark.parametrize("look", ["random", "clustered", "everything_hard"])
def test_parts_add_up_to_the_whole(engine: Engine, look: str, cut: int, dtype: torch.dtype) -> None:
    engine.skip_unless_it_takes(dtype)
    inputs = Case(n=150, d=37, look=look, dtype=dtype, seed=3).build(engine.device)
    assert_agrees(run_in_parts(engine, inputs, cut), inputs)


@pytest.mark.parametrize("row", [0, 149])
def test_a_row_that_is_not_finite_in_one_part_makes_all_gradients_nan(engine: Engine, row: int) -> None:
    inputs = Case(n=150, d=37, seed=3).build(engine.device)
    with torch.no_grad():
        inputs.emb[row, 5] = torch.inf
    result = run_in_parts(engine, inputs, 67)
    assert result.loss.isnan()
    assert result.grad_emb.isnan().all()
