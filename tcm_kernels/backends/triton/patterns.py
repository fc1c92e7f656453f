"""Accumulate, many hard pairs: P and Q of a block of rows as products of 0/1 patterns with unit rows.

P_i and Q_i are the sums of the unit rows of row i's hard positives and hard negatives. A decided tile with
more hard pairs of one sign than a list is a product of its pattern, unpacked from bits into registers, with
the unit rows of its columns. In a tile where all but at most LIST_MOST pairs are hard negatives, a row adds
one block sum to its Q instead if at least half of its pairs are hard; lists.py subtracts the others. Work at
half density: 2 N² D flops, 1 U for bfloat16; floor with all pairs hard negatives: N²/TILE · D additions.

A pattern is exact in any dtype, but unit rows do not lie in memory. For bfloat16 the pattern holds 1/norm in
place of 1 (rounded to bfloat16; the loss is not computed from these sums). Float16 rows are scaled first,
because 1/norm may be out of float16's range. Float32 rows are scaled and split into bfloat16 parts: three for
"highest", which hold all 24 bits, two otherwise. Not yet measured.

Whether a pair is of one class is computed only in the band of tiles that holds the block's classes. Predicted
for sm_90 (bfloat16, D = 512): 1.5 U, bound by shared memory (benchmarks.sass).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from . import bits
from .screen import is_sparse
from .tiles import (
    hard_negatives,
    hard_positives,
    is_decided,
    is_whole_less_a_list,
    takes_whole,
)


@triton.jit(do_not_specialize=["first", "n"])
def block_sums_kernel(
    side, first, n,
    state,
    sums_ptr,  # (blocks, DIM) float32
    DIM: tl.constexpr, TILE: tl.constexpr, BLOCK_D: tl.constexpr,
    SCREENED: tl.constexpr, SAMPLES: tl.constexpr,
):  # fmt: skip
    """The sum of the unit rows of each tile, from position `first` on."""
    if is_sparse(state, SCREENED, SAMPLES):
        return
    offs = first + tl.program_id(0) * TILE + tl.arange(0, TILE)
    offs_d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    inside = offs < n
    row = tl.load(side.order + offs, mask=inside, other=0)
    mask = inside[:, None] & (offs_d < DIM)[None, :]
    x = tl.load(side.x + row[:, None] * DIM + offs_d[None, :], mask=mask, other=0.0).to(tl.float32)
    unit = x * tl.load(side.inverse + offs, mask=inside, other=0.0)[:, None]
    at = tl.program_id(0).to(tl.int64) * DIM + offs_d
    tl.store(sums_ptr + at, tl.sum(unit, axis=0), mask=offs_d < DIM)


def way_of_patterns(dtype: torch.dtype, precision: str) -> str:
    """How `add_product` multiplies a pattern with rows of this dtype."""
    if dtype == torch.bfloat16:
        return "weights"
    if dtype == torch.float16:
        return "scaled"
    return "three parts" if precision == "highest" else "two parts"


@triton.jit
def add_product(acc, pattern, x, inverse, WAY: tl.constexpr, UPCAST: tl.constexpr):
    """Acc + pattern · (x scaled by inverse), for a pattern (m, k) of 0 and 1 and x (k, d)."""
    if WAY == "weights":
        weights = tl.where(pattern != 0, inverse[None, :], 0.0).to(x.dtype)
        if UPCAST:
            return tl.dot(weights.to(tl.float32), x.to(tl.float32), acc)
        return tl.dot(weights, x, acc)
    unit = x.to(tl.float32) * inverse[:, None]
    if WAY == "scaled":
        part = unit.to(x.dtype)
        if UPCAST:
            return tl.dot(pattern.to(tl.float32), part.to(tl.float32), acc)
        return tl.dot(pattern.to(x.dtype), part, acc)
    if UPCAST:
        return tl.dot(pattern.to(tl.float32), unit, acc)
    ones = pattern.to(tl.bfloat16)
    part = unit.to(tl.bfloat16)
    acc = tl.dot(ones, part, acc)
    rest = unit - part.to(tl.float32)
    part = rest.to(tl.bfloat16)
    acc = tl.dot(ones, part, acc)
    if WAY == "three parts":
        acc = tl.dot(ones, (rest - part.to(tl.float32)).to(tl.bfloat16), acc)
    return acc


@triton.jit(
    do_not_specialize=[
        "own0", "n", "other0", "m", "other_tiles", "words_a_row", "own_stride", "other_stride",
    ],
)  # fmt: skip
def patterns_kernel(
    own, own0, n,
    other, other_block_sums_ptr, other0, m, other_tiles,
    state,
    bits_ptr,  # (own tiles * TILE, words)
    words_a_row,
    directory_ptr, own_stride, other_stride,  # strides of entries per own tile and per other tile
    p_ptr,  # (n, DIM) float32, by row of the embeddings, added to
    q_ptr,
    DIM: tl.constexpr, TILE: tl.constexpr, BLOCK_D: tl.constexpr, LIST_MOST: tl.constexpr,
    WAY: tl.constexpr, UPCAST: tl.constexpr, SCREENED: tl.constexpr, SAMPLES: tl.constexpr,
):  # fmt: skip
    """P (program_id(2) = 0) or Q (1) of TILE rows and BLOCK_D columns of D, over a super-tile's columns."""
    if is_sparse(state, SCREENED, SAMPLES):
        return
    a = tl.program_id(0)
    offs_d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    positive = tl.program_id(2) == 0
    offs = tl.arange(0, TILE)
    words = tl.arange(0, TILE // 32)
    lane = tl.arange(0, 32)
    position = own0 + a * TILE + offs
    inside = position < n
    position = tl.minimum(position, n - 1)
    same_begin = tl.load(own.same_begin + position) - other0  # within the super-tile
    same_end = tl.load(own.same_end + position) - other0
    # The band of tiles that holds the block's classes.
    last_row = tl.minimum(own0 + a * TILE + TILE, n) - 1
    least = tl.load(own.same_begin + own0 + a * TILE) - other0
    most = tl.load(own.same_end + last_row) - other0
    band_begin = tl.minimum(tl.maximum(least, 0) // TILE, other_tiles)
    band_end = tl.minimum((tl.maximum(most, 0) + TILE - 1) // TILE, other_tiles)
    first, last = tl.where(positive, band_begin, 0), tl.where(positive, band_end, other_tiles)

    acc = tl.zeros((TILE, BLOCK_D), dtype=tl.float32)
    touched = 0
    own_rows = tl.minimum(n - own0 - a * TILE, TILE)
    for b in range(first, last):
        entry = tl.load(directory_ptr + a * own_stride + b * other_stride)
        count = tl.where(positive, hard_positives(entry), hard_negatives(entry))
        if is_decided(entry) & (count > LIST_MOST):
            touched = 1
            of_block = bits_ptr + a * TILE * words_a_row + b * (TILE // 32)
            other_rows = tl.minimum(m - other0 - b * TILE, TILE)
            whole = is_whole_less_a_list(hard_negatives(entry), own_rows * other_rows, LIST_MOST)
            if whole & (positive == 0):
                hard = tl.load(of_block + offs[:, None] * words_a_row + words[None, :])
                of_row = tl.sum(bits.count(hard), axis=1)
                sum_ptr = other_block_sums_ptr + b * DIM
                block_sum = tl.load(sum_ptr + offs_d, mask=offs_d < DIM, other=0.0)
                acc += tl.where(takes_whole(of_row, other_rows)[:, None], block_sum[None, :], 0.0)
            else:
                # One word of every row at a time: the pattern of 32 columns.
                for w in range(0, TILE // 32):
                    column = b * TILE + w * 32
                    hard = tl.load(of_block + offs * words_a_row + w)
                    if (b >= band_begin) & (b < band_end):  # elsewhere all pairs are of two classes
                        same = bits.between(same_begin - column, same_end - column)
                        hard = hard & tl.where(positive, same, ~same)
                    pattern = (hard[:, None] >> lane[None, :]) & 1
                    offs_n = other0 + column + lane
                    there = offs_n < m
                    row = tl.load(other.order + offs_n, mask=there, other=0)
                    x = tl.load(
                        other.x + row[:, None] * DIM + offs_d[None, :],
                        mask=there[:, None] & (offs_d < DIM)[None, :],
                        other=0.0,
                    )
                    inverse = tl.load(other.inverse + offs_n, mask=there, other=0.0)
                    acc = add_product(acc, pattern, x, inverse, WAY, UPCAST)
    if touched:
        row = tl.load(own.order + position)
        sums_ptr = q_ptr
        if positive:
            sums_ptr = p_ptr
        to = sums_ptr + row[:, None] * DIM + offs_d[None, :]
        mask = inside[:, None] & (offs_d < DIM)[None, :]
        tl.store(to, tl.load(to, mask=mask, other=0.0) + acc, mask=mask)
