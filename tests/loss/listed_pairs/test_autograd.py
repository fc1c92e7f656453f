"""The loss over listed pairs: what autograd may ask of it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from cases import FLOAT_DTYPES
from engines import Engine
from listed_pairs import (
    BOTH_FORMS,
    assert_agrees,
    assert_same_bits,
    changed,
    listed,
    poisoned,
    run,
    truth_of,
)
from torch import Tensor


@pytest.mark.parametrize("m", [None, 9], ids=["self", "with_ref"])
@BOTH_FORMS
def test_float64_gradients_are_the_numerical_ones(engine: Engine, form: str, m: int | None) -> None:
    engine.skip_unless_it_takes(torch.float64)
    given = listed(form, n=8, m=m, d=4, count=40, dtype=torch.float64, device=engine.device, lambda_minus=0.7)
    given = changed(given, apart=1e-4)  # gradcheck moves each number by 1e-6
    truth = truth_of(given)
    assert min(truth.hard) > 3

    def loss(emb: Tensor, ref: Tensor | None = None) -> Tensor:
        return changed(given, emb=emb, ref=ref).loss(engine.backend)

    assert torch.autograd.gradcheck(loss, given.sides)


@poisoned
@pytest.mark.parametrize("wanted", [(True, False), (False, True), (False, False)], ids=str)
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
@BOTH_FORMS
def test_only_the_side_that_requires_it_gets_a_gradient(
    engine: Engine, form: str, dtype: torch.dtype, wanted: tuple[bool, bool]
) -> None:
    engine.skip_unless_it_takes(dtype)
    given = listed(form, m=95, dtype=dtype, device=engine.device)
    expected = run(engine, given)
    emb, ref = (x.detach().requires_grad_(wants) for x, wants in zip(given.sides, wanted, strict=True))
    loss = changed(given, emb=emb, ref=ref).loss(engine.backend)
    assert loss.requires_grad == any(wanted)
    torch.testing.assert_close(loss.detach(), expected.loss.detach(), rtol=0, atol=1e-6)
    if not any(wanted):
        return
    loss.backward(torch.full_like(loss, expected.upstream))
    both = [full if x.grad is None else x.grad for x, full in zip((emb, ref), expected.grads, strict=True)]
    assert [x.grad is not None for x in (emb, ref)] == list(wanted)
    assert_agrees(dataclasses.replace(expected, grads=tuple(both)), given, truth_of(given))


@poisoned
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@BOTH_FORMS
def test_without_grad_the_loss_is_the_same_and_carries_no_graph(engine: Engine, form: str, mode: Any) -> None:
    given = listed(form, device=engine.device)
    expected = given.loss(engine.backend).detach()
    with mode():
        loss = given.loss(engine.backend)
        assert not loss.requires_grad
        torch.testing.assert_close(loss.clone(), expected, rtol=0, atol=1e-6)


@poisoned
@BOTH_FORMS
def test_gradients_flow_from_each_term_of_the_statistics(engine: Engine, form: str) -> None:
    engine.skip_unless_it_takes(torch.float64)
    given = listed(form, dtype=torch.float64, device=engine.device)
    _, stats = given.loss(engine.backend, return_stats=True)
    for term, weights in (("positive_term", (1.0, 0.0)), ("negative_term", (0.0, 1.0))):
        (grad,) = torch.autograd.grad(getattr(stats, term), given.emb, retain_graph=True)
        alone = given.loss(engine.backend, lambda_plus=weights[0], lambda_minus=weights[1])
        torch.testing.assert_close(grad, torch.autograd.grad(alone, given.emb)[0], rtol=1e-12, atol=1e-15)


@poisoned
@BOTH_FORMS
def test_a_graph_can_be_walked_twice_if_retained(engine: Engine, form: str) -> None:
    """Powers of two scale without rounding, so equality is bitwise."""
    given = listed(form, m=70, device=engine.device)
    loss = given.loss(engine.backend)
    once = torch.autograd.grad(loss, given.sides, retain_graph=True)
    twice = torch.autograd.grad(-4 * loss, given.sides)
    assert all(torch.equal(-4 * x, y) for x, y in zip(once, twice, strict=True))


@poisoned
@BOTH_FORMS
def test_the_list_a_bank_and_margins_may_be_overwritten_before_the_backward(
    engine: Engine, form: str
) -> None:
    given = listed(form, m=70, device=engine.device)
    assert given.ref is not None
    bank = given.ref.detach().clone()
    given = changed(given, ref=bank, pairs=tuple(x.clone() for x in given.pairs))
    margins = {name: torch.tensor(getattr(given, name), device=engine.device)
               for name in ("margin_plus", "margin_minus")}  # fmt: skip
    (expected,) = torch.autograd.grad(given.loss(engine.backend, **margins), given.emb)
    later = given.loss(engine.backend, **margins)
    for x in (bank, *given.pairs, *margins.values()):
        x.zero_()
    (grad,) = torch.autograd.grad(later, given.emb)
    assert torch.equal(grad, expected)


def test_numbers_of_listed_pairs_stay_when_the_list_is_overwritten(engine: Engine) -> None:
    given = listed("triplets", device=engine.device)
    expected = truth_of(given).listed
    _, stats = given.loss(engine.backend, return_stats=True)
    for x in given.pairs:
        x.zero_()
    assert [int(stats.positive_pairs), int(stats.negative_pairs)] == expected


@BOTH_FORMS
def test_embeddings_changed_between_forward_and_backward_are_noticed(engine: Engine, form: str) -> None:
    for m, side in ((None, 0), (70, 0), (70, 1)):
        given = listed(form, m=m, device=engine.device)
        loss = given.loss(engine.backend)
        with torch.no_grad():
            given.sides[side].mul_(2.0)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


@pytest.mark.parametrize(("of_emb", "of_bank"), [(True, False), (False, True), (True, True)])
def test_only_rows_whose_gradient_is_wanted_are_kept_for_the_backward(
    of_emb: bool, of_bank: bool, engine: Engine
) -> None:
    given = listed(m=70, device=engine.device)
    emb, bank = (x.detach().requires_grad_(y) for x, y in zip(given.sides, (of_emb, of_bank), strict=True))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        changed(given, emb=emb, ref=bank).loss(engine.backend)
    rows = {x.data_ptr() for x in kept if x.dim() == 2}
    assert rows == {x.data_ptr() for x in (emb, bank) if x.requires_grad}
    assert not {x.data_ptr() for x in given.pairs} & {x.data_ptr() for x in kept}


@BOTH_FORMS
def test_torch_func_takes_the_gradient(engine: Engine, form: str) -> None:
    given = listed(form, m=70, device=engine.device)

    def loss(emb: Tensor, ref: Tensor) -> Tensor:
        return changed(given, emb=emb, ref=ref).loss(engine.backend)

    expected = torch.autograd.grad(loss(*given.sides), given.sides)
    emb, ref = (x.detach() for x in given.sides)
    grads, value = torch.func.grad_and_value(loss, argnums=(0, 1))(emb, ref)
    assert torch.equal(value, loss(emb, ref))
    for transformed in (grads, torch.func.jacrev(loss, argnums=(0, 1))(emb, ref)):
        assert_same_bits(transformed, expected)
    (of_bank,) = torch.func.vjp(lambda ref: loss(emb, ref), ref)[1](torch.ones_like(value))
    assert torch.equal(of_bank, expected[1])


def test_a_second_derivative_is_refused_by_name(engine: Engine) -> None:
    given = listed(device=engine.device)
    (grad,) = torch.autograd.grad(given.loss(engine.backend), given.emb, create_graph=True)
    with pytest.raises(RuntimeError, match=r"tcm_kernels.*second derivative"):
        grad.sum().backward()

    def first(emb: Tensor) -> Tensor:
        return torch.func.grad(lambda x: changed(given, emb=x).loss(engine.backend))(emb).sum()

    with pytest.raises(RuntimeError, match=r"tcm_kernels.*second derivative"):
        torch.func.grad(first)(given.emb.detach())


@pytest.mark.parametrize("graph", ["with_gradients", "without_gradients"])
def test_vmap_is_refused_by_name(engine: Engine, graph: str) -> None:
    given = listed(device=engine.device)
    batches = torch.randn(3, 60, 16, device=engine.device, requires_grad=graph == "with_gradients")
    with pytest.raises(RuntimeError, match=r"tcm_kernels.*vmap"):
        torch.vmap(lambda x: changed(given, emb=x).loss(engine.backend))(batches)
