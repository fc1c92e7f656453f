"""Settings of both GPU backends, and inputs, that reach every path of the kernels at small sizes.

A GPU takes them for large matrices only, so that no shared case gets there: tiles, lists and super-tiles are
made small here instead. One table, because three places must mean the same by it: the tests on a GPU, the
tests without one, in Triton's interpreter and on the emulator of a GPU (gpu/test_settings.py), and the
compiler, which is to know before any GPU does that these kernels compile and fit (triton/test_compiled.py).
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import itertools

import pytest
import torch
from cases import Case


@dataclasses.dataclass(frozen=True)
class Setting:
    """How a matrix is cut and screened; None leaves what the backend has."""

    backend: str
    screening: str
    pool_mib: float = 64
    tile: int | None = None  # of Triton; the CUDA kernels have one
    list_most: int | None = None
    useless_from: float | None = None  # share of candidates from which on the sweep does not run
    rows: int = 34  # what the interpreter gets through in seconds; pair by pair takes the emulator 20 us each
    shared_kib: int = 228  # of a multiprocessor of the emulator: two buffers or four

    @property
    def is_pair_by_pair(self) -> bool:
        """Whether no tile has too many candidates for a list: slow where neither a GPU nor C++ takes them."""
        return self.tile is not None and self.list_most == self.tile**2

    def apply(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TCM_KERNELS_GPU_SCREENING", self.screening)
        monkeypatch.setenv("TCM_KERNELS_GPU_POOL_MIB", str(self.pool_mib))
        monkeypatch.setenv("TCM_EMULATOR_SHARED_BYTES", str(self.shared_kib * 1024))
        for name, value in (
            ("TILE", self.tile),
            ("LIST_MOST", self.list_most),
            ("USELESS_FROM", self.useless_from),
        ):
            if value is not None:
                monkeypatch.setattr(importlib.import_module(PLACES[name]), name, value)


# Where a number is looked up.
PLACES = {
    "TILE": "tcm_kernels.backends.triton.tiles",
    "LIST_MOST": "tcm_kernels.backends.gpu.plan",
    "USELESS_FROM": "tcm_kernels.backends.gpu.plan",
}

_triton = functools.partial(Setting, "triton")
_cuda = functools.partial(Setting, "cuda", rows=300)
TRITON = {
    "in one launch": _triton("", tile=32),
    "screened, candidates decided one by one": _triton("int8", tile=32, list_most=1024, useless_from=1.0),
    "screened, three super-tiles": _triton("int8", tile=32, pool_mib=1e-6, rows=67),
    "screened, many candidates a tile": _triton("int8", tile=32, list_most=8),
    "everything in full precision": _triton("full", tile=32, list_most=8),
    "full precision, three super-tiles": _triton("full", tile=32, list_most=8, pool_mib=1e-6, rows=67),
    "as on a GPU": _triton("int8"),
}
# What is compiled without a GPU: the kernels of the other settings differ from these in constants only.
COMPILED = (
    "in one launch",
    "screened, many candidates a tile",
    "screened, three super-tiles",
    "full precision, three super-tiles",
)
CUDA = {
    "as the shape asks": _cuda(""),
    "screened, with little shared memory": _cuda("int8", shared_kib=100),
    "screened, candidates decided one by one": _cuda("int8", list_most=128 * 128, useless_from=1.0, rows=140),
    "screened, many candidates a tile": _cuda("int8", list_most=8, useless_from=1.0),
    "screened, in super-tiles of 256 rows": _cuda("int8", pool_mib=1e-6, useless_from=1.0),
    "everything in full precision": _cuda("full", list_most=8),
    "full precision, with little shared memory": _cuda("full", shared_kib=100),
    "full precision, in super-tiles of 256 rows": _cuda("full", pool_mib=1e-6),
}

# Lists, patterns, whole tiles, and whole tiles less a list; alone, and with a reference set. All dtypes meet
# all settings; all of them all looks is more than the interpreter gets through.
_TRITON = (
    ("self", "clustered", torch.float32),
    ("self", "collapsed", torch.bfloat16),
    ("self", "everything_hard", torch.float16),
    ("rectangular_with_self_offset", "random", torch.float32),
)
_CUDA = (
    ("self", "random"),
    ("self", "clustered"),
    ("self", "everything_hard"),
    ("rectangular_with_self_offset", "collapsed"),
)
# Dimensions: a block of columns and a bit for either kind of pattern, and rows that begin anywhere.
_CUDA_KINDS = ((torch.float32, 72), (torch.bfloat16, 136), (torch.float16, 41))
INPUTS = {
    "triton": [
        Case(relation=relation, d=40, look=look, extra=20, seed=5, dtype=dtype)
        for relation, look, dtype in _TRITON
    ],
    "cuda": [
        Case(relation=relation, d=d, look=look, extra=20, seed=5, dtype=dtype)
        for (relation, look), (dtype, d) in itertools.product(_CUDA, _CUDA_KINDS)
    ],
}


def inputs_of(setting: Setting) -> list[Case]:
    """Cases of as many rows as the setting asks for."""
    return [dataclasses.replace(case, n=setting.rows) for case in INPUTS[setting.backend]]


def compiled_inputs_of(name: str) -> list[Case]:
    """Of the inputs of a setting in COMPILED, those with and without a reference set in turn."""
    return inputs_of(TRITON[name])[COMPILED.index(name) % 2 :: 2]
