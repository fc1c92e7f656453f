"""torch.compile: one graph, batches of any size, margins that move, and the same numbers as without."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from cases import Case
from engines import Engine
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

import tcm_kernels

# torch's compiler uses parts of torch that are deprecated; our own warnings stay errors in all other tests.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(autouse=True)
def forgotten_graphs() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def _loss(engine: Engine) -> Callable[..., Tensor]:
    def loss(emb: Tensor, labels: Tensor, *rest: Tensor, **settings: Any) -> Tensor:
        return tcm_kernels.fused_tcm_loss(emb, labels, *rest, backend=engine.backend, **settings)

    return loss


def _assert_same(
    compiled: Callable[..., Tensor], plain: Callable[..., Tensor], case: Case, **more: Any
) -> None:
    """To the last bits of a division: the op is opaque to the compiler, what is around it is not."""
    inputs = case.build(str(more.pop("device")))
    arguments = [x for x in inputs.tensors if x is not None]
    sides = [x for x in (inputs.emb, inputs.ref_emb) if x is not None]
    results = []
    for function in (compiled, plain):
        loss = function(*arguments, self_offset=inputs.self_offset, **more)
        results.append((loss.detach(), *torch.autograd.grad(loss, sides)))
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-7)
        assert got.dtype == expected.dtype


@pytest.mark.parametrize("relation", ["self", "rectangular", "rectangular_with_self_offset"])
def test_batches_of_changing_size_share_one_graph(engine: Engine, relation: str) -> None:
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(_loss(engine), backend=counter, fullgraph=True, dynamic=True)
    for n, extra in ((20, 7), (33, 9), (65, 31), (130, 3)):
        case = Case(relation=relation, n=n, d=8, extra=extra, seed=n)
        _assert_same(compiled, _loss(engine), case, device=engine.device)
    # The offset moves from shape to shape with the number of rows; that must not recompile either.
    assert counter.frame_count == 1


def test_the_choice_of_the_backend_compiles_too() -> None:
    """And leaves nothing behind that torch would warn of, or compile again for."""
    auto = Engine("auto", "cpu")
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(_loss(auto), backend=counter, fullgraph=True, dynamic=True)
    for n in (20, 33):
        _assert_same(compiled, _loss(auto), Case(n=n, d=8), device="cpu")
    assert counter.frame_count == 1


def test_margins_in_tensors_move_without_a_new_graph(engine: Engine) -> None:
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(_loss(engine), backend=counter, fullgraph=True)
    for plus, minus in ((0.9, 0.5), (0.7, 0.2), (0.5, 0.0)):
        margins = {
            "margin_plus": torch.tensor(plus, device=engine.device),
            "margin_minus": torch.tensor(minus, device=engine.device),
        }
        _assert_same(compiled, _loss(engine), Case(n=40, d=8), device=engine.device, **margins)
    assert counter.frame_count == 1


def test_margins_in_tensors_are_the_margins(engine: Engine) -> None:
    """Without compilation too: a float and a 0-dim tensor of the same value give the same bits."""
    inputs = Case(n=65, d=8).build(engine.device)
    tensors = [torch.tensor(m, dtype=torch.float64, device=engine.device) for m in (0.7, 0.2)]
    results = [
        tcm_kernels.fused_tcm_loss(
            inputs.emb, inputs.labels, margin_plus=plus, margin_minus=minus, backend=engine.backend
        )
        for plus, minus in ((0.7, 0.2), tensors)
    ]
    assert torch.equal(*results)


def test_the_module_compiles_as_a_whole_training_step(engine: Engine) -> None:
    """A layer before the loss, and statistics read after it."""
    layer = torch.nn.Linear(6, 8).to(engine.device)
    criterion = tcm_kernels.ThresholdConsistentMarginLoss(backend=engine.backend)
    x = torch.randn(24, 6, device=engine.device)
    labels = torch.arange(24, device=engine.device) // 3

    def step() -> Tensor:
        return criterion(layer(x), labels)

    expected = torch.autograd.grad(step(), layer.weight)[0]
    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(torch.autograd.grad(compiled(), layer.weight)[0], expected)
    assert criterion.last_stats is not None
    assert int(criterion.last_stats.positive_count) > 0


def test_statistics_compile_too(engine: Engine) -> None:
    inputs = Case(n=40, d=8).build(engine.device)

    def terms() -> tuple[Tensor, Tensor]:
        _, stats = tcm_kernels.fused_tcm_loss(
            inputs.emb, inputs.labels, backend=engine.backend, return_stats=True
        )
        return stats.positive_term, stats.hard_negative_share

    compiled = torch.compile(terms, backend="aot_eager", fullgraph=True)
    for got, expected in zip(compiled(), terms(), strict=True):
        torch.testing.assert_close(got.detach(), expected.detach())


@pytest.mark.slow
def test_inductor_gives_the_same_loss_and_gradient(engine: Engine) -> None:
    if engine.device == "cpu" and not (shutil.which("g++") or shutil.which("clang++")):
        pytest.skip("torch's inductor needs a C++ compiler, found neither g++ nor clang++")
    compiled = torch.compile(_loss(engine), fullgraph=True, dynamic=True)
    for n in (30, 70):
        _assert_same(compiled, _loss(engine), Case(n=n, d=8, seed=n), device=engine.device)
