"""Compute dtypes, rows that are not finite, and matrix products in full precision."""

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
    """Indices, int64, of the rows of x (N, D) whose norm is not finite in the compute dtype.

    Such a row has NaN or infinity in it, or elements so large that its norm overflows.
    """
    some = 1 << 22  # elements at a time, so that x is never copied as a whole
    step = max(1, some // max(x.shape[1], 1))
    wrong = [x.new_empty(0, dtype=torch.bool)]
    for i in range(0, x.shape[0], step):
        norms = torch.linalg.vector_norm(x[i : i + step], dim=1, dtype=torch.float64)
        wrong.append(~norms.to(compute_dtype(x.dtype)).isfinite())
    return torch.cat(wrong).nonzero().flatten()


def _restore_fp32_precision(switch: Any, before: str) -> None:
    """Restore what `switch` read before; a value inherited from its parent is inherited again."""
    switch.fp32_precision = "none"
    if switch.fp32_precision != before:
        switch.fp32_precision = before


@contextlib.contextmanager
def full_precision_matmul(device_type: str) -> Iterator[None]:
    """Matrix products in the operands' dtype: no autocast, and on a CPU no bf16 or TF32 inside oneDNN.

    Autocast would cast the operands, and torch's "medium" precision computes float32 in bfloat16 on
    some CPUs. Autocast is a switch of the thread, oneDNN's precision one of the process: each is changed
    only where it is on, and restored. On a GPU the user's float32 switch stays as it is.
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
