"""The `triton` backend: certified screening on a GPU.

The kernels are compiled when they are first used, so this package imports triton only then; `forward.py`
says how they work together.
"""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

import torch
from torch import Tensor

from ..contract import Problem
from ..gpu.residual import residual_bytes
from ..shared import FLOAT_DTYPES
from .configs import is_interpreted

__all__ = ["pair_sums", "pair_sums_backward", "residual_bytes", "why_not", "why_not_here"]

DTYPES = tuple(dtype for dtype in FLOAT_DTYPES if dtype != torch.float64)
LEAST_CAPABILITY = (8, 0)


def _forward() -> ModuleType:
    return importlib.import_module("tcm_kernels.backends.triton.forward")


def _backward() -> ModuleType:
    return importlib.import_module("tcm_kernels.backends.triton.backward")


def why_not_here() -> str | None:
    """None where triton is installed and there is a GPU for it, else what is missing."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed: pip install triton"
    if is_interpreted():
        return None
    if not torch.cuda.is_available() or torch.version.cuda is None:
        return "it needs an NVIDIA GPU, and torch sees none"
    capability = torch.cuda.get_device_capability()
    if capability < LEAST_CAPABILITY:
        return f"it needs compute capability 8.0 or more, and this GPU has {capability[0]}.{capability[1]}"
    return None


def why_not(device_type: str, dtype: torch.dtype) -> str | None:
    """None if this backend takes embeddings of this device and dtype, else the reason."""
    wanted = "cpu" if is_interpreted() else "cuda"
    if device_type != wanted:
        where = "in main memory while TRITON_INTERPRET=1" if is_interpreted() else "on a GPU"
        return f"it takes embeddings {where}, not on {device_type}"
    if dtype not in DTYPES:
        return f"it takes float32, float16 and bfloat16 embeddings, not {dtype}"
    return None


def pair_sums(problem: Problem, residual_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sums (2,) float64, counts (2,) int64 and residual: see `contract.Backend`."""
    return _forward().pair_sums(problem, residual_size)


def pair_sums_backward(problem: Problem, grad_sums: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of emb and ref, empty where not wanted: see `contract.Backend`."""
    return _backward().pair_sums_backward(problem, grad_sums, residual)
