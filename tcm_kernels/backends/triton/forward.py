"""The forward: prepare, then for each super-tile screen, decide and add up.

    prepare      label order, norms, codes                                   prepare.py
    sample       is screening worth it? decided on the device                screen.py
    sweep        int8 products: pairs are harmless or candidates             screen.py
    full tiles   tiles with many candidates, all pairs decided               full_tiles.py
    patterns     their hard pairs into P and Q, many at a time               patterns.py
    lists        all other candidates decided and added, one by one          lists.py
    finish       partial sums into the result                                finish.py

A super-tile is as much of the similarity matrix as the pool has bits for, one a pair and direction: 16,384
rows and columns in 64 MiB. What the matrix needs beside that is P and Q, codes, and a few numbers a row. A
smaller pool means more super-tiles, hence more launches and more passes over P and Q, and the same result.

Every launch is made whatever the data are, and no number comes back to the host: a kernel that has nothing
to do finds that in the directory. Sums are bitwise repeatable: tiles belong to programs by number, rows of
P and Q to one program, and partial sums are added in order.
"""

from __future__ import annotations

import contextlib
import functools
import os
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from ..contract import Problem
from . import tiles
from .configs import Configs, configs_for, warps_of_a_row
from .finish import chain_kernel, finish_kernel
from .full_tiles import full_tiles_kernel
from .lists import lists_kernel
from .patterns import block_sums_kernel, patterns_kernel
from .prepare import Side, by_label, inverse_of, prepare, ranges
from .residual import Sums, views_of
from .rules import LARGEST_DIM
from .screen import SAMPLES, USELESS_FROM, sample_kernel, sweep_kernel

DEFAULT_POOL_MIB = 64
SCREEN_FROM = 2048 * 2048  # pairs; below, the sweep saves less than its launches cost (not yet measured)
SUPER_TILES = (2, 1024)  # fewest and most tiles along a super-tile, whatever the pool

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def pool_bytes() -> int:
    """Size of the pool of bits: TCM_KERNELS_TRITON_POOL_MIB, 64 by default."""
    asked = os.environ.get("TCM_KERNELS_TRITON_POOL_MIB", "")
    try:
        mib = float(asked or DEFAULT_POOL_MIB)
    except ValueError:
        mib = -1.0
    if not mib > 0:
        raise ValueError(f"TCM_KERNELS_TRITON_POOL_MIB: got {asked!r}, expected a number of MiB above 0")
    return int(mib * 2**20)


def super_tile_tiles() -> int:
    """Tiles along the edge of a super-tile: what the pool has two bits a pair for."""
    fewest, most = SUPER_TILES
    return min(most, max(fewest, int((pool_bytes() * 4) ** 0.5) // tiles.TILE))


def screens(rows: int, columns: int, dim: int) -> bool:
    """Whether a matrix of this size is screened; TCM_KERNELS_TRITON_SCREENING is "full" or "int8"."""
    asked = os.environ.get("TCM_KERNELS_TRITON_SCREENING", "")
    if asked not in ("", "full", "int8"):
        raise ValueError(f"TCM_KERNELS_TRITON_SCREENING: got {asked!r}, expected 'full' or 'int8'")
    worth_it = asked == "int8" if asked else rows * columns >= SCREEN_FROM
    return worth_it and dim <= LARGEST_DIM


class SuperTile(NamedTuple):
    """A part of the matrix: first tile and number of tiles of either side."""

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


class Part(NamedTuple):
    """What a super-tile has of one side: first tile, number of tiles, and where they are added up."""

    side: Side
    first: int
    tiles: int
    sums: Sums | None


class Call:
    """One forward: its sides, its workspace, and the arguments that its kernels share."""

    def __init__(self, problem: Problem, residual: Tensor) -> None:
        self.problem = problem
        emb = problem.emb.contiguous()
        self.is_self = problem.ref is None
        other = emb if problem.ref is None else problem.ref.contiguous()
        self.dim = emb.shape[1]
        self.screened = screens(emb.shape[0], other.shape[0], self.dim)
        self.rows, self.columns = _sides(problem, emb, other, codes=self.screened)
        self.of_rows, self.of_columns, self.poison = views_of(problem, residual)
        if self.is_self:
            self.of_columns = self.of_rows

        edge = super_tile_tiles()
        row_tiles = triton.cdiv(emb.shape[0], tiles.TILE)
        column_tiles = triton.cdiv(other.shape[0], tiles.TILE)
        self.parts = super_tiles(row_tiles, column_tiles, edge, is_self=self.is_self)
        r, c = min(edge, row_tiles), min(edge, column_tiles)
        words = tiles.TILE * tiles.TILE // 32
        self.by_column = self.of_columns is not None and not (self.is_self and len(self.parts) == 1)
        integers = functools.partial(emb.new_empty, dtype=torch.int32)
        self.directory, self.row_bits = integers(r * c), integers(r * c * words)
        self.column_bits = integers(r * c * words) if self.by_column else self.row_bits
        flags = emb.new_zeros(SAMPLES + len(self.parts), dtype=torch.int32)
        self.samples, self.crowded = flags[:SAMPLES], flags[SAMPLES:]
        self.most_left = int(USELESS_FROM * SAMPLES * tiles.TILE**2)

        self.programs = _programs(emb, r * c)
        n = emb.shape[0]
        self.sums = emb.new_zeros((self.programs + n, 2), dtype=torch.float64)
        self.counts = emb.new_zeros((self.programs + n, 2), dtype=torch.int64)
        self.configs = _configs(emb, self.rows.code.shape[1])
        self.row_block_sums = self.column_block_sums = None
        if self.of_rows is not None or self.of_columns is not None:
            self.column_block_sums = self._block_sums(self.columns)
            self.row_block_sums = self.column_block_sums if self.is_self else self._block_sums(self.rows)

    def run(self) -> tuple[Tensor, Tensor]:
        """Sums (2,) float64 and counts (2,) int64; P and Q are in the residual."""
        if self.screened and self.parts:
            self._sample()
        for number, part in enumerate(self.parts):
            if self.screened:
                self._sweep(part, self.crowded[number:])
            self._full_tiles(part, self.crowded[number:])
            self._add_up(part)
        return self._finish()

    def _screening(self, side: Side) -> tuple[Tensor, ...]:
        return side.code, side.scale, side.error

    def _relation(self, side: Side) -> tuple[Tensor, ...]:
        return side.same_begin, side.same_end, side.twin

    def _sample(self) -> None:
        rows, columns, config = self.rows, self.columns, self.configs.sweep
        sample_kernel[(SAMPLES,)](
            *self._screening(rows), rows.same_begin, rows.same_end, rows.rows,
            *self._screening(columns), columns.rows,
            rows.code.shape[1], self.problem.margins,
            triton.cdiv(rows.rows, tiles.TILE), triton.cdiv(columns.rows, tiles.TILE), self.samples,
            TILE=tiles.TILE, BLOCK_K=config.block, SAMPLES=SAMPLES,
            num_warps=config.num_warps, num_stages=config.num_stages,
        )  # fmt: skip

    def _outputs(self, part: SuperTile) -> tuple[Tensor | int, ...]:
        """Arguments that sweep and full tiles share: where the super-tile is, and where its bits go."""
        words = tiles.TILE // 32
        return (
            part.row * tiles.TILE, part.column * tiles.TILE, part.rows, part.columns,
            self.row_bits, self.row_bits if part.diagonal else self.column_bits,
            part.columns * words, part.rows * words, self.directory,
        )  # fmt: skip

    def _sweep(self, part: SuperTile, crowded: Tensor) -> None:
        rows, columns, config = self.rows, self.columns, self.configs.sweep
        sweep_kernel[(min(self.programs, part.rows * part.columns),)](
            *self._screening(rows), *self._relation(rows), rows.rows,
            *self._screening(columns), columns.rows,
            rows.code.shape[1], self.problem.margins, self.samples, self.most_left,
            *self._outputs(part), crowded,
            TILE=tiles.TILE, BLOCK_K=config.block, DIAGONAL=part.diagonal,
            BY_COLUMN=part.diagonal or self.by_column, LIST_MOST=tiles.LIST_MOST, SAMPLES=SAMPLES,
            num_warps=config.num_warps, num_stages=config.num_stages,
        )  # fmt: skip

    def _full_tiles(self, part: SuperTile, crowded: Tensor) -> None:
        rows, columns, config = self.rows, self.columns, self.configs.full_tiles
        full_tiles_kernel[(min(self.programs, part.rows * part.columns),)](
            rows.x, rows.order, rows.inverse, *self._relation(rows), rows.rows,
            columns.x, columns.order, columns.inverse, columns.rows,
            self.dim, self.problem.margins, self.samples, self.most_left, crowded,
            *self._outputs(part), 2 if self.is_self else 1, self.sums, self.counts,
            TILE=tiles.TILE, BLOCK_K=config.block, EVEN_K=self.dim % config.block == 0,
            DIAGONAL=part.diagonal, BY_COLUMN=part.diagonal or self.by_column,
            SCREENED=self.screened, LIST_MOST=tiles.LIST_MOST, SAMPLES=SAMPLES,
            PRECISION=_similarity_precision(rows.x, self.problem.precision), UPCAST=INTERPRETED,
            num_warps=config.num_warps, num_stages=config.num_stages,
        )  # fmt: skip

    def _block_sums(self, side: Side) -> Tensor:
        config = self.configs.patterns
        blocks = triton.cdiv(side.rows, tiles.TILE)
        sums = side.x.new_empty((blocks, self.dim), dtype=torch.float32)
        if blocks:
            block_sums_kernel[(blocks, triton.cdiv(self.dim, config.block))](
                side.x, side.order, side.inverse, side.rows, self.dim, sums,
                TILE=tiles.TILE, BLOCK_D=config.block, num_warps=config.num_warps,
            )  # fmt: skip
        return sums

    def _add_up(self, part: SuperTile) -> None:
        words = tiles.TILE // 32
        own = Part(self.rows, part.row, part.rows, self.of_rows)
        other = Part(self.columns, part.column, part.columns, self.of_columns)
        ordered = 2 if self.is_self and not part.diagonal else 1
        self._add_to(
            own,
            other,
            self.column_block_sums,
            self.row_bits,
            part.columns * words,
            (part.columns, 1),
            ordered,
        )
        if self.by_column and not part.diagonal:
            self._add_to(
                other, own, self.row_block_sums, self.column_bits, part.rows * words, (1, part.columns), 0
            )

    def _add_to(
        self,
        own: Part,
        other: Part,
        block_sums: Tensor | None,  # of the other side
        bits: Tensor,
        words_a_row: int,
        strides: tuple[int, int],  # of the directory, along own tiles and along the other's
        weight: int,
    ) -> None:
        """Adds a super-tile's hard pairs to P and Q of one side, and candidates' penalties to its sums."""
        side, first, count, sums = own
        other_side, other_first, other_count, _ = other
        own0, other0 = first * tiles.TILE, other_first * tiles.TILE
        config = self.configs.patterns
        p, q = (self.poison, self.poison) if sums is None else sums
        if sums is not None:
            patterns_kernel[(count, triton.cdiv(self.dim, config.block), 2)](
                side.order, side.same_begin, side.same_end, own0, side.rows,
                other_side.x, other_side.order, other_side.inverse, block_sums, other0, other_side.rows,
                self.dim, other_count, bits, words_a_row, self.directory, *strides, p, q,
                TILE=tiles.TILE, BLOCK_D=config.block, LIST_MOST=tiles.LIST_MOST,
                WAY=_way_of_patterns(side.x, self.problem.precision), UPCAST=INTERPRETED,
                num_warps=config.num_warps, num_stages=config.num_stages,
            )  # fmt: skip
        own_rows = min(count * tiles.TILE, side.rows - own0)
        block = triton.next_power_of_2(max(self.dim, 1))
        lists_kernel[(own_rows,)](
            side.x, side.order, side.inverse, side.same_begin, side.same_end, own0, own_rows,
            other_side.x, other_side.order, other_side.inverse, other0,
            min(other_count * tiles.TILE, other_side.rows - other0),
            self.dim, self.problem.margins, bits, words_a_row, self.directory, *strides, p, q,
            weight, self.sums[self.programs :], self.counts[self.programs :],
            TILE=tiles.TILE, BLOCK_D=block, LIST_MOST=tiles.LIST_MOST, NEED_GRAD=sums is not None,
            num_warps=warps_of_a_row(block),
        )  # fmt: skip

    def _finish(self) -> tuple[Tensor, Tensor]:
        sums = self.sums.new_empty(2)
        counts = self.counts.new_empty(2)
        finish_kernel[(1,)](
            self.sums, self.counts, self.programs, self.sums[self.programs :], self.counts[self.programs :],
            self.rows.rows, self.rows.inverse, self.columns.inverse, self.columns.rows,
            self.problem.margins, sums, counts, self.poison,
            BLOCK=1024, SELF=self.is_self, num_warps=8,
        )  # fmt: skip
        return sums, counts


def _sides(problem: Problem, emb: Tensor, other: Tensor, *, codes: bool) -> tuple[Side, Side]:
    labels, row_order = by_label(problem.labels.to(torch.int64))
    if problem.ref is None or problem.ref_labels is None:
        twin = torch.arange(emb.shape[0], dtype=torch.int32, device=emb.device)
        side = prepare(emb, row_order, ranges(labels, labels), twin, codes=codes)
        return side, side
    others, column_order = by_label(problem.ref_labels.to(torch.int64))
    row_twin = emb.new_full((emb.shape[0],), -1, dtype=torch.int32)
    if problem.self_offset is not None:
        row_twin = inverse_of(column_order)[row_order + problem.self_offset].to(torch.int32)
    rows = prepare(emb, row_order, ranges(labels, others), row_twin, codes=codes)
    return rows, prepare(other, column_order, ranges(others, labels), row_twin, codes=codes)


def _programs(x: Tensor, most: int) -> int:
    """Persistent programs: two for each multiprocessor, but not more than tiles."""
    if not x.is_cuda:
        return min(max(most, 1), 4)
    return min(max(most, 1), 2 * torch.cuda.get_device_properties(x.device).multi_processor_count)


def _configs(x: Tensor, code_dim: int) -> Configs:
    major = torch.cuda.get_device_capability(x.device)[0] if x.is_cuda else 8
    return configs_for(major, x.element_size(), x.shape[1], code_dim)


def _similarity_precision(x: Tensor, precision: str) -> str:
    """How `tl.dot` multiplies x: three TF32 products make a float32 one."""
    if INTERPRETED or x.dtype != torch.float32:
        return "ieee"
    return "tf32x3" if precision == "highest" else "tf32"


def _way_of_patterns(x: Tensor, precision: str) -> str:
    """How `patterns.add_product` multiplies a pattern with rows of x."""
    if x.dtype == torch.bfloat16:
        return "weights"
    if x.dtype == torch.float16:
        return "scaled"
    return "three parts" if precision == "highest" else "two parts"


def on_device_of(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Triton launches on the current device."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()


def pair_sums(problem: Problem, residual_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sums (2,) float64, counts (2,) int64 and residual: see `contract.Backend`."""
    with on_device_of(problem.emb):
        residual = torch.zeros(residual_size, dtype=torch.uint8, device=problem.emb.device)
        sums, counts = Call(problem, residual).run()
    return sums, counts, residual


def pair_sums_backward(problem: Problem, grad_sums: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of emb and ref, empty where not wanted: see `contract.Backend`."""
    emb, ref = problem.emb, problem.ref
    of_emb, of_ref, poison = views_of(problem, residual)
    ordered = 2 if ref is None else 1
    with on_device_of(emb):
        grad_emb = _chain(emb, of_emb, poison, grad_sums, ordered)
        grad_ref = _chain(emb if ref is None else ref, of_ref, poison, grad_sums, ordered)
    return grad_emb, grad_ref


def _chain(x: Tensor, sums: Sums | None, poison: Tensor, grad_sums: Tensor, ordered: int) -> Tensor:
    if sums is None:
        return x.new_empty(0)
    x = x.contiguous()
    grad = torch.empty_like(x)
    n, dim = x.shape
    block = triton.next_power_of_2(max(dim, 1))
    rows = max(1, 2048 // block)
    if n:
        chain_kernel[(triton.cdiv(n, rows),)](
            x, *sums, poison, grad_sums.contiguous(), ordered, grad, n, dim,
            ROWS=rows, BLOCK_D=block, num_warps=4 if block <= 2048 else 8,
        )  # fmt: skip
    return grad
