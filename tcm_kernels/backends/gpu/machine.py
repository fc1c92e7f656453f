"""What both GPU backends need of a machine and of an input.

Nothing here asks CUDA anything before it is called: a process that only imports the package stays without a
context, and can still choose its GPU. A call on a GPU then asks once.
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

_has_gpu = False  # is known to; that it has none is asked again, since a process may choose its GPU late


def constant_in_graphs(ask: F) -> F:
    """What torch.compile calls while it traces, and keeps the answer of, without a look into it.

    As torch.compiler.assume_constant_result, which would import the compiler with the package, and take a
    second for it.
    """
    ask._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return ask


@constant_in_graphs
def why_no_gpu() -> str | None:
    """None where there is a GPU for the kernels, else what is missing.

    In a plain variable, because torch.compile warns of functools.cache; and constant in graphs, because that
    variable would otherwise be guarded on, and its change compile every graph twice. Where one GPU of a
    process has been good enough, all are taken to be.
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

    on_cpu_while: the setting under which they run on the CPU at the moment, for tests; None on a GPU.
    """
    if device_type != ("cuda" if on_cpu_while is None else "cpu"):
        where = "on a GPU" if on_cpu_while is None else f"in main memory while {on_cpu_while}"
        return f"it takes embeddings {where}, not on {device_type}"
    if dtype not in DTYPES:
        return f"it takes float32, float16 and bfloat16 embeddings, not {dtype}"
    return None


def on_device_of(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Kernels are launched on the current device."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()
