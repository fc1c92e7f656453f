"""Screen: the int8 sweep. Every pair of a super-tile is proven harmless or becomes a candidate.

Work: N² D int8 operations for the upper half of an N x N matrix, and one comparison per product. Codes are
read from the L2 cache, 2 TILE K bytes per tile. Floor on an H200: half the time of the upper half in
bfloat16, so 0.25 U for bfloat16 embeddings. Not yet measured.

Each pair is compared with its own bound, at no extra cost. Codes of a tile share one scale (prepare.py), so
in the product of two tiles the bound is a number per column plus a number per row: the column's offset is
added to the product, and the sum is compared with the row's threshold. At N = 8,192 this leaves 1.1 to 2
times the candidates of codes with one scale per row.

Programs are persistent and take tiles in a fixed order, in one loop over tiles and steps along D: the next
tile's codes are loaded while a tile is evaluated. A tile with candidates writes them as bits by row, those of
a list by column, too, and their number into the directory. Which pairs are of one class, outside the matrix,
or a sample with itself is a range of columns in each row, hence of bits in its words; masks of the tile's
shape take 40 registers more. A fixed sample of tiles is screened first (the probe): where it has more
candidates than are worth deciding one by one, the sweep does not run.

As compiled by Triton 3.7 for D = 512 (benchmarks.sass; predictions): nothing spills on sm_80 and sm_90. A
tile without candidates takes 1,417 instructions per warp, 221 of them for each step, and six barriers after
its products. The products of a tile take 2,048 clocks on sm_90. The L2 cache may take 3,869, 0.47 U, if its
rate is what others have measured. The order of the loop keeps registers free: offsets before the products
spill 168 bytes, `tl.range(flatten=True)` spills 328.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from . import bits
from .rules import column_offset, errors_at_most, inverse_scale, row_threshold, thresholds
from .tiles import number_of_tiles, of_one_class, tile_at

NEVER = tl.constexpr(2147483647)  # a threshold that no product with its offset reaches


class ScreenState(NamedTuple):
    """What screening has found: from it every later kernel sees, on the device, whether it has work.

    Attributes:
        samples: (SAMPLES,) int32, candidates of two classes in each sampled tile.
        max_candidates: with more of them in the sample, screening is useless.
        has_dense_tile: int32, set where a tile of the super-tile has more candidates than a list.
    """

    samples: Tensor
    max_candidates: int
    has_dense_tile: Tensor


@triton.jit
def add_products(
    acc, rows, first_m, columns, first_n, step,
    TILE: tl.constexpr, BLOCK_K: tl.constexpr, CODE_DIM: tl.constexpr,
):  # fmt: skip
    """Acc (TILE, TILE) int32 plus BLOCK_K terms of the products of codes, those of padding rows included.

    Codes have whole tiles of rows, and CODE_DIM is a constant, so that addresses are a scalar plus constants.
    """
    offs, offs_k = tl.arange(0, TILE), tl.arange(0, BLOCK_K)
    row_code = rows.code + (first_m.to(tl.int64) * CODE_DIM + step * BLOCK_K)
    column_code = columns.code + (first_n.to(tl.int64) * CODE_DIM + step * BLOCK_K)
    of_rows = tl.load(row_code + offs[:, None] * CODE_DIM + offs_k[None, :])
    of_columns = tl.load(column_code + offs[None, :] * CODE_DIM + offs_k[:, None])
    return tl.dot(of_rows, of_columns, acc, out_dtype=tl.int32)


@triton.jit
def offsets_and_least(
    rows, first_m, n, columns, first_n, m, threshold_minus, TILE: tl.constexpr, DIM: tl.constexpr
):
    """(TILE,) offsets, added to the products of each column, and (TILE,) thresholds of the rows.

    A pair of two classes is harmless where product plus offset is below the threshold. Rows beyond n have the
    threshold NEVER; columns beyond m may reach a threshold, and are masked later.
    """
    offs = tl.arange(0, TILE)
    row_scale = tl.load(rows.scale + first_m // TILE)
    column_scale = tl.load(columns.scale + first_n // TILE)
    inverse = inverse_scale(row_scale, column_scale)
    column_error = tl.load(columns.error + first_n + offs, mask=first_n + offs < m, other=0.0)
    row_error = tl.load(rows.error + first_m + offs, mask=first_m + offs < n, other=0.0)
    least = row_threshold(row_error, errors_at_most(column_scale, DIM), inverse, threshold_minus)
    return column_offset(column_error, inverse), tl.where(first_m + offs < n, least, NEVER)


@triton.jit
def is_useless(state, SAMPLES: tl.constexpr):
    """Whether the sample has more than `max_candidates` candidates."""
    return tl.sum(tl.load(state.samples + tl.arange(0, SAMPLES)), axis=0) > state.max_candidates


@triton.jit
def is_sparse(state, SCREENED: tl.constexpr, SAMPLES: tl.constexpr):
    """Whether the sweep has run and found no dense tile, to be decided in full precision, in a super-tile."""
    sparse = False
    if SCREENED:
        sparse = (is_useless(state, SAMPLES) == 0) & (tl.load(state.has_dense_tile) == 0)
    return sparse


@triton.jit
def candidates(word, first, same_begin, same_end, self_index, others):
    """The candidates of one word per row; `first` is the position of its first column, of `others` in all.

    Pairs of one class are all candidates: the sweep proves only pairs of two classes harmless.
    """
    same = bits.between(same_begin - first, same_end - first)
    same_sample = bits.between(self_index - first, self_index + 1 - first)
    return (word | same) & bits.below(others - first) & ~same_sample


@triton.jit(do_not_specialize=["n", "m", "row_tiles", "column_tiles"])
def probe_kernel(
    rows, n,  # CodedSide
    columns, m,
    margins_ptr, row_tiles, column_tiles,
    samples_ptr,  # (SAMPLES,) int32, candidates of two classes in each sampled tile
    TILE: tl.constexpr, BLOCK_K: tl.constexpr, CODE_DIM: tl.constexpr, DIM: tl.constexpr,
    SAMPLES: tl.constexpr,
):  # fmt: skip
    """Candidates of two classes in SAMPLES tiles spread over the matrix."""
    _, threshold_minus = thresholds(margins_ptr)
    p = tl.program_id(0)
    # Rows are evenly spaced, columns in steps of the golden ratio. Pairs of one class do not count: they fill
    # a band that may be overrepresented in the sample, and whose tiles may be dense anyway.
    a = p * row_tiles // SAMPLES
    b = (p * 0.6180339887 - tl.floor(p * 0.6180339887)) * column_tiles
    first_m, first_n = a * TILE, tl.minimum(b.to(tl.int32), column_tiles - 1) * TILE
    acc = tl.zeros((TILE, TILE), tl.int32)
    for step in range(CODE_DIM // BLOCK_K):
        acc = add_products(acc, rows, first_m, columns, first_n, step, TILE, BLOCK_K, CODE_DIM)
    offset, least = offsets_and_least(rows, first_m, n, columns, first_n, m, threshold_minus, TILE, DIM)
    position = tl.minimum(first_m + tl.arange(0, TILE), n - 1)
    same_begin, same_end = tl.load(rows.same_begin + position), tl.load(rows.same_end + position)
    offs_n = first_n + tl.arange(0, TILE)
    of_two_classes = (offs_n < m)[None, :] & (of_one_class(offs_n, same_begin, same_end) == 0)
    left = (acc + offset[None, :] >= least[:, None]) & of_two_classes
    tl.store(samples_ptr + p, tl.sum(tl.sum(left.to(tl.int32), axis=1), axis=0))


@triton.jit(
    do_not_specialize=[
        "n", "m", "row0", "column0", "row_tiles", "column_tiles", "column_words", "row_words",
    ],
)  # fmt: skip
def sweep_kernel(
    rows, n,
    columns, m,
    margins_ptr,
    state,  # ScreenState
    row0, column0, row_tiles, column_tiles,  # the super-tile: first positions, and tiles
    row_bits_ptr,  # (row_tiles * TILE, column_words)
    column_bits_ptr,  # (column_tiles * TILE, row_words), written BY_COLUMN; row_bits itself on the diagonal
    column_words, row_words,
    directory_ptr,  # (row_tiles, column_tiles) int32
    TILE: tl.constexpr, BLOCK_K: tl.constexpr, CODE_DIM: tl.constexpr, DIM: tl.constexpr,
    DIAGONAL: tl.constexpr, BY_COLUMN: tl.constexpr, LIST_MOST: tl.constexpr, SAMPLES: tl.constexpr,
):  # fmt: skip
    """Screens the tiles of a super-tile; on the diagonal, those on and above it."""
    if is_useless(state, SAMPLES):
        return
    _, threshold_minus = thresholds(margins_ptr)
    offs = tl.arange(0, TILE)
    tl.static_assert(CODE_DIM > 0 and CODE_DIM % BLOCK_K == 0, "codes are read in whole blocks")
    STEPS: tl.constexpr = CODE_DIM // BLOCK_K  # noqa: N806
    program, programs = tl.program_id(0), tl.num_programs(0)
    visited = number_of_tiles(row_tiles, column_tiles, DIAGONAL)
    acc = tl.zeros((TILE, TILE), tl.int32)
    # One loop over tiles and steps, so that the next tile's codes are loaded while a tile is evaluated.
    for i in range((visited - program + programs - 1) // programs * STEPS):
        a, b = tile_at(program + i // STEPS * programs, row_tiles, column_tiles, DIAGONAL)
        first_m, first_n = row0 + a * TILE, column0 + b * TILE
        acc = add_products(acc, rows, first_m, columns, first_n, i % STEPS, TILE, BLOCK_K, CODE_DIM)
        if i % STEPS == STEPS - 1:
            offset, least = offsets_and_least(
                rows, first_m, n, columns, first_n, m, threshold_minus, TILE, DIM
            )
            product = acc + offset[None, :]
            acc = tl.zeros((TILE, TILE), tl.int32)
            # Rows are sorted by class, so only tiles in a band can hold pairs of one class.
            last_m = tl.minimum(first_m + TILE, n) - 1
            in_band = (tl.load(rows.same_begin + first_m) < first_n + TILE) & (
                tl.load(rows.same_end + last_m) > first_n
            )
            count = 0
            some = tl.max((tl.max(product, axis=1) >= least).to(tl.int32), axis=0)
            if in_band | (some > 0):
                left = product >= least[:, None]
                position = tl.minimum(first_m + offs, n - 1)
                begin, end = tl.load(rows.same_begin + position), tl.load(rows.same_end + position)
                self_index = tl.load(rows.self_index + position)
                to = row_bits_ptr + (a * TILE + offs) * column_words + b * (TILE // bits.WORD)
                in_row = tl.zeros((TILE,), tl.int32)
                for w in tl.static_range(TILE // bits.WORD):
                    word = bits.word_of_rows(left, w, TILE)
                    word = candidates(word, first_n + w * bits.WORD, begin, end, self_index, m)
                    word = tl.where(first_m + offs < n, word, 0)
                    tl.store(to + w, word)
                    in_row += bits.count(word)
                count = tl.sum(in_row, axis=0)
                if count > LIST_MOST:
                    tl.atomic_max(state.has_dense_tile, 1)
                if BY_COLUMN:
                    if ((a != b) | (not DIAGONAL)) & (count > 0) & (count <= LIST_MOST):
                        position = tl.minimum(first_n + offs, m - 1)
                        begin, end = (
                            tl.load(columns.same_begin + position),
                            tl.load(columns.same_end + position),
                        )
                        self_index = tl.load(columns.self_index + position)
                        to = column_bits_ptr + (b * TILE + offs) * row_words + a * (TILE // bits.WORD)
                        for w in tl.static_range(TILE // bits.WORD):
                            word = bits.word_of_columns(left, w, TILE)
                            word = candidates(word, first_m + w * bits.WORD, begin, end, self_index, n)
                            tl.store(to + w, tl.where(first_n + offs < m, word, 0))
            tl.store(directory_ptr + a * column_tiles + b, count)
            if DIAGONAL:
                tl.store(directory_ptr + b * column_tiles + a, count)
