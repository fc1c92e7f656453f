"""Arguments of the ops themselves, as the functions above them would pass them on."""

from __future__ import annotations

from typing import Any

import torch
from cases import Case
from engines import Engine

from tcm_kernels import dispatch
from tcm_kernels.backends.contract import Problem


def pair_sums_arguments(
    engine: Engine, relation: str, dtype: torch.dtype, need_emb: bool, need_ref: bool
) -> tuple[Any, ...]:
    """Arguments of `pair_sums` up to and including `backend`."""
    inputs = Case(relation=relation, n=10, d=7, dtype=dtype, extra=5).build(engine.device)
    emb = inputs.emb.detach().requires_grad_(need_emb)
    ref = None if inputs.ref_emb is None else inputs.ref_emb.detach().requires_grad_(need_ref)
    margins = torch.tensor([0.8, 0.3], dtype=torch.float64, device=engine.device)
    return (
        emb,
        inputs.labels,
        ref,
        inputs.ref_labels,
        margins,
        inputs.self_offset,
        need_emb,
        need_ref and ref is not None,
        "highest",
        engine.backend,
    )


def residual_size(engine: Engine, arguments: tuple[Any, ...]) -> int:
    return dispatch.module(engine.backend).residual_bytes(Problem(*arguments[:-1]).gradient_rows)


def backward_arguments(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Those of `pair_sums_backward` after the residual, from those of `pair_sums`."""
    return (*Problem(*arguments[:-1]).gradient_rows, arguments[-1])
