"""The op of the loss over listed pairs: torch's own checks, one graph, the same bits, bounded memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from checkout import ROOT
from engines import Engine
from listed_pairs import (
    BOTH_FORMS,
    assert_same_bits,
    listed,
    results,
    run,
)
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

import tcm_kernels
from tcm_kernels import dispatch
from tcm_kernels.backends.contract import PairList

# The operation.


def _op_arguments(
    engine: Engine, form: str, m: int | None, dtype: torch.dtype, wanted: tuple[bool, bool]
) -> tuple[Any, ...]:
    given = listed(form, n=10, m=m, d=7, count=30, dtype=dtype, device=engine.device)
    a, p, *others = given.pairs
    b, n = others if form == "pairs" else (a, *others)
    emb, ref = given.emb.detach().requires_grad_(wanted[0]), None
    if given.ref is not None:
        ref = given.ref.detach().requires_grad_(wanted[1])
    margins = torch.tensor([0.8, 0.3], dtype=torch.float64, device=engine.device)
    problem = PairList(
        emb, ref, margins, a, p, b, n, form == "triplets", wanted[0], wanted[1] and ref is not None
    )
    size = dispatch.pair_list_module(engine.backend).residual_bytes(problem.gradient_rows)
    return *problem, engine.backend, size


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("m", [None, 13], ids=["self", "with_ref"])
@BOTH_FORMS
def test_opcheck_of_the_forward(engine: Engine, form: str, m: int | None, dtype: torch.dtype) -> None:
    engine.skip_unless_it_takes(dtype)
    arguments = _op_arguments(engine, form, m, dtype, (True, m is not None))
    torch.library.opcheck(torch.ops.tcm_kernels.pair_list_sums.default, arguments)


@pytest.mark.parametrize("wanted", [(True, False), (False, True), (False, False)], ids=str)
def test_opcheck_of_the_forward_for_some_sides(engine: Engine, wanted: tuple[bool, bool]) -> None:
    arguments = _op_arguments(engine, "pairs", 13, torch.float32, wanted)
    torch.library.opcheck(torch.ops.tcm_kernels.pair_list_sums.default, arguments)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("m", "wanted"),
    [(None, (True, False)), (13, (True, True)), (13, (True, False)), (13, (False, True))],
    ids=["self", "both", "for_emb", "for_ref"],
)
def test_opcheck_of_the_backward(
    engine: Engine, m: int | None, wanted: tuple[bool, bool], dtype: torch.dtype
) -> None:
    engine.skip_unless_it_takes(dtype)
    arguments = _op_arguments(engine, "pairs", m, dtype, wanted)
    arguments = tuple(x.detach() if isinstance(x, Tensor) else x for x in arguments)
    *fields, backend, size = arguments
    sums, _, _, residual = torch.ops.tcm_kernels.pair_list_sums(*arguments)
    assert residual.shape == (size,)
    torch.library.opcheck(
        torch.ops.tcm_kernels.pair_sums_backward.default,
        (torch.ones_like(sums), residual, *PairList(*fields).gradient_rows, backend),
    )


def test_the_op_returns_what_its_schema_says(engine: Engine) -> None:
    arguments = _op_arguments(engine, "triplets", 13, torch.float32, (True, True))
    sums, counts, numbers, residual = torch.ops.tcm_kernels.pair_list_sums(*arguments)
    assert (sums.dtype, sums.shape) == (torch.float64, (2,))
    for x in (counts, numbers):
        assert (x.dtype, x.shape) == (torch.int64, (2,))
    assert (residual.dtype, residual.shape) == (torch.uint8, (arguments[-1],))
    assert [x.requires_grad for x in (sums, counts, numbers, residual)] == [True, False, False, False]


@pytest.fixture
def forgotten_graphs() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


# torch's compiler uses parts of torch that are deprecated; our own warnings stay errors in all other tests.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.usefixtures("forgotten_graphs")
@pytest.mark.parametrize("m", [None, 70], ids=["self", "with_ref"])
@BOTH_FORMS
def test_lists_of_changing_length_share_one_graph(engine: Engine, form: str, m: int | None) -> None:
    def loss(emb: Tensor, ref: Tensor | None, *pairs: Tensor) -> Tensor:
        return tcm_kernels.fused_tcm_loss(
            emb, None, ref, pairs=pairs, margin_plus=0.6, margin_minus=0.2, backend=engine.backend
        )

    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(loss, backend=counter, fullgraph=True, dynamic=True)
    for count, n in ((20, 60), (33, 60), (205, 60), (130, 75)):
        given = listed(form, n=n, m=m, count=count, device=engine.device, seed=count)
        results = []
        for function in (compiled, loss):
            value = function(given.emb, given.ref, *given.pairs)
            results.append((value.detach(), *torch.autograd.grad(value, given.sides)))
        for got, expected in zip(*results, strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-7)
    assert counter.frame_count == 1


# The same bits, and memory.


@pytest.mark.usefixtures("restored_threads", "poisoned_memory")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("m", [None, 500], ids=["self", "with_ref"])
@BOTH_FORMS
def test_every_run_gives_the_same_bits_with_one_thread_and_with_two(
    engine: Engine, form: str, m: int | None, dtype: torch.dtype
) -> None:
    engine.skip_unless_it_takes(dtype)
    given = listed(form, n=300, m=m, d=65, count=20_000, dtype=dtype, device=engine.device)
    found: dict[int, list[tuple[Tensor, ...]]] = {1: [], 2: []}
    for threads in (1, 2, 1, 2):
        torch.set_num_threads(threads)
        result = run(engine, given)
        stats = result.stats.detach()
        found[threads].append((result.loss, stats.positive_sum, stats.negative_sum, *result.grads))
    for first, second in found.values():
        assert_same_bits(first, second)
    if engine.backend == "cpu":
        assert_same_bits(found[1][0], found[2][0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_changes_no_bit(engine: Engine, dtype: torch.dtype) -> None:
    given = listed(m=70, device=engine.device)
    expected = results(engine, given)
    with torch.autocast(engine.device, dtype=dtype):
        assert_same_bits(expected, results(engine, given))


# Run in a fresh process, after a small step that loads libraries and starts threads.
MEASURE = """
import json, sys, torch, tcm_kernels
from benchmarks.harness.memory import resident_peak

def step(emb, pairs):
    tcm_kernels.fused_tcm_loss(emb, None, pairs=pairs, backend=sys.argv[1]).backward()
    return emb.grad

def everything(n, d):
    labels = torch.arange(n) // 4
    same = labels[:, None] == labels[None, :]
    emb = torch.randn(n // 4, d).repeat_interleave(4, dim=0).add_(torch.randn(n, d), alpha=0.3)
    return emb.requires_grad_(), (*torch.where(same), *torch.where(~same))

step(*everything(64, 256))
emb, pairs = everything(int(sys.argv[2]), 256)
found, how = resident_peak(lambda: step(emb, pairs))
print(json.dumps({
    "bytes": found,
    "how": how,
    "pairs": len(pairs[0]) + len(pairs[2]),
    "finite": bool(emb.grad.isfinite().all()),
}))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "rows"), [("cpu", 3000), ("torch", 1000)])
def test_millions_of_pairs_stay_below_600_mib(backend: str, rows: int) -> None:
    """A row for each of nine million pairs would take 9 GiB."""
    reason = dispatch.why_not_here(backend)
    if reason is not None:
        pytest.skip(f"backend {backend}: {reason}")
    pytest.importorskip("resource", reason="needs the resource module of Unix to read the memory's peak")
    from benchmarks.harness.memory import FREED_AT_ONCE  # noqa: PLC0415  (found in the checkout only)

    done = subprocess.run(
        [sys.executable, "-c", MEASURE, backend, str(rows)],
        cwd=ROOT,
        env=os.environ | FREED_AT_ONCE,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["pairs"] == rows**2
    assert found["finite"]
    assert found["bytes"] < 600 * 2**20, f"{found['bytes'] / 2**20:.0f} MiB beyond the list ({found['how']})"
