"""The backward of both GPU backends: a pass over each side whose gradient is wanted."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from ..contract import GradientRows, PartnerSums
from .machine import on_device_of
from .residual import views_of


class NormalizeBackward(Protocol):
    """A backend's kernel: from P and Q of rows to the gradient of the raw rows."""

    def __call__(
        self, x: Tensor, sums: PartnerSums, nan_flag: Tensor, grad_sums: Tensor, ordered: int, grad: Tensor
    ) -> None:
        """Write grad (N, D) of x (N, D). `ordered`: ordered pairs per pair, 2 in the self case, else 1."""


def gradients(
    rows: GradientRows, grad_sums: Tensor, residual: Tensor, kernel: NormalizeBackward
) -> tuple[Tensor, Tensor]:
    """Gradients of emb and ref, empty where not wanted: see `contract.Backend`."""
    of_emb, of_ref, nan_flag, _ = views_of(rows, residual)
    ordered = 2 if rows.symmetric else 1

    def gradient(x: Tensor | None, sums: PartnerSums | None) -> Tensor:
        if x is None or sums is None:
            return grad_sums.new_empty(0)
        x = x.contiguous()
        grad = torch.empty_like(x)
        kernel(x, sums, nan_flag, grad_sums.contiguous(), ordered, grad)
        return grad

    with on_device_of(residual):
        return gradient(rows.emb, of_emb), gradient(rows.ref, of_ref)
