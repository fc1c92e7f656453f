"""The `cuda` backend: the C++/CUDA kernels in csrc/cuda, compiled when the package is installed.

Python brings the rows into label order and allocates every tensor (an allocation error inside the stable ABI
would lose torch's message and type); C++ queues the kernels. csrc/cuda/forward.cpp says how they work
together.
"""

from __future__ import annotations

import contextlib
import importlib
import os

import torch
from torch import Tensor

from .contract import Problem
from .gpu.label_order import LabelOrder, label_orders
from .gpu.residual import Sums, residual_bytes, views_of
from .gpu.settings import asked_screening, pool_bytes
from .shared import FLOAT_DTYPES

__all__ = ["pair_sums", "pair_sums_backward", "residual_bytes", "why_not", "why_not_here"]

DTYPES = tuple(dtype for dtype in FLOAT_DTYPES if dtype != torch.float64)
LEAST_CAPABILITY = (8, 0)
SCREENINGS = ("", "int8", "full")  # as csrc/cuda/plan.h numbers them

# Not yet measured on a GPU: up to so many pairs of a tile are taken one by one, and the sweep pays where a
# sample of SAMPLES tiles leaves at most this share of its pairs.
LIST_MOST = 64
USELESS_FROM = 1.0 / 256
SAMPLES = 32
TILE = 128


def twin() -> str:
    """TCM_KERNELS_CUDA_TWIN: a library with csrc/twin in it, in which kernels run on the CPU, for tests."""
    return os.environ.get("TCM_KERNELS_CUDA_TWIN", "")


def load() -> str | None:
    """Load the extension, which registers torch.ops.tcm_kernels._cuda_*; None, or why it cannot be loaded."""
    if twin():
        torch.ops.load_library(twin())  # type: ignore[no-untyped-call]
        return None
    try:
        importlib.import_module("tcm_kernels._cuda")
    except ImportError as error:
        return str(error)
    return None


# When the package is imported, because torch.compile cannot trace an import.
_import_error = load() if torch.version.cuda or twin() else "torch is built without CUDA"


def why_not_here() -> str | None:
    """None where there is a GPU and the CUDA extension loads, else what is missing."""
    if not twin():
        if not torch.cuda.is_available() or torch.version.cuda is None:
            return "it needs an NVIDIA GPU, and torch sees none"
        capability = torch.cuda.get_device_capability()
        if capability < LEAST_CAPABILITY:
            return (
                f"it needs compute capability 8.0 or more, and this GPU has {capability[0]}.{capability[1]}"
            )
    if _import_error is None:
        return None
    return (
        f"its CUDA extension could not be loaded ({_import_error}); with nvcc 12 or newer installed, "
        "reinstall the package: pip install --no-build-isolation --force-reinstall --no-deps ."
    )


def why_not(device_type: str, dtype: torch.dtype) -> str | None:
    """None if this backend takes embeddings of this device and dtype, else the reason."""
    wanted = "cpu" if twin() else "cuda"
    if device_type != wanted:
        where = "in main memory while TCM_KERNELS_CUDA_TWIN is set" if twin() else "on a GPU"
        return f"it takes embeddings {where}, not on {device_type}"
    if dtype not in DTYPES:
        return f"it takes float32, float16 and bfloat16 embeddings, not {dtype}"
    return None


def _on_device_of(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Kernels are launched on the current device."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()


def _choices() -> tuple[int, int, int, int]:
    """Pool of bits in bytes, largest list, most candidates of the sample, and how to screen."""
    most_left = int(USELESS_FROM * SAMPLES * TILE**2)
    return pool_bytes(), LIST_MOST, most_left, SCREENINGS.index(asked_screening())


def pair_sums(problem: Problem, residual_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sums (2,) float64, counts (2,) int64 and residual: see `contract.Backend`."""
    emb = problem.emb.contiguous()
    ref = None if problem.ref is None else problem.ref.contiguous()
    choices = _choices()
    with _on_device_of(emb):
        residual = torch.zeros(residual_size, dtype=torch.uint8, device=emb.device)
        of_emb, of_ref, poison = views_of(problem, residual)
        sums = emb.new_empty(2, dtype=torch.float64)
        counts = emb.new_empty(2, dtype=torch.int64)
        rows, columns = label_orders(problem)
        need_columns = (of_emb if ref is None else of_ref) is not None
        workspace_bytes = torch.ops.tcm_kernels._cuda_workspace_bytes(
            len(emb), len(emb if ref is None else ref), emb.shape[1], ref is None, need_columns, *choices
        )
        workspace = emb.new_empty(workspace_bytes, dtype=torch.uint8)
        torch.ops.tcm_kernels._cuda_pair_sums(
            *_side(emb, rows, of_emb),
            *_side(ref, columns, of_ref),
            problem.margins,
            problem.precision == "highest",
            *choices,
            sums,
            counts,
            poison,
            workspace,
        )
    return sums, counts, residual


def _side(x: Tensor | None, order: LabelOrder, sums: Sums | None) -> tuple[Tensor | None, ...]:
    """One side's arguments of the op; in the self case there are no columns."""
    if x is None:
        return (None,) * (1 + len(LabelOrder._fields) + len(Sums._fields))
    return x, *order, *(sums or (None, None))


def pair_sums_backward(problem: Problem, grad_sums: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of emb and ref, empty where not wanted: see `contract.Backend`."""
    emb, ref = problem.emb, problem.ref
    of_emb, of_ref, poison = views_of(problem, residual)
    ordered = 2 if ref is None else 1
    with _on_device_of(emb):
        grad_emb = _gradient(emb, of_emb, poison, grad_sums, ordered)
        grad_ref = _gradient(emb if ref is None else ref, of_ref, poison, grad_sums, ordered)
    return grad_emb, grad_ref


def _gradient(x: Tensor, sums: Sums | None, poison: Tensor, grad_sums: Tensor, ordered: int) -> Tensor:
    if sums is None:
        return x.new_empty(0)
    x = x.contiguous()
    grad = torch.empty_like(x)
    torch.ops.tcm_kernels._cuda_pair_sums_backward(
        grad_sums.contiguous(), poison.view(1), x, *sums, ordered, grad
    )
    return grad
