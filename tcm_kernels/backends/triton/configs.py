"""Which shapes kernels run with: a small table, chosen without timing, where autotune.py was not asked."""

from __future__ import annotations

import os
from typing import NamedTuple


class Config(NamedTuple):
    """What a kernel is compiled for. `block` is its step along D."""

    block: int
    num_warps: int
    num_stages: int


class Configs(NamedTuple):
    """One row of the table. Prepare, finalize and backward are streams: they need no tuning."""

    sweep: Config  # also of the probe
    dense_tiles: Config
    patterns: Config  # also of the block sums


# By bytes of an element. No row has been measured on a GPU yet: they are those that the compiler reports to
# fit into registers, on sm_90 with two programs of the sweep on a multiprocessor, and on sm_80, where four
# warps of it spill with some releases of Triton, with one of twice as many.
_HOPPER = {
    2: Configs(Config(128, 4, 3), Config(128, 8, 2), Config(128, 8, 1)),
    4: Configs(Config(128, 4, 3), Config(32, 8, 2), Config(64, 8, 3)),
}
_AMPERE = {
    2: Configs(Config(128, 8, 3), Config(32, 8, 3), Config(64, 8, 3)),
    4: Configs(Config(128, 8, 3), Config(16, 8, 3), Config(64, 8, 3)),
}
TABLE = {8: _AMPERE, 9: _HOPPER, 10: _HOPPER, 12: _AMPERE}  # by major compute capability

CODE_STEP = 64  # codes are padded with zeros to a multiple of this
SMALLEST_BLOCK = 16  # of a product
VECTOR = 16  # bytes; rows that are no multiple of this are read element by element, each by its address


def configs_for(major: int, element: int, dim: int) -> Configs:
    """The row for a chip of this major compute capability and embeddings of D elements of so many bytes."""
    row = TABLE[max(known for known in TABLE if known <= max(major, 8))][element]
    sweep, dense_tiles, patterns = row
    while padded(dim) % sweep.block:
        sweep = sweep._replace(block=sweep.block // 2)
    half = dense_tiles.block // 2
    # No longer than D, and in float32 without masks in the last step, where D allows.
    if half >= SMALLEST_BLOCK and (dim <= half or (element == 4 and dim % dense_tiles.block)):
        dense_tiles = dense_tiles._replace(block=half)
    if dim * element % VECTOR:
        dense_tiles, patterns = dense_tiles._replace(block=SMALLEST_BLOCK), patterns._replace(block=32)
    return Configs(sweep, dense_tiles, patterns)


def padded(dim: int) -> int:
    """Length of the codes of D elements."""
    return (dim + CODE_STEP - 1) // CODE_STEP * CODE_STEP


def is_interpreted() -> bool:
    """Whether kernels run in Python, on the CPU: for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def rows_and_warps(block_d: int) -> tuple[int, int]:
    """Rows and warps of a program that reads rows of block_d elements once, and streams them through."""
    return max(1, 2048 // block_d), 4 if block_d <= 2048 else 8


def warps_of_a_row(block_d: int) -> int:
    """Warps of a program that keeps three rows of block_d float32 numbers in registers."""
    return max(1, min(8, block_d // 512))
