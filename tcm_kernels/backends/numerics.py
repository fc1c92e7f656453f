"""Dtypes, rows that are not finite, and products in full precision."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

FLOAT_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of similarities, P and Q for embeddings of `dtype`."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def rows_not_finite(x: Tensor) -> Tensor:
    """Numbers of the rows of x, (N, D), whose norm is not a finite number of the compute dtype, int64.

    That is NaN or infinity in a row, or elements so large that their norm overflows.
    """
    some = 1 << 22  # elements at a time: nothing of the size of x is held
    step = max(1, some // max(x.shape[1], 1))
    wrong = [x.new_empty(0, dtype=torch.bool)]
    for i in range(0, x.shape[0], step):
        norms = torch.linalg.vector_norm(x[i : i + step], dim=1, dtype=torch.float64)
        wrong.append(~norms.to(compute_dtype(x.dtype)).isfinite())
    return torch.cat(wrong).nonzero().flatten()


def _restore_fp32_precision(switch: Any, before: str) -> None:
    """Give `switch` the value it read as before; one inherited from its parent is inherited again."""
    switch.fp32_precision = "none"
    if switch.fp32_precision != before:
        switch.fp32_precision = before


@contextlib.contextmanager
def full_precision_matmul(device_type: str) -> Iterator[None]:
    """Matrix products of the dtype given, on a CPU also without oneDNN's bf16 or TF32 shortcuts.

    Autocast would cast the operands, and torch's "medium" precision computes float32 in bfloat16 on
    some CPUs. Both are process-wide or thread-wide switches, so they are touched only where they are
    on, and put back. On a GPU the float32 switch is the user's word and stays.
    """
    with contextlib.ExitStack() as stack:
        if torch.is_autocast_enabled(device_type):
            stack.enter_context(torch.autocast(device_type, enabled=False))
        if device_type == "cpu":
            switch = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
            before = switch.fp32_precision
            if before not in ("none", "ieee"):
                stack.callback(_restore_fp32_precision, switch, before)
                switch.fp32_precision = "ieee"
        yield
