"""Fixtures for every test: the engines (backend and device), memory full of garbage, fixed seeds."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

# Before anything loads OpenMP, and for all processes that tests start: threads that wait for work sleep
# instead of spinning. With a test process a core, and a thread a core in each, that took a third of the time.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import hypothesis
import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before anything imports triton, which reads it once

from checkout import ROOT
from engines import ENGINES, Engine
from torch import Tensor

from tcm_kernels.backends import cuda

if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))  # `benchmarks` is not installed; it is found in the checkout

hypothesis.settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,  # the first call of a kernel may compile it
    database=None,
    max_examples=60,
    # `poisoned_memory` and `fixed_seed` hold nothing that one example could leave to the next
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
hypothesis.settings.load_profile("repeatable")


# Files that take a minute or more: begun first, so that no process waits for another at the end.
LONG = (
    "backends/triton/test_interpreted.py",
    "backends/triton/test_compiled.py",
    "backends/triton/test_rules.py",
    "backends/gpu/test_settings.py",
    "backends/cuda/test_planted_faults.py",
    "benchmarks/quality/test_direction.py",
)
# What `make check` leaves to `make test`, beside tests that are marked so one by one: kernels that are
# interpreted, emulated or compiled, whole trainings, pictures, browsers, packages.
SLOW = (
    "backends/triton/",
    "backends/cuda/",
    "backends/gpu/test_settings.py",
    "backends/gpu/test_screening_candidates.py",
    "backends/gpu/test_compile_for_gpu.py",
    "backends/cpu/test_class_screening.py",
    "benchmarks/",
    "demo/",
    "evaluation/test_plots.py",
    "evaluation/test_metrics_across_ranks.py",
    "evaluation/test_report_in_browser.py",
    "loss/test_compile.py",
    "loss/test_thousands_of_rows.py",
    "package/test_build.py",
)
# Whether a GPU's results are right is to be known before how it gets there: streams, graphs, memory, time.
LAST = ("backends/gpu/test_gpu.py",)


@pytest.hookimpl(tryfirst=True)  # before `-m` asks for markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if any(f"/tests/{name}" in item.path.as_posix() for name in SLOW):
            item.add_marker(pytest.mark.slow)

    def turn(item: pytest.Item) -> tuple[bool, bool]:
        file = item.path.as_posix()
        return file.endswith(LAST), not file.endswith(LONG)

    items.sort(key=turn)


@pytest.hookimpl(wrapper=True, trylast=True)  # within pytest-cov's
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Take the tracer away where `no_cover` asks for it.

    In a process of pytest-xdist pytest-cov 7 has started two, of which it pauses one; the other then traces.
    """
    tracer = sys.gettrace()
    if item.get_closest_marker("no_cover") is None or tracer is None:
        return (yield)
    sys.settrace(None)
    try:
        return (yield)
    finally:
        sys.settrace(tracer)


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each backend on each device it runs on here."""
    return request.param


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)


def _full_of_garbage(x: Tensor) -> Tensor:
    """NaN in floats, 0xFF bytes in integers: what was never written is then seen in the result."""
    with torch.no_grad():
        if x.is_floating_point() or x.is_complex():
            return x.fill_(torch.nan)
        if x.dtype == torch.bool:
            return x.fill_(True)
        if x.is_contiguous():
            x.view(torch.uint8).fill_(255)
        return x


@pytest.fixture
def poisoned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors that Python allocates without a value start as garbage.

    Fresh memory from the system is zero, so a kernel that forgets to write an output passes by luck.
    Kernels here get their outputs from Python, which is why patching Python's allocations is enough.
    """

    def poisoned(allocate: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def wrapper(*args: Any, **kwargs: Any) -> Tensor:
            return _full_of_garbage(allocate(*args, **kwargs))

        return wrapper

    for name in ("empty", "empty_like", "empty_strided"):
        monkeypatch.setattr(torch, name, poisoned(getattr(torch, name)))
    for name in ("new_empty", "new_empty_strided"):
        monkeypatch.setattr(torch.Tensor, name, poisoned(getattr(torch.Tensor, name)))


@pytest.fixture
def cuda_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The `cuda` backend runs on the CPU, on the emulator."""
    library = importlib.import_module("cuda_emulator").library()  # which needs setuptools: not everybody does
    monkeypatch.setenv("TCM_KERNELS_CUDA_EMULATOR", str(library))
    monkeypatch.setattr(cuda, "_import_error", cuda.load())


@pytest.fixture
def restored_threads() -> Iterator[None]:
    """Restore the number of threads afterwards."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
