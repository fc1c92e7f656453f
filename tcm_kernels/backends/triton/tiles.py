"""Tiles of a super-tile: the order in which programs take them, and the directory that says what each holds.

The directory has one int32 a tile. The tile's pairs stand in the bit maps, at a place that follows from its
own, so the directory only says how to read them:

    0                   nothing
    n                   n candidates, not yet decided
    DECIDED | p | n     hard pairs: n of two classes and p of one class

Of a decided tile, pairs of one sign are a list where they are few, and a pattern where they are not; where
all but a few pairs of the tile are hard negatives, they are the whole tile less a list.
"""

from __future__ import annotations

import triton
import triton.language as tl

from . import bits

TILE = 128  # edge of a tile; counts of its pairs fit into 15 bits
LIST_MOST = 64  # up to so many pairs of a tile are taken one by one (not yet measured on a GPU)
GROUP = tl.constexpr(8)  # rows of tiles taken together, so that their columns stay in the L2 cache

DECIDED = tl.constexpr(1 << 30)
SHIFT_POSITIVES = tl.constexpr(15)
COUNT = tl.constexpr((1 << 15) - 1)


@triton.jit
def tile_at(t, row_tiles, column_tiles):
    """Tile number t of a super-tile, as (row, column) of tiles."""
    in_group = GROUP * column_tiles
    first = t // in_group * GROUP
    rows = tl.minimum(row_tiles - first, GROUP)
    return first + t % in_group % rows, t % in_group // rows


@triton.jit
def of_one_class(offs_n, same_begin, same_end):
    """Which pairs of rows with columns offs_n are of one class: those in the row's range of positions."""
    return (offs_n[None, :] >= same_begin[:, None]) & (offs_n[None, :] < same_end[:, None])


@triton.jit
def pairs_of_word(hard, same_begin, same_end):
    """What a word of hard pairs adds to its tile's entry; [same_begin, same_end) are of the row's class."""
    same = bits.between(same_begin, same_end)
    return (bits.count(hard & same) << SHIFT_POSITIVES) | bits.count(hard & ~same)


@triton.jit
def decided(hard_pairs):
    """The entry of a decided tile, from the sum of pairs_of_word over its words."""
    return DECIDED | hard_pairs


@triton.jit
def is_decided(entry):
    """Whether a tile's bits are its hard pairs."""
    return (entry & DECIDED) != 0


@triton.jit
def hard_positives(entry):
    """Hard pairs of one class of a decided tile."""
    return (entry >> SHIFT_POSITIVES) & COUNT


@triton.jit
def hard_negatives(entry):
    """Hard pairs of two classes of a decided tile."""
    return entry & COUNT


@triton.jit
def is_list(count, LIST_MOST: tl.constexpr):
    """Whether so many pairs of one sign are taken one by one."""
    return (count > 0) & (count <= LIST_MOST)


@triton.jit
def is_whole_less_a_list(negatives, pairs, LIST_MOST: tl.constexpr):
    """Whether a tile of so many pairs is taken as a whole, less those that are not hard negatives."""
    return (negatives > LIST_MOST) & (negatives + LIST_MOST >= pairs)


@triton.jit
def takes_whole(hard, columns):
    """Whether a row with so many hard pairs takes part where its tile is taken as a whole.

    One with few is a list all the same: a sum of none is to be exactly 0.
    """
    return 2 * hard >= columns
