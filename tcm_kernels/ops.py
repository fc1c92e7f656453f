"""The operations: schema, fake and autograd, once for all backends.

    pair_sums           embeddings and labels -> penalty sums, hard-pair counts, residual
    pair_sums_backward  residual and the gradient of the sums -> gradients of the embeddings

An op sees neither `requires_grad` (under torch.compile) nor autocast, so Python above it decides which
gradients are wanted, the precision, the backend and the size of the residual, and passes them in.
Margins travel as a float64 tensor on the embeddings' device: a schedule neither recompiles nor
synchronises. The residual is opaque to everyone but the backend that wrote it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import dispatch

NAMESPACE = "tcm_kernels"

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
    f"{NAMESPACE}::pair_sums_backward",
    f"(Tensor grad_sums, Tensor residual, {_ARGUMENTS}) -> (Tensor grad_emb, Tensor grad_ref)",
    tags=(torch.Tag.pt2_compliant_tag,),
)


def pair_sums(
    emb: Tensor,
    labels: Tensor,
    ref: Tensor | None,
    ref_labels: Tensor | None,
    margins: Tensor,
    self_offset: int | None,
    precision: str,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Penalty sums and counts over all pairs, differentiable in emb and ref.

    Args:
        emb: (N, D) embeddings of any length; rows are normalised inside.
        labels: (N,) integers.
        ref: (M, D) reference set, or None for the pairs within emb.
        ref_labels: (M,) integers, None exactly where ref is.
        margins: (2,) float64 [m+, m-] on the embeddings' device.
        self_offset: row i of emb is the same sample as row i + self_offset of ref; None if disjoint.
        precision: "highest", "high" or "medium": what float32 products on a GPU may use.
        backend: a name from `dispatch.BACKENDS` that can run this input.

    Returns:
        sums [Σ+, Σ-] (2,) float64 and counts [n+, n-] (2,) int64, over ordered pairs.
    """
    wanted = torch.is_grad_enabled()
    need_grad_emb = wanted and emb.requires_grad
    need_grad_ref = wanted and ref is not None and ref.requires_grad
    size = dispatch.module(backend).residual_bytes(emb, ref, need_grad_emb, need_grad_ref)
    sums, counts, _ = torch.ops.tcm_kernels.pair_sums(
        emb,
        labels,
        ref,
        ref_labels,
        margins,
        self_offset,
        need_grad_emb,
        need_grad_ref,
        precision,
        backend,
        size,
    )
    return sums, counts


@torch.library.impl(f"{NAMESPACE}::pair_sums", "CompositeExplicitAutograd")
def _pair_sums(
    emb: Tensor,
    labels: Tensor,
    ref: Tensor | None,
    ref_labels: Tensor | None,
    margins: Tensor,
    self_offset: int | None,
    need_grad_emb: bool,
    need_grad_ref: bool,
    precision: str,
    backend: str,
    residual_bytes: int,
) -> tuple[Tensor, Tensor, Tensor]:
    return dispatch.module(backend).pair_sums(
        emb,
        labels,
        ref,
        ref_labels,
        margins,
        self_offset,
        need_grad_emb,
        need_grad_ref,
        precision,
        residual_bytes,
    )


@torch.library.impl(f"{NAMESPACE}::pair_sums_backward", "CompositeExplicitAutograd")
def _pair_sums_backward(
    grad_sums: Tensor,
    residual: Tensor,
    emb: Tensor,
    labels: Tensor,
    ref: Tensor | None,
    ref_labels: Tensor | None,
    margins: Tensor,
    self_offset: int | None,
    need_grad_emb: bool,
    need_grad_ref: bool,
    precision: str,
    backend: str,
) -> tuple[Tensor, Tensor]:
    return dispatch.module(backend).pair_sums_backward(
        grad_sums,
        residual,
        emb,
        labels,
        ref,
        ref_labels,
        margins,
        self_offset,
        need_grad_emb,
        need_grad_ref,
        precision,
    )


@torch.library.register_fake(f"{NAMESPACE}::pair_sums")
def _pair_sums_fake(emb: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    residual_bytes = arguments[-1]
    return (
        emb.new_empty(2, dtype=torch.float64),
        emb.new_empty(2, dtype=torch.int64),
        emb.new_empty(residual_bytes, dtype=torch.uint8),
    )


@torch.library.register_fake(f"{NAMESPACE}::pair_sums_backward")
def _pair_sums_backward_fake(
    grad_sums: Tensor,
    residual: Tensor,
    emb: Tensor,
    labels: Tensor,
    ref: Tensor | None,
    ref_labels: Tensor | None,
    margins: Tensor,
    self_offset: int | None,
    need_grad_emb: bool,
    need_grad_ref: bool,
    *_: Any,
) -> tuple[Tensor, Tensor]:
    grad_emb = emb.new_empty(emb.shape) if need_grad_emb else emb.new_empty(0)
    grad_ref = emb.new_empty(0)
    if ref is not None and need_grad_ref:
        grad_ref = ref.new_empty(ref.shape)
    return grad_emb, grad_ref


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    emb, labels, ref, ref_labels, margins, *rest = inputs
    _, counts, residual = output
    ctx.save_for_backward(emb, labels, ref, ref_labels, margins, residual)
    ctx.rest = tuple(rest[:-1])  # self_offset, need_grad_emb, need_grad_ref, precision, backend
    ctx.mark_non_differentiable(counts, residual)
    ctx.set_materialize_grads(False)  # or a zero residual would be made on every backward


def _backward(ctx: Any, grad_sums: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    emb, labels, ref, ref_labels, margins, residual = ctx.saved_tensors
    _, need_grad_emb, need_grad_ref, *_rest = ctx.rest
    nothing = (None,) * 9
    if grad_sums is None:
        return None, None, None, *nothing[:8]
    grad_emb, grad_ref = torch.ops.tcm_kernels.pair_sums_backward(
        grad_sums, residual, emb, labels, ref, ref_labels, margins, *ctx.rest
    )
    return (
        grad_emb if need_grad_emb else None,
        None,
        grad_ref if need_grad_ref else None,
        *nothing[:8],
    )


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


torch.library.register_autograd(f"{NAMESPACE}::pair_sums", _backward, setup_context=_save_for_backward)
torch.library.register_autograd(f"{NAMESPACE}::pair_sums_backward", _no_second_derivative)
torch.library.register_vmap(f"{NAMESPACE}::pair_sums", _no_vmap)
torch.library.register_vmap(f"{NAMESPACE}::pair_sums_backward", _no_vmap)
