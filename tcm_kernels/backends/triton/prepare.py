"""Prepare: label order, 1/norm, int8 codes with their certified errors. One pass over N x D.

Reads each embedding once and writes a byte an element: 3 N D bytes for bfloat16, 5 N D for float32. Nothing
is copied but the codes: all other kernels read embeddings where they lie, through the label order.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..gpu.label_order import LabelOrder
from . import tiles
from .configs import padded, rows_and_warps
from .rules import CODE_LIMIT, ROUND_UP, ROUND_UP_TINY, SMALLEST_SCALE, norms


class Side(NamedTuple):
    """One side of the similarity matrix. Positions are places in label order.

    Attributes:
        x: (N, D) embeddings, dense rows.
        order: (N,) int64, the row of x at each position.
        inverse: (N,) float32 by position, 1/norm; NaN where the norm is not finite.
        code: (>= N, K) int8 by position, K >= D; whole tiles of rows, or none where nothing is screened.
        scale: (N,) float32 by position.
        error: (N,) float32 by position, rounded up.
        same_begin: (N,) int32, as same_end and twin those of `LabelOrder`.
        same_end: (N,) int32.
        twin: (N,) int32.
    """

    x: Tensor
    order: Tensor
    inverse: Tensor
    code: Tensor
    scale: Tensor
    error: Tensor
    same_begin: Tensor
    same_end: Tensor
    twin: Tensor

    @property
    def rows(self) -> int:
        """N."""
        return self.x.shape[0]


@triton.jit(do_not_specialize=["n"])
def prepare_kernel(
    x_ptr,  # (n, DIM)
    order_ptr,  # (n,) int64
    n,
    inverse_ptr,  # (n,)
    code_ptr,  # (n, CODE_DIM) int8
    scale_ptr,  # (n,)
    error_ptr,  # (n,)
    DIM: tl.constexpr,
    CODE_DIM: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_D: tl.constexpr,  # >= CODE_DIM
    CODES: tl.constexpr,
):
    """Norms and codes of ROWS positions, in float64: the certificate's derivation asks for that."""
    position = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    k = tl.arange(0, BLOCK_D)
    inside = position < n
    row = tl.load(order_ptr + position, mask=inside, other=0)
    at = row[:, None] * DIM + k[None, :]
    x = tl.load(x_ptr + at, mask=inside[:, None] & (k < DIM)[None, :], other=0.0).to(tl.float64)
    _, inverse, finite = norms(x)
    inverse = inverse.to(tl.float32)
    tl.store(inverse_ptr + position, tl.where(finite, inverse, float("nan")), mask=inside)
    if CODES:
        unit = tl.where(finite[:, None], x, 0.0) * inverse.to(tl.float64)[:, None]
        scale = (tl.max(tl.abs(unit), axis=1) / CODE_LIMIT).to(tl.float32)
        codable = scale >= SMALLEST_SCALE
        scale = tl.where(codable, scale, 0.0)
        step = tl.where(codable, 1.0 / tl.where(codable, scale, 1.0), 0.0)
        # Whichever way a tie falls, the error is taken from the code that it gave.
        q = tl.floor(unit.to(tl.float32) * step[:, None] + 0.5)
        q = tl.minimum(tl.maximum(q, -CODE_LIMIT), CODE_LIMIT)
        rest = unit - scale.to(tl.float64)[:, None] * q.to(tl.float64)
        error = (tl.sqrt(tl.sum(rest * rest, axis=1)) * ROUND_UP).to(tl.float32) + ROUND_UP_TINY
        to = position.to(tl.int64)[:, None] * CODE_DIM + k[None, :]
        tl.store(code_ptr + to, q.to(tl.int8), mask=inside[:, None] & (k < CODE_DIM)[None, :])
        tl.store(scale_ptr + position, scale, mask=inside)
        tl.store(error_ptr + position, error, mask=inside)


def prepare(x: Tensor, of: LabelOrder, *, codes: bool) -> Side:
    """A side of x (N, D)."""
    n, dim = x.shape
    code_dim = padded(dim) if codes else 0
    inverse, scale, error = (x.new_empty(n, dtype=torch.float32) for _ in range(3))
    code_rows = triton.cdiv(n, tiles.TILE) * tiles.TILE if codes else 0
    code = x.new_empty((code_rows, code_dim), dtype=torch.int8)
    side = Side(x, of.order, inverse, code, scale, error, of.same_begin, of.same_end, of.twin)
    block = triton.next_power_of_2(max(dim, code_dim, 1))
    rows, warps = rows_and_warps(block)
    if n:
        prepare_kernel[(triton.cdiv(n, rows),)](
            x, of.order, n, side.inverse, code, side.scale, side.error,
            DIM=dim, CODE_DIM=code_dim, ROWS=rows, BLOCK_D=block, CODES=codes, num_warps=warps,
        )  # fmt: skip
    return side
