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

from .contract import PartnerSums, Problem
from .numerics import compute_dtype


def residual_bytes(problem: Problem) -> int:
    """Bytes of P and Q for every side whose gradient is wanted."""
    rows = problem.emb.shape[0] if problem.need_grad_emb else 0
    if problem.ref is not None and problem.need_grad_ref:
        rows = rows + problem.ref.shape[0]
    return 2 * rows * problem.emb.shape[1] * compute_dtype(problem.emb.dtype).itemsize


def partner_sums(problem: Problem, residual: Tensor) -> tuple[PartnerSums | None, PartnerSums | None]:
    """P and Q of emb and of ref in a residual: see `contract.Backend`."""
    emb, ref = problem.emb, problem.ref
    values = residual.view(compute_dtype(emb.dtype))
    split = 2 * emb.numel() if problem.need_grad_emb else 0
    of_emb = PartnerSums(*values[:split].view(2, *emb.shape)) if problem.need_grad_emb else None
    need_ref = ref is not None and problem.need_grad_ref
    of_ref = PartnerSums(*values[split:].view(2, *ref.shape)) if ref is not None and need_ref else None
    return of_emb, of_ref


def set_nan_flag(problem: Problem, residual: Tensor, nan_flag: Tensor) -> None:
    """Make P and Q NaN where the flag is: see `contract.Backend`."""
    if residual.is_cpu and not nan_flag.isnan():
        return  # a flag in main memory can be asked, and spares a pass over P and Q
    if residual.numel():
        dtype = compute_dtype(problem.emb.dtype)
        residual.view(dtype).add_(nan_flag.to(dtype))
