"""The `cuda` backend: the C++/CUDA kernels in csrc/cuda, compiled when the package is installed.

Python sorts the rows by label or group and allocates every tensor (an allocation error inside the stable ABI
would lose torch's message and type); C++ queues the kernels. csrc/cuda/loss/forward.cpp and
csrc/cuda/histogram/histogram.cpp describe how the kernels work together.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

import torch
from torch import Tensor

from .contract import GradientRows, HistogramProblem, PartnerSums, Problem
from .gpu import machine
from .gpu.backward import gradients
from .gpu.machine import on_device_of, why_no_gpu
from .gpu.plan import Plan, plan_of
from .gpu.residual import Outputs, outputs_beside, partner_sums, residual_bytes, set_nan_flag, views_of
from .order import GroupOrder, LabelOrder, group_orders, label_orders, most_groups, self_indices

__all__ = [
    "add_pair_sums",
    "pair_histogram",
    "pair_sums",
    "pair_sums_backward",
    "partner_sums",
    "residual_bytes",
    "set_nan_flag",
    "why_not",
    "why_not_here",
]

TILE = 128  # kTile of csrc/cuda/device/tiles.h


def emulator() -> str:
    """TCM_KERNELS_CUDA_EMULATOR: a library in which the kernels run on the CPU, for tests."""
    return os.environ.get("TCM_KERNELS_CUDA_EMULATOR", "")


def load() -> str | None:
    """Load the extension, which registers its ops; None, or why it cannot be loaded."""
    if emulator():
        torch.ops.load_library(emulator())  # type: ignore[no-untyped-call]
        return None
    try:
        importlib.import_module("tcm_kernels._cuda")
    except ImportError as error:
        return str(error)
    return None


def _ops() -> Any:
    """The ops of the library in use; those of the emulator are in a namespace of their own."""
    return torch.ops.tcm_kernels_on_cpu if emulator() else torch.ops.tcm_kernels


# Loaded when the package is imported, because torch.compile cannot trace an import.
_import_error = load() if torch.version.cuda or emulator() else "torch is built without CUDA"


def why_not_here() -> str | None:
    """None where there is a GPU and the CUDA extension loads, else what is missing."""
    reason = None if emulator() else why_no_gpu()
    if reason is not None or _import_error is None:
        return reason
    return (
        f"its CUDA extension could not be loaded ({_import_error}); with nvcc 12 or newer installed, "
        "reinstall the package: pip install --no-build-isolation --force-reinstall --no-deps ."
    )


def why_not(device_type: str, dtype: torch.dtype) -> str | None:
    """None if this backend takes embeddings of this device and dtype, else the reason."""
    return machine.why_not(device_type, dtype, "TCM_KERNELS_CUDA_EMULATOR is set" if emulator() else None)


def pair_sums(problem: Problem, residual_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sums (2,) float64, counts (2,) int64 and residual: see `contract.Backend`."""
    with on_device_of(problem.emb):
        residual = torch.zeros(residual_size, dtype=torch.uint8, device=problem.emb.device)
        sums, counts = _pair_sums(problem, views_of(problem.gradient_rows, residual))
    return sums, counts, residual


def add_pair_sums(
    problem: Problem, of_emb: PartnerSums | None, of_ref: PartnerSums | None
) -> tuple[Tensor, Tensor]:
    """Sums and counts; P and Q are added to those given: see `contract.Backend`."""
    with on_device_of(problem.emb):
        return _pair_sums(problem, outputs_beside(problem.emb, of_emb, of_ref))


def _pair_sums(problem: Problem, outputs: Outputs) -> tuple[Tensor, Tensor]:
    emb = problem.emb.contiguous()
    ref = None if problem.ref is None else problem.ref.contiguous()
    of_emb, of_ref, nan_flag, _ = outputs
    sums = emb.new_empty(2, dtype=torch.float64)
    counts = emb.new_empty(2, dtype=torch.int64)
    rows, columns = label_orders(problem)
    plan = plan_of(
        len(emb), len(emb if ref is None else ref), emb.shape[1],
        is_self=ref is None, need_columns=(of_emb if ref is None else of_ref) is not None,
        tile=TILE, multiprocessors=_ops()._cuda_multiprocessors(),
    )  # fmt: skip
    workspace_bytes = _ops()._cuda_workspace_bytes(
        len(emb), len(emb if ref is None else ref), emb.shape[1], ref is None, *_numbers(plan)
    )
    workspace = emb.new_empty(workspace_bytes, dtype=torch.uint8)
    _ops()._cuda_pair_sums(
        _side(emb, rows, of_emb),
        [] if ref is None else _side(ref, columns, of_ref),
        problem.margins,
        problem.precision == "highest",
        *_numbers(plan),
        sums,
        counts,
        nan_flag,
        workspace,
    )
    return sums, counts


def _side(x: Tensor, order: LabelOrder, sums: PartnerSums | None) -> list[Tensor]:
    """The op's tensors of one side: self_index where there are two, P and Q where they are wanted."""
    own = () if order.self_index is None else (order.self_index,)
    return [x, order.order, order.label, *own, *(sums or ())]


def _numbers(plan: Plan) -> tuple[bool, bool, int, int, int, int, list[int]]:
    """The plan as the ops take it."""
    parts = [int(number) for part in plan.parts for number in part]
    return (
        plan.screened, plan.by_column, plan.edge, plan.programs, plan.list_most, plan.max_candidates, parts
    )  # fmt: skip


def pair_sums_backward(rows: GradientRows, grad_sums: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of emb and ref, empty where not wanted: see `contract.Backend`."""
    return gradients(rows, grad_sums, residual, _normalize_backward)


def _normalize_backward(
    x: Tensor, sums: PartnerSums, nan_flag: Tensor, grad_sums: Tensor, ordered: int, grad: Tensor
) -> None:
    _ops()._cuda_pair_sums_backward(grad_sums, nan_flag.view(1), x, *sums, ordered, grad)


def pair_histogram(problem: HistogramProblem) -> tuple[Tensor, Tensor, Tensor]:
    """Counts by group and bin, and of all pairs: see `contract.HistogramBackend`."""
    emb = problem.emb.contiguous()
    ref = None if problem.ref is None else problem.ref.contiguous()
    width = problem.bins + 2
    with on_device_of(emb):
        rows, columns = group_orders(problem)
        offset = 0 if ref is None else problem.self_offset
        row_self_indices = self_indices(rows.order, columns.order, offset)
        column_self_indices = self_indices(columns.order, rows.order, None if offset is None else -offset)
        positives, negatives, of_one_group = (
            torch.zeros((rows_of_table, width), dtype=torch.int64, device=emb.device)
            for rows_of_table in (problem.group_count, problem.group_count, 2)
        )
        _ops()._cuda_pair_histogram(
            _histogram_side(emb, rows, row_self_indices),
            [] if ref is None else _histogram_side(ref, columns, column_self_indices),
            most_groups(rows, TILE),
            0 if ref is None else most_groups(columns, TILE),
            problem.bins,
            problem.lo,
            problem.hi,
            problem.precision == "highest",
            emb.new_empty(problem.bins + 3, dtype=torch.float32),
            emb.new_empty(1, dtype=torch.int32),
            positives,
            negatives,
            of_one_group,
        )
    # A pair of two groups counts in two rows of the tables, a pair of one group in one.
    pooled = (torch.stack((positives.sum(dim=0), negatives.sum(dim=0))) + of_one_group) // 2
    return positives, negatives, pooled


def _histogram_side(x: Tensor, order: GroupOrder, self_index: Tensor) -> list[Tensor]:
    """The op's tensors of one side, the last of them to be written."""
    return [x, *order, _tile_facts(order), self_index, x.new_empty(len(x), dtype=torch.float32)]


def _tile_facts(order: GroupOrder) -> Tensor:
    """(tiles, 4) int32: the first and last group, and the least and largest label, of every tile."""
    n = len(order.order)
    tiles = -(-n // TILE)
    if n == 0:
        return order.group.new_empty((0, 4))
    first = torch.arange(0, n, TILE, device=order.group.device)
    last = (first + TILE - 1).clamp_max(n - 1)
    labels = torch.cat((order.label, order.label[-1:].expand(tiles * TILE - n))).view(tiles, TILE)
    return torch.stack((order.group[first], order.group[last], *labels.aminmax(dim=1)), dim=1)
