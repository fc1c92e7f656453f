"""The TCM loss, written densely: the reference that every kernel is tested against.

Source: Zhang et al., "Threshold-Consistent Margin Loss for Open-World Deep Metric Learning",
ICLR 2024 (arXiv 2307.04047). With unit rows x̂, r̂ and similarities s = x̂ r̂ᵀ,

    d = m+ - s   for pairs of one class (not the same sample),     s - m-   for pairs of two classes
    hard where d >= 0, with penalty d
    L = λ+ · (sum of hard positive penalties / their number) + λ- · (the same for negatives)

and a term without hard pairs is 0. It holds whole N x M matrices, so it is for small inputs and for
reading. Tests and benchmarks import it; the library never does.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class DenseSums(NamedTuple):
    """Penalty sums and hard-pair counts; every field is a 0-dim tensor."""

    positive_sum: Tensor
    positive_count: Tensor
    negative_sum: Tensor
    negative_count: Tensor


def unit_rows(x: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    """(N, D) rows over max(norm, 1e-12); all NaN where a norm is not finite in x's compute dtype."""
    accumulation = torch.float64 if x.dtype == torch.float64 else torch.float32
    wide = x.to(dtype)
    norms = wide.norm(dim=1, keepdim=True)
    finite = norms.detach().to(accumulation).isfinite().all()
    return (wide / norms.clamp_min(1e-12)) * torch.where(finite, 1.0, torch.nan).to(wide)


def tcm_sums(
    emb: Tensor,
    labels: Tensor,
    ref_emb: Tensor | None = None,
    ref_labels: Tensor | None = None,
    *,
    margin_plus: float = 0.9,
    margin_minus: float = 0.5,
    self_offset: int | None = None,
    dtype: torch.dtype = torch.float64,
) -> DenseSums:
    """Penalty sums and counts over all ordered pairs, computed in `dtype`.

    emb (N, D), labels (N,); ref_emb (M, D), ref_labels (M,). Without a reference set every sample is
    compared with every other sample of the batch. `self_offset` o: row i of emb is row i + o of ref_emb, and
    that pair is left out.
    """
    rows = unit_rows(emb, dtype)
    columns, column_labels, offset = rows, labels, self_offset
    if ref_emb is None or ref_labels is None or ref_emb is emb:
        offset = 0
    else:
        columns, column_labels = unit_rows(ref_emb, dtype), ref_labels

    s = rows @ columns.T
    i = torch.arange(s.shape[0], device=s.device)[:, None]
    j = torch.arange(s.shape[1], device=s.device)[None, :]
    another_sample = torch.ones_like(s, dtype=torch.bool) if offset is None else (i + offset != j)
    same_class = labels[:, None] == column_labels[None, :]

    hard_positive = same_class & another_sample & (s <= margin_plus)
    hard_negative = ~same_class & another_sample & (s >= margin_minus)
    nan_flag = rows.detach().sum() * 0 + columns.detach().sum() * 0  # NaN if any row is, else 0
    zero = torch.zeros_like(s)
    return DenseSums(
        torch.where(hard_positive, margin_plus - s, zero).sum() + nan_flag,
        hard_positive.sum(),
        torch.where(hard_negative, s - margin_minus, zero).sum() + nan_flag,
        hard_negative.sum(),
    )


def tcm_loss(
    emb: Tensor,
    labels: Tensor,
    ref_emb: Tensor | None = None,
    ref_labels: Tensor | None = None,
    *,
    margin_plus: float = 0.9,
    margin_minus: float = 0.5,
    lambda_plus: float = 1.0,
    lambda_minus: float = 1.0,
    self_offset: int | None = None,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """The loss, a 0-dim tensor of `dtype`, differentiable by autograd. Arguments as `tcm_sums`."""
    sums = tcm_sums(
        emb,
        labels,
        ref_emb,
        ref_labels,
        margin_plus=margin_plus,
        margin_minus=margin_minus,
        self_offset=self_offset,
        dtype=dtype,
    )
    positive = sums.positive_sum / sums.positive_count.clamp_min(1)
    negative = sums.negative_sum / sums.negative_count.clamp_min(1)
    return lambda_plus * positive + lambda_minus * negative
