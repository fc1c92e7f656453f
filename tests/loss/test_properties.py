"""Inputs nobody thought of, from hypothesis, and what must hold whatever the input is."""

from __future__ import annotations

import pytest
import torch
from agreement import assert_agrees, run
from cases import FLOAT_DTYPES, RELATIONS, Inputs
from engines import Engine
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

import tcm_kernels

pytestmark = pytest.mark.usefixtures("poisoned_memory")

MARGINS = st.one_of(st.sampled_from([-1.0, -0.5, 0.0, 0.5, 0.9, 1.0]), st.floats(-1.0, 1.0))


@st.composite
def _inputs(draw: st.DrawFn) -> Inputs:
    """Small batches of rounded numbers: ties, duplicates, opposite rows and zero rows are all common."""
    relation = draw(st.sampled_from(RELATIONS))
    n, m = draw(st.integers(0, 40)), draw(st.integers(0, 40))
    d = draw(st.integers(1, 9))
    dtype = draw(st.sampled_from(FLOAT_DTYPES))
    classes = draw(st.integers(1, 12))
    steps = draw(st.sampled_from([1, 3, 1000]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    values = torch.randn(n + m, d, generator=generator) * 2
    rows = ((values * steps).round() / steps).to(dtype)
    labels = torch.randint(-classes, classes, (n + m,), generator=generator)
    offset = draw(st.integers(0, m)) if relation == "rectangular_with_self_offset" else None
    ref, ref_labels = rows[n:], labels[n:]
    if offset is not None:
        ref = torch.cat((ref[:offset], rows[:n], ref[offset:]))
        ref_labels = torch.cat((ref_labels[:offset], labels[:n], ref_labels[offset:]))
    return Inputs(
        rows[:n].clone().requires_grad_(),
        labels[:n].clone(),
        None if relation == "self" else ref.clone().requires_grad_(),
        None if relation == "self" else ref_labels.clone(),
        draw(MARGINS),
        draw(MARGINS),
        draw(st.sampled_from([0.0, 0.5, 1.0, 3.0])),
        draw(st.sampled_from([0.0, 0.5, 1.0, 3.0])),
        offset,
    )


@given(inputs=_inputs())
@example(inputs=Inputs(torch.zeros(3, 2, requires_grad=True), torch.tensor([0, 0, 1]), margin_minus=0.0))
def test_any_small_batch_agrees_with_the_reference(engine: Engine, inputs: Inputs) -> None:
    if engine.why_not(inputs.emb.dtype) is not None:
        return
    inputs = inputs.to(engine.device)
    assert_agrees(run(engine, inputs), inputs)


def _batch(seed: int, n: int = 90, d: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(n, d, generator=generator, dtype=torch.float64),
        torch.randint(0, 15, (n,), generator=generator),
    )


# In float64 no pair of a random batch lies within 1e-15 of a margin, so only the order of summation differs.
SEEDS = st.integers(0, 2**16)


@given(seed=SEEDS)
def test_the_order_of_the_rows_does_not_matter(engine: Engine, seed: int) -> None:
    if engine.why_not(torch.float64) is not None:
        pytest.skip("needs float64")
    emb, labels = (x.to(engine.device) for x in _batch(seed))
    order = torch.randperm(len(emb), generator=torch.Generator().manual_seed(seed)).to(engine.device)
    losses, grads = [], []
    for rows, classes in ((emb, labels), (emb[order], labels[order])):
        leaf = rows.clone().requires_grad_()
        loss = tcm_kernels.fused_tcm_loss(leaf, classes, margin_minus=0.2, backend=engine.backend)
        losses.append(loss.detach())
        grads.append(torch.autograd.grad(loss, leaf)[0])
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-12, atol=0)
    torch.testing.assert_close(grads[0][order], grads[1], rtol=1e-9, atol=1e-14)


@given(seed=SEEDS, scale=st.floats(1e-3, 1e3))
def test_the_length_of_the_rows_does_not_matter(engine: Engine, seed: int, scale: float) -> None:
    if engine.why_not(torch.float64) is not None:
        pytest.skip("needs float64")
    emb, labels = (x.to(engine.device) for x in _batch(seed))
    one, other = (
        tcm_kernels.fused_tcm_loss(x, labels, margin_minus=0.2, backend=engine.backend)
        for x in (emb, emb * scale)
    )
    torch.testing.assert_close(one, other, rtol=1e-12, atol=0)


@given(seed=SEEDS)
def test_names_of_classes_do_not_matter(engine: Engine, seed: int) -> None:
    """Up to the order of summation: kernels may lay out rows in the order of their labels."""
    emb, labels = (x.to(engine.device) for x in _batch(seed))
    renamed = labels * -(2**40) + 17
    one, other = (
        tcm_kernels.fused_tcm_loss(emb.float(), x, margin_minus=0.2, backend=engine.backend)
        for x in (labels, renamed)
    )
    torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


@given(seed=SEEDS)
def test_gradients_are_orthogonal_to_their_rows(engine: Engine, seed: int) -> None:
    """The loss does not see lengths, so no gradient points along its row."""
    if engine.why_not(torch.float64) is not None:
        pytest.skip("needs float64")
    emb, labels = (x.to(engine.device) for x in _batch(seed))
    emb.requires_grad_()
    (grad,) = torch.autograd.grad(
        tcm_kernels.fused_tcm_loss(emb, labels, margin_minus=0.2, backend=engine.backend), emb
    )
    along = (grad * emb.detach()).sum(dim=1).abs()
    assert bool((along <= 1e-13).all())


@given(seed=SEEDS, cut=st.integers(0, 90))
def test_a_reference_set_in_two_halves_adds_up(engine: Engine, seed: int, cut: int) -> None:
    if engine.why_not(torch.float64) is not None:
        pytest.skip("needs float64")
    emb, labels = (x.to(engine.device) for x in _batch(seed))
    queries, classes = emb[:30] + 0.5, labels[:30]

    def sums(rows: slice) -> Tensor:
        _, stats = tcm_kernels.fused_tcm_loss(
            queries,
            classes,
            emb[rows],
            labels[rows],
            margin_minus=0.2,
            backend=engine.backend,
            return_stats=True,
        )
        fields = (stats.positive_sum, stats.positive_count, stats.negative_sum, stats.negative_count)
        return torch.stack([x.double() for x in fields])

    parts = sums(slice(0, cut)) + sums(slice(cut, 90))
    torch.testing.assert_close(parts, sums(slice(0, 90)), rtol=1e-12, atol=1e-12)
