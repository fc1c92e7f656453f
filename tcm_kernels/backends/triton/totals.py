"""Sums over whole tiles, and partial sums in memory.

Triton 3.7 follows an accumulator of sm_100 (tensor memory) through sums to choose its layout, and cannot
compile a kernel in which it meets the sum of a vector on that way. A running sum is where it stops looking;
its last element, the largest of what is not negative, is the total.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def of_vector(x):
    """Sum of the elements of x (n,), none negative and none a NaN, which a GPU's maximum passes over."""
    return tl.max(tl.cumsum(x, axis=0), axis=0)


@triton.jit
def of_tile(x):
    """The same of x (TILE, TILE)."""
    return of_vector(tl.sum(x, axis=1))


@triton.jit
def add_to(sums_ptr, row, positive, negative):
    """Add to a row of partial sums (n, 2), which no other program touches."""
    at = sums_ptr + row * 2
    tl.store(at, tl.load(at) + positive)
    tl.store(at + 1, tl.load(at + 1) + negative)
