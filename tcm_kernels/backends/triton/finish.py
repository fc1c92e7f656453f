"""Finish: partial sums to the result, in a fixed order."""

from __future__ import annotations

import triton
import triton.language as tl

from .rules import beyond_margins, not_finite


@triton.jit
def add_partial_sums(sums_ptr, counts_ptr, n, sums, counts, BLOCK: tl.constexpr):
    """Sums (2,) and counts (2,) plus the n rows of partial sums (n, 2)."""
    offs, sign = tl.arange(0, BLOCK), tl.arange(0, 2)
    for start in range(0, n, BLOCK):
        inside = (start + offs < n)[:, None]
        at = (start + offs).to(tl.int64)[:, None] * 2 + sign[None, :]
        sums += tl.sum(tl.load(sums_ptr + at, mask=inside, other=0.0), axis=0)
        counts += tl.sum(tl.load(counts_ptr + at, mask=inside, other=0), axis=0)
    return sums, counts


@triton.jit
def rows_not_finite(inverse_ptr, n, BLOCK: tl.constexpr):
    """How many of n rows have a norm that is not finite."""
    found = tl.zeros((), tl.int32)
    for start in range(0, n, BLOCK):
        offs = start + tl.arange(0, BLOCK)
        found += not_finite(tl.load(inverse_ptr + offs, mask=offs < n, other=1.0))
    return found


@triton.jit
def store_result(sums, counts, poisoned, margins_ptr, sums_ptr, counts_ptr, poison_ptr):
    """Penalties were measured from the thresholds: what these are off the margins is added per pair."""
    poison = tl.where(poisoned, float("nan"), 0.0).to(tl.float64)
    sums = tl.where(counts > 0, sums + counts.to(tl.float64) * beyond_margins(margins_ptr), 0.0)
    sign = tl.arange(0, 2)
    tl.store(sums_ptr + sign, sums + poison)
    tl.store(counts_ptr + sign, counts)
    tl.store(poison_ptr, poison)


@triton.jit(do_not_specialize=["programs", "n", "m"])
def finish_kernel(
    tile_sums_ptr, tile_counts_ptr, programs,  # (programs, 2)
    row_sums_ptr, row_counts_ptr, n,  # (n, 2)
    row_inverse_ptr, column_inverse_ptr, m,
    margins_ptr,
    sums_ptr,  # (2,) float64
    counts_ptr,  # (2,) int64
    poison_ptr,  # float64: 0, or NaN where an embedding is not finite
    BLOCK: tl.constexpr, SELF: tl.constexpr,
):  # fmt: skip
    """One program: all partial sums, and whether an embedding is not finite."""
    sums, counts = tl.zeros((2,), tl.float64), tl.zeros((2,), tl.int64)
    sums, counts = add_partial_sums(tile_sums_ptr, tile_counts_ptr, programs, sums, counts, BLOCK)
    sums, counts = add_partial_sums(row_sums_ptr, row_counts_ptr, n, sums, counts, BLOCK)
    found = rows_not_finite(row_inverse_ptr, n, BLOCK)
    if not SELF:
        found += rows_not_finite(column_inverse_ptr, m, BLOCK)
    store_result(sums, counts, found > 0, margins_ptr, sums_ptr, counts_ptr, poison_ptr)
