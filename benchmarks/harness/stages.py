"""Where the time goes: the seconds of each stage of our forward, and of the backward.

A backend that knows its stages has STAGES, their names, and a `pair_sums` that reports the seconds of each.
What the forward takes beyond them, Python and the allocation of tensors, is a part of its own, so that
the parts of a call add up to the call. The forward is the one that prepares for a backward: it collects
the sums of hard partners, which the value alone does without.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

from benchmarks.harness.workload import Workload
from tcm_kernels import dispatch
from tcm_kernels.backends.contract import Problem

CALLING = "calling"  # the forward without its stages
BACKWARD = "backward"
FEWEST_CALLS, MOST_CALLS = 3, 25
ENOUGH_S = 2.0

Cell = dict[str, Any]


def profile(work: Workload, backend: str) -> Cell:
    """{"status": "measured", "calls": ..., "seconds": {part: median}}, or why there is none.

    The parts are the backend's stages in their order, CALLING and BACKWARD.
    """
    names = getattr(dispatch.module(backend), "STAGES", None)
    if names is None:
        return {"status": "not measured", "reason": f"backend {backend!r} does not time its stages"}
    call(work, backend)  # warm
    calls: list[dict[str, float]] = []
    begin = time.perf_counter()
    while len(calls) < FEWEST_CALLS or (len(calls) < MOST_CALLS and time.perf_counter() - begin < ENOUGH_S):
        calls.append(call(work, backend))
    medians = {part: statistics.median(each[part] for each in calls) for part in calls[0]}
    return {"status": "measured", "calls": len(calls), "seconds": medians}


def call(work: Workload, backend: str) -> dict[str, float]:
    """Seconds of each part of one forward and backward, for the gradient of emb."""
    module: Any = dispatch.module(backend)  # with more than the contract asks for
    margins = torch.tensor([work.margin_plus, work.margin_minus], dtype=torch.float64)
    problem = Problem(
        work.emb, work.labels, work.ref, work.ref_labels, margins, None, True, False, precision="highest"
    )
    size = module.residual_bytes(problem.gradient_rows)
    stages = torch.zeros(len(module.STAGES), dtype=torch.float64)
    begin = time.perf_counter()
    _, counts, residual = module.pair_sums(problem, size, stage_seconds=stages)
    middle = time.perf_counter()
    module.pair_sums_backward(problem.gradient_rows, 1 / counts.clamp_min(1).double(), residual)
    end = time.perf_counter()
    parts = dict(zip(module.STAGES, stages.tolist(), strict=True))
    return parts | {CALLING: middle - begin - sum(parts.values()), BACKWARD: end - middle}
