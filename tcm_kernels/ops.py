"""The operations: schema, fake and autograd, once for all backends.

    pair_sums           embeddings and labels -> penalty sums, hard-pair counts, residual
    pair_list_sums      the same over listed pairs
    pair_sums_backward  residual and the gradient of the sums -> gradients of the embeddings
    pair_histogram      embeddings, labels and groups -> counts of similarities, by group and bin

An op sees neither `requires_grad` (under torch.compile) nor autocast, so its caller in Python decides which
gradients are wanted, the precision, the backend and the size of the residual, and passes them in.
Margins are a float64 tensor on the embeddings' device: a schedule neither recompiles nor synchronises. Only
backends read the residual: `cpu` and `torch` share one layout, `triton` and `cuda` another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import dispatch
from .backends.contract import MOST_BINS, GradientRows, HistogramProblem, PairList, Problem
from .backends.numerics import rows_not_finite

NAMESPACE = "tcm_kernels"
_FAR_OUT = 1e6  # similarities are in [-1, 1]; much wider limits may overflow the index of a bin

_ARGUMENTS = (
    "Tensor emb, Tensor labels, Tensor? ref, Tensor? ref_labels, Tensor margins, "
    "SymInt? self_offset, bool need_grad_emb, bool need_grad_ref, str precision, str backend"
)

torch.library.define(
    f"{NAMESPACE}::pair_sums",
    f"({_ARGUMENTS}, SymInt residual_bytes) -> (Tensor sums, Tensor counts, Tensor residual)",
    tags=(torch.Tag.pt2_compliant_tag,),
)
torch.library.define(
    f"{NAMESPACE}::pair_list_sums",
    "(Tensor emb, Tensor? ref, Tensor margins, Tensor positive_anchors, Tensor positive_partners, "
    "Tensor negative_anchors, Tensor negative_partners, bool deduplicate, bool need_grad_emb, "
    "bool need_grad_ref, str backend, SymInt residual_bytes) "
    "-> (Tensor sums, Tensor counts, Tensor listed, Tensor residual)",
    tags=(torch.Tag.pt2_compliant_tag,),
)
torch.library.define(
    f"{NAMESPACE}::pair_sums_backward",
    "(Tensor grad_sums, Tensor residual, Tensor? emb, Tensor? ref, bool symmetric, str backend) "
    "-> (Tensor grad_emb, Tensor grad_ref)",
    tags=(torch.Tag.pt2_compliant_tag,),
)
torch.library.define(
    f"{NAMESPACE}::pair_histogram",
    "(Tensor emb, Tensor labels, Tensor groups, Tensor? ref, Tensor? ref_labels, Tensor? ref_groups, "
    "SymInt? self_offset, SymInt group_count, SymInt bins, float lo, float hi, str precision, str backend) "
    "-> (Tensor positives, Tensor negatives, Tensor pooled)",
    tags=(torch.Tag.pt2_compliant_tag,),
)


def pair_sums(problem: Problem, backend: str) -> tuple[Tensor, Tensor]:
    """Penalty sums and counts over all pairs, differentiable in emb and ref.

    `backend` is a name from `dispatch.BACKENDS` that can run this input.

    Returns:
        sums [Σ+, Σ-] (2,) float64 and counts [n+, n-] (2,) int64, over ordered pairs.
    """
    size = dispatch.module(backend).residual_bytes(problem.gradient_rows)
    op = _transformable(torch.ops.tcm_kernels.pair_sums, _PairSums)
    sums, counts, _ = op(*problem, backend, size)
    return sums, counts


def pair_list_sums(problem: PairList, backend: str) -> tuple[Tensor, Tensor, Tensor]:
    """Penalty sums and counts over listed pairs, differentiable in emb and ref.

    `backend` is a name from `dispatch.PAIR_LIST_BACKENDS` that can run this input.

    Returns:
        sums [Σ+, Σ-] (2,) float64, counts [n+, n-] and numbers of listed pairs, (2,) int64 each.

    Raises:
        ValueError: on a CPU, for a pair that names no row; on a GPU the sums are NaN.
    """
    size = dispatch.pair_list_module(backend).residual_bytes(problem.gradient_rows)
    op = _transformable(torch.ops.tcm_kernels.pair_list_sums, _PairListSums)
    sums, counts, listed, _ = op(*problem, backend, size)
    return sums, counts, listed


def pair_histogram(problem: HistogramProblem, backend: str) -> tuple[Tensor, Tensor, Tensor]:
    """Counts of similarities, see `contract.HistogramBackend`; no derivative.

    It is for evaluation: unlike the loss it checks values, and so waits for a GPU.

    Raises:
        ValueError: rows that are not finite, groups or bins outside their range.
    """
    return torch.ops.tcm_kernels.pair_histogram(*problem, backend)


@torch.library.impl(f"{NAMESPACE}::pair_sums", "CompositeExplicitAutograd")
def _pair_sums(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    *fields, backend, residual_bytes = arguments
    return dispatch.module(backend).pair_sums(Problem(*fields), residual_bytes)


@torch.library.impl(f"{NAMESPACE}::pair_list_sums", "CompositeExplicitAutograd")
def _pair_list_sums(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    *fields, backend, residual_bytes = arguments
    problem = PairList(*fields)
    if problem.emb.is_cpu:
        _check_pairs(problem)
    return dispatch.pair_list_module(backend).pair_list_sums(problem, residual_bytes)


def _check_pairs(problem: PairList) -> None:
    """Raise ValueError for a pair that names no row."""
    rows = len(problem.emb)
    columns, of = (rows, "emb") if problem.ref is None else (len(problem.ref), "ref_emb")
    names = ("positive anchors", "positive partners", "negative anchors", "negative partners")
    sizes = ((rows, "emb"), (columns, of), (rows, "emb"), (columns, of))
    for name, index, (size, side) in zip(names, problem.positives + problem.negatives, sizes, strict=True):
        if not index.numel():
            continue
        least, most = map(int, index.aminmax())
        if least < 0 or most >= size:
            wrong = least if least < 0 else most
            raise ValueError(f"pairs: got {wrong} among the {name}, expected rows of {side}, 0 to {size - 1}")


@torch.library.impl(f"{NAMESPACE}::pair_sums_backward", "CompositeExplicitAutograd")
def _pair_sums_backward(grad_sums: Tensor, residual: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    *fields, backend = arguments
    return dispatch.module(backend).pair_sums_backward(GradientRows(*fields), grad_sums, residual)


@torch.library.impl(f"{NAMESPACE}::pair_histogram", "CompositeExplicitAutograd")
def _pair_histogram(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    *fields, backend = arguments
    problem = HistogramProblem(*fields)
    _check_histogram(problem)
    return dispatch.histogram_module(backend).pair_histogram(problem)


def _check_histogram(problem: HistogramProblem) -> None:
    """Raise ValueError for input that would be counted in a wrong bin, or outside of the tables."""
    if not 1 <= problem.bins <= MOST_BINS:
        raise ValueError(f"bins: got {problem.bins}, expected 1 to {MOST_BINS:,}")
    if not -_FAR_OUT <= problem.lo < problem.hi <= _FAR_OUT:
        raise ValueError(
            f"lo and hi: got {problem.lo!r} and {problem.hi!r}, expected lo < hi within ±{_FAR_OUT:g}"
        )
    sides = [("emb", "groups", problem.emb, problem.groups)]
    if problem.ref is not None and problem.ref_groups is not None:
        sides.append(("ref_emb", "ref_groups", problem.ref, problem.ref_groups))
    for name, groups_name, rows, groups in sides:
        if groups.numel() and (int(groups.min()) < 0 or int(groups.max()) >= problem.group_count):
            raise ValueError(f"{groups_name}: expected numbers from 0 to {problem.group_count - 1}")
        wrong = rows_not_finite(rows)
        if len(wrong):
            which = ", ".join(str(int(i)) for i in wrong[:5]) + (", ..." if len(wrong) > 5 else "")
            raise ValueError(
                f"{name}: {len(wrong)} of {len(rows)} rows are not finite (rows {which}); leave them out"
            )


@torch.library.register_fake(f"{NAMESPACE}::pair_sums")
def _pair_sums_fake(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    *fields, _, residual_bytes = arguments
    emb = Problem(*fields).emb
    return (
        emb.new_empty(2, dtype=torch.float64),
        emb.new_empty(2, dtype=torch.int64),
        emb.new_empty(residual_bytes, dtype=torch.uint8),
    )


@torch.library.register_fake(f"{NAMESPACE}::pair_list_sums")
def _pair_list_sums_fake(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    *fields, _, residual_bytes = arguments
    emb = PairList(*fields).emb
    return (
        emb.new_empty(2, dtype=torch.float64),
        emb.new_empty(2, dtype=torch.int64),
        emb.new_empty(2, dtype=torch.int64),
        emb.new_empty(residual_bytes, dtype=torch.uint8),
    )


@torch.library.register_fake(f"{NAMESPACE}::pair_sums_backward")
def _pair_sums_backward_fake(grad_sums: Tensor, residual: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    emb, ref, *_ = arguments
    grad_emb, grad_ref = (grad_sums.new_empty(0) if x is None else x.new_empty(x.shape) for x in (emb, ref))
    return grad_emb, grad_ref


@torch.library.register_fake(f"{NAMESPACE}::pair_histogram")
def _pair_histogram_fake(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    *fields, _ = arguments
    problem = HistogramProblem(*fields)
    shape = (problem.group_count, problem.bins + 2)
    return (
        problem.emb.new_empty(shape, dtype=torch.int64),
        problem.emb.new_empty(shape, dtype=torch.int64),
        problem.emb.new_empty((2, problem.bins + 2), dtype=torch.int64),
    )


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _keep(ctx, Problem, inputs, output)


def _save_pairs_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _keep(ctx, PairList, inputs, output)


def _keep(
    ctx: Any, kind: type[Problem | PairList], inputs: tuple[Any, ...], output: tuple[Tensor, ...]
) -> None:
    *fields, backend, _ = inputs
    rows = kind(*fields).gradient_rows
    _, *counts, residual = output
    ctx.save_for_backward(rows.emb, rows.ref, residual)
    ctx.symmetric, ctx.backend, ctx.names = rows.symmetric, backend, kind._fields
    ctx.mark_non_differentiable(*counts, residual)
    ctx.set_materialize_grads(False)  # else every backward would allocate zeros for the residual


def _backward(ctx: Any, grad_sums: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    emb, ref, residual = ctx.saved_tensors
    grads: dict[str, Tensor] = {}
    if grad_sums is not None:
        op = _transformable(torch.ops.tcm_kernels.pair_sums_backward, _PairSumsBackward)
        grad_emb, grad_ref = op(grad_sums, residual, emb, ref, ctx.symmetric, ctx.backend)
        grads = {} if emb is None else {"emb": grad_emb}
        grads |= {} if ref is None else {"ref": grad_ref}
    return *map(grads.get, ctx.names), None, None  # none for backend and residual_bytes


def _no_second_derivative(ctx: Any, *_: Any) -> tuple[None, ...]:
    raise RuntimeError(
        "tcm_kernels: the TCM loss has no second derivative here (its backward is not differentiable); "
        "for double backward use a dense loss in plain PyTorch"
    )


def _no_vmap(*_: Any) -> Any:
    raise RuntimeError(
        "tcm_kernels: torch.vmap over the TCM loss is not supported (one call already covers all pairs "
        "of a batch); loop over the batches instead"
    )


# The ops as torch.func wants them: of derivatives it takes those of an autograd.Function, and not what
# `register_autograd` has registered.


def _function_of(op: Any, setup: Callable[..., None]) -> type[torch.autograd.Function]:
    """An op over pairs with its backward, as an autograd.Function."""

    class OverPairs(torch.autograd.Function):
        @staticmethod
        def forward(*arguments: Any) -> tuple[Tensor, ...]:
            return op(*arguments)

        setup_context = staticmethod(setup)
        backward = staticmethod(_backward)
        vmap = staticmethod(_no_vmap)

    return OverPairs


_PairSums = _function_of(torch.ops.tcm_kernels.pair_sums, _save_for_backward)
_PairListSums = _function_of(torch.ops.tcm_kernels.pair_list_sums, _save_pairs_for_backward)


class _PairSumsBackward(torch.autograd.Function):
    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, Tensor]:
        return torch.ops.tcm_kernels.pair_sums_backward(*arguments)

    @staticmethod
    def setup_context(*_: Any) -> None:
        """Nothing is kept."""

    backward = staticmethod(_no_second_derivative)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], grad_sums: Tensor, *others: Any) -> Any:
        """For `jacrev`, which wants the gradients of several upstream ones."""
        of_sums, *of_others = in_dims
        if of_sums is None or any(dim is not None for dim in of_others):
            _no_vmap()
        apply: Any = _PairSumsBackward.apply
        each = [apply(one, *others) for one in grad_sums.unbind(of_sums or 0)]
        return tuple(map(torch.stack, zip(*each, strict=True))), (0, 0)


def _transformable(op: Any, function: type[torch.autograd.Function]) -> Any:
    """The op, or within a transform of torch.func what the transform can take a derivative of."""
    if torch.compiler.is_compiling() or not torch._C._are_functorch_transforms_active():
        return op
    return function.apply


torch.library.register_autograd(f"{NAMESPACE}::pair_sums", _backward, setup_context=_save_for_backward)
torch.library.register_autograd(
    f"{NAMESPACE}::pair_list_sums", _backward, setup_context=_save_pairs_for_backward
)
torch.library.register_autograd(f"{NAMESPACE}::pair_sums_backward", _no_second_derivative)
torch.library.register_vmap(f"{NAMESPACE}::pair_sums", _no_vmap)
torch.library.register_vmap(f"{NAMESPACE}::pair_list_sums", _no_vmap)
torch.library.register_vmap(f"{NAMESPACE}::pair_sums_backward", _no_vmap)
