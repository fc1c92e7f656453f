"""How a similarity matrix is processed: by small.py, or in super-tiles, which are screened or not.

A super-tile is as much of the matrix as the pool has bits for, one per pair and direction: 16,384 rows and
columns in 64 MiB. A smaller pool means more super-tiles, hence more launches and more passes over P and Q,
with the same result.
"""

from __future__ import annotations

from typing import NamedTuple

from ..gpu.settings import asked_screening, pool_bytes
from . import small, tiles
from .rules import LARGEST_SCREENED_DIM

SCREEN_FROM = 2048 * 2048  # pairs; below, the sweep saves less than its launches cost (not yet measured)
SUPER_TILES = (2, 1024)  # fewest and most tiles along a super-tile, whatever the pool


def super_tile_tiles() -> int:
    """Tiles along the edge of a super-tile, for which the pool has two bits per pair."""
    fewest, most = SUPER_TILES
    return min(most, max(fewest, int((pool_bytes() * 4) ** 0.5) // tiles.TILE))


def is_small(rows: int, columns: int, row_bytes: int) -> bool:
    """Whether small.py takes the matrix; not where TCM_KERNELS_GPU_SCREENING asks for a screening."""
    return not asked_screening() and small.takes(rows, columns, row_bytes)


def screens(rows: int, columns: int, dim: int) -> bool:
    """Whether a matrix of this size is screened."""
    asked = asked_screening()
    worth_it = asked == "int8" if asked else rows * columns >= SCREEN_FROM
    return worth_it and 0 < dim <= LARGEST_SCREENED_DIM


class SuperTile(NamedTuple):
    """A part of the matrix: the first tile and the number of tiles on each side."""

    row: int
    rows: int
    column: int
    columns: int
    diagonal: bool  # of the self case: only tiles on and above its diagonal are visited


def super_tiles(row_tiles: int, column_tiles: int, edge: int, *, is_self: bool) -> list[SuperTile]:
    """The matrix in super-tiles of up to edge x edge tiles; in the self case its upper half."""
    return [
        SuperTile(i, min(edge, row_tiles - i), j, min(edge, column_tiles - j), is_self and i == j)
        for i in range(0, row_tiles, edge)
        for j in range(i if is_self else 0, column_tiles, edge)
    ]
