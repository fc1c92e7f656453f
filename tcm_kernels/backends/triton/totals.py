"""Sums over whole tiles, and partial sums in memory.

To choose the layout of an accumulator in tensor memory (sm_100), Triton 3.7 follows it through sums, and
cannot compile a kernel where it then meets the sum of a vector. It does not look past a cumulative sum. Where
no element is negative, the largest cumulative sum is the total.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def of_vector(x):
    """Sum of x (n,), which has no negative element, and no NaN, which a GPU's maximum ignores."""
    return tl.max(tl.cumsum(x, axis=0), axis=0)


@triton.jit
def of_tile(x):
    """Sum of x (TILE, TILE), which has no negative element and no NaN."""
    return of_vector(tl.sum(x, axis=1))


@triton.jit
def add_to(sums_ptr, row, positive, negative):
    """Add to a row of partial sums (n, 2) that no other program writes."""
    at = sums_ptr + row * 2
    tl.store(at, tl.load(at) + positive)
    tl.store(at + 1, tl.load(at + 1) + negative)
