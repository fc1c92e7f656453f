"""The `torch` backend: tiles of the similarity matrix in plain PyTorch, with nothing compiled.

It takes float32, float64, float16 and bfloat16 on any device that has float64. It computes the same sums as
the C++ kernel, without screening, and leaves a residual of the same layout. Tiles have 1024 x 1024
similarities on a CPU and 4096 x 4096 elsewhere, and are processed one at a time. In the self case only tiles
on and above the diagonal are visited, and each pair counts twice. Per row it keeps P, the sum of the unit
rows of its hard positives, and Q, that of its hard negatives; from these the backward is one pass over N x D.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .contract import GradientRows, HistogramProblem, PartnerSums, Problem
from .numerics import FLOAT_DTYPES, compute_dtype, full_precision_matmul
from .residual import partner_sums, residual_bytes, set_nan_flag

__all__ = [
    "add_pair_sums",
    "pair_histogram",
    "pair_sums",
    "pair_sums_backward",
    "partner_sums",
    "residual_bytes",
    "set_nan_flag",
    "why_not",
    "why_not_here",
]

NORM_FLOOR = 1e-12  # as torch.nn.functional.normalize


def why_not_here() -> str | None:
    """None: it runs wherever torch does."""
    return None


def why_not(device_type: str, dtype: torch.dtype) -> str | None:
    """None if this backend takes embeddings of this device and dtype, else the reason."""
    if device_type == "mps":
        return "its sums are float64, which MPS devices do not have; move the embeddings to the CPU"
    if dtype not in FLOAT_DTYPES:
        return f"it takes float32, float64, float16 and bfloat16 embeddings, not {dtype}"
    return None


def tile_rows(device_type: str) -> int:
    """Edge of a tile: temporaries of a few MiB on a CPU; elsewhere enough pairs to fill a GPU."""
    return 1024 if device_type == "cpu" else 4096


def hard_masks(s: Tensor, same: Tensor, thresholds: Tensor) -> tuple[Tensor, Tensor]:
    """The hard-pair rule in PyTorch: masks of hard positives and hard negatives; margins are inclusive."""
    margin_plus, margin_minus = thresholds.unbind()
    return same & (s <= margin_plus), ~same & (s >= margin_minus)


def thresholds_of(margins: Tensor, dtype: torch.dtype) -> Tensor:
    """(2,) float64 margins in the dtype of the similarities, m+ rounded down and m- up.

    A similarity of that dtype then lies on the same side of the threshold as of the margin itself.
    """
    rounded = margins.to(dtype)
    outward = torch.stack((rounded[0].double() > margins[0], rounded[1].double() < margins[1]))
    inward = torch.stack((rounded[0].new_full((), -2.0), rounded[1].new_full((), 2.0)))
    return torch.where(outward, torch.nextafter(rounded, inward), rounded)


def norms_of(x: Tensor) -> Tensor:
    """(N,) Euclidean norms in float64, in which those of float32 rows neither overflow nor underflow."""
    return torch.linalg.vector_norm(x, dim=1, dtype=torch.float64)


def unit_rows(x: Tensor, norms: Tensor) -> Tensor:
    """(n, D) unit rows in the compute dtype; rows under the floor are divided by the floor."""
    return (x.double() / norms.clamp_min(NORM_FLOOR)[:, None]).to(compute_dtype(x.dtype))


def nan_flag_of(x: Tensor, norms: Tensor) -> Tensor:
    """0 where every norm is a finite number of the compute dtype, NaN where one is not. No host sync."""
    finite = norms.to(compute_dtype(x.dtype)).isfinite().all()
    return torch.where(finite, 0.0, torch.nan).to(torch.float64)


def _two_samples(tile: Tensor, i: int, j: int, self_offset: int | None, *, symmetric: bool) -> Tensor | None:
    """The mask of the pairs that count in the tile at (i, j), of the shape of `tile`; None where all count.

    A sample is not paired with itself; in the self case (`symmetric`) only pairs above the diagonal count.
    """
    if self_offset is None or (symmetric and i != j):
        return None
    row = torch.arange(i, i + tile.shape[0], device=tile.device)[:, None]
    column = torch.arange(j, j + tile.shape[1], device=tile.device)[None, :]
    return row < column if symmetric else row + self_offset != column


def pair_sums(problem: Problem, residual_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sums (2,) float64, counts (2,) int64 and residual: see `contract.Backend`."""
    residual = torch.zeros(residual_size, dtype=torch.uint8, device=problem.emb.device)
    sums, counts = add_pair_sums(problem, *partner_sums(problem.gradient_rows, residual))
    set_nan_flag(problem.gradient_rows, residual, sums.sum() * 0)
    return sums, counts, residual


def add_pair_sums(
    problem: Problem, of_emb: PartnerSums | None, of_ref: PartnerSums | None
) -> tuple[Tensor, Tensor]:
    """Sums and counts; P and Q are added to those given: see `contract.Backend`."""
    emb, labels, ref, ref_labels, margins, self_offset, *_ = problem
    columns, column_labels = (emb, labels) if ref is None or ref_labels is None else (ref, ref_labels)
    dtype = compute_dtype(emb.dtype)
    tile = tile_rows(emb.device.type)
    thresholds = thresholds_of(margins, dtype)
    row_norms = norms_of(emb)
    column_norms = row_norms if ref is None else norms_of(columns)
    nan_flag = nan_flag_of(emb, row_norms) + nan_flag_of(columns, column_norms)

    if ref is None:
        of_ref = of_emb  # a pair above the diagonal adds to both of its ends
    sums = [torch.zeros(2, dtype=torch.float64, device=emb.device)]
    counts = [torch.zeros(2, dtype=torch.int64, device=emb.device)]

    with full_precision_matmul(emb.device.type):
        for i in range(0, emb.shape[0], tile):
            rows = slice(i, min(i + tile, emb.shape[0]))
            x = unit_rows(emb[rows], row_norms[rows])
            for j in range(i if ref is None else 0, columns.shape[0], tile):
                cols = slice(j, min(j + tile, columns.shape[0]))
                r = unit_rows(columns[cols], column_norms[cols])
                s = x @ r.T
                same = labels[rows, None] == column_labels[None, cols]
                hard_positive, hard_negative = hard_masks(s, same, thresholds)
                another = _two_samples(same, i, j, 0 if ref is None else self_offset, symmetric=ref is None)
                if another is not None:
                    hard_positive &= another
                    hard_negative &= another
                similarities = (
                    torch.where(hard_positive, s, 0.0).sum(dtype=torch.float64),
                    torch.where(hard_negative, s, 0.0).sum(dtype=torch.float64),
                )
                sums.append(torch.stack(similarities))
                counts.append(torch.stack((hard_positive.sum(), hard_negative.sum())))
                for k, hard in enumerate((hard_positive, hard_negative)):
                    weights = hard.to(dtype)
                    if of_emb is not None:
                        of_emb[k][rows] += weights @ r
                    if of_ref is not None:
                        of_ref[k][cols] += weights.T @ x

    ordered = 2 if ref is None else 1
    # The penalty is linear in s: Σ+ = m+ n+ - Σ s and Σ- = Σ s - m- n-, in float64.
    total_counts = torch.stack(counts).sum(dim=0)
    excess = torch.stack(sums).sum(dim=0) - margins * total_counts
    penalties = torch.stack((-excess[0], excess[1])).clamp_min(0.0)
    return penalties * ordered + nan_flag, total_counts * ordered


def pair_sums_backward(rows: GradientRows, grad_sums: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of emb and ref, empty where not wanted: see `contract.Backend`."""
    of_emb, of_ref = partner_sums(rows, residual)
    ordered = 2 if rows.symmetric else 1  # in the self case (i, j) and (j, i) are both pairs
    weights = torch.stack((-ordered * grad_sums[0], ordered * grad_sums[1]))
    return _normalize_backward(rows.emb, of_emb, weights), _normalize_backward(rows.ref, of_ref, weights)


def _normalize_backward(x: Tensor | None, sums: PartnerSums | None, weights: Tensor) -> Tensor:
    """Gradient of raw rows: g = w+ P + w- Q through the normalisation, (g - (g·x̂) x̂) / norm."""
    if x is None or sums is None:
        return weights.new_empty(0)
    grad = torch.empty_like(x, memory_format=torch.contiguous_format)
    tile = tile_rows(x.device.type)
    for i in range(0, x.shape[0], tile):
        rows = slice(i, min(i + tile, x.shape[0]))
        norms = norms_of(x[rows])[:, None]
        unit = x[rows].double() / norms.clamp_min(NORM_FLOOR)
        p, q = (partners[rows].double() for partners in sums)
        g = weights[0] * p + weights[1] * q
        along = (g * unit).sum(dim=1, keepdim=True)
        tangent = g - torch.where(norms < NORM_FLOOR, 0.0, along) * unit
        grad[rows] = (tangent / norms.clamp_min(NORM_FLOOR)).to(x.dtype)
    return grad


def bin_columns(s: Tensor, problem: HistogramProblem) -> Tensor:
    """The rule of the bins in PyTorch: the column of the table for each similarity, int64."""
    width = s.new_full((), problem.hi - problem.lo, dtype=torch.float64)  # else torch multiplies by 1/number
    where = ((s.double() - problem.lo) * problem.bins / width).floor()
    return where.clamp(-1, problem.bins).long() + 1


def pair_histogram(problem: HistogramProblem) -> tuple[Tensor, Tensor, Tensor]:
    """Counts by group and bin, and of all pairs: see `contract.HistogramBackend`."""
    emb, labels, groups, ref, ref_labels, ref_groups, self_offset, group_count, bins, *_ = problem
    columns = emb if ref is None else ref
    column_labels = labels if ref_labels is None else ref_labels
    column_groups = groups if ref_groups is None else ref_groups
    tile = tile_rows(emb.device.type)
    width = bins + 2
    # Two tensors, not two views of one: an op's outputs may not share memory.
    tables = [torch.zeros(group_count * width, dtype=torch.int64, device=emb.device) for _ in range(2)]
    pooled = torch.zeros((2, width), dtype=torch.int64, device=emb.device)

    with full_precision_matmul(emb.device.type):
        for i in range(0, emb.shape[0], tile):
            rows = slice(i, min(i + tile, emb.shape[0]))
            x = unit_rows(emb[rows], norms_of(emb[rows]))
            for j in range(i if ref is None else 0, columns.shape[0], tile):
                cols = slice(j, min(j + tile, columns.shape[0]))
                column = bin_columns(x @ unit_rows(columns[cols], norms_of(columns[cols])).T, problem)
                same = labels[rows, None] == column_labels[None, cols]
                of_rows = groups[rows, None] * width + column
                of_columns = column_groups[None, cols] * width + column
                differ = groups[rows, None] != column_groups[None, cols]
                another = _two_samples(same, i, j, 0 if ref is None else self_offset, symmetric=ref is None)
                for sign, of_sign in enumerate((same, ~same)):
                    pairs = of_sign if another is None else of_sign & another
                    pooled[sign] += torch.bincount(column[pairs], minlength=width)
                    for place in (of_rows[pairs], of_columns[pairs & differ]):
                        tables[sign].scatter_add_(0, place, torch.ones_like(place))
    ordered = 2 if ref is None else 1
    positives, negatives = (table.mul_(ordered).view(group_count, width) for table in tables)
    return positives, negatives, pooled.mul_(ordered)
