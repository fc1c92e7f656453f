"""Finish: partial sums to the result in a fixed order; and the backward, one light pass over P and Q."""

from __future__ import annotations

import triton
import triton.language as tl

from .rules import LARGEST_FLOAT32, NORM_FLOOR, thresholds


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
def not_finite(inverse_ptr, n, BLOCK: tl.constexpr):
    """How many of n rows have a norm that is not finite."""
    found = tl.zeros((), tl.int32)
    for start in range(0, n, BLOCK):
        offs = start + tl.arange(0, BLOCK)
        inverse = tl.load(inverse_ptr + offs, mask=offs < n, other=1.0)
        found += tl.sum((inverse != inverse).to(tl.int32), axis=0)  # noqa: PLR0124
    return found


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
    """Penalties were measured from the thresholds: what these are off the margins is added per pair."""
    sums, counts = tl.zeros((2,), tl.float64), tl.zeros((2,), tl.int64)
    sums, counts = add_partial_sums(tile_sums_ptr, tile_counts_ptr, programs, sums, counts, BLOCK)
    sums, counts = add_partial_sums(row_sums_ptr, row_counts_ptr, n, sums, counts, BLOCK)
    found = not_finite(row_inverse_ptr, n, BLOCK)
    if not SELF:
        found += not_finite(column_inverse_ptr, m, BLOCK)
    poison = tl.where(found > 0, float("nan"), 0.0).to(tl.float64)

    sign = tl.arange(0, 2)
    threshold_plus, threshold_minus = thresholds(margins_ptr)
    plus, minus = tl.load(margins_ptr), tl.load(margins_ptr + 1)
    off = tl.where(sign == 0, plus - threshold_plus.to(tl.float64), threshold_minus.to(tl.float64) - minus)
    sums = tl.where(counts > 0, sums + counts.to(tl.float64) * off, 0.0)
    tl.store(sums_ptr + sign, sums + poison)
    tl.store(counts_ptr + sign, counts)
    tl.store(poison_ptr, poison)


@triton.jit(do_not_specialize=["n", "ordered"])
def chain_kernel(
    x_ptr,  # (n, dim)
    p_ptr, q_ptr,  # (n, dim) float32
    poison_ptr,  # float64
    grad_sums_ptr,  # (2,) float64
    ordered,  # how many ordered pairs a pair stands for: 2 in the self case
    grad_ptr,  # (n, dim)
    n, dim,
    ROWS: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Gradient of raw rows: g = w+ P + w- Q through the normalisation, (g - (g·x̂) x̂) / norm."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    k = tl.arange(0, BLOCK_D)
    mask = (row < n)[:, None] & (k < dim)[None, :]
    at = row.to(tl.int64)[:, None] * dim + k[None, :]
    poison = tl.load(poison_ptr)
    pull = (-ordered * tl.load(grad_sums_ptr) + poison).to(tl.float32)
    push = (ordered * tl.load(grad_sums_ptr + 1) + poison).to(tl.float32)
    x = tl.load(x_ptr + at, mask=mask, other=0.0).to(tl.float64)
    norm = tl.sqrt(tl.sum(x * x, axis=1))
    finite = norm < LARGEST_FLOAT32
    inverse = 1.0 / tl.maximum(tl.where(finite, norm, 1.0), NORM_FLOOR)
    unit = (x * inverse[:, None]).to(tl.float32)
    p = tl.load(p_ptr + at, mask=mask, other=0.0)
    q = tl.load(q_ptr + at, mask=mask, other=0.0)
    g = pull * p + push * q
    along = tl.where(norm < NORM_FLOOR, 0.0, tl.sum(g * unit, axis=1))
    grad = (g - along[:, None] * unit) * inverse.to(tl.float32)[:, None]
    tl.store(grad_ptr + at, grad.to(grad_ptr.dtype.element_ty), mask=mask)
