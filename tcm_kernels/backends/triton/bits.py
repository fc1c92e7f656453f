"""Sets of pairs as bits of 32-bit words."""

from __future__ import annotations

import triton
import triton.language as tl

WORD = tl.constexpr(32)


@triton.jit
def word_of_rows(mask, w: tl.constexpr, TILE: tl.constexpr):
    """Columns [32 w, 32 w + 32) of a (TILE, TILE) mask as one word per row.

    A sum along rows keeps the register layout of a product's accumulator; a reshape to a third dimension
    of words would not.
    """
    offs = tl.arange(0, TILE)
    bit = mask.to(tl.int32) << (offs % WORD)[None, :]
    return tl.sum(tl.where((offs // WORD == w)[None, :], bit, 0), axis=1)


@triton.jit
def word_of_columns(mask, w: tl.constexpr, TILE: tl.constexpr):
    """Rows [32 w, 32 w + 32) of a (TILE, TILE) mask as one word per column."""
    offs = tl.arange(0, TILE)
    bit = mask.to(tl.int32) << (offs % WORD)[:, None]
    return tl.sum(tl.where((offs // WORD == w)[:, None], bit, 0), axis=0)


@triton.jit
def count(words):
    """How many bits of each word are set, in the form that LLVM compiles to one instruction."""
    v = words.to(tl.uint32, bitcast=True)
    v = v - ((v >> 1) & 0x55555555)
    v = (v & 0x33333333) + ((v >> 2) & 0x33333333)
    v = (v + (v >> 4)) & 0x0F0F0F0F
    return ((v * 0x01010101) >> 24).to(tl.int32)


@triton.jit
def position_of(word, number):
    """Position of the set bit of a word that has `number` set bits below it, if one exists."""
    position = tl.zeros_like(number)
    for step in tl.static_range(5):  # binary search: is it in the lower half?
        half = 16 >> step
        in_half = count((word >> position) & ((1 << half) - 1))
        above = number >= in_half
        number = tl.where(above, number - in_half, number)
        position = tl.where(above, position + half, position)
    return position


@triton.jit
def below(columns):
    """Words with the lowest `columns` bits set: none for 0 or less, all for 32 or more."""
    some = (1 << tl.minimum(tl.maximum(columns, 0), 31)) - 1
    return tl.where(columns >= WORD, -1, some)


@triton.jit
def between(begin, end):
    """Words whose bits at columns [begin, end) are set."""
    return below(end) & ~below(begin)
