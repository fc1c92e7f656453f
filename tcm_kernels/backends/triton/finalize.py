"""Finalize: partial sums to the result, in a fixed order.

Programs add up blocks of partial sums and look for rows that are not finite; the last program to end adds up
what all have stored, in the order of the programs. Bytes: 36 N from the L2 cache, 1.2 MB at N = 32,768. One
program would read them at the rate of one multiprocessor, predicted 0.07 U at D = 512; 33 programs share
them. Not yet measured.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .rules import beyond_margins, not_finite

BLOCK = 1024  # partial sums that a program adds up at a time
MOST_PROGRAMS = 256


def programs_for(partials: int) -> int:
    """Programs for this number of partial sums or rows."""
    return max(1, min(MOST_PROGRAMS, triton.cdiv(partials, BLOCK)))


@triton.jit
def store_result(sums, counts, any_not_finite, margins_ptr, sums_ptr, counts_ptr, nan_flag_ptr):
    """Write the result. Penalties are from the thresholds: the rest up to the margin is added per pair."""
    nan_flag = tl.where(any_not_finite, float("nan"), 0.0).to(tl.float64)
    sums = tl.where(counts > 0, sums + counts.to(tl.float64) * beyond_margins(margins_ptr), 0.0)
    sign = tl.arange(0, 2)
    tl.store(sums_ptr + sign, sums + nan_flag)
    tl.store(counts_ptr + sign, counts)
    tl.store(nan_flag_ptr, nan_flag)


@triton.jit
def add_programs(
    partial_sums_ptr, partial_counts_ptr, margins_ptr, sums_ptr, counts_ptr, nan_flag_ptr,
    MOST_PROGRAMS: tl.constexpr,
):  # fmt: skip
    """Write the result from what all programs have stored."""
    offs, sign = tl.arange(0, MOST_PROGRAMS), tl.arange(0, 2)
    there = offs < tl.num_programs(0)
    # .cg bypasses the L1 cache, which may hold values from before other programs wrote.
    found = tl.load(partial_sums_ptr + offs * 3 + 2, mask=there, other=0.0, cache_modifier=".cg")
    at = offs[:, None] * 3 + sign[None, :]
    sums = tl.load(partial_sums_ptr + at, mask=there[:, None], other=0.0, cache_modifier=".cg")
    at = offs[:, None] * 2 + sign[None, :]
    counts = tl.load(partial_counts_ptr + at, mask=there[:, None], other=0, cache_modifier=".cg")
    any_not_finite = tl.sum(found, axis=0) > 0
    sums, counts = tl.sum(sums, axis=0), tl.sum(counts, axis=0)
    store_result(sums, counts, any_not_finite, margins_ptr, sums_ptr, counts_ptr, nan_flag_ptr)


@triton.jit
def end_program(
    sums, counts, not_finite_rows,  # of this program: (2,) float64, (2,) int64, how many rows are not finite
    partial_sums_ptr, partial_counts_ptr,  # (programs, 3) float64 and (programs, 2) int64
    ended_ptr,  # int32, how many programs have ended; 0 before and afterwards
    margins_ptr,
    sums_ptr, counts_ptr, nan_flag_ptr,  # the result, written by the last program
    MOST_PROGRAMS: tl.constexpr,
):  # fmt: skip
    """Store a program's sums; the last program to end adds up those of all."""
    program, sign = tl.program_id(0), tl.arange(0, 2)
    tl.store(partial_sums_ptr + program * 3 + sign, sums)
    tl.store(partial_sums_ptr + program * 3 + 2, not_finite_rows.to(tl.float64))
    tl.store(partial_counts_ptr + program * 2 + sign, counts)
    tl.debug_barrier()  # all threads have stored before the program counts as ended
    if tl.atomic_add(ended_ptr, 1, sem="acq_rel") == tl.num_programs(0) - 1:
        add_programs(
            partial_sums_ptr,
            partial_counts_ptr,
            margins_ptr,
            sums_ptr,
            counts_ptr,
            nan_flag_ptr,
            MOST_PROGRAMS,
        )
        tl.store(ended_ptr, 0)


@triton.jit
def rows_not_finite(inverse_ptr, n, BLOCK: tl.constexpr):
    """How many rows have a norm that is not finite, among this program's blocks of the n rows."""
    found = tl.zeros((), tl.int32)
    for start in range(tl.program_id(0) * BLOCK, n, tl.num_programs(0) * BLOCK):
        offs = start + tl.arange(0, BLOCK)
        found += not_finite(tl.load(inverse_ptr + offs, mask=offs < n, other=1.0))
    return found


@triton.jit(do_not_specialize=["partials", "n", "m"])
def finalize_kernel(
    sums_ptr, counts_ptr, partials,  # (partials, 2) float64 and int64
    row_inverse_ptr, n, column_inverse_ptr, m,
    margins_ptr,
    program_sums_ptr, program_counts_ptr, ended_ptr,  # as for end_program
    result_sums_ptr,  # (2,) float64
    result_counts_ptr,  # (2,) int64
    nan_flag_ptr,  # float64: 0, or NaN where an embedding is not finite
    BLOCK: tl.constexpr, MOST_PROGRAMS: tl.constexpr, SELF: tl.constexpr,
):  # fmt: skip
    """Add up all partial sums, and find whether a row is not finite."""
    sums, counts = tl.zeros((2,), tl.float64), tl.zeros((2,), tl.int64)
    offs, sign = tl.arange(0, BLOCK), tl.arange(0, 2)
    for start in range(tl.program_id(0) * BLOCK, partials, tl.num_programs(0) * BLOCK):
        inside = (start + offs < partials)[:, None]
        at = (start + offs).to(tl.int64)[:, None] * 2 + sign[None, :]
        sums += tl.sum(tl.load(sums_ptr + at, mask=inside, other=0.0), axis=0)
        counts += tl.sum(tl.load(counts_ptr + at, mask=inside, other=0), axis=0)
    found = rows_not_finite(row_inverse_ptr, n, BLOCK)
    if not SELF:
        found += rows_not_finite(column_inverse_ptr, m, BLOCK)
    end_program(
        sums, counts, found, program_sums_ptr, program_counts_ptr, ended_ptr, margins_ptr,
        result_sums_ptr, result_counts_ptr, nan_flag_ptr, MOST_PROGRAMS,
    )  # fmt: skip
