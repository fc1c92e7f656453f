"""Accumulate, few hard pairs: row by row, one partner after the other. Candidates are decided here, too.

A program owns a row. It reads the row's directory entries, 32 tiles at a time, and walks only the words of
tiles that have an entry: a ninth of them for the benchmark's rows at density 1e-3. One read of a partner's
embedding gives the similarity of a candidate, the decision, its penalty and its share of P or Q. Bytes: D
elements per candidate and direction, from the L2 cache; at density 1e-3, N = 32,768, D = 512 in bfloat16 that
is 1 GB. A program has one warp for D up to 512 and more for longer rows; with many programs on a
multiprocessor some read while others add. Not yet measured.

Of decided tiles it adds the hard pairs of one sign that are a list. Where a tile was added as a whole, it
subtracts the pairs that are not hard negatives; rows that did not get the block sum add their hard negatives.
"""

from __future__ import annotations

import triton
import triton.language as tl

from . import bits, totals
from .rules import is_hard, penalty, thresholds
from .tiles import (
    hard_negatives,
    hard_positives,
    is_decided,
    is_list,
    is_whole_less_a_list,
    takes_whole,
)

LANES = tl.constexpr(32)  # tiles, and then words of a row, that are processed together


@triton.jit
def filled_tiles(entries_ptr, first, tiles, stride):
    """A word with a bit for each of LANES tiles from `first` on, set where the tile has an entry."""
    tile = first + tl.arange(0, LANES)
    entry = tl.load(entries_ptr + tile * stride, mask=tile < tiles, other=0)
    return tl.sum((entry != 0).to(tl.int32) << tl.arange(0, LANES), axis=0)


@triton.jit
def words_to_take(
    row_bits_ptr, word, inside, entries_ptr, other_stride, own_rows, others, same_begin, same_end,
    TILE: tl.constexpr, LIST_MOST: tl.constexpr,
):  # fmt: skip
    """Which pairs of LANES words of a row to take; the words are those of whole tiles, where `inside`.

    Returns for each word the pairs to take, the row's bits as stored, whether the pairs are to be subtracted
    (the row has got the tile's block sum), and the tile's entry.
    """
    WORDS: tl.constexpr = TILE // 32  # noqa: N806
    entry = tl.load(entries_ptr + word // WORDS * other_stride, mask=inside, other=0)
    hard = tl.load(row_bits_ptr + word, mask=inside, other=0)
    same = bits.between(same_begin - word * 32, same_end - word * 32)
    there = bits.below(others - word * 32)

    negatives = hard_negatives(entry)
    columns = tl.minimum(others - word // WORDS * TILE, TILE)
    whole = is_decided(entry) & is_whole_less_a_list(negatives, own_rows * columns, LIST_MOST)
    in_tile = tl.sum(tl.reshape(bits.count(hard), (LANES // WORDS, WORDS)), axis=1)
    in_tile = tl.reshape(tl.broadcast_to(in_tile[:, None], (LANES // WORDS, WORDS)), (LANES,))
    less = whole & takes_whole(in_tile, columns)

    all_pushes = is_list(negatives, LIST_MOST) | whole
    take = tl.where(all_pushes, hard & ~same, 0)
    take |= tl.where(is_list(hard_positives(entry), LIST_MOST), hard & same, 0)
    take = tl.where(less, ~(hard & ~same) & there, take)
    return tl.where(is_decided(entry), take, hard), hard, less, entry


@triton.jit(
    do_not_specialize=[
        "own0", "own_rows", "other0", "others", "words_a_row", "own_stride", "other_stride", "weight",
    ]
)  # fmt: skip
def lists_kernel(
    own, own0, own_rows,  # a side; first position and rows of the super-tile
    other, other0, others,
    margins_ptr,
    bits_ptr, words_a_row,
    directory_ptr, own_stride, other_stride,
    p_ptr, q_ptr,  # (n, DIM) float32, by row of the embeddings, added to
    weight,  # ordered pairs per candidate; 0 where sums are not wanted
    sums_ptr,  # (n, 2) float64 by position, added to
    counts_ptr,  # (n, 2) int64 by position, added to
    DIM: tl.constexpr, TILE: tl.constexpr, BLOCK_D: tl.constexpr, LIST_MOST: tl.constexpr,
    NEED_GRAD: tl.constexpr,
):  # fmt: skip
    """Candidates and listed pairs of one row of a super-tile."""
    in_super = tl.program_id(0)
    position = own0 + in_super
    threshold_plus, threshold_minus = thresholds(margins_ptr)
    offs_d = tl.arange(0, BLOCK_D)
    in_row = offs_d < DIM
    own_row = tl.load(own.order + position)
    own_x = tl.load(own.x + own_row * DIM + offs_d, mask=in_row, other=0.0).to(tl.float32)
    own_inverse = tl.load(own.inverse + position)
    same_begin = tl.load(own.same_begin + position) - other0
    same_end = tl.load(own.same_end + position) - other0
    tile = in_super // TILE
    rows_of_tile = tl.minimum(own_rows - tile * TILE, TILE)
    entries_ptr = directory_ptr + tile * own_stride
    row_bits_ptr = bits_ptr + in_super * words_a_row
    lane = tl.arange(0, LANES)
    WORDS: tl.constexpr = TILE // 32  # noqa: N806
    other_tiles = words_a_row // WORDS

    p, q = tl.zeros((BLOCK_D,), tl.float32), tl.zeros((BLOCK_D,), tl.float32)
    pulls, pushes = tl.zeros((), tl.float64), tl.zeros((), tl.float64)
    positives, negatives = tl.zeros((), tl.int64), tl.zeros((), tl.int64)
    touched_p, touched_q = tl.zeros((), tl.int32), tl.zeros((), tl.int32)
    for first_tile in range(0, other_tiles, LANES):
        filled = filled_tiles(entries_ptr, first_tile, other_tiles, other_stride)
        for taken in range(0, bits.count(filled), LANES // WORDS):
            number = taken + lane // WORDS  # index among the tiles that have an entry
            word = (first_tile + bits.position_of(filled, number)) * WORDS + lane % WORDS
            words, hard_words, less, entry = words_to_take(
                row_bits_ptr, word, number < bits.count(filled), entries_ptr, other_stride, rows_of_tile,
                others, same_begin, same_end, TILE, LIST_MOST,
            )  # fmt: skip
            while tl.max((words != 0).to(tl.int32), axis=0) > 0:
                first = tl.min(tl.where(words != 0, lane, LANES), axis=0)
                at_first = lane == first
                bits_left = tl.sum(tl.where(at_first, words, 0), axis=0)
                lowest = bits_left & -bits_left
                words = tl.where(at_first, words ^ lowest, words)
                was_set = (tl.sum(tl.where(at_first, hard_words, 0), axis=0) & lowest) != 0
                of_tile = tl.sum(tl.where(at_first, entry, 0), axis=0)
                too_much = tl.sum(tl.where(at_first & less, 1, 0), axis=0) != 0

                partner = tl.sum(tl.where(at_first, word, 0), axis=0) * 32 + bits.count(lowest - 1)
                same = (partner >= same_begin) & (partner < same_end)
                inverse = tl.load(other.inverse + other0 + partner)
                row = tl.load(other.order + other0 + partner)
                x = tl.load(other.x + row * DIM + offs_d, mask=in_row, other=0.0).to(tl.float32)
                times_p = (same & was_set).to(tl.float32)
                times_q = tl.where(too_much, -1.0, tl.where(same, 0.0, 1.0))
                if is_decided(of_tile) == 0:
                    s = tl.sum(own_x * x, axis=0) * (own_inverse * inverse)
                    hard = is_hard(s, same, threshold_plus, threshold_minus)
                    times_p = (hard & same).to(tl.float32)
                    times_q = (hard & (same == 0)).to(tl.float32)
                    beyond = penalty(s, same, threshold_plus, threshold_minus)
                    pulls += tl.where(same, beyond, 0.0).to(tl.float64)
                    pushes += tl.where(same, 0.0, beyond).to(tl.float64)
                    positives += (hard & same).to(tl.int64)
                    negatives += (hard & (same == 0)).to(tl.int64)
                if NEED_GRAD:
                    unit = x * inverse
                    p += times_p * unit
                    q += times_q * unit
                    touched_p |= (times_p != 0).to(tl.int32)
                    touched_q |= (times_q != 0).to(tl.int32)
    if NEED_GRAD:
        to = own_row * DIM + offs_d
        if touched_p != 0:
            tl.store(p_ptr + to, tl.load(p_ptr + to, mask=in_row, other=0.0) + p, mask=in_row)
        if touched_q != 0:
            tl.store(q_ptr + to, tl.load(q_ptr + to, mask=in_row, other=0.0) + q, mask=in_row)
    if weight * (positives + negatives) > 0:
        at = position.to(tl.int64)
        totals.add_to(sums_ptr, at, pulls * weight, pushes * weight)
        totals.add_to(counts_ptr, at, positives * weight, negatives * weight)
