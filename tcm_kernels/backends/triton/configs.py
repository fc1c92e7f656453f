"""Block sizes, warps and stages of the kernels: a table chosen without timing; autotune.py can replace it."""

from __future__ import annotations

import os
from typing import NamedTuple


class Config(NamedTuple):
    """What a kernel is compiled with. `block` is its step along D, or the columns of D of a program."""

    block: int
    num_warps: int
    num_stages: int


class Configs(NamedTuple):
    """One row of the table. Prepare, finalize and backward only stream memory: they need no tuning."""

    sweep: Config  # the probe takes its block and num_stages, with 8 warps
    dense_tiles: Config
    patterns: Config  # the block sums take its block and num_warps


# By bytes of an element. No row has been measured on a GPU yet; the compiler reports that each fits into
# registers. On sm_90 a multiprocessor holds two programs of the sweep, of four warps; on sm_80, where four
# warps spill with some releases of Triton, it holds one, of eight.
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
SMALLEST_BLOCK = 16  # of tl.dot
VECTOR = 16  # bytes of a load; rows that are no multiple of this are read element by element


def configs_for(major: int, element: int, dim: int) -> Configs:
    """The row for a major compute capability and embeddings of `dim` elements, of `element` bytes each."""
    row = TABLE[max(known for known in TABLE if known <= max(major, 8))][element]
    sweep, dense_tiles, patterns = row
    while padded(dim) % sweep.block:
        sweep = sweep._replace(block=sweep.block // 2)
    half = dense_tiles.block // 2
    # Halved where half holds D; in float32 also where it does not divide D: half may, and saves the masks.
    if half >= SMALLEST_BLOCK and (dim <= half or (element == 4 and dim % dense_tiles.block)):
        dense_tiles = dense_tiles._replace(block=half)
    if dim * element % VECTOR:
        dense_tiles, patterns = dense_tiles._replace(block=SMALLEST_BLOCK), patterns._replace(block=32)
    return Configs(sweep, dense_tiles, patterns)


def padded(dim: int) -> int:
    """Elements of the code of a row of `dim` elements."""
    return (dim + CODE_STEP - 1) // CODE_STEP * CODE_STEP


def is_interpreted() -> bool:
    """Whether Triton's interpreter runs the kernels, on the CPU, as in tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def rows_and_warps(block_d: int) -> tuple[int, int]:
    """Rows and warps of a program that streams rows of block_d elements."""
    return max(1, 2048 // block_d), 4 if block_d <= 2048 else 8


def warps_of_a_row(block_d: int) -> int:
    """Warps of a program that keeps three rows of block_d float32 elements in registers."""
    return max(1, min(8, block_d // 512))
