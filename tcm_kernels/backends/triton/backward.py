"""The backward: one pass over the embeddings and their P and Q.

It reads each once and writes a gradient: 12 N D bytes for bfloat16, 16 N D for float32.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ..contract import GradientRows, PartnerSums
from ..gpu.backward import gradients
from .configs import rows_and_warps
from .rules import NORM_FLOOR, norms


@triton.jit(do_not_specialize=["n", "ordered"])
def normalize_backward_kernel(
    x_ptr,  # (n, DIM)
    p_ptr, q_ptr,  # (n, DIM) float32
    nan_flag_ptr,  # float64
    grad_sums_ptr,  # (2,) float64
    ordered,  # ordered pairs per pair: 2 in the self case, else 1
    grad_ptr,  # (n, DIM)
    n,
    DIM: tl.constexpr, ROWS: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Gradient of raw rows: g = w+ P + w- Q through the normalisation, (g - (g·x̂) x̂) / norm."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    k = tl.arange(0, BLOCK_D)
    mask = (row < n)[:, None] & (k < DIM)[None, :]
    at = row.to(tl.int64)[:, None] * DIM + k[None, :]
    nan_flag = tl.load(nan_flag_ptr)
    pull = (-ordered * tl.load(grad_sums_ptr) + nan_flag).to(tl.float32)
    push = (ordered * tl.load(grad_sums_ptr + 1) + nan_flag).to(tl.float32)
    x = tl.load(x_ptr + at, mask=mask, other=0.0).to(tl.float64)
    norm, inverse, _ = norms(x)
    unit = (x * inverse[:, None]).to(tl.float32)
    p = tl.load(p_ptr + at, mask=mask, other=0.0)
    q = tl.load(q_ptr + at, mask=mask, other=0.0)
    g = pull * p + push * q
    along = tl.where(norm < NORM_FLOOR, 0.0, tl.sum(g * unit, axis=1))
    grad = (g - along[:, None] * unit) * inverse.to(tl.float32)[:, None]
    tl.store(grad_ptr + at, grad.to(grad_ptr.dtype.element_ty), mask=mask)


def pair_sums_backward(rows: GradientRows, grad_sums: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of emb and ref, empty where not wanted: see `contract.Backend`."""
    return gradients(rows, grad_sums, residual, _normalize_backward)


def _normalize_backward(
    x: Tensor, sums: PartnerSums, nan_flag: Tensor, grad_sums: Tensor, ordered: int, grad: Tensor
) -> None:
    n, dim = x.shape
    block = triton.next_power_of_2(max(dim, 1))
    rows, warps = rows_and_warps(block)
    if n:
        normalize_backward_kernel[(triton.cdiv(n, rows),)](
            x, *sums, nan_flag, grad_sums, ordered, grad, n,
            DIM=dim, ROWS=rows, BLOCK_D=block, num_warps=warps,
        )  # fmt: skip
