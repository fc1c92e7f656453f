"""Tiles of a super-tile: the order in which programs take them, and the directory of what their bits mean.

The directory has one int32 per tile. The address of a tile's bits follows from its place in the super-tile;
the entry says what they mean:

    0                       nothing
    n                       n candidates, not yet decided
    DECIDED | p << 15 | n   hard pairs: p of one class and n of two classes

The hard pairs of one sign of a decided tile are a list, up to LIST_MOST of them, or else a pattern. Where all
but at most LIST_MOST pairs of the tile are hard negatives, these are the whole tile less a list.
"""

from __future__ import annotations

import triton
import triton.language as tl

from . import bits

TILE = 128  # edge of a tile; its numbers of pairs fit into 15 bits
GROUP = tl.constexpr(8)  # rows of tiles taken together, so that their columns stay in the L2 cache

DECIDED = tl.constexpr(1 << 30)
SHIFT_POSITIVES = tl.constexpr(15)
COUNT = tl.constexpr((1 << 15) - 1)


@triton.jit
def number_of_tiles(row_tiles, column_tiles, DIAGONAL: tl.constexpr):
    """Tiles of a super-tile that are visited: on the diagonal, those on and above it."""
    if DIAGONAL:
        return row_tiles * (row_tiles + 1) // 2
    return row_tiles * column_tiles


@triton.jit
def tile_at(t, row_tiles, column_tiles, DIAGONAL: tl.constexpr):
    """Visited tile number t as (row, column): GROUP rows of tiles at a time, these column by column."""
    if DIAGONAL:
        return _tile_above(t, row_tiles)
    in_group = GROUP * column_tiles
    first = t // in_group * GROUP
    rows = tl.minimum(row_tiles - first, GROUP)
    return first + t % in_group % rows, t % in_group // rows


@triton.jit
def _above_group(g, edge):
    """Visited tiles of all groups before group g of a triangle with `edge` tiles along its edge."""
    return g * (GROUP * edge + GROUP // 2 - GROUP * GROUP // 2 * g)


@triton.jit
def _tile_above(t, edge):
    """tile_at on the diagonal. A group begins with a triangle, whose columns have 1 to GROUP tiles."""
    # _above_group(g) = t, solved for g; rounding can miss g by one, which integers correct below.
    b = 1.0 * GROUP * edge + GROUP // 2
    g = (b - tl.sqrt(tl.maximum(b * b - 2.0 * GROUP * GROUP * t, 0.0))) / (GROUP * GROUP)
    groups = (edge + GROUP - 1) // GROUP
    g = tl.minimum(g.to(tl.int32), groups - 1)
    g = tl.where(_above_group(g, edge) > t, g - 1, g)
    g = tl.where((g + 1 < groups) & (_above_group(g + 1, edge) <= t), g + 1, g)
    first, in_group = g * GROUP, t - _above_group(g, edge)
    rows = tl.minimum(edge - first, GROUP)
    behind = in_group - rows * (rows + 1) // 2  # number after the group's triangle, if >= 0
    # Column c of the triangle begins at its tile c (c + 1) / 2; the square root need not be exact.
    c = ((tl.sqrt(8.0 * in_group + 1.0) - 0.99) * 0.5).to(tl.int32)
    row = tl.where(behind < 0, in_group - c * (c + 1) // 2, behind % rows)
    return first + row, first + tl.where(behind < 0, c, rows + behind // rows)


@triton.jit
def of_one_class(offs_n, same_begin, same_end):
    """Which pairs with columns offs_n are of one class: those in the row's range [same_begin, same_end)."""
    return (offs_n[None, :] >= same_begin[:, None]) & (offs_n[None, :] < same_end[:, None])


@triton.jit
def pairs_of_word(hard, same_begin, same_end):
    """A word's hard positives << 15 | hard negatives; [same_begin, same_end) are of the row's class."""
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
    """Whether `count` pairs of one sign are a list, whose pairs are taken one by one."""
    return (count > 0) & (count <= LIST_MOST)


@triton.jit
def is_whole_less_a_list(negatives, pairs, LIST_MOST: tl.constexpr):
    """Whether a tile of `pairs` pairs is added as a whole, less those that are not hard negatives."""
    return (negatives > LIST_MOST) & (negatives + LIST_MOST >= pairs)


@triton.jit
def takes_whole(hard, columns):
    """Whether a row with `hard` hard pairs gets the block sum, in a tile that is added as a whole.

    A row with fewer is a list instead: a row without hard pairs must sum to exactly 0.
    """
    return 2 * hard >= columns
