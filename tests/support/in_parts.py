"""A batch's matrix in parts, as a ring of processes takes it: P and Q of all parts add up in one residual."""

from __future__ import annotations

import torch
from agreement import ROW_ROUNDING, Result, upstream_for
from cases import Inputs
from engines import Engine

from tcm_kernels import dispatch
from tcm_kernels.backends.contract import PartnerSums, Problem
from tcm_kernels.stats import PairStats


def run_in_parts(engine: Engine, inputs: Inputs, cut: int) -> Result:
    """The self case as both triangles, and the rectangle between rows before and after the cut."""
    backend = dispatch.module(engine.backend)
    emb, labels = inputs.emb.detach(), inputs.labels
    margins = emb.new_tensor([inputs.margin_plus, inputs.margin_minus], dtype=torch.float64)
    whole = Problem(emb, labels, None, None, margins, None, True, False, "highest")
    residual = torch.zeros(backend.residual_bytes(whole.gradient_rows), dtype=torch.uint8, device=emb.device)
    partners, _ = backend.partner_sums(whole.gradient_rows, residual)
    before, after = slice(None, cut), slice(cut, None)
    parts = [(before, None, 1), (after, None, 1), (before, after, 2)]
    sums, counts = margins * 0, torch.zeros(2, dtype=torch.int64, device=emb.device)
    for rows, columns, weight in parts:
        problem = whole._replace(emb=emb[rows], labels=labels[rows])
        of_columns = None
        if columns is not None:
            problem = problem._replace(ref=emb[columns], ref_labels=labels[columns], need_grad_ref=True)
            of_columns = PartnerSums(*(x[columns] for x in partners))
        of_rows = PartnerSums(*(x[rows] for x in partners))
        of_part, counts_of_part = backend.add_pair_sums(problem, of_rows, of_columns)
        sums, counts = sums + weight * of_part, counts + weight * counts_of_part
    backend.set_nan_flag(whole.gradient_rows, residual, sums.sum() * 0)

    weights = torch.tensor([inputs.lambda_plus, inputs.lambda_minus], dtype=torch.float64, device=emb.device)
    weights = weights / counts.clamp_min(1)
    loss = (weights * sums).sum().to(torch.float64 if emb.dtype == torch.float64 else torch.float32)
    upstream = upstream_for(emb.dtype)
    grad, _ = backend.pair_sums_backward(whole.gradient_rows, upstream * weights, residual)
    stats = PairStats.of(sums, counts, labels, None, None)
    row_rounding = ROW_ROUNDING.get(engine.backend, {}).get(emb.dtype, 0.0)
    return Result(loss, stats, grad, None, upstream, row_rounding)
