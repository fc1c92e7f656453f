"""What a backend is, and what it is given.

The ops have the signatures that torch's dispatcher wants, a dozen arguments each; behind them the
arguments travel together as one `Problem`.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class Problem(NamedTuple):
    """The pairs, the margins and what is wanted, in the order of the ops' schema.

    Attributes:
        emb: (N, D) embeddings as the user gave them: any length, any strides.
        labels: (N,) integers.
        ref: (M, D) reference set; None in the self case, the pairs within emb.
        ref_labels: (M,) integers, None exactly where ref is.
        margins: (2,) float64 [m+, m-] on the embeddings' device.
        self_offset: row i of emb is row i + self_offset of ref and that pair is left out, its labels
            not read; None if the two are disjoint.
        need_grad_emb: whether the gradient of emb will be asked for.
        need_grad_ref: whether that of ref will be.
        precision: "highest", "high" or "medium": what float32 products on a GPU may use.
    """

    emb: Tensor
    labels: Tensor
    ref: Tensor | None
    ref_labels: Tensor | None
    margins: Tensor
    self_offset: int | None
    need_grad_emb: bool
    need_grad_ref: bool
    precision: str


class Backend(Protocol):
    """A module (or package) with these functions."""

    def why_not_here(self) -> str | None:
        """None where it can run on this machine, else the reason and the cure, as one sentence."""

    def why_not(self, device_type: str, dtype: torch.dtype) -> str | None:
        """None if it takes embeddings of this device type and dtype, else the reason."""

    def residual_bytes(self, problem: Problem) -> int:
        """Size of what the forward leaves for the backward; follows from shapes, never from data."""

    def pair_sums(self, problem: Problem, residual_size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Sums (2,) float64, counts (2,) int64 and the residual (residual_size,) uint8, fully written."""

    def pair_sums_backward(
        self, problem: Problem, grad_sums: Tensor, residual: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Gradients of emb and ref in their dtypes; an empty tensor where not wanted."""
