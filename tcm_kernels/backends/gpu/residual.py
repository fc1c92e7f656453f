"""The residual: P and Q for every side whose gradient is wanted, and before them a NaN flag and a counter.

One layout for both backends, so that a forward of the one can feed a backward of the other.
Float32 rows in the order of the embeddings, each array beginning at a multiple of 16 bytes, so that kernels
are compiled once whatever N is. The NaN flag is 0, or NaN where an embedding is not finite; the counter is
for the forward, and 0 before and after.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..contract import Problem

ALIGNMENT = 16


class PartnerSums(NamedTuple):
    """P and Q of one side, (N, D) float32 each."""

    positive: Tensor
    negative: Tensor


def _bytes_of(x: Tensor) -> int:
    return (4 * x.shape[0] * x.shape[1] + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT


def residual_bytes(problem: Problem) -> int:
    """Size of the residual; follows from shapes."""
    size = ALIGNMENT
    if problem.need_grad_emb:
        size = size + 2 * _bytes_of(problem.emb)
    if problem.ref is not None and problem.need_grad_ref:
        size = size + 2 * _bytes_of(problem.ref)
    return size


def views_of(problem: Problem, residual: Tensor) -> tuple[PartnerSums | None, PartnerSums | None, Tensor]:
    """P and Q of emb and of ref, None where not wanted, and the NaN flag, a float64."""
    at = ALIGNMENT

    def take(x: Tensor) -> Tensor:
        nonlocal at
        begin, at = at, at + _bytes_of(x)
        return residual[begin : begin + 4 * x.numel()].view(torch.float32).view(x.shape)

    emb, ref = problem.emb, problem.ref
    of_emb = PartnerSums(take(emb), take(emb)) if problem.need_grad_emb else None
    of_ref = PartnerSums(take(ref), take(ref)) if ref is not None and problem.need_grad_ref else None
    return of_emb, of_ref, residual[:8].view(torch.float64)


def counter_of(residual: Tensor) -> Tensor:
    """The counter, an int32."""
    return residual[8:12].view(torch.int32)
