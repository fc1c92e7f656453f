"""A list of pairs in plain PyTorch, the part of the `torch` backend that takes the pairs a miner has chosen.

Rows are gathered, a few megabytes at a time: first for the similarities, which decide what is hard, then for
P and Q, once for each end of the pairs. A row's partners are added up in the order of the list, on a GPU
after a sort by row: no atomic additions, the same bits in every run. Nothing waits for a GPU; a pair that
names no row makes everything NaN there, where on a CPU one can look, and raise.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .contract import PairList
from .numerics import compute_dtype
from .residual import partner_sums, residual_bytes, set_nan_flag
from .torch_tiled import (
    hard_masks,
    nan_flag_of,
    norms_of,
    pair_sums_backward,
    thresholds_of,
    unit_rows,
    why_not,
    why_not_here,
)

__all__ = ["pair_list_sums", "pair_sums_backward", "residual_bytes", "why_not", "why_not_here"]

CHUNK = 1 << 22  # elements that are gathered at a time


class _Rows:
    """Embeddings of one side. Where there are more pairs than rows, all unit rows are made at once."""

    def __init__(self, x: Tensor, pairs: int) -> None:
        self._x = x
        self._norms = norms_of(x)
        self.nan_flag = nan_flag_of(x, self._norms)
        self.shape = x.shape
        self._units: Tensor | None = None
        if len(x) <= pairs:
            self._units = x.new_empty(x.shape, dtype=compute_dtype(x.dtype))
            for part in _chunks(*x.shape):
                self._units[part] = unit_rows(x[part], self._norms[part])

    def unit(self, index: Tensor) -> Tensor:
        """(K, D) unit rows in the compute dtype."""
        if self._units is not None:
            return self._units[index]
        return unit_rows(self._x[index], self._norms[index])


def pair_list_sums(problem: PairList, residual_size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sums, counts, numbers of listed pairs, and residual: see `contract.PairListBackend`."""
    emb = problem.emb
    pairs = len(problem.positive_anchors) + len(problem.negative_anchors)
    rows = _Rows(emb, pairs)
    columns = rows if problem.ref is None else _Rows(problem.ref, pairs)
    thresholds = thresholds_of(problem.margins, compute_dtype(emb.dtype))
    nan_flag = rows.nan_flag + columns.nan_flag
    residual = torch.zeros(residual_size, dtype=torch.uint8, device=emb.device)
    of_emb, of_ref = partner_sums(problem.gradient_rows, residual)
    if problem.ref is None:
        of_ref = of_emb  # either end is a row of emb

    similarities, counts, listed = [], [], []
    for positive, of_sign in ((True, problem.positives), (False, problem.negatives)):
        anchors, partners, outside = _within(*of_sign, rows.shape[0], columns.shape[0])
        nan_flag = nan_flag + outside
        counted = _first_of_each(anchors, partners, columns.shape[0]) if problem.deduplicate else None
        s, hard = _similarities(rows, columns, anchors, partners, thresholds, positive=positive)
        if counted is not None:
            hard = hard & counted
        similarities.append(torch.where(hard, s, 0.0).sum(dtype=torch.float64))
        counts.append(hard.sum())
        listed.append(hard.new_tensor(len(anchors), dtype=torch.int64) if counted is None else counted.sum())
        sign = 0 if positive else 1
        if of_emb is not None:
            _add_partners(of_emb[sign], anchors, columns, partners, hard)
        if of_ref is not None:
            _add_partners(of_ref[sign], partners, rows, anchors, hard)
    set_nan_flag(problem.gradient_rows, residual, nan_flag)

    total = torch.stack(counts)
    # The penalty is linear in s: Σ+ = m+ n+ - Σ s and Σ- = Σ s - m- n-, in float64.
    excess = torch.stack(similarities) - problem.margins * total
    penalties = torch.stack((-excess[0], excess[1])).clamp_min(0.0)
    return penalties + nan_flag, total, torch.stack(listed), residual


def _within(anchors: Tensor, partners: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor, Tensor]:
    """The pairs, moved inside where they name no row; and NaN if there is such a one, else 0."""
    if anchors.is_cpu:
        return anchors, partners, anchors.new_zeros((), dtype=torch.float64)  # they have been looked at
    a, p = anchors.clamp(0, max(rows - 1, 0)), partners.clamp(0, max(columns - 1, 0))
    wrong = torch.where(((anchors != a) | (partners != p)).any(), torch.nan, 0.0).to(torch.float64)
    if rows == 0 or columns == 0:
        return a[:0], p[:0], torch.full_like(wrong, torch.nan if len(a) else 0.0)
    return a, p, wrong


def _chunks(pairs: int, columns: int) -> list[slice]:
    step = max(1, CHUNK // max(columns, 1))
    return [slice(i, min(i + step, pairs)) for i in range(0, pairs, step)]


def _similarities(
    rows: _Rows, columns: _Rows, anchors: Tensor, partners: Tensor, thresholds: Tensor, *, positive: bool
) -> tuple[Tensor, Tensor]:
    """(K,) similarities in the compute dtype, and which of them are hard."""
    # Written in place: small results among large temporaries would leave memory in pieces that fit nothing.
    s = rows.unit(anchors[:0]).new_empty(len(anchors))
    for part in _chunks(len(anchors), rows.shape[1]):
        torch.sum(rows.unit(anchors[part]) * columns.unit(partners[part]), dim=1, out=s[part])
    hard_positive, hard_negative = hard_masks(s, torch.full_like(s, positive, dtype=torch.bool), thresholds)
    return s, hard_positive if positive else hard_negative


def _first_of_each(anchors: Tensor, partners: Tensor, columns: int) -> Tensor:
    """(K,) bool: the first mention of each pair."""
    key, place = (anchors * columns + partners).sort(stable=True)
    first = torch.ones_like(key, dtype=torch.bool)
    first[1:] = key[1:] != key[:-1]
    return torch.empty_like(first).scatter_(0, place, first)


def _add_partners(into: Tensor, own: Tensor, others: _Rows, partners: Tensor, hard: Tensor) -> None:
    """Add to each row of `into` (N, D) the unit rows of its hard partners, in the order of the list."""
    if into.is_cpu:
        for part in _chunks(len(own), into.shape[1]):
            into.index_add_(0, own[part], others.unit(partners[part]).mul_(hard[part, None]))
    else:
        _add_partners_by_row(into, own, others, partners, hard)


def _add_partners_by_row(into: Tensor, own: Tensor, others: _Rows, partners: Tensor, hard: Tensor) -> None:
    """The same where `index_add_` would add by atomic operations, in any order: sorted by row."""
    sorted_own, place = own.to(torch.int32).sort(stable=True)
    rows = torch.arange(into.shape[0] + 1, dtype=torch.int32, device=own.device)
    begins = torch.searchsorted(sorted_own, rows)
    del sorted_own
    # As many pairs as there are rows, or more: the sums of a part are an array like `into`.
    step = max(into.shape[0], CHUNK // max(into.shape[1], 1), 1)
    for first in range(0, len(own), step):
        part = place[first : first + step]
        unit = others.unit(partners[part]).mul_(hard[part, None])
        bounds = begins.clamp(first, first + len(part)) - first
        into += torch.segment_reduce(unit, "sum", offsets=bounds, axis=0, unsafe=True)
