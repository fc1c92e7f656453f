"""The plan of a forward on a GPU, for both backends: what is screened, and in which super-tiles.

A super-tile is as much of the matrix as the pool has bits for, one per pair and direction: 16,384 rows and
columns in 64 MiB. A smaller pool means more super-tiles, hence more launches and more passes over P and Q,
with the same result. A plan follows from shapes, settings and the machine, never from data.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from .settings import asked_screening, pool_bytes

# None of these has been measured on a GPU yet.
SCREEN_FROM = 2048 * 2048  # pairs; below, the sweep saves less than its launches cost
LIST_MOST = 64  # most pairs of a tile that are taken one by one
SAMPLES = 32  # tiles of the probe
USELESS_FROM = 1.0 / 256  # largest share of candidates in these with which the sweep runs: LIST_MOST per tile
PROGRAMS_PER_MULTIPROCESSOR = 2

SUPER_TILES = (2, 1024)  # fewest and most tiles along a super-tile, whatever the pool
LARGEST_SCREENED_DIM = 32768  # up to it, products of codes stay below 2^30, and fit int32 with an offset


class SuperTile(NamedTuple):
    """A part of the matrix: the first tile and the number of tiles on each side."""

    row: int
    rows: int
    column: int
    columns: int
    diagonal: bool  # of the self case: only tiles on and above its diagonal are visited


@dataclasses.dataclass(frozen=True)
class Plan:
    """How one matrix is processed.

    Attributes:
        screened: whether there are codes, a probe and sweeps.
        by_column: whether some super-tile is also read by columns, for P and Q of the columns' side.
        edge: most tiles along a super-tile.
        programs: persistent programs of a sweep, and of dense tiles.
        list_most: most pairs of a tile that are taken one by one.
        max_candidates: most candidates of the probe with which the sweep runs.
        parts: the super-tiles, in order; in the self case those on and above the diagonal.
    """

    screened: bool
    by_column: bool
    edge: int
    programs: int
    list_most: int
    max_candidates: int
    parts: tuple[SuperTile, ...]


def plan_of(
    rows: int,
    columns: int,
    dim: int,
    *,
    is_self: bool,
    need_columns: bool,
    tile: int,
    multiprocessors: int,
) -> Plan:
    """The plan of a (rows, columns) matrix of similarities of embeddings with `dim` columns.

    Args:
        rows: N.
        columns: M; N in the self case.
        dim: D.
        is_self: whether both sides are one.
        need_columns: whether P and Q of the columns' side are wanted; in the self case those of the rows.
        tile: edge of a tile in pairs.
        multiprocessors: of the device.
    """
    edge = super_tile_edge(tile)
    row_tiles, column_tiles = -(-rows // tile), -(-columns // tile)
    parts = super_tiles(row_tiles, column_tiles, edge, is_self=is_self)
    most = min(edge, row_tiles) * min(edge, column_tiles)
    return Plan(
        screened=screens(rows, columns, dim),
        by_column=need_columns and not (is_self and len(parts) == 1),
        edge=edge,
        programs=min(max(most, 1), PROGRAMS_PER_MULTIPROCESSOR * multiprocessors),
        list_most=LIST_MOST,
        max_candidates=int(USELESS_FROM * SAMPLES * tile**2),
        parts=parts,
    )


def super_tile_edge(tile: int) -> int:
    """Tiles along the edge of a super-tile, for which the pool has two bits per pair."""
    fewest, most = SUPER_TILES
    return min(most, max(fewest, int((pool_bytes() * 4) ** 0.5) // tile))


def screens(rows: int, columns: int, dim: int) -> bool:
    """Whether a matrix of this size is screened."""
    asked = asked_screening()
    worth_it = asked == "int8" if asked else rows * columns >= SCREEN_FROM
    return worth_it and 0 < dim <= LARGEST_SCREENED_DIM and rows > 0 and columns > 0


def super_tiles(row_tiles: int, column_tiles: int, edge: int, *, is_self: bool) -> tuple[SuperTile, ...]:
    """The matrix in super-tiles of up to edge x edge tiles; in the self case its upper half."""
    return tuple(
        SuperTile(i, min(edge, row_tiles - i), j, min(edge, column_tiles - j), is_self and i == j)
        for i in range(0, row_tiles, edge)
        for j in range(i if is_self else 0, column_tiles, edge)
    )
