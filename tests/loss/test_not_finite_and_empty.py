"""The ends of the input space: NaN and infinity, overflow, nothing to compare, nothing hard."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from agreement import assert_agrees, run
from cases import FLOAT_DTYPES, Case, Inputs
from engines import Engine
from torch import Tensor

import tcm_kernels
from tcm_kernels import reference

pytestmark = pytest.mark.usefixtures("poisoned_memory")


def _loss_and_grads(function: Any, inputs: Inputs, **more: Any) -> tuple[Tensor, ...]:
    loss = function(*inputs.tensors, **inputs.settings, **more)
    sides = [x for x in (inputs.emb, inputs.ref_emb) if x is not None]
    return loss, *torch.autograd.grad(loss, sides)


def _spoilt(inputs: Inputs, side: str, row: int, value: float) -> Inputs:
    with torch.no_grad():
        x = inputs.emb if side == "emb" else inputs.ref_emb
        assert x is not None
        x[row, -1] = value
    return inputs


@pytest.mark.parametrize("value", [math.nan, -math.inf], ids=["nan", "minus_inf"])
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
@pytest.mark.parametrize(
    ("relation", "side", "n", "row"),
    [
        ("self", "emb", 1, 0),
        ("self", "emb", 2, 1),
        ("self", "emb", 130, 129),
        ("rectangular", "emb", 1, 0),
        ("rectangular", "emb", 130, 0),
        ("rectangular", "ref_emb", 1, 1),
        ("rectangular", "ref_emb", 130, 166),
        ("rectangular_with_self_offset", "ref_emb", 1, 0),
        ("rectangular_with_self_offset", "emb", 65, 64),
    ],
)
@pytest.mark.parametrize("look", ["clustered", "nothing_hard"])
def test_one_value_that_is_not_finite_makes_loss_and_all_gradients_nan(
    engine: Engine, look: str, relation: str, side: str, n: int, row: int, dtype: torch.dtype, value: float
) -> None:
    engine.skip_unless_it_takes(dtype)
    inputs = Case(relation=relation, n=n, d=9, look=look, dtype=dtype).build(engine.device)
    _spoilt(inputs, side, row, value)
    for name, tensor in zip(
        ("loss", "grad_emb", "grad_ref"),
        _loss_and_grads(tcm_kernels.fused_tcm_loss, inputs, backend=engine.backend),
        strict=False,
    ):
        assert tensor.isnan().all(), f"{name} has numbers in it"


@pytest.mark.parametrize("value", [math.nan, math.inf], ids=["nan", "inf"])
@pytest.mark.parametrize(
    ("relation", "side", "n"),
    [("self", "emb", 1), ("self", "emb", 9), ("rectangular", "emb", 4), ("rectangular", "ref_emb", 4)],
)
def test_the_reference_is_nan_there_too(relation: str, side: str, n: int, value: float) -> None:
    inputs = _spoilt(Case(relation=relation, n=n, d=3).build(), side, 0, value)
    for tensor in _loss_and_grads(reference.tcm_loss, inputs):
        assert tensor.isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("n", [1, 5])
def test_a_norm_that_overflows_float32_is_nan(engine: Engine, n: int, dtype: torch.dtype) -> None:
    """Every value is finite; the length of the row, 5e38, is not a float32."""
    engine.skip_unless_it_takes(dtype)
    inputs = Case(n=n, d=3, dtype=dtype).build(engine.device)
    with torch.no_grad():
        inputs.emb[0] = 3e38
    for tensor in _loss_and_grads(tcm_kernels.fused_tcm_loss, inputs, backend=engine.backend):
        assert tensor.isnan().all()
    for tensor in _loss_and_grads(reference.tcm_loss, inputs):
        assert tensor.isnan().all()


@pytest.mark.parametrize("length", [1e18, 1e9, 1e-4, 1e-11, 1e-13, 1e-19, 1e-30])
def test_rows_of_any_guaranteed_length_agree(engine: Engine, length: float) -> None:
    """Below 1e-12 a row is divided by 1e-12, as torch.nn.functional.normalize does."""
    inputs = Case(n=70, d=12, look="random", seed=4).build(engine.device)
    with torch.no_grad():
        inputs.emb[::3] *= length / inputs.emb[::3].norm(dim=1, keepdim=True)
    assert_agrees(run(engine, inputs), inputs)


NOTHING = {
    "an_empty_batch": (0, [], {}),
    "one_sample": (1, [3], {}),
    "no_positives": (4, [0, 1, 2, 3], {"margin_minus": 1.0}),
    "no_negatives": (4, [5, 5, 5, 5], {"margin_plus": -1.0}),
    "nothing_hard": (6, [0, 0, 1, 1, 2, 2], {"margin_plus": -1.0, "margin_minus": 1.0}),
    "weights_of_zero": (6, [0, 0, 1, 1, 2, 2], {"lambda_plus": 0.0, "lambda_minus": 0.0}),
}


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
@pytest.mark.parametrize("name", NOTHING)
def test_without_hard_pairs_the_loss_is_zero_with_a_zero_gradient(
    engine: Engine, name: str, dtype: torch.dtype
) -> None:
    engine.skip_unless_it_takes(dtype)
    n, labels, settings = NOTHING[name]
    emb = torch.randn(n, 5, device=engine.device).to(dtype).requires_grad_()
    classes = torch.tensor(labels, dtype=torch.int64, device=engine.device)
    loss = tcm_kernels.fused_tcm_loss(emb, classes, **settings, backend=engine.backend)
    assert loss.requires_grad, "a training loop calls backward() on this loss like on any other"
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert emb.grad is not None
    assert torch.equal(emb.grad, torch.zeros_like(emb))


@pytest.mark.parametrize(("n", "m"), [(0, 4), (4, 0), (0, 0)])
def test_an_empty_side_of_a_rectangle_is_zero(engine: Engine, n: int, m: int) -> None:
    emb = torch.randn(n, 5, device=engine.device, requires_grad=True)
    ref = torch.randn(m, 5, device=engine.device, requires_grad=True)
    labels = [torch.zeros(k, dtype=torch.int64, device=engine.device) for k in (n, m)]
    loss = tcm_kernels.fused_tcm_loss(emb, labels[0], ref, labels[1], backend=engine.backend)
    grads = torch.autograd.grad(loss, (emb, ref))
    assert float(loss.detach()) == 0.0
    assert all(torch.equal(grad, torch.zeros_like(x)) for grad, x in zip(grads, (emb, ref), strict=True))


def test_one_sample_against_one_reference_row_is_a_pair(engine: Engine) -> None:
    emb = torch.tensor([[2.0, 0.0]], device=engine.device)
    ref = torch.tensor([[0.0, 3.0]], device=engine.device)
    labels = torch.tensor([1], device=engine.device)
    loss = tcm_kernels.fused_tcm_loss(emb, labels, ref, labels.clone(), backend=engine.backend)
    assert float(loss) == pytest.approx(0.9, abs=1e-7)
    alone = tcm_kernels.fused_tcm_loss(
        emb, labels, ref, labels.clone(), self_offset=0, backend=engine.backend
    )
    assert float(alone) == 0.0


def test_rows_of_width_zero_are_rows_of_zeros(engine: Engine) -> None:
    """D = 0: every similarity is 0, as for rows of zeros."""
    emb = torch.zeros(4, 0, device=engine.device, requires_grad=True)
    labels = torch.tensor([0, 0, 1, 1], device=engine.device)
    loss = tcm_kernels.fused_tcm_loss(emb, labels, backend=engine.backend)
    (grad,) = torch.autograd.grad(loss, emb)
    assert float(loss.detach()) == pytest.approx(0.9, abs=1e-7)
    assert grad.shape == (4, 0)
