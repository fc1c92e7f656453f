"""The residual: a NaN flag and a counter, then P and Q for every side whose gradient is wanted.

Both GPU backends have this layout, so the forward of one can feed the backward of the other. P and Q are
float32, with rows in the order of the embeddings. Each array begins at a multiple of 16 bytes, so that
kernels are compiled once for every N. The NaN flag is 0, or NaN where the norm of a row is not finite. Only
`triton` uses the counter, during its forward; it is 0 before and after.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..contract import GradientRows, PartnerSums

ALIGNMENT = 16


class Outputs(NamedTuple):
    """What a forward writes beside sums and counts, all of it 0 before.

    Attributes:
        of_emb: P and Q of emb, None where not wanted.
        of_ref: P and Q of the reference set, likewise.
        nan_flag: (1,) float64.
        counter: (1,) int32.
    """

    of_emb: PartnerSums | None
    of_ref: PartnerSums | None
    nan_flag: Tensor
    counter: Tensor


def _bytes_of(x: Tensor) -> int:
    return (4 * x.shape[0] * x.shape[1] + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT


def residual_bytes(rows: GradientRows) -> int:
    """Bytes of the residual; follows from shapes."""
    return ALIGNMENT + sum(2 * _bytes_of(x) for x in (rows.emb, rows.ref) if x is not None)


def views_of(rows: GradientRows, residual: Tensor) -> Outputs:
    """The parts of a residual."""
    return Outputs(*partner_sums(rows, residual), _nan_flag_of(residual), counter_of(residual))


def outputs_beside(x: Tensor, of_emb: PartnerSums | None, of_ref: PartnerSums | None) -> Outputs:
    """For a forward on x's device that adds to P and Q which the caller has."""
    head = x.new_zeros(ALIGNMENT, dtype=torch.uint8)
    return Outputs(of_emb, of_ref, _nan_flag_of(head), counter_of(head))


def partner_sums(rows: GradientRows, residual: Tensor) -> tuple[PartnerSums | None, PartnerSums | None]:
    """P and Q of emb and of ref in a residual: see `contract.Backend`."""
    at = ALIGNMENT

    def take(x: Tensor) -> Tensor:
        nonlocal at
        begin, at = at, at + _bytes_of(x)
        return residual[begin : begin + 4 * x.numel()].view(torch.float32).view(x.shape)

    of_emb, of_ref = (None if x is None else PartnerSums(take(x), take(x)) for x in (rows.emb, rows.ref))
    return of_emb, of_ref


def set_nan_flag(rows: GradientRows, residual: Tensor, nan_flag: Tensor) -> None:
    """Set the residual's flag: see `contract.Backend`."""
    _nan_flag_of(residual).copy_(nan_flag)


def _nan_flag_of(residual: Tensor) -> Tensor:
    return residual[:8].view(torch.float64)


def counter_of(residual: Tensor) -> Tensor:
    """The counter, (1,) int32."""
    return residual[8:12].view(torch.int32)
