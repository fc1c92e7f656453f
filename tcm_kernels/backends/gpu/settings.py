"""Environment variables of both GPU backends.

TCM_KERNELS_GPU_POOL_MIB    MiB for the bits of pairs, 64 by default; less means more passes, same result
TCM_KERNELS_GPU_SCREENING   "int8" or "full" for matrices of every size, in tests and benchmarks
"""

from __future__ import annotations

import os

DEFAULT_POOL_MIB = 64


def pool_bytes() -> int:
    """The most bytes of the pool of bits: TCM_KERNELS_GPU_POOL_MIB, 64 MiB by default."""
    asked = os.environ.get("TCM_KERNELS_GPU_POOL_MIB", "")
    try:
        mib = float(asked or DEFAULT_POOL_MIB)
    except ValueError:
        mib = -1.0
    if not mib > 0:
        raise ValueError(f"TCM_KERNELS_GPU_POOL_MIB: got {asked!r}, expected a number of MiB above 0")
    return int(mib * 2**20)


def asked_screening() -> str:
    """TCM_KERNELS_GPU_SCREENING: "int8" or "full" for matrices of every size, else ""."""
    asked = os.environ.get("TCM_KERNELS_GPU_SCREENING", "")
    if asked not in ("", "full", "int8"):
        raise ValueError(f"TCM_KERNELS_GPU_SCREENING: got {asked!r}, expected 'full' or 'int8'")
    return asked
