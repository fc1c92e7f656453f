"""torch's own checks of the two operations: schema, fake tensors, autograd, dynamic shapes."""

from __future__ import annotations

import pytest
import torch
from cases import FLOAT_DTYPES, RELATIONS, Case
from engines import Engine
from op_arguments import backward_arguments, pair_sums_arguments, residual_size

from tcm_kernels import dispatch
from tcm_kernels.backends.contract import Problem

SIDES = [(True, True), (True, False), (False, True), (False, False)]


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
@pytest.mark.parametrize("relation", RELATIONS)
def test_opcheck_of_the_forward(engine: Engine, relation: str, dtype: torch.dtype) -> None:
    engine.skip_unless_it_takes(dtype)
    arguments = pair_sums_arguments(engine, relation, dtype, True, True)
    size = residual_size(engine, arguments)
    torch.library.opcheck(torch.ops.tcm_kernels.pair_sums.default, (*arguments, size))


@pytest.mark.parametrize("sides", SIDES[1:], ids=["for_emb", "for_ref", "for_neither"])
def test_opcheck_of_the_forward_for_some_sides(engine: Engine, sides: tuple[bool, bool]) -> None:
    arguments = pair_sums_arguments(engine, "rectangular", torch.float32, *sides)
    size = residual_size(engine, arguments)
    torch.library.opcheck(torch.ops.tcm_kernels.pair_sums.default, (*arguments, size))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("relation", "sides"),
    [("self", (True, False)), *(("rectangular", sides) for sides in SIDES[:3])],
    ids=["self", "both", "for_emb", "for_ref"],
)
def test_opcheck_of_the_backward(
    engine: Engine, relation: str, sides: tuple[bool, bool], dtype: torch.dtype
) -> None:
    """With inputs that require no grad: this op has no derivative to check."""
    engine.skip_unless_it_takes(dtype)
    arguments = tuple(
        x.detach() if isinstance(x, torch.Tensor) else x
        for x in pair_sums_arguments(engine, relation, dtype, *sides)
    )
    size = residual_size(engine, arguments)
    sums, _, residual = torch.ops.tcm_kernels.pair_sums(*arguments, size)
    torch.library.opcheck(
        torch.ops.tcm_kernels.pair_sums_backward.default,
        (torch.ones_like(sums), residual, *backward_arguments(arguments)),
    )


def test_the_residual_has_the_size_asked_for_and_no_derivative(engine: Engine) -> None:
    arguments = pair_sums_arguments(engine, "self", torch.float32, True, False)
    size = residual_size(engine, arguments)
    sums, counts, residual = torch.ops.tcm_kernels.pair_sums(*arguments, size)
    assert (sums.dtype, sums.shape) == (torch.float64, (2,))
    assert (counts.dtype, counts.shape) == (torch.int64, (2,))
    assert (residual.dtype, residual.shape) == (torch.uint8, (size,))
    assert sums.requires_grad
    assert not counts.requires_grad
    assert not residual.requires_grad


def test_the_size_of_the_residual_does_not_depend_on_data(engine: Engine) -> None:
    """It is asked for before anything ran, so it can only follow from shapes and arguments."""
    sizes = set()
    for seed in range(3):
        inputs = Case(n=33, d=5, seed=seed).build(engine.device)
        margins = torch.tensor([0.9, 0.5], dtype=torch.float64, device=engine.device)
        problem = Problem(inputs.emb, inputs.labels, None, None, margins, None, True, False, "highest")
        sizes.add(dispatch.module(engine.backend).residual_bytes(problem.gradient_rows))
    assert len(sizes) == 1
