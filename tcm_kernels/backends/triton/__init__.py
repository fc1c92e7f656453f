"""The `triton` backend: certified screening on a GPU.

Kernels are compiled at their first use, and triton is imported only then. `forward.py` describes how they
work together.
"""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

import torch
from torch import Tensor

from ..contract import GradientRows, PartnerSums, Problem
from ..gpu import machine
from ..gpu.machine import why_no_gpu
from ..gpu.residual import partner_sums, residual_bytes, set_nan_flag
from .configs import is_interpreted

__all__ = [
    "add_pair_sums",
    "pair_sums",
    "pair_sums_backward",
    "partner_sums",
    "residual_bytes",
    "set_nan_flag",
    "why_not",
    "why_not_here",
]

# Looked up when the package is imported: torch.compile cannot trace the lookup, which also takes longer than
# a small batch.
_is_installed = importlib.util.find_spec("triton") is not None


def _forward() -> ModuleType:
    return importlib.import_module("tcm_kernels.backends.triton.forward")


def _backward() -> ModuleType:
    return importlib.import_module("tcm_kernels.backends.triton.backward")


def why_not_here() -> str | None:
    """None where triton is installed and there is a GPU for it, else what is missing."""
    if not _is_installed:
        return "triton is not installed: pip install triton"
    return None if is_interpreted() else why_no_gpu()


def why_not(device_type: str, dtype: torch.dtype) -> str | None:
    """None if this backend takes embeddings of this device and dtype, else the reason."""
    return machine.why_not(device_type, dtype, "TRITON_INTERPRET=1" if is_interpreted() else None)


def pair_sums(problem: Problem, residual_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sums (2,) float64, counts (2,) int64 and residual: see `contract.Backend`."""
    return _forward().pair_sums(problem, residual_size)


def add_pair_sums(
    problem: Problem, of_emb: PartnerSums | None, of_ref: PartnerSums | None
) -> tuple[Tensor, Tensor]:
    """Sums and counts; P and Q are added to those given: see `contract.Backend`."""
    return _forward().add_pair_sums(problem, of_emb, of_ref)


def pair_sums_backward(rows: GradientRows, grad_sums: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of emb and ref, empty where not wanted: see `contract.Backend`."""
    return _backward().pair_sums_backward(rows, grad_sums, residual)
