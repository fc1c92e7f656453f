"""Small batches: the whole forward in one launch, or in two where ref wants a gradient.

With at most a few million pairs the number of launches decides the time, so there is no sorting, screening or
directory. A program owns BLOCK_M rows and goes through all columns once: similarities on matrix units, every
pair decided, penalties summed, P and Q by a second product with the pattern in registers, as attention
kernels do. The last program to end adds up the partial sums, in the order of the programs. A second launch,
with the sides exchanged, fills P and Q of ref.

Work at N = 2048, D = 128: 6 N² D flops, 3.2e9, 3 us of an H200's bfloat16 units; N / BLOCK_M readings of the
embeddings from the L2 cache, 67 MB, 12 us. Not yet measured.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..contract import Problem
from ..gpu.residual import Outputs
from ..gpu.settings import asked_screening
from .configs import is_interpreted
from .finalize import end_program
from .patterns import add_product, way_of_patterns
from .rules import inverse_norms, is_hard, not_finite, penalty, thresholds

LARGEST_N = 2048  # rows or columns (not yet measured)
LARGEST_ROW = 512  # bytes, so that P, Q and a block of columns stay in registers
BLOCK_M = 16
BLOCK_N = 64
MOST_PROGRAMS = LARGEST_N // BLOCK_M
NO_SELF = 2 * LARGEST_N  # a self_offset that no pair has


@triton.jit
def unit_rows(x_ptr, offs, n, DIM: tl.constexpr, BLOCK_D: tl.constexpr):
    """Rows offs of x (n, DIM), zeros beyond n, and the 1/norm of each, NaN if not finite."""
    offs_d = tl.arange(0, BLOCK_D)
    mask = (offs < n)[:, None] & (offs_d < DIM)[None, :]
    x = tl.load(x_ptr + offs[:, None] * DIM + offs_d[None, :], mask=mask, other=0.0)
    return x, inverse_norms(x.to(tl.float32))


@triton.jit
def inner_products(x, y, IN_PARTS: tl.constexpr, UPCAST: tl.constexpr):
    """(BLOCK_M, BLOCK_N) float32 products of rows.

    For 16-bit rows the result has the same bits with x and y exchanged, so that the two launches of a
    rectangle agree about a pair on a margin, though each decides it by itself. With IN_PARTS, float32 rows
    are split into two TF32 parts with 22 bits together. The exchange then changes the order in which the two
    crossed products are added, so that the launches may disagree about a pair within rounding of a margin.
    """
    if UPCAST:
        return tl.dot(x.to(tl.float32), tl.trans(y.to(tl.float32)))
    if IN_PARTS:
        x_high = (x.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)
        y_high = (y.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)
        crossed = tl.dot(x_high, tl.trans(y - y_high), input_precision="tf32")
        crossed += tl.dot(x - x_high, tl.trans(y_high), input_precision="tf32")
        return crossed + tl.dot(x_high, tl.trans(y_high), input_precision="tf32")
    return tl.dot(x, tl.trans(y), input_precision="tf32")


@triton.jit(do_not_specialize=["n", "m", "self_offset"])
def small_kernel(
    x_ptr, labels_ptr, n,  # (n, DIM), (n,) int64
    other_ptr, other_labels_ptr, m,
    margins_ptr,
    self_offset,  # row i is the same sample as column i + self_offset
    p_ptr, q_ptr,  # (n, DIM) float32, added to if NEED_GRAD
    partial_sums_ptr, partial_counts_ptr,  # (programs, 3) float64 and (programs, 2) int64
    ended_ptr,  # int32, how many programs have ended; 0 before and afterwards
    sums_ptr, counts_ptr, nan_flag_ptr,  # the result, written if NEED_SUMS
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, DIM: tl.constexpr, BLOCK_D: tl.constexpr,
    MOST_PROGRAMS: tl.constexpr, IN_PARTS: tl.constexpr, WAY: tl.constexpr, UPCAST: tl.constexpr,
    NEED_GRAD: tl.constexpr, NEED_SUMS: tl.constexpr,
):  # fmt: skip
    """All pairs of BLOCK_M rows; the last program to end adds up the sums of all programs."""
    threshold_plus, threshold_minus = thresholds(margins_ptr)
    program = tl.program_id(0)
    offs_m = program * BLOCK_M + tl.arange(0, BLOCK_M)
    x, inverse = unit_rows(x_ptr, offs_m, n, DIM, BLOCK_D)
    labels = tl.load(labels_ptr + offs_m, mask=offs_m < n, other=0)
    p, q = tl.zeros((BLOCK_M, BLOCK_D), tl.float32), tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    pulls, pushes = tl.zeros((BLOCK_M, BLOCK_N), tl.float32), tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    positives, negatives = tl.zeros((BLOCK_M, BLOCK_N), tl.int32), tl.zeros((BLOCK_M, BLOCK_N), tl.int32)
    not_finite_rows = not_finite(inverse)
    for first in range(0, m, BLOCK_N):
        offs_n = first + tl.arange(0, BLOCK_N)
        y, other_inverse = unit_rows(other_ptr, offs_n, m, DIM, BLOCK_D)
        not_finite_rows += not_finite(other_inverse)
        s = inner_products(x, y, IN_PARTS, UPCAST)
        s = s * (inverse[:, None] * other_inverse[None, :])
        same = labels[:, None] == tl.load(other_labels_ptr + offs_n, mask=offs_n < m, other=0)[None, :]
        hard = is_hard(s, same, threshold_plus, threshold_minus) & (
            offs_n[None, :] != offs_m[:, None] + self_offset
        )
        hard = hard & (offs_m < n)[:, None] & (offs_n < m)[None, :]
        pull, push = hard & same, hard & (same == 0)
        if NEED_SUMS:
            beyond = penalty(s, same, threshold_plus, threshold_minus)
            pulls += tl.where(pull, beyond, 0.0)
            pushes += tl.where(push, beyond, 0.0)
            positives += pull.to(tl.int32)
            negatives += push.to(tl.int32)
        if NEED_GRAD:
            p = add_product(p, pull.to(tl.int32), y, other_inverse, WAY, UPCAST)
            q = add_product(q, push.to(tl.int32), y, other_inverse, WAY, UPCAST)
    if NEED_GRAD:
        offs_d = tl.arange(0, BLOCK_D)
        at = offs_m[:, None] * DIM + offs_d[None, :]
        mask = (offs_m < n)[:, None] & (offs_d < DIM)[None, :]
        tl.store(p_ptr + at, p + tl.load(p_ptr + at, mask=mask), mask=mask)
        tl.store(q_ptr + at, q + tl.load(q_ptr + at, mask=mask), mask=mask)
    if NEED_SUMS:
        sign = tl.arange(0, 2)
        pulled = tl.sum(tl.sum(pulls.to(tl.float64), axis=1), axis=0)
        pushed = tl.sum(tl.sum(pushes.to(tl.float64), axis=1), axis=0)
        n_positive = tl.sum(tl.sum(positives, axis=1), axis=0).to(tl.int64)
        n_negative = tl.sum(tl.sum(negatives, axis=1), axis=0).to(tl.int64)
        end_program(
            tl.where(sign == 0, pulled, pushed), tl.where(sign == 0, n_positive, n_negative), not_finite_rows,
            partial_sums_ptr, partial_counts_ptr, ended_ptr, margins_ptr, sums_ptr, counts_ptr, nan_flag_ptr,
            MOST_PROGRAMS,
        )  # fmt: skip


def takes(rows: int, columns: int, row_bytes: int) -> bool:
    """Whether a matrix is small: 1 to LARGEST_N rows and columns, of 1 to LARGEST_ROW bytes.

    None is where TCM_KERNELS_GPU_SCREENING asks for a screening.
    """
    if asked_screening():
        return False
    return min(rows, columns) > 0 and max(rows, columns) <= LARGEST_N and 0 < row_bytes <= LARGEST_ROW


def pair_sums(problem: Problem, outputs: Outputs) -> tuple[Tensor, Tensor]:
    """Sums (2,) float64 and counts (2,) int64; P and Q are added to those of the outputs."""
    emb, dim = problem.emb.contiguous(), problem.emb.shape[1]
    of_emb, of_ref, nan_flag, counter = outputs
    rows = columns = (emb, problem.labels.to(torch.int64).contiguous(), emb.shape[0])
    self_offset = 0
    if problem.ref is not None and problem.ref_labels is not None:
        ref_labels = problem.ref_labels.to(torch.int64).contiguous()
        columns = (problem.ref.contiguous(), ref_labels, problem.ref.shape[0])
        self_offset = NO_SELF if problem.self_offset is None else problem.self_offset

    programs = triton.cdiv(emb.shape[0], BLOCK_M)
    result = (emb.new_empty(2, dtype=torch.float64), emb.new_empty(2, dtype=torch.int64))
    totals = (
        emb.new_empty((programs, 3), dtype=torch.float64),
        emb.new_empty((programs, 2), dtype=torch.int64),
        counter,
        *result,
        nan_flag,
    )
    sides = [(rows, columns, self_offset, of_emb, True)]
    if of_ref is not None:
        sides.append((columns, rows, -self_offset, of_ref, False))
    block_d = max(32, triton.next_power_of_2(dim))
    stages = 3 if block_d * emb.element_size() <= LARGEST_ROW // 2 else 2  # what fits into shared memory
    for own, other, offset, sums, need_sums in sides:
        small_kernel[(triton.cdiv(own[2], BLOCK_M),)](
            *own, *other, problem.margins, offset,
            *((nan_flag, nan_flag) if sums is None else sums), *totals,
            BLOCK_M=BLOCK_M, BLOCK_N=BLOCK_N, DIM=dim, BLOCK_D=block_d,
            MOST_PROGRAMS=MOST_PROGRAMS, WAY=way_of_patterns(emb.dtype, problem.precision),
            IN_PARTS=emb.dtype == torch.float32 and problem.precision == "highest", UPCAST=is_interpreted(),
            NEED_GRAD=sums is not None, NEED_SUMS=need_sums, num_warps=8, num_stages=stages,
            maxnreg=255,  # by default the assembler stops at 128 registers, and spills
        )  # fmt: skip
    return result
