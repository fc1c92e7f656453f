"""What every way through the pairs of all ranks leaves on a rank."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ..backends.contract import GradientRows


class Outcome(NamedTuple):
    """One rank's share.

    Attributes:
        sums: (2,) float64 over the ordered pairs that this rank has taken; all ranks' add up to the batch's.
        counts: (2,) int64, likewise.
        rows: what the backward is asked, beside the residual: this rank's rows as `emb`.
        residual: all of P and Q of this rank's rows.
        ordered: what the gradient of the sums is multiplied with, beside what the backward does with it.
    """

    sums: Tensor
    counts: Tensor
    rows: GradientRows
    residual: Tensor
    ordered: int
