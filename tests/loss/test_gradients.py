"""What autograd may ask of the loss: numerical derivatives, one side only, clear refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from agreement import truth_of
from cases import RELATIONS, Case, Inputs
from engines import Engine
from torch import Tensor

import tcm_kernels
from tcm_kernels import reference


def _arguments(n: int = 12, d: int = 4, m: int = 17) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    rows = torch.randn(n + m, d, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 3, (n + m,), generator=generator)
    return rows[:n].clone(), labels[:n], rows[n:].clone(), labels[n:]


# gradcheck moves each number by 1e-6; with two or three rows' worth of pairs at random similarities, none
# comes that near to a margin, which the assertion below makes certain.
@pytest.mark.parametrize("relation", RELATIONS)
def test_float64_gradients_are_the_numerical_ones(engine: Engine, relation: str) -> None:
    engine.skip_unless_it_takes(torch.float64)
    emb, labels, ref, ref_labels = (x.to(engine.device) for x in _arguments())
    offset = None
    if relation == "rectangular_with_self_offset":
        offset, ref_labels[2:14] = 2, labels
    other = emb if relation == "self" else ref
    s = reference.unit_rows(emb) @ reference.unit_rows(other).T
    settings: dict[str, Any] = {"margin_plus": 0.6, "margin_minus": 0.2, "lambda_minus": 0.7}
    assert all(((s - settings[name]).abs() > 1e-4).all() for name in ("margin_plus", "margin_minus"))

    def loss(*sides: Tensor) -> Tensor:
        rest = (None, None) if relation == "self" else (sides[1], ref_labels)
        return tcm_kernels.fused_tcm_loss(
            sides[0], labels, *rest, self_offset=offset, backend=engine.backend, **settings
        )

    sides = (emb,) if relation == "self" else (emb, ref)
    assert torch.autograd.gradcheck(loss, tuple(x.requires_grad_() for x in sides))


@pytest.mark.parametrize("wanted", ["emb", "ref_emb", "both"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_only_the_side_that_requires_it_gets_a_gradient(
    engine: Engine, wanted: str, dtype: torch.dtype
) -> None:
    engine.skip_unless_it_takes(dtype)
    inputs = Case(relation="rectangular", n=70, d=10, dtype=dtype).build(engine.device)
    truth = truth_of(inputs)
    emb = inputs.emb.detach().requires_grad_(wanted != "ref_emb")
    assert inputs.ref_emb is not None
    ref = inputs.ref_emb.detach().requires_grad_(wanted != "emb")
    loss = tcm_kernels.fused_tcm_loss(
        emb, inputs.labels, ref, inputs.ref_labels, **inputs.settings, backend=engine.backend
    )
    loss.backward()
    for x, side, name in zip((emb, ref), truth.sides, ("emb", "ref_emb"), strict=True):
        if wanted in (name, "both"):
            assert x.grad is not None
            tolerance = (5e-6 if dtype == torch.float32 else 1e-12) * float(side.scale.norm())
            assert float((x.grad.double().cpu() - side.grad).norm()) <= tolerance
        else:
            assert x.grad is None


def test_batch_passed_as_its_own_reference_set_is_the_self_case(engine: Engine) -> None:
    inputs = Case(n=50, d=6).build(engine.device)
    emb, labels = inputs.emb, inputs.labels
    grads = []
    for rest in ((), (emb,), (emb, labels)):
        loss = tcm_kernels.fused_tcm_loss(emb, labels, *rest, backend=engine.backend)
        grads.append((loss.detach(), *torch.autograd.grad(loss, emb)))
    for loss, grad in grads[1:]:
        assert torch.equal(loss, grads[0][0])
        assert torch.equal(grad, grads[0][1])


def test_the_gradient_scales_with_what_comes_from_above(engine: Engine) -> None:
    """Powers of two scale without rounding, so equality is bitwise."""
    inputs = Case(n=50, d=6).build(engine.device)
    loss = tcm_kernels.fused_tcm_loss(inputs.emb, inputs.labels, backend=engine.backend)
    (once,) = torch.autograd.grad(loss, inputs.emb, retain_graph=True)
    (scaled,) = torch.autograd.grad(-4 * loss, inputs.emb)
    assert torch.equal(scaled, -4 * once)


def test_a_graph_can_be_walked_twice_if_retained(engine: Engine) -> None:
    inputs = Case(n=50, d=6).build(engine.device)
    loss = tcm_kernels.fused_tcm_loss(inputs.emb, inputs.labels, backend=engine.backend)
    (first,) = torch.autograd.grad(loss, inputs.emb, retain_graph=True)
    (second,) = torch.autograd.grad(loss, inputs.emb)
    assert torch.equal(first, second)


def test_gradients_flow_from_each_term_of_the_statistics(engine: Engine) -> None:
    """The sums carry gradients: the two terms are those of losses with one weight at zero."""
    inputs = Case(n=60, d=6, dtype=torch.float64).build(engine.device)
    engine.skip_unless_it_takes(torch.float64)
    _, stats = tcm_kernels.fused_tcm_loss(
        inputs.emb, inputs.labels, backend=engine.backend, return_stats=True
    )
    for term, weights in (("positive_term", (1.0, 0.0)), ("negative_term", (0.0, 1.0))):
        (grad,) = torch.autograd.grad(getattr(stats, term), inputs.emb, retain_graph=True)
        alone = tcm_kernels.fused_tcm_loss(
            inputs.emb,
            inputs.labels,
            lambda_plus=weights[0],
            lambda_minus=weights[1],
            backend=engine.backend,
        )
        torch.testing.assert_close(grad, torch.autograd.grad(alone, inputs.emb)[0], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("relation", ["self", "rectangular"])
def test_embeddings_changed_between_forward_and_backward_are_noticed(engine: Engine, relation: str) -> None:
    inputs = Case(relation=relation, n=20, d=6).build(engine.device)
    for side in [inputs.emb] if inputs.ref_emb is None else [inputs.emb, inputs.ref_emb]:
        loss = tcm_kernels.fused_tcm_loss(*inputs.tensors, backend=engine.backend)
        with torch.no_grad():
            side.mul_(2.0)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


@pytest.mark.parametrize("relation", ["rectangular", "rectangular_with_self_offset"])
def test_a_memory_bank_may_be_overwritten_before_the_backward(engine: Engine, relation: str) -> None:
    """As MoCo does: its rows, all labels and margins, in their own memory."""
    inputs = Case(relation=relation, n=20, extra=30, d=6).build(engine.device)
    emb, labels, bank, bank_labels = inputs.tensors
    assert bank is not None
    bank, labels = bank.detach().clone(), labels.clone()
    margin_plus, margin_minus = (torch.tensor(x, device=engine.device) for x in (0.9, 0.1))

    def loss() -> torch.Tensor:
        return tcm_kernels.fused_tcm_loss(
            *(emb, labels, bank, bank_labels),
            margin_plus=margin_plus,
            margin_minus=margin_minus,
            self_offset=inputs.self_offset,
            backend=engine.backend,
        )

    (expected,) = torch.autograd.grad(loss(), emb)
    later = loss()
    for x in (bank, labels, bank_labels, margin_plus, margin_minus):
        x.zero_()
    (grad,) = torch.autograd.grad(later, emb)
    assert torch.equal(grad, expected)


@pytest.mark.parametrize(("of_emb", "of_bank"), [(True, False), (False, True), (True, True)])
def test_rows_are_kept_for_the_backward_where_their_gradient_is_wanted(
    of_emb: bool, of_bank: bool, engine: Engine
) -> None:
    inputs = Case(relation="rectangular", n=20, extra=30, d=6).build(engine.device)
    emb, labels, bank, bank_labels = inputs.tensors
    assert bank is not None
    emb, bank = emb.detach().requires_grad_(of_emb), bank.detach().requires_grad_(of_bank)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        tcm_kernels.fused_tcm_loss(emb, labels, bank, bank_labels, backend=engine.backend)
    rows = {x.data_ptr() for x in kept if x.dim() == 2}
    assert rows == {x.data_ptr() for x in (emb, bank) if x.requires_grad}
    assert not {labels.data_ptr(), bank_labels.data_ptr()} & {x.data_ptr() for x in kept}


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_grad_the_loss_is_the_same_and_carries_no_graph(engine: Engine, mode: Any) -> None:
    inputs = Case(n=130, d=16).build(engine.device)
    with_graph = tcm_kernels.fused_tcm_loss(inputs.emb, inputs.labels, backend=engine.backend)
    with mode():
        loss = tcm_kernels.fused_tcm_loss(inputs.emb, inputs.labels, backend=engine.backend)
        from_inside = tcm_kernels.fused_tcm_loss(
            inputs.emb.detach().clone(), inputs.labels.clone(), backend=engine.backend
        )
    assert not loss.requires_grad
    # Without a gradient to prepare, a kernel may add up in another order.
    for other in (loss, from_inside):
        torch.testing.assert_close(other.clone(), with_graph.detach(), rtol=0, atol=1e-6)


def _loss_of(inputs: Inputs, engine: Engine) -> Any:
    return lambda emb: tcm_kernels.fused_tcm_loss(emb, inputs.labels, backend=engine.backend)


def test_a_second_derivative_is_refused_by_name(engine: Engine) -> None:
    inputs = Case(n=20, d=6).build(engine.device)
    (grad,) = torch.autograd.grad(_loss_of(inputs, engine)(inputs.emb), inputs.emb, create_graph=True)
    with pytest.raises(RuntimeError, match=r"tcm_kernels.*second derivative"):
        grad.sum().backward()


def test_torch_func_takes_the_gradient(engine: Engine) -> None:
    inputs = Case(relation="rectangular", n=20, extra=10, d=6).build(engine.device)
    emb, labels, ref, ref_labels = inputs.tensors
    assert ref is not None

    def loss(emb: torch.Tensor, ref: torch.Tensor) -> torch.Tensor:
        return tcm_kernels.fused_tcm_loss(emb, labels, ref, ref_labels, backend=engine.backend)

    expected = torch.autograd.grad(loss(emb, ref), (emb, ref))
    emb, ref = emb.detach(), ref.detach()
    grads, value = torch.func.grad_and_value(loss, argnums=(0, 1))(emb, ref)
    assert torch.equal(value, loss(emb, ref))
    for transformed in (grads, torch.func.jacrev(loss, argnums=(0, 1))(emb, ref)):
        assert all(torch.equal(grad, right) for grad, right in zip(transformed, expected, strict=True))
    (of_ref,) = torch.func.vjp(lambda ref: loss(emb, ref), ref)[1](torch.ones_like(value))
    assert torch.equal(of_ref, expected[1])


def test_torch_func_is_refused_a_second_derivative_by_name(engine: Engine) -> None:
    inputs = Case(n=20, d=6).build(engine.device)
    grad = torch.func.grad(_loss_of(inputs, engine))
    with pytest.raises(RuntimeError, match=r"tcm_kernels.*second derivative"):
        torch.func.grad(lambda emb: grad(emb).sum())(inputs.emb.detach())


# torch builds its own forward-mode formulas with torch.jit.script, on first use.
_torch_warns_of_itself = pytest.mark.filterwarnings("ignore:`torch.jit.script` is:DeprecationWarning")


@_torch_warns_of_itself
def test_forward_mode_is_refused_by_name(engine: Engine) -> None:
    inputs = Case(n=20, d=6).build(engine.device)
    emb = inputs.emb.detach()
    with pytest.raises(RuntimeError, match=r"tcm_kernels.*forward-mode"):
        torch.func.jvp(_loss_of(inputs, engine), (emb,), (torch.ones_like(emb),))


@_torch_warns_of_itself
@pytest.mark.parametrize("side", ["emb", "ref_emb"])
def test_dual_numbers_are_refused_by_name(engine: Engine, side: str) -> None:
    inputs = Case(relation="rectangular", n=20, d=6).build(engine.device)
    emb, labels, ref, ref_labels = (None if x is None else x.detach() for x in inputs.tensors)
    with torch.autograd.forward_ad.dual_level():
        if side == "emb":
            emb = torch.autograd.forward_ad.make_dual(emb, torch.ones_like(emb))
        else:
            ref = torch.autograd.forward_ad.make_dual(ref, torch.ones_like(ref))
        with pytest.raises(RuntimeError, match=r"tcm_kernels.*forward-mode"):
            tcm_kernels.fused_tcm_loss(emb, labels, ref, ref_labels, backend=engine.backend)


@pytest.mark.parametrize("graph", ["with_gradients", "without_gradients"])
def test_vmap_is_refused_by_name(engine: Engine, graph: str) -> None:
    inputs = Case(n=20, d=6).build(engine.device)
    batches = torch.randn(3, 20, 6, device=engine.device, requires_grad=graph == "with_gradients")
    with pytest.raises(RuntimeError, match=r"tcm_kernels.*vmap"):
        torch.vmap(_loss_of(inputs, engine))(batches)
