"""What only a GPU can show of the backends written for it: streams, graphs, no waiting, memory, cold start.

Results are held against the reference by the shared tests, which run on every device there is, by
test_settings.py and by test_thousands_of_rows.py; all of them are run before this file (conftest.py).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import first_calls
import pytest
import torch
from cases import Case, Inputs
from gpu_waiting import waiting_is_an_error
from torch import Tensor

import tcm_kernels
from tcm_kernels import dispatch

if not torch.cuda.is_available():
    pytest.skip("there is no GPU", allow_module_level=True)

pytestmark = pytest.mark.gpu
BACKENDS = [
    name for name in dispatch.BACKENDS if name != "torch" and dispatch.why_not_here(name) is None
    and dispatch.why_not(name, "cuda", torch.float32) is None
]  # fmt: skip
CASES = (
    Case(n=700, d=128, look="clustered", dtype=torch.bfloat16),  # small
    Case(n=700, d=1000, look="random"),  # neither small nor screened
    Case(n=3000, d=100, look="random", dtype=torch.float16),  # screened
    Case(n=3000, d=64, look="collapsed"),  # screening is of no use
    Case(n=2500, d=64, relation="rectangular_with_self_offset", look="random", dtype=torch.bfloat16),
)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=CASES, ids=lambda case: case.id)
def inputs(request: pytest.FixtureRequest) -> Inputs:
    return request.param.build("cuda")


def step(inputs: Inputs, backend: str) -> Callable[[], list[Tensor]]:
    """Loss and gradients."""
    sides = [x for x in (inputs.emb, inputs.ref_emb) if x is not None]

    def run() -> list[Tensor]:
        loss = tcm_kernels.fused_tcm_loss(*inputs.tensors, **inputs.settings, backend=backend)
        return [loss.detach(), *torch.autograd.grad(loss, sides)]

    return run


def assert_same_bits(found: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_neither_forward_nor_backward_waits_for_the_device(inputs: Inputs, backend: str) -> None:
    run = step(inputs, backend)
    run()  # compiles
    with waiting_is_an_error():
        run()


def test_a_captured_graph_replays_on_new_embeddings(inputs: Inputs, backend: str) -> None:
    run = step(inputs, backend)
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        run()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run()
    for _ in range(3):
        with torch.no_grad():
            inputs.emb.copy_(torch.randn_like(inputs.emb))
        graph.replay()
        assert_same_bits(captured, run())


def test_another_stream_gives_the_same_bits(inputs: Inputs, backend: str) -> None:
    run = step(inputs, backend)
    expected = run()
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        found = run()
    torch.cuda.synchronize()
    assert_same_bits(found, expected)


def test_two_streams_at_once_do_not_disturb_each_other(backend: str) -> None:
    runs = [step(case.build("cuda"), backend) for case in (CASES[0], CASES[2])]
    expected = [run() for run in runs]
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in runs]
    found = []
    for _ in range(10):
        for stream, run in zip(streams, runs, strict=True):
            with torch.cuda.stream(stream):
                found.append(run())
    torch.cuda.synchronize()
    for i, result in enumerate(found):
        assert_same_bits(result, expected[i % 2])


@pytest.mark.slow
def test_a_hundred_runs_beside_other_work_give_the_same_bits(inputs: Inputs, backend: str) -> None:
    run = step(inputs, backend)
    expected = run()
    torch.cuda.synchronize()
    other, noise = torch.cuda.Stream(), torch.randn(2048, 2048, device="cuda")
    for _ in range(100):
        with torch.cuda.stream(other):
            noise @ noise
        assert_same_bits(run(), expected)


def test_autocast_changes_nothing(inputs: Inputs, backend: str) -> None:
    run = step(inputs, backend)
    expected = run()
    with torch.autocast("cuda", dtype=torch.float16):
        assert_same_bits(run(), expected)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is one GPU only")
def test_the_device_of_the_embeddings_does_the_work(backend: str) -> None:
    expected = step(CASES[2].build("cuda:0"), backend)()
    found = step(CASES[2].build("cuda:1"), backend)()
    assert all(x.device == torch.device("cuda:1") for x in found)
    assert_same_bits([x.to("cuda:0") for x in found], expected)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_memory_stays_within_what_is_promised(backend: str, dtype: torch.dtype) -> None:
    """2.5 float32 arrays of the embeddings' shape and 64 MiB, beyond inputs and gradient."""
    n, d = 32768, 256
    inputs = Case(n=n, d=d, dtype=dtype, look="random", labels="sorted").build("cuda")
    run = step(inputs, backend)
    run()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    used = torch.cuda.max_memory_allocated() - before - inputs.emb.numel() * dtype.itemsize
    assert used <= 2.5 * n * d * 4 + 64 * 2**20


@pytest.mark.slow
def test_running_out_of_memory_is_torchs_own_error_and_leaves_everything_usable(
    inputs: Inputs, backend: str
) -> None:
    run = step(inputs, backend)
    expected = run()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(torch.cuda.memory_reserved() / total)
    hog = []
    try:
        while True:  # what is left of what is reserved
            hog.append(torch.empty(4096, dtype=torch.uint8, device="cuda"))
    except torch.OutOfMemoryError:
        pass
    try:
        with pytest.raises(torch.OutOfMemoryError):
            run()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        hog.clear()
    assert_same_bits(run(), expected)


# What is compiled at its first call, and what is not.
FIRST_CALL_S = {"triton": 10.0, "cuda": 0.5}


@pytest.mark.slow
def test_the_first_call_after_installation_takes_seconds(backend: str, tmp_path: Path) -> None:
    first, _ = first_calls.seconds(backend, "cuda", cache=tmp_path)
    assert first < FIRST_CALL_S[backend]
