"""`distributed_tcm_loss`: arguments, agreement, a way through the pairs, and the division."""

from __future__ import annotations

from typing import Any, Literal, cast, overload

import torch
from torch import Tensor
from torch._compile import _disable_dynamo
from torch.autograd.function import once_differentiable

from .. import dispatch
from ..backends.contract import Backend, GradientRows, Problem
from ..functional import (
    check_settings,
    fp32_precision,
    fused_tcm_loss,
    loss_of,
    margins_of,
    refuse_forward_mode,
)
from ..stats import PairStats
from ..validation import check_inputs
from . import cost, gather, header, ring
from .header import MODES, REDUCTIONS, Agreement, Wishes
from .ranks import Ranks, total_of
from .way import Outcome


@overload
def distributed_tcm_loss(
    emb: Tensor,
    labels: Tensor,
    ref_emb: Tensor | None = ...,
    ref_labels: Tensor | None = ...,
    *,
    ref_sharded: bool = ...,
    margin_plus: float | Tensor = ...,
    margin_minus: float | Tensor = ...,
    lambda_plus: float = ...,
    lambda_minus: float = ...,
    group: Any = ...,
    mode: str = ...,
    gradient_reduction: str = ...,
    equal_batches: bool = ...,
    backend: str = ...,
    return_stats: Literal[False] = ...,
) -> Tensor: ...


@overload
def distributed_tcm_loss(
    emb: Tensor,
    labels: Tensor,
    ref_emb: Tensor | None = ...,
    ref_labels: Tensor | None = ...,
    *,
    ref_sharded: bool = ...,
    margin_plus: float | Tensor = ...,
    margin_minus: float | Tensor = ...,
    lambda_plus: float = ...,
    lambda_minus: float = ...,
    group: Any = ...,
    mode: str = ...,
    gradient_reduction: str = ...,
    equal_batches: bool = ...,
    backend: str = ...,
    return_stats: Literal[True],
) -> tuple[Tensor, PairStats]: ...


# torch.compiler.disable would import the compiler with the package; this does so at the first call.
@_disable_dynamo
def distributed_tcm_loss(
    emb: Tensor,
    labels: Tensor,
    ref_emb: Tensor | None = None,
    ref_labels: Tensor | None = None,
    *,
    ref_sharded: bool = True,
    margin_plus: float | Tensor = 0.9,
    margin_minus: float | Tensor = 0.5,
    lambda_plus: float = 1.0,
    lambda_minus: float = 1.0,
    group: Any = None,
    mode: str = "auto",
    gradient_reduction: str = "mean",
    equal_batches: bool = False,
    backend: str = "auto",
    return_stats: bool = False,
) -> Tensor | tuple[Tensor, PairStats]:
    """The TCM loss of a batch whose rows are spread over the ranks of a process group.

    Every rank calls it with its own rows, and gets the loss of the whole batch, the same bits on every rank;
    `backward` leaves in its rows the gradient of that loss. Sizes may differ between ranks, and be 0. Without
    a process group, or with a single rank, it is `fused_tcm_loss`.

    Why gradients are multiplied. With g_r = ∂L/∂emb_r and J_r = ∂emb_r/∂θ, the gradient of a parameter is
    Σ_r J_rᵀ g_r. DDP and FSDP reduce the ranks' gradients to their mean, (1/W) Σ_r J_rᵀ h_r, and so need
    h_r = W g_r from each rank: gradient_reduction="mean". Where they are summed, h_r = g_r: "sum". In either
    case every rank must call backward, with the same upstream gradient (loss scale, weight of the loss).

    Args:
        emb: (n, D) this rank's embeddings; D and dtype are the same on all ranks.
        labels: (n,) class of each row; a class may be on many ranks.
        ref_emb: (m, D) a reference set without gradient: the pairs are then those between the rows of all
            ranks and the reference set of all ranks.
        ref_labels: (m,) class of each reference row.
        ref_sharded: whether ranks have different parts of the reference set, which then counts as one; or
            False where every rank has the same whole set, of which nothing is then sent.
        margin_plus: as for `fused_tcm_loss`; the same on all ranks, as are the next three.
        margin_minus: as for `fused_tcm_loss`.
        lambda_plus: as for `fused_tcm_loss`.
        lambda_minus: as for `fused_tcm_loss`.
        group: the process group; None for the default one.
        mode: "gather": every rank holds all rows. "ring": shards travel round, memory does not grow with the
            number of ranks, and half as much is computed. "rows": a ring that sends less, and computes as
            much as "gather". "auto" chooses by the model in distributed/cost.py. With a sharded reference
            set "ring" is "rows".
        gradient_reduction: "mean" or "sum": how parameters' gradients are reduced over ranks afterwards.
        equal_batches: True promises that all ranks call with the same sizes and settings. Nothing is then
            compared, the host never waits for a GPU, and a CUDA graph can capture the call. A promise that is
            broken ends in an error of the process group, or in its time-out.
        backend: as for `fused_tcm_loss`; ranks may differ.
        return_stats: also return the whole batch's `PairStats`; where any rank wants them, all send labels.

    Returns:
        The loss, a 0-dim float32 tensor (float64 for float64 embeddings), or (loss, PairStats). Where the
        norm of a row on any rank is not finite, it and the gradients of all ranks are NaN.

    Raises:
        TypeError, ValueError, RuntimeError: as `fused_tcm_loss`, and for arguments that must be the same on
            all ranks and are not; the same exception on every rank, which names the ranks. What the process
            group itself raises, when a rank is gone or its time-out is over, is passed on.
    """
    ranks = Ranks.of(group)
    given = (emb, labels, ref_emb, ref_labels)
    settings = (margin_plus, margin_minus, lambda_plus, lambda_minus)
    if ranks is None or ranks.size == 1:
        _check_choices(mode, gradient_reduction, ref_emb, emb)
        return fused_tcm_loss(
            *given,
            margin_plus=margin_plus,
            margin_minus=margin_minus,
            lambda_plus=lambda_plus,
            lambda_minus=lambda_minus,
            backend=backend,
            return_stats=return_stats,  # type: ignore[call-overload]
        )

    wishes: Wishes | Exception
    try:
        _check_choices(mode, gradient_reduction, ref_emb, emb)
        problem, name = _problem_of(given, settings, backend)
        wishes = _wishes_of(problem, labels, settings, mode, gradient_reduction, ref_sharded, return_stats)
    except header.EXCEPTIONS as error:
        if equal_batches:
            raise
        wishes = error
    if equal_batches:
        agreed = Agreement.promised(ranks, cast(Wishes, wishes))
    else:
        agreed = header.exchange(ranks, _device_of_table(emb, ranks), wishes)

    way = _way(problem, mode, ref_sharded, agreed, ranks)
    factor = ranks.size if gradient_reduction == "mean" else 1
    sums, counts = _WholeBatch.apply(problem.emb, problem, dispatch.module(name), way, agreed, ranks, factor)  # type: ignore[no-untyped-call]
    loss = loss_of(sums, counts, lambda_plus, lambda_minus, emb.dtype)
    if not agreed.wants_stats:
        return loss
    stats = _stats_of(sums, counts, problem, ref_sharded, agreed, ranks)
    return (loss, stats) if return_stats else loss


def _check_choices(mode: str, gradient_reduction: str, ref_emb: Tensor | None, emb: Tensor) -> None:
    for name, value, accepted in (
        ("mode", mode, MODES),
        ("gradient_reduction", gradient_reduction, REDUCTIONS),
    ):
        if value not in accepted:
            raise ValueError(f"{name}: got {value!r}, expected one of {', '.join(map(repr, accepted))}")
    if isinstance(ref_emb, Tensor) and ref_emb is not emb and ref_emb.requires_grad:
        raise ValueError(
            "ref_emb: got a tensor that requires grad; the gradients of a reference set's rows would have to "
            "be sent back to their ranks, which is not supported: pass ref_emb.detach(), or the rows as a "
            "part of emb"
        )


def _problem_of(
    given: tuple[Tensor, Tensor, Tensor | None, Tensor | None],
    settings: tuple[float | Tensor, float | Tensor, float, float],
    backend: str,
) -> tuple[Problem, str]:
    """The rank's rows as a backend takes them, and the backend's name; raises for what it cannot take."""
    emb, labels, ref_emb, ref_labels = given
    check_inputs(emb, labels, ref_emb, ref_labels, None)
    check_settings(emb, *settings)
    if ref_emb is emb:
        ref_emb = ref_labels = None
    refuse_forward_mode(emb, ref_emb)
    problem = Problem(
        emb,
        labels.to(torch.int64),  # as many bits for equal values on every rank
        ref_emb,
        None if ref_labels is None else ref_labels.to(torch.int64),
        margins_of(emb, *settings[:2]),
        None,
        need_grad_emb=torch.is_grad_enabled() and emb.requires_grad,
        need_grad_ref=False,
        precision=fp32_precision(emb),
    )
    return problem, dispatch.choose(backend, emb.device.type, emb.dtype)


def _wishes_of(
    problem: Problem,
    labels: Tensor,
    settings: tuple[float | Tensor, float | Tensor, float, float],
    mode: str,
    gradient_reduction: str,
    ref_sharded: bool,
    return_stats: bool,
) -> Wishes:
    margin_plus, margin_minus, *lambdas = settings
    known = not isinstance(margin_plus, Tensor) and not isinstance(margin_minus, Tensor)
    return Wishes(
        columns=problem.emb.shape[1],
        dtype=problem.emb.dtype,
        device=problem.emb.device.type,
        has_unsigned_labels=labels.dtype == torch.uint64,
        margins=(float(margin_plus), float(margin_minus)) if known else problem.margins,
        lambdas=(float(lambdas[0]), float(lambdas[1])),
        mode=mode,
        gradient_reduction=gradient_reduction,
        needs_grad=problem.need_grad_emb,
        has_ref=problem.ref is not None,
        ref_sharded=ref_sharded,
        rows=problem.emb.shape[0],
        ref_rows=0 if problem.ref is None else problem.ref.shape[0],
        wants_stats=return_stats,
        memory=cost.memory_for_rows(problem.emb.device),
    )


def _device_of_table(emb: Any, ranks: Ranks) -> torch.device:
    """Main memory where the group can send from it; else the device of emb, or what may be one of a rank."""
    if ranks.takes_host_memory():
        return torch.device("cpu")
    if isinstance(emb, Tensor) and emb.is_cuda:
        return emb.device
    return torch.device("cuda", torch.cuda.current_device())


def _way(problem: Problem, mode: str, ref_sharded: bool, agreed: Agreement, ranks: Ranks) -> str:
    """The way that all ranks take: "gather", "ring" or "rows"; "alone" where nothing has to be sent."""
    if problem.ref is None:
        shape = cost.Shape(
            ranks.size, max(agreed.rows), problem.emb.shape[1], problem.emb.dtype, problem.need_grad_emb
        )
        return cost.choose(shape, agreed.memory, problem.emb.device.type) if mode == "auto" else mode
    if not ref_sharded:
        return "alone"
    if mode == "auto":
        shape = cost.Shape(ranks.size, max(agreed.ref_rows), problem.emb.shape[1], problem.emb.dtype)
        return cost.choose_for_reference_set(shape, agreed.memory)
    return "rows" if mode == "ring" else mode


def _outcome(way: str, backend: Backend, problem: Problem, agreed: Agreement, ranks: Ranks) -> Outcome:
    rows = agreed.rows if problem.ref is None else agreed.ref_rows
    if way == "gather":
        return gather.pair_sums(backend, problem, rows, ranks)
    if way == "ring":
        return ring.pair_sums(backend, problem, rows, ranks)
    if way == "rows":
        return ring.pair_sums_of_rows(backend, problem, rows, ranks)
    sums, counts, residual = backend.pair_sums(problem, backend.residual_bytes(problem.gradient_rows))
    return Outcome(sums, counts, problem.gradient_rows, residual, 1)


class _WholeBatch(torch.autograd.Function):
    """From the rank's rows to sums and counts of all ranks' pairs. The backward sends nothing."""

    @staticmethod
    def forward(
        ctx: Any,
        emb: Tensor,
        problem: Problem,
        backend: Backend,
        way: str,
        agreed: Agreement,
        ranks: Ranks,
        factor: int,
    ) -> tuple[Tensor, Tensor]:
        outcome = _outcome(way, backend, problem._replace(emb=emb), agreed, ranks)
        # Four numbers a rank; as int64, which carries the bits of the float64 sums.
        own = torch.cat((outcome.sums.view(torch.int64), outcome.counts))
        of_ranks = ranks.all_gather(own)
        sums = total_of(of_ranks[:, :2].contiguous().view(torch.float64))
        counts = total_of(of_ranks[:, 2:])
        if problem.need_grad_emb:
            backend.set_nan_flag(outcome.rows, outcome.residual, sums.sum() * 0)
            ctx.save_for_backward(emb, outcome.residual)
            ctx.symmetric = outcome.rows.symmetric
            ctx.backend, ctx.factor = backend, factor * outcome.ordered
        ctx.mark_non_differentiable(counts)
        ctx.set_materialize_grads(False)
        return sums, counts

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_sums: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        grad = None
        if grad_sums is not None:
            emb, residual = ctx.saved_tensors
            rows = GradientRows(emb, None, ctx.symmetric)
            grad, _ = ctx.backend.pair_sums_backward(rows, ctx.factor * grad_sums, residual)
        return grad, None, None, None, None, None, None


def _stats_of(
    sums: Tensor, counts: Tensor, problem: Problem, ref_sharded: bool, agreed: Agreement, ranks: Ranks
) -> PairStats:
    """The whole batch's statistics, for which the ranks send each other their labels."""
    labels = gather.all_rows(problem.labels, agreed.rows, ranks)
    ref_labels = problem.ref_labels
    if ref_labels is not None and ref_sharded:
        ref_labels = gather.all_rows(ref_labels, agreed.ref_rows, ranks)
    return PairStats.of(sums, counts, labels, ref_labels, None)
