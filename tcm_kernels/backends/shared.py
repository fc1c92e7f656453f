"""What several backends agree on: P and Q in the residual, who is whom, finite rows, full precision.

The residual of a forward that fills P and Q (design: P_i sums the unit rows of i's hard positives, Q_i
those of its hard negatives) is one uint8 tensor:

    P (N, D), Q (N, D)      where the gradient of emb is wanted
    P (M, D), Q (M, D)      of the reference set, where its gradient is wanted

in the compute dtype: float64 for float64 embeddings, float32 for all others. Margins and labels are
no longer needed after that, and the backward cannot disagree with the forward about any pair.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from .contract import Problem

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


def self_indices(order: Tensor, other_order: Tensor, offset: int | None) -> Tensor:
    """For each position the position of row + offset of the other side (int32), -1 where there is none."""
    none = order.new_full(order.shape, -1, dtype=torch.int32)
    if offset is None or not len(other_order):
        return none
    position = other_order.new_empty(len(other_order))
    position.scatter_(0, other_order, torch.arange(len(other_order), device=order.device))
    row = order + offset
    there = (row >= 0) & (row < len(other_order))
    return torch.where(there, position[row.clamp(0, len(other_order) - 1)].to(torch.int32), none)


def residual_bytes(problem: Problem) -> int:
    """Bytes of P and Q for every side whose gradient is wanted."""
    rows = problem.emb.shape[0] if problem.need_grad_emb else 0
    if problem.ref is not None and problem.need_grad_ref:
        rows = rows + problem.ref.shape[0]
    return 2 * rows * problem.emb.shape[1] * compute_dtype(problem.emb.dtype).itemsize


def residual_views(problem: Problem, residual: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """The residual as [P, Q] of emb (2, N, D) and of ref (2, M, D); None where not wanted."""
    emb, ref = problem.emb, problem.ref
    values = residual.view(compute_dtype(emb.dtype))
    split = 2 * emb.numel() if problem.need_grad_emb else 0
    of_emb = values[:split].view(2, *emb.shape) if problem.need_grad_emb else None
    of_ref = values[split:].view(2, *ref.shape) if ref is not None and problem.need_grad_ref else None
    return of_emb, of_ref


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
