"""What both GPU backends require of the machine and of an input.

Importing this module does not touch CUDA: a process that only imports the package has no CUDA context, and
can still choose its GPU. The first call on a GPU asks CUDA, once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from ..numerics import FLOAT_DTYPES

DTYPES = tuple(dtype for dtype in FLOAT_DTYPES if dtype != torch.float64)
LEAST_CAPABILITY = (8, 0)

F = TypeVar("F", bound=Callable[[], str | None])

_has_gpu = False  # a GPU was found; its absence is checked anew, as a process may choose its GPU late


def constant_in_graphs(ask: F) -> F:
    """Mark a function that torch.compile calls while it traces, and whose result it keeps as a constant.

    It does what torch.compiler.assume_constant_result does, but that imports the compiler, which would make
    importing the package a second slower.
    """
    ask._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return ask


@constant_in_graphs
def why_no_gpu() -> str | None:
    """None where there is a GPU for the kernels, else what is missing.

    The answer is in a plain variable, because torch.compile warns about functools.cache. It is a constant in
    graphs, because a guard on that variable would compile every graph twice. Where one GPU of a process is
    good enough, all are assumed to be.
    """
    global _has_gpu  # noqa: PLW0603
    if not _has_gpu:
        reason = _what_is_missing()
        _has_gpu = reason is None
        return reason
    return None


def _what_is_missing() -> str | None:
    if not torch.cuda.is_available() or torch.version.cuda is None:
        return "it needs an NVIDIA GPU, and torch sees none"
    capability = torch.cuda.get_device_capability()
    if capability < LEAST_CAPABILITY:
        return f"it needs compute capability 8.0 or more, and this GPU has {capability[0]}.{capability[1]}"
    return None


def why_not(device_type: str, dtype: torch.dtype, on_cpu_while: str | None) -> str | None:
    """None if the kernels take embeddings of this device and dtype, else the reason.

    on_cpu_while: the setting that makes the kernels run on the CPU, in tests; None where they run on a GPU.
    """
    if device_type != ("cuda" if on_cpu_while is None else "cpu"):
        where = "on a GPU" if on_cpu_while is None else f"in main memory while {on_cpu_while}"
        return f"it takes embeddings {where}, not on {device_type}"
    if dtype not in DTYPES:
        return f"it takes float32, float16 and bfloat16 embeddings, not {dtype}"
    return None


def on_device_of(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Makes the device of x the current one, on which kernels are launched."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()
