"""The `cpu` backend: the C++ kernel in csrc/cpu, for embeddings in main memory.

Python allocates every tensor (an allocation error inside the stable ABI would lose torch's message),
C++ fills them. The kernel's method is described in csrc/cpu/loss/forward.cpp.
"""

from __future__ import annotations

import functools
import importlib
import os
from typing import overload

import torch
from torch import Tensor

from .contract import GradientRows, HistogramProblem, PairList, PartnerSums, Problem
from .numerics import FLOAT_DTYPES, full_precision_matmul
from .order import group_orders, most_groups, self_indices
from .residual import partner_sums, residual_bytes, set_nan_flag

__all__ = [
    "STAGES",
    "add_pair_sums",
    "details",
    "pair_histogram",
    "pair_list_sums",
    "pair_sums",
    "pair_sums_backward",
    "partner_sums",
    "residual_bytes",
    "screening_name",
    "set_nan_flag",
    "simd_name",
    "why_not",
    "why_not_here",
]

# The parts of a forward, in the order in which the kernel reports their times. "order" is the sort by label
# and the clearing of P and Q; "probe" evaluates a sample of pairs to decide how to screen.
STAGES = ("order", "prepare", "probe", "screen", "accumulate")

_import_error: str | None = None
try:
    importlib.import_module("tcm_kernels._cpu")  # registers torch.ops.tcm_kernels._cpu_*
except ImportError as error:
    _import_error = str(error)


def why_not_here() -> str | None:
    """None where the C++ extension is installed and loads, else what is missing."""
    if _import_error is None:
        return None
    return (
        f"its C++ extension could not be loaded ({_import_error}); with a C++17 compiler installed, "
        "reinstall the package: pip install --no-build-isolation --force-reinstall --no-deps ."
    )


def why_not(device_type: str, dtype: torch.dtype) -> str | None:
    """None if this backend takes embeddings of this device and dtype, else the reason."""
    if device_type != "cpu":
        return f"it takes embeddings in main memory, not on {device_type}"
    if dtype not in FLOAT_DTYPES:
        return f"it takes float32, float64, float16 and bfloat16 embeddings, not {dtype}"
    return None


# Environment variables that the kernel reads at its first call, and what they can be.
_SETTINGS = {
    "TCM_KERNELS_CPU_ISA": ("baseline", "avx2", "avx512", "avx512_vnni"),
    "TCM_KERNELS_CPU_SCREENING": ("full", "int8", "bfloat16"),
}


@functools.cache
def _check_settings() -> None:
    """Raise a ValueError for an environment variable that the kernel would not understand."""
    for name, accepted in _SETTINGS.items():
        asked = os.environ.get(name, "")
        if asked and asked not in accepted:
            raise ValueError(f"{name}: got {asked!r}, expected one of {', '.join(map(repr, accepted))}")


def details() -> str:
    """What the kernel has chosen on this machine, for the doctor."""
    return f"{simd_name()} inner loops, {screening_name()} screening"


def screening_name() -> str:
    """What screens the pairs: "int8", "int8 (7 bits)", "bfloat16" or "full-precision".

    csrc/cpu/loss/quantize.h says which processors use which.
    """
    _check_settings()
    return torch.ops.tcm_kernels._cpu_screening_name()


def simd_name() -> str:
    """The instruction set the inner loops run with: "avx512_vnni", "avx512", "avx2" or "baseline"."""
    _check_settings()
    return torch.ops.tcm_kernels._cpu_simd_name()


@overload
def _dense(x: Tensor, dtype: torch.dtype | None = ...) -> Tensor: ...


@overload
def _dense(x: Tensor | None, dtype: torch.dtype | None = ...) -> Tensor | None: ...


def _dense(x: Tensor | None, dtype: torch.dtype | None = None) -> Tensor | None:
    """Contiguous x, of `dtype` where one is given; None stays None."""
    return None if x is None else x.to(dtype=dtype).contiguous()


def pair_sums(
    problem: Problem, residual_size: int, *, stage_seconds: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Sums (2,) float64, counts (2,) int64 and residual: see `contract.Backend`.

    If given, `stage_seconds` (5,) float64 receives the seconds that each of `STAGES` took.
    """
    residual = torch.empty(residual_size, dtype=torch.uint8)
    partners = partner_sums(problem.gradient_rows, residual)
    sums, counts = _pair_sums(problem, *partners, stage_seconds=stage_seconds)
    return sums, counts, residual


def add_pair_sums(
    problem: Problem, of_emb: PartnerSums | None, of_ref: PartnerSums | None
) -> tuple[Tensor, Tensor]:
    """Sums and counts; P and Q are added to those given: see `contract.Backend`."""
    return _pair_sums(problem, of_emb, of_ref, add=True)


def _pair_sums(
    problem: Problem,
    of_emb: PartnerSums | None,
    of_ref: PartnerSums | None,
    *,
    add: bool = False,
    stage_seconds: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    _check_settings()
    emb, ref = _dense(problem.emb), _dense(problem.ref)
    sums = torch.empty(2, dtype=torch.float64)
    counts = torch.empty(2, dtype=torch.int64)
    threads = torch.get_num_threads()
    workspace = torch.empty(torch.ops.tcm_kernels._cpu_workspace_bytes(emb, ref, threads), dtype=torch.uint8)
    with full_precision_matmul("cpu"):
        torch.ops.tcm_kernels._cpu_pair_sums(
            [emb, _dense(problem.labels, torch.int64), *(of_emb or ())],
            [] if ref is None else [ref, _dense(problem.ref_labels, torch.int64), *(of_ref or ())],
            problem.margins,
            problem.self_offset,
            add,
            threads,
            sums,
            counts,
            workspace,
            stage_seconds,
        )
    return sums, counts


def pair_list_sums(problem: PairList, residual_size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sums, counts, numbers of listed pairs, and residual: see `contract.PairListBackend`."""
    _check_settings()
    emb, ref = _dense(problem.emb), _dense(problem.ref)
    residual = torch.zeros(residual_size, dtype=torch.uint8)
    of_emb, of_ref = partner_sums(problem.gradient_rows, residual)
    sums = torch.empty(2, dtype=torch.float64)
    counts, listed = torch.empty(2, dtype=torch.int64), torch.empty(2, dtype=torch.int64)
    pairs = [index.contiguous() for index in problem.positives + problem.negatives]
    most = max(len(pairs[0]), len(pairs[2]))
    workspace_bytes = torch.ops.tcm_kernels._cpu_pair_list_workspace_bytes(emb, ref, most)
    torch.ops.tcm_kernels._cpu_pair_list_sums(
        [emb, *(of_emb or ())],
        [] if ref is None else [ref, *(of_ref or ())],
        pairs,
        problem.margins,
        problem.deduplicate,
        torch.get_num_threads(),
        sums,
        counts,
        listed,
        torch.empty(workspace_bytes, dtype=torch.uint8),
    )
    set_nan_flag(problem.gradient_rows, residual, sums.sum() * 0)
    return sums, counts, listed, residual


def pair_sums_backward(rows: GradientRows, grad_sums: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of emb and ref, empty where not wanted: see `contract.Backend`."""
    of_emb, of_ref = partner_sums(rows, residual)
    ordered = 2 if rows.symmetric else 1

    def gradient(x: Tensor | None, sums: PartnerSums | None) -> Tensor:
        if x is None or sums is None:
            return grad_sums.new_empty(0)
        x = x.contiguous()
        grad = torch.empty_like(x)
        torch.ops.tcm_kernels._cpu_pair_sums_backward(
            grad_sums.contiguous(), x, *sums, ordered, torch.get_num_threads(), grad
        )
        return grad

    return gradient(rows.emb, of_emb), gradient(rows.ref, of_ref)


def pair_histogram(problem: HistogramProblem) -> tuple[Tensor, Tensor, Tensor]:
    """Counts by group and bin, and of all pairs: see `contract.HistogramBackend`."""
    _check_settings()
    emb, ref = _dense(problem.emb), _dense(problem.ref)
    rows, columns = group_orders(problem)
    threads = torch.get_num_threads()
    edge = torch.ops.tcm_kernels._cpu_histogram_edge(emb, ref, threads)
    groups = max(most_groups(rows, edge), most_groups(columns, edge))
    table = (problem.group_count, problem.bins + 2)
    positives = torch.zeros(table, dtype=torch.int64)
    negatives = torch.zeros(table, dtype=torch.int64)
    pooled = torch.zeros((2, problem.bins + 2), dtype=torch.int64)
    workspace = torch.empty(
        torch.ops.tcm_kernels._cpu_histogram_workspace_bytes(emb, ref, threads, problem.bins, groups),
        dtype=torch.uint8,
    )
    with full_precision_matmul("cpu"):
        torch.ops.tcm_kernels._cpu_pair_histogram(
            [emb, *rows],
            [] if ref is None else [ref, *columns],
            None if ref is None else self_indices(rows.order, columns.order, problem.self_offset),
            problem.bins,
            problem.lo,
            problem.hi,
            threads,
            groups,
            positives,
            negatives,
            pooled,
            workspace,
        )
    return positives, negatives, pooled
