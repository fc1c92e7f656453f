"""The forward of all but small batches (small.py).

Label order (order.py), prepare and probe; for each super-tile screen and accumulate; finalize:

    prepare      norms, class ranges, codes                                  prepare.py
    probe        does screening pay? decided on the device                   screen.py
    sweep        int8 products: pairs are harmless or candidates             screen.py
    dense tiles  tiles with many candidates, all pairs decided               dense_tiles.py
    patterns     their hard pairs into P and Q, many at a time               patterns.py
    lists        the other candidates decided and added, one by one; listed  lists.py
                 pairs of decided tiles added, or subtracted from whole tiles
    finalize     partial sums into the result                                finalize.py

`gpu/plan.py` says what a super-tile is. Beside the pool of bits a forward holds P and Q, codes, block sums,
and a few numbers per row.

Every launch is made whatever the data are, and no number comes back to the host. A kernel without work sees
that on the device: lists in the directory, the others in the sample's counts and has_dense_tile. Sums are
bitwise repeatable: tiles are assigned to programs by number, an element of P or Q to one program of a launch,
and partial sums are added in order.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from ..contract import PartnerSums, Problem
from ..gpu.machine import on_device_of
from ..gpu.plan import SAMPLES, SuperTile, plan_of
from ..gpu.residual import Outputs, outputs_beside, residual_bytes, views_of
from ..order import label_orders
from . import autotune, finalize, small, tiles
from .configs import Configs, configs_for, is_interpreted, warps_of_a_row
from .dense_tiles import dense_tiles_kernel
from .finalize import finalize_kernel
from .lists import lists_kernel
from .patterns import block_sums_kernel, patterns_kernel, way_of_patterns
from .prepare import Side, prepare
from .screen import ScreenState, probe_kernel, sweep_kernel

TUNING_ROWS = 8192  # of the batches that autotuning times


class Part(NamedTuple):
    """One side of a super-tile: its first tile, its number of tiles, and P and Q where they are wanted."""

    side: Side
    first: int
    tiles: int
    sums: PartnerSums | None


class Forward:
    """One forward: its sides, its workspace, and the arguments that its kernels share."""

    def __init__(self, problem: Problem, outputs: Outputs, configs: Configs | None = None) -> None:
        self.problem = problem
        emb = problem.emb.contiguous()
        self.is_self = problem.ref is None
        other = emb if problem.ref is None else problem.ref.contiguous()
        self.dim = emb.shape[1]
        self.of_rows, self.of_columns, self.nan_flag, self.ended = outputs
        if self.is_self:
            self.of_columns = self.of_rows
        self.plan = plan_of(
            emb.shape[0], other.shape[0], self.dim,
            is_self=self.is_self, need_columns=self.of_columns is not None,
            tile=tiles.TILE, multiprocessors=_multiprocessors(emb),
        )  # fmt: skip
        self.rows, self.columns = _sides(problem, emb, other, codes=self.plan.screened)

        r = min(self.plan.edge, triton.cdiv(emb.shape[0], tiles.TILE))
        c = min(self.plan.edge, triton.cdiv(other.shape[0], tiles.TILE))
        words = tiles.TILE * tiles.TILE // 32
        integers = functools.partial(emb.new_empty, dtype=torch.int32)
        self.directory, self.row_bits = integers(r * c), integers(r * c * words)
        self.column_bits = integers(r * c * words) if self.plan.by_column else self.row_bits

        self.partials = self.plan.programs + emb.shape[0]  # one per program, then one per row of lists
        # A flag a super-tile, at 16 bytes each: with one alignment, each kernel is compiled once.
        integers_zeroed = SAMPLES + 4 * len(self.plan.parts)
        zeros = emb.new_zeros(8 * 4 * self.partials + 4 * integers_zeroed, dtype=torch.uint8)
        sums, counts, flags = zeros.tensor_split((16 * self.partials, 32 * self.partials))
        self.sums = sums.view(torch.float64).view(self.partials, 2)
        self.counts = counts.view(torch.int64).view(self.partials, 2)
        self.samples, has_dense_tile = flags.view(torch.int32).tensor_split((SAMPLES,))
        self.has_dense_tile = has_dense_tile.view(-1, 4)
        self.configs = _configs(emb, problem.precision) if configs is None else configs
        self.block_sums = emb.new_empty((max(r, c), self.dim), dtype=torch.float32)

    def run(self) -> tuple[Tensor, Tensor]:
        """Sums (2,) float64 and counts (2,) int64; P and Q are added to those of the outputs."""
        if self.plan.screened and self.plan.parts:
            self._probe()
        for number, part in enumerate(self.plan.parts):
            state = self.state_of(number)
            if self.plan.screened:
                self._sweep(part, state)
            self._dense_tiles(part, state)
            self._accumulate(part, state)
        return self._finalize()

    def state_of(self, number: int) -> ScreenState:
        """What screening finds in this part of the plan."""
        return ScreenState(self.samples, self.plan.max_candidates, self.has_dense_tile[number])

    def _probe(self) -> None:
        rows, columns, config = self.rows, self.columns, self.configs.sweep
        probe_kernel[(SAMPLES,)](
            rows.coded, rows.rows, columns.coded, columns.rows, self.problem.margins,
            triton.cdiv(rows.rows, tiles.TILE), triton.cdiv(columns.rows, tiles.TILE), self.samples,
            TILE=tiles.TILE, BLOCK_K=config.block, CODE_DIM=rows.code.shape[1], DIM=self.dim, SAMPLES=SAMPLES,
            num_warps=8, num_stages=config.num_stages,
        )  # fmt: skip

    def _outputs(self, part: SuperTile) -> tuple[Tensor | int, ...]:
        """Arguments that sweep and dense tiles share: where the super-tile is, and where its bits go."""
        words = tiles.TILE // 32
        return (
            part.row * tiles.TILE, part.column * tiles.TILE, part.rows, part.columns,
            self.row_bits, self.row_bits if part.diagonal else self.column_bits,
            part.columns * words, part.rows * words, self.directory,
        )  # fmt: skip

    def _sweep(self, part: SuperTile, state: ScreenState) -> None:
        rows, columns, config = self.rows, self.columns, self.configs.sweep
        sweep_kernel[(min(self.plan.programs, part.rows * part.columns),)](
            rows.coded, rows.rows, columns.coded, columns.rows, self.problem.margins, state,
            *self._outputs(part),
            TILE=tiles.TILE, BLOCK_K=config.block, CODE_DIM=rows.code.shape[1], DIM=self.dim,
            DIAGONAL=part.diagonal,
            BY_COLUMN=part.diagonal or self.plan.by_column, LIST_MOST=self.plan.list_most, SAMPLES=SAMPLES,
            num_warps=config.num_warps, num_stages=config.num_stages,
        )  # fmt: skip

    def _dense_tiles(self, part: SuperTile, state: ScreenState) -> None:
        rows, columns, config = self.rows, self.columns, self.configs.dense_tiles
        dense_tiles_kernel[(min(self.plan.programs, part.rows * part.columns),)](
            rows, rows.rows, columns, columns.rows, self.problem.margins, state,
            *self._outputs(part), 2 if self.is_self else 1, self.sums, self.counts,
            DIM=self.dim, TILE=tiles.TILE, BLOCK_K=config.block,
            DIAGONAL=part.diagonal, BY_COLUMN=part.diagonal or self.plan.by_column,
            SCREENED=self.plan.screened, LIST_MOST=self.plan.list_most, SAMPLES=SAMPLES,
            PRECISION=_similarity_precision(rows.x, self.problem.precision), UPCAST=is_interpreted(),
            num_warps=config.num_warps, num_stages=config.num_stages,
        )  # fmt: skip

    def _accumulate(self, part: SuperTile, state: ScreenState) -> None:
        words = tiles.TILE // 32
        rows = Part(self.rows, part.row, part.rows, self.of_rows)
        columns = Part(self.columns, part.column, part.columns, self.of_columns)
        ordered = 2 if self.is_self and not part.diagonal else 1
        by_row = (self.row_bits, part.columns * words, self.directory, part.columns, 1)
        self._accumulate_into(rows, columns, state, by_row, ordered)
        if self.plan.by_column and not part.diagonal:
            by_column = (self.column_bits, part.rows * words, self.directory, 1, part.columns)
            self._accumulate_into(columns, rows, state, by_column, 0)

    def _accumulate_into(
        self,
        own: Part,
        other: Part,
        state: ScreenState,
        pairs: tuple[Tensor, int, Tensor, int, int],  # bits, words per row; directory and its strides
        weight: int,
    ) -> None:
        """Add a super-tile's hard pairs to P and Q of one side, and candidates' penalties to partial sums."""
        side, first, count, sums = own
        other_side, other_first, other_count, _ = other
        own0, other0 = first * tiles.TILE, other_first * tiles.TILE
        p, q = (self.nan_flag, self.nan_flag) if sums is None else sums
        if sums is not None:
            self._patterns(own, other, state, pairs, sums)
        own_rows = min(count * tiles.TILE, side.rows - own0)
        block = triton.next_power_of_2(max(self.dim, 1))
        lists_kernel[(own_rows,)](
            side, own0, own_rows,
            other_side, other0, min(other_count * tiles.TILE, other_side.rows - other0),
            self.problem.margins, *pairs, p, q,
            weight, self.sums[self.plan.programs :], self.counts[self.plan.programs :],
            DIM=self.dim, TILE=tiles.TILE, BLOCK_D=block, LIST_MOST=self.plan.list_most,
            NEED_GRAD=sums is not None,
            num_warps=warps_of_a_row(block),
        )  # fmt: skip

    def _patterns(
        self,
        own: Part,
        other: Part,
        state: ScreenState,
        pairs: tuple[Tensor, int, Tensor, int, int],
        sums: PartnerSums,
    ) -> None:
        side, other_side, config = own.side, other.side, self.configs.patterns
        blocks = triton.cdiv(self.dim, config.block)
        block_sums_kernel[(other.tiles, blocks)](
            other_side, other.first * tiles.TILE, other_side.rows, state, self.block_sums,
            DIM=self.dim, TILE=tiles.TILE, BLOCK_D=config.block, SCREENED=self.plan.screened, SAMPLES=SAMPLES,
            num_warps=config.num_warps,
        )  # fmt: skip
        patterns_kernel[(own.tiles, blocks, 2)](
            side, own.first * tiles.TILE, side.rows,
            other_side, self.block_sums, other.first * tiles.TILE, other_side.rows, other.tiles,
            state, *pairs, *sums,
            DIM=self.dim, TILE=tiles.TILE, BLOCK_D=config.block, LIST_MOST=self.plan.list_most,
            WAY=way_of_patterns(side.x.dtype, self.problem.precision), UPCAST=is_interpreted(),
            SCREENED=self.plan.screened, SAMPLES=SAMPLES,
            num_warps=config.num_warps, num_stages=config.num_stages,
        )  # fmt: skip

    def _finalize(self) -> tuple[Tensor, Tensor]:
        sums, counts = self.sums.new_empty(2), self.counts.new_empty(2)
        programs = finalize.programs_for(max(self.partials, self.columns.rows))
        finalize_kernel[(programs,)](
            self.sums, self.counts, self.partials,
            self.rows.inverse, self.rows.rows, self.columns.inverse, self.columns.rows,
            self.problem.margins, self.sums.new_empty((programs, 3)), self.counts.new_empty((programs, 2)),
            self.ended, sums, counts, self.nan_flag,
            BLOCK=finalize.BLOCK, MOST_PROGRAMS=finalize.MOST_PROGRAMS, SELF=self.is_self, num_warps=4,
        )  # fmt: skip
        return sums, counts


def _sides(problem: Problem, emb: Tensor, other: Tensor, *, codes: bool) -> tuple[Side, Side]:
    of_rows, of_columns = label_orders(problem)
    rows = prepare(emb, of_rows, of_columns.label, codes=codes)
    if problem.ref is None:
        return rows, rows
    return rows, prepare(other, of_columns, of_rows.label, codes=codes)


def _multiprocessors(x: Tensor) -> int:
    """Of the device that x is on; two in the interpreter."""
    return torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 2


def _configs(x: Tensor, precision: str) -> Configs:
    major = torch.cuda.get_device_capability(x.device)[0] if x.is_cuda else 8
    row = configs_for(major, x.element_size(), x.shape[1])
    if not autotune.is_asked_for() or (x.is_cuda and torch.cuda.is_current_stream_capturing()):
        return row
    chip = torch.cuda.get_device_name(x.device) if x.is_cuda else "interpreter"
    key = f"{chip}, Triton {triton.__version__}, {x.dtype}, {precision}, D={x.shape[1]}"
    return autotune.tuned(key, row, functools.partial(_seconds, x, precision))


def _seconds(x: Tensor, precision: str, kernel: str, row: Configs) -> float:
    """The time of a forward that this kernel dominates, on random embeddings like x."""
    rows = TUNING_ROWS
    # Random directions: almost no pair is hard at m- = 0.9, one in two at m- = 0.
    emb = torch.randn(rows, x.shape[1], device=x.device).to(x.dtype)
    labels = torch.arange(rows, device=x.device)
    margins = emb.new_tensor([1.0, 0.9 if kernel == "sweep" else 0.0], dtype=torch.float64)
    problem = Problem(emb, labels, None, None, margins, None, True, False, precision)
    residual = torch.zeros(residual_bytes(problem.gradient_rows), dtype=torch.uint8, device=x.device)
    outputs = views_of(problem.gradient_rows, residual)
    milliseconds = triton.testing.do_bench(lambda: Forward(problem, outputs, row).run(), return_mode="median")
    return float(milliseconds) / 1e3


def _similarity_precision(x: Tensor, precision: str) -> str:
    """The input_precision of `tl.dot` for x; three TF32 products make a float32 one."""
    if is_interpreted() or x.dtype != torch.float32:
        return "ieee"
    return "tf32x3" if precision == "highest" else "tf32"


def pair_sums(problem: Problem, residual_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sums (2,) float64, counts (2,) int64 and residual: see `contract.Backend`."""
    emb = problem.emb
    with on_device_of(emb):
        residual = torch.zeros(residual_size, dtype=torch.uint8, device=emb.device)
        sums, counts = _pair_sums(problem, views_of(problem.gradient_rows, residual))
    return sums, counts, residual


def add_pair_sums(
    problem: Problem, of_emb: PartnerSums | None, of_ref: PartnerSums | None
) -> tuple[Tensor, Tensor]:
    """Sums and counts; P and Q are added to those given: see `contract.Backend`."""
    with on_device_of(problem.emb):
        return _pair_sums(problem, outputs_beside(problem.emb, of_emb, of_ref))


def _pair_sums(problem: Problem, outputs: Outputs) -> tuple[Tensor, Tensor]:
    emb, ref = problem.emb, problem.ref
    columns = emb.shape[0] if ref is None else ref.shape[0]
    if small.takes(emb.shape[0], columns, emb.shape[1] * emb.element_size()):
        return small.pair_sums(problem, outputs)
    return Forward(problem, outputs).run()
