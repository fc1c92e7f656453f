"""Tiles in full precision: similarities on matrix units, every pair decided, its penalty summed.

It takes the dense tiles, which have more candidates than a list; or all tiles, where the sample had too many
candidates or the matrix is not screened. Work: 2 TILE² D flops per tile on the raw operands, accumulated in
float32; 1/norm is applied to the accumulator. Float32 embeddings are multiplied as three TF32 products where
torch asks for "highest", else as one. Floor for every tile of the upper half: 0.5 U for bfloat16. Not yet
measured.
"""

from __future__ import annotations

import triton
import triton.language as tl

from . import bits, totals
from .rules import is_hard, penalty, thresholds
from .screen import is_sparse, is_useless
from .tiles import (
    decided,
    hard_negatives,
    hard_positives,
    number_of_tiles,
    of_one_class,
    pairs_of_word,
    tile_at,
)


@triton.jit
def similarities(
    rows, offs_m, n, columns, offs_n, m,
    DIM: tl.constexpr, TILE: tl.constexpr, BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """(TILE, TILE) float32 similarities of positions offs_m and offs_n, NaN beyond n and m."""
    offs_k = tl.arange(0, BLOCK_K)
    row = tl.load(rows.order + offs_m, mask=offs_m < n, other=0)
    column = tl.load(columns.order + offs_n, mask=offs_n < m, other=0)
    x_ptr = rows.x + row[:, None] * DIM + offs_k[None, :]
    y_ptr = columns.x + column[None, :] * DIM + offs_k[:, None]
    acc = tl.zeros((TILE, TILE), dtype=tl.float32)
    for k in range(0, DIM, BLOCK_K):
        if DIM % BLOCK_K == 0:
            a, b = tl.load(x_ptr + k), tl.load(y_ptr + k)
        else:
            inside = offs_k < DIM - k
            a = tl.load(x_ptr + k, mask=inside[None, :], other=0.0)
            b = tl.load(y_ptr + k, mask=inside[:, None], other=0.0)
        if UPCAST:
            a, b = a.to(tl.float32), b.to(tl.float32)
        acc = tl.dot(a, b, acc, input_precision=PRECISION)
    inverse = tl.load(rows.inverse + offs_m, mask=offs_m < n, other=float("nan"))
    column_inverse = tl.load(columns.inverse + offs_n, mask=offs_n < m, other=float("nan"))
    return acc * (inverse[:, None] * column_inverse[None, :])


@triton.jit(
    do_not_specialize=[
        "n", "m", "row0", "column0", "row_tiles", "column_tiles", "column_words", "row_words", "weight",
    ],
)  # fmt: skip
def dense_tiles_kernel(
    rows, n,
    columns, m,
    margins_ptr, state,
    row0, column0, row_tiles, column_tiles,
    row_bits_ptr, column_bits_ptr, column_words, row_words, directory_ptr,  # as for the sweep
    weight,  # ordered pairs per pair of a tile; 1 in tiles on the diagonal
    sums_ptr,  # (programs, 2) float64, added to
    counts_ptr,  # (programs, 2) int64, added to
    DIM: tl.constexpr, TILE: tl.constexpr, BLOCK_K: tl.constexpr, DIAGONAL: tl.constexpr,
    BY_COLUMN: tl.constexpr,
    SCREENED: tl.constexpr, LIST_MOST: tl.constexpr, SAMPLES: tl.constexpr,
    PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Decides the dense tiles of a super-tile, or all tiles where the sweep has not run."""
    if is_sparse(state, SCREENED, SAMPLES):
        return
    if SCREENED:
        every = is_useless(state, SAMPLES)
    threshold_plus, threshold_minus = thresholds(margins_ptr)
    offs = tl.arange(0, TILE)
    program = tl.program_id(0)
    sum_positive, sum_negative = tl.zeros((), tl.float64), tl.zeros((), tl.float64)
    all_positives, all_negatives = tl.zeros((), tl.int64), tl.zeros((), tl.int64)
    for t in range(program, number_of_tiles(row_tiles, column_tiles, DIAGONAL), tl.num_programs(0)):
        a, b = tile_at(t, row_tiles, column_tiles, DIAGONAL)
        wanted = a >= 0
        if SCREENED:
            if wanted & (every == 0):
                wanted = tl.load(directory_ptr + a * column_tiles + b) > LIST_MOST
        if wanted:
            first_m, first_n = row0 + a * TILE, column0 + b * TILE
            offs_m, offs_n = first_m + offs, first_n + offs
            s = similarities(rows, offs_m, n, columns, offs_n, m, DIM, TILE, BLOCK_K, PRECISION, UPCAST)
            position = tl.minimum(offs_m, n - 1)
            same_begin, same_end = tl.load(rows.same_begin + position), tl.load(rows.same_end + position)
            same = of_one_class(offs_n, same_begin, same_end)
            s = tl.where(offs_n[None, :] == tl.load(rows.self_index + position)[:, None], float("nan"), s)
            hard = is_hard(s, same, threshold_plus, threshold_minus)
            beyond = penalty(s, same, threshold_plus, threshold_minus)
            pulls = totals.of_tile(tl.where(same, beyond, 0.0))
            pushes = totals.of_tile(tl.where(same, 0.0, beyond))
            hard_pairs = tl.zeros((TILE,), tl.int32)
            by_row = row_bits_ptr + a * TILE * column_words + b * (TILE // 32)
            for w in tl.static_range(TILE // 32):
                of_row = bits.word_of_rows(hard, w, TILE)
                tl.store(by_row + offs * column_words + w, of_row)
                hard_pairs += pairs_of_word(
                    of_row, same_begin - first_n - w * 32, same_end - first_n - w * 32
                )
            entry = decided(totals.of_vector(hard_pairs))
            times = weight
            if DIAGONAL:
                times = tl.where(a == b, 1, weight)
                tl.store(directory_ptr + b * column_tiles + a, entry)
            tl.store(directory_ptr + a * column_tiles + b, entry)
            sum_positive += pulls.to(tl.float64) * times
            sum_negative += pushes.to(tl.float64) * times
            all_positives += hard_positives(entry).to(tl.int64) * times
            all_negatives += hard_negatives(entry).to(tl.int64) * times
            if BY_COLUMN:
                by_column = column_bits_ptr + b * TILE * row_words + a * (TILE // 32)
                # A mask takes fewer registers than a branch here.
                written = tl.where((a != b) | (not DIAGONAL), TILE, 0)
                for w in tl.static_range(TILE // 32):
                    of_column = bits.word_of_columns(hard, w, TILE)
                    tl.store(by_column + offs * row_words + w, of_column, mask=offs < written)
    totals.add_to(sums_ptr, program, sum_positive, sum_negative)
    totals.add_to(counts_ptr, program, all_positives, all_negatives)
