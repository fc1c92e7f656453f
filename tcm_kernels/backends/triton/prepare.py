"""Prepare: norms, class ranges, and int8 codes with their certified errors. Two passes over N x D.

The first pass finds each row's norm, its largest element and the position range of its class. The second
codes all rows of a tile with one scale, that of the tile's largest element. A shared scale costs a row a
third more error than a scale of its own. In return all products of two tiles have one unit, and the sweep
compares each pair with its own bound at no extra cost (screen.py): of 8,192 clustered rows it leaves 1.1 to
1.6 times the pairs that codes with one scale per row would leave.

Bytes: each embedding is read from memory, then from the L2 cache, and one byte per element is written: 3 N D
bytes for bfloat16, 5 N D for float32. Embeddings are not moved: other kernels read them through label order.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..order import LabelOrder
from . import tiles
from .configs import padded, rows_and_warps
from .rules import CODE_LIMIT, ROUND_UP, ROUND_UP_TINY, SMALLEST_TILE_SCALE, norms


class CodedSide(NamedTuple):
    """Of a Side, what screening reads: nothing of the embeddings' dtype, so one kernel serves all."""

    code: Tensor
    scale: Tensor
    error: Tensor
    same_begin: Tensor
    same_end: Tensor
    self_index: Tensor


class Side(NamedTuple):
    """One side of the similarity matrix. A position is an index in label order.

    Attributes:
        x: (N, D) embeddings, dense rows.
        order: (N,) int64, the row of x at each position.
        inverse: (N,) float32 by position, 1/norm; NaN where the norm is not finite.
        code: (>= N, K) int8 by position, K >= D, in whole tiles of rows; (0, 0) without screening.
        scale: (tiles,) float32, the scale of the codes of each tile; empty without screening.
        error: (N,) float32 by position, rounded up; not set without screening.
        same_begin: (N,) int32, positions [same_begin, same_end) of the other side are of the row's class.
        same_end: (N,) int32.
        self_index: (N,) int32, the position of the same sample on the other side, or -1.
    """

    x: Tensor
    order: Tensor
    inverse: Tensor
    code: Tensor
    scale: Tensor
    error: Tensor
    same_begin: Tensor
    same_end: Tensor
    self_index: Tensor

    @property
    def rows(self) -> int:
        """N."""
        return self.x.shape[0]

    @property
    def coded(self) -> CodedSide:
        """What screening reads of it."""
        return CodedSide(*(getattr(self, field) for field in CodedSide._fields))


@triton.jit
def rows_of(x_ptr, row, inside, DIM: tl.constexpr, BLOCK_D: tl.constexpr):
    """Rows `row` of x (n, DIM) as float64 (ROWS, BLOCK_D), zeros where not `inside` and beyond DIM."""
    k = tl.arange(0, BLOCK_D)
    at = row[:, None] * DIM + k[None, :]
    return tl.load(x_ptr + at, mask=inside[:, None] & (k < DIM)[None, :], other=0.0).to(tl.float64)


@triton.jit
def unit_rows(x):
    """Unit rows of x, zeros where a norm is not finite; their float32 1/norm; whether norms are finite."""
    _, inverse, finite = norms(x)
    inverse = inverse.to(tl.float32)
    return tl.where(finite[:, None], x, 0.0) * inverse.to(tl.float64)[:, None], inverse, finite


@triton.jit
def range_of_label(labels_ptr, m, label):
    """The range [begin, end) of m sorted labels that are `label` (n,), as int32."""
    begin = tl.zeros_like(label).to(tl.int32)
    end, begin_most, end_most = begin, begin + m, begin + m
    left = m
    while left > 0:  # binary search for begin and end at once
        middle_begin, middle_end = (begin + begin_most) // 2, (end + end_most) // 2
        below = tl.load(labels_ptr + tl.minimum(middle_begin, m - 1)) < label
        not_above = tl.load(labels_ptr + tl.minimum(middle_end, m - 1)) <= label
        below, not_above = below & (begin < begin_most), not_above & (end < end_most)
        begin = tl.where(below, middle_begin + 1, begin)
        begin_most = tl.where(below, begin_most, middle_begin)
        end = tl.where(not_above, middle_end + 1, end)
        end_most = tl.where(not_above, end_most, middle_end)
        left = left // 2
    return begin, end


@triton.jit(do_not_specialize=["n", "m"])
def norms_kernel(
    x_ptr,  # (n, DIM)
    order_ptr,  # (n,) int64
    label_ptr,  # (n,) int64, ascending
    n,
    other_label_ptr,  # (m,) int64, ascending
    m,
    inverse_ptr,  # (n,)
    largest_ptr,  # (n,)
    same_begin_ptr,  # (n,) int32
    same_end_ptr,  # (n,) int32
    self_index_ptr,  # (n,) int32, written where SELF
    DIM: tl.constexpr, ROWS: tl.constexpr, BLOCK_D: tl.constexpr, SELF: tl.constexpr,
):  # fmt: skip
    """1/norm, largest element and class range of ROWS positions."""
    position = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = position < n
    x = rows_of(x_ptr, tl.load(order_ptr + position, mask=inside, other=0), inside, DIM, BLOCK_D)
    label = tl.load(label_ptr + position, mask=inside, other=0)
    same_begin, same_end = range_of_label(other_label_ptr, m, label)  # overlaps with the loads of x
    tl.store(same_begin_ptr + position, same_begin, mask=inside)
    tl.store(same_end_ptr + position, same_end, mask=inside)
    unit, inverse, finite = unit_rows(x)
    tl.store(inverse_ptr + position, tl.where(finite, inverse, float("nan")), mask=inside)
    tl.store(largest_ptr + position, tl.max(tl.abs(unit), axis=1).to(tl.float32), mask=inside)
    if SELF:
        tl.store(self_index_ptr + position, position, mask=inside)


@triton.jit(do_not_specialize=["n"])
def codes_kernel(
    x_ptr,  # (n, DIM)
    order_ptr,  # (n,) int64
    largest_ptr,  # (n,)
    n,
    code_ptr,  # (tiles * TILE, CODE_DIM) int8
    scale_ptr,  # (tiles,)
    error_ptr,  # (n,)
    DIM: tl.constexpr, CODE_DIM: tl.constexpr, TILE: tl.constexpr, ROWS: tl.constexpr,
    BLOCK_D: tl.constexpr,  # >= CODE_DIM
):  # fmt: skip
    """Codes of ROWS positions of one tile, in float32; their errors in float64, as the certificate requires.

    Positions after the last row get codes of 0, because the sweep reads whole tiles.
    """
    first = tl.program_id(0) * ROWS
    of_tile = first // TILE * TILE + tl.arange(0, TILE)
    largest = tl.max(tl.load(largest_ptr + of_tile, mask=of_tile < n, other=0.0), axis=0)
    scale = largest / CODE_LIMIT
    codable = scale >= SMALLEST_TILE_SCALE
    scale = tl.where(codable, scale, 0.0)
    step = tl.where(codable, 1.0 / tl.where(codable, scale, 1.0), 0.0)

    position, k = first + tl.arange(0, ROWS), tl.arange(0, BLOCK_D)
    inside = position < n
    x = rows_of(x_ptr, tl.load(order_ptr + position, mask=inside, other=0), inside, DIM, BLOCK_D)
    unit, _, _ = unit_rows(x)
    # However this rounds, the error below is that of the resulting code.
    q = tl.floor(unit.to(tl.float32) * step + 0.5)
    q = tl.minimum(tl.maximum(q, -CODE_LIMIT), CODE_LIMIT)
    rest = unit - scale.to(tl.float64) * q.to(tl.float64)
    error = (tl.sqrt(tl.sum(rest * rest, axis=1)) * ROUND_UP).to(tl.float32) + ROUND_UP_TINY
    to = position.to(tl.int64)[:, None] * CODE_DIM + k[None, :]
    tl.store(code_ptr + to, q.to(tl.int8), mask=tl.broadcast_to((k < CODE_DIM)[None, :], (ROWS, BLOCK_D)))
    tl.store(error_ptr + position, error, mask=inside)
    tl.store(scale_ptr + first // TILE, scale, mask=first % TILE == 0)


def prepare(x: Tensor, of: LabelOrder, other_label: Tensor, *, codes: bool) -> Side:
    """The Side of x (N, D); `other_label` (M,) are the sorted labels of the other side."""
    n, dim = x.shape
    code_dim = padded(dim) if codes else 0
    number_of_tiles = triton.cdiv(n, tiles.TILE)
    inverse, largest, error = (x.new_empty(n, dtype=torch.float32) for _ in range(3))
    same_begin, same_end = (x.new_empty(n, dtype=torch.int32) for _ in range(2))
    code = x.new_empty((number_of_tiles * tiles.TILE if codes else 0, code_dim), dtype=torch.int8)
    scale = x.new_empty(number_of_tiles if codes else 0, dtype=torch.float32)
    self_index = x.new_empty(n, dtype=torch.int32) if of.self_index is None else of.self_index
    side = Side(x, of.order, inverse, code, scale, error, same_begin, same_end, self_index)
    if n == 0:
        return side
    block = triton.next_power_of_2(max(dim, code_dim, 1))
    rows, warps = rows_and_warps(block)
    rows = min(rows, tiles.TILE)  # a program's rows are all of one tile
    norms_kernel[(triton.cdiv(n, rows),)](
        x, of.order, of.label, n, other_label, len(other_label),
        inverse, largest, same_begin, same_end, self_index,
        DIM=dim, ROWS=rows, BLOCK_D=block, SELF=of.self_index is None, num_warps=warps,
    )  # fmt: skip
    if codes:
        codes_kernel[(number_of_tiles * (tiles.TILE // rows),)](
            x, of.order, largest, n, code, scale, error,
            DIM=dim, CODE_DIM=code_dim, TILE=tiles.TILE, ROWS=rows, BLOCK_D=block, num_warps=warps,
        )  # fmt: skip
    return side
