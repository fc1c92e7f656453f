"""Is the result right? Errors of loss and gradient against the float64 truth.

A benchmark of a wrong result is worthless, so this comes before any timing: where ours is wrong, no time
of ours is recorded. The yardstick is dense PyTorch in the dtype of the embeddings: ours may be four times
as far from the truth, or a few rounding errors of the dtype, whichever is more.

A pair within rounding of a margin may fall to either side. It then changes the loss by about 1/n and the
gradient by about 1/√n, relatively, n being the number of hard pairs of its sign; the truth counts the
pairs in that band, and `Truth.tolerance` allows for them. The table says where there are any.

Where the dense float64 truth does not fit in memory, the gradient of some rows is checked, which needs
their similarities alone: ∂L/∂x̂_i = -(λ+/n+) P_i + (λ-/n-) Q_i, twice that in the self case.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from benchmarks.harness.workload import Case, Workload
from tcm_kernels import reference

BAND = 1e-6  # error of a float32 similarity of two unit rows, generously
SOMETHING_ELSE = 0.5  # an opponent whose gradient is this far off computes another loss; it gets no time
SAMPLED_ROWS = 256
BYTES_PER_PAIR = 72  # of the dense float64 truth with its gradient


@dataclasses.dataclass(frozen=True)
class Errors:
    """Relative errors: |L - L*| / |L*| and ‖g - g*‖₂ / ‖g*‖₂; loss None where only rows were checked."""

    loss: float | None
    gradient: float


@dataclasses.dataclass(frozen=True)
class Truth:
    """Float64 loss and gradient: of all rows, or of some rows and without the loss."""

    loss: float | None
    gradient: Tensor  # (rows, D) float64
    rows: Tensor  # (rows,) int64, which rows of emb
    checked: str  # in words
    band_share: float  # pairs within BAND of a margin, over hard pairs; the larger share of both signs

    def errors(self, loss: Tensor, gradient: Tensor) -> Errors:
        """Of a 0-dim loss and an (N, D) gradient; NaN counts as an infinite error."""
        distance = (gradient[self.rows].double() - self.gradient).norm() / _norm(self.gradient)
        loss_error = None
        if self.loss is not None:
            loss_error = _finite(abs(loss.item() - self.loss) / max(abs(self.loss), 1e-30))
        return Errors(loss_error, _finite(distance.item()))

    def tolerance(self, dtype: torch.dtype, dense: Errors | None) -> Errors:
        """The largest errors that count as right, given those of dense PyTorch."""
        loss = max(64 * torch.finfo(torch.float32).eps, 4 * ((dense and dense.loss) or 0.0))
        gradient = max(64 * torch.finfo(dtype).eps, 4 * (dense.gradient if dense else 0.0))
        if torch.finfo(dtype).bits < 32:  # dense PyTorch's own error says little there
            gradient = 4 * torch.finfo(dtype).eps
        return Errors(loss + self.band_share, gradient + 2 * self.band_share**0.5)


def truth_bytes(case: Case) -> int:
    """Memory that `dense_truth` needs."""
    return BYTES_PER_PAIR * case.n * case.columns


def dense_truth(work: Workload) -> Truth:
    """Loss and whole gradient by `tcm_kernels.reference`, which holds everything at once."""
    emb = work.emb.double().requires_grad_()
    ref = None if work.ref is None else work.ref.double()
    inputs = (emb, work.labels, ref, work.ref_labels)
    margins = {"margin_plus": work.margin_plus, "margin_minus": work.margin_minus}
    loss = reference.tcm_loss(*inputs, **margins)
    (gradient,) = torch.autograd.grad(loss, emb)
    with torch.no_grad():
        wide = reference.tcm_sums(
            *inputs, margin_plus=work.margin_plus + BAND, margin_minus=work.margin_minus - BAND
        )
        narrow = reference.tcm_sums(
            *inputs, margin_plus=work.margin_plus - BAND, margin_minus=work.margin_minus + BAND
        )
    shares = [
        ((most - least) / most.clamp_min(1)).item()
        for most, least in (
            (wide.positive_count, narrow.positive_count),
            (wide.negative_count, narrow.negative_count),
        )
    ]
    rows = torch.arange(emb.shape[0], device=emb.device)
    return Truth(loss.item(), gradient, rows, "loss and gradient of all rows", max(shares))


def sampled_truth(work: Workload, positive_count: int, negative_count: int) -> Truth:
    """Gradient of the first rows (they are in random order), given the counts n+ and n- of the run."""
    rows = torch.arange(min(SAMPLED_ROWS, work.case.n), device=work.emb.device)
    x = work.emb[rows].double()
    norms = x.norm(dim=1, keepdim=True)
    unit = x / norms
    columns = F.normalize((work.emb if work.ref is None else work.ref).double())
    column_labels = work.labels if work.ref_labels is None else work.ref_labels
    s = unit @ columns.T
    same = work.labels[rows, None] == column_labels[None, :]
    pulled = same & (s <= work.margin_plus)
    pushed = ~same & (s >= work.margin_minus)
    if work.ref is None:
        pulled[rows, rows] = False
    near = (same & ((s - work.margin_plus).abs() < BAND)) | (~same & ((s - work.margin_minus).abs() < BAND))
    g = pushed.double() @ columns / max(negative_count, 1)
    g -= pulled.double() @ columns / max(positive_count, 1)
    g *= 2 if work.ref is None else 1
    gradient = (g - (g * unit).sum(dim=1, keepdim=True) * unit) / norms
    checked = f"gradient of {len(rows)} rows, given the counts"
    hard = int(pulled.sum() + pushed.sum())
    return Truth(None, gradient, rows, checked, int(near.sum()) / max(hard, 1))


def is_right(errors: Errors, tolerance: Errors) -> bool:
    """Whether every error that was measured is within its tolerance."""
    loss_is_right = errors.loss is None or errors.loss <= (tolerance.loss or 0.0)
    return loss_is_right and errors.gradient <= tolerance.gradient


def _finite(error: float) -> float:
    return error if error == error else float("inf")  # noqa: PLR0124


def _norm(gradient: Tensor) -> Tensor:
    return gradient.norm().clamp_min(1e-30)
