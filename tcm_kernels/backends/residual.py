"""P and Q in the residual of the backends `cpu` and `torch`.

P_i sums the unit rows of row i's hard positives, Q_i those of its hard negatives (docs/design.md, section 1).
The residual is one uint8 tensor that holds

    P (N, D), Q (N, D)      where the gradient of emb is wanted
    P (M, D), Q (M, D)      of the reference set, where its gradient is wanted

in the compute dtype: float64 for float64 embeddings, float32 for all others. The backward needs neither
margins nor labels, so it cannot disagree with the forward about any pair. Where the norm of a row is not
finite, all of it is NaN.
"""

from __future__ import annotations

from torch import Tensor

from .contract import GradientRows, PartnerSums
from .numerics import compute_dtype


def residual_bytes(rows: GradientRows) -> int:
    """Bytes of P and Q for every side whose gradient is wanted."""
    return sum(
        2 * x.shape[0] * x.shape[1] * compute_dtype(x.dtype).itemsize
        for x in (rows.emb, rows.ref)
        if x is not None
    )


def partner_sums(rows: GradientRows, residual: Tensor) -> tuple[PartnerSums | None, PartnerSums | None]:
    """P and Q of emb and of ref in a residual: see `contract.Backend`."""
    at = 0

    def take(x: Tensor | None) -> PartnerSums | None:
        nonlocal at
        if x is None:
            return None
        dtype = compute_dtype(x.dtype)
        begin, at = at, at + 2 * x.numel() * dtype.itemsize
        return PartnerSums(*residual[begin:at].view(dtype).view(2, *x.shape))

    return take(rows.emb), take(rows.ref)


def set_nan_flag(rows: GradientRows, residual: Tensor, nan_flag: Tensor) -> None:
    """Make P and Q NaN where the flag is: see `contract.Backend`."""
    if residual.is_cpu and not nan_flag.isnan():
        return  # a flag in main memory can be asked, and spares a pass over P and Q
    for sums in partner_sums(rows, residual):
        for x in sums or ():
            x.add_(nan_flag.to(x.dtype))
