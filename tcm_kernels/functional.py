"""The loss as a function: validate, one op, divide.

All work over pairs is in `ops.pair_sums`. This module checks the arguments (it reads no tensor's values, so
nothing waits for a GPU) and computes

    loss = λ+ · Σ+ / max(n+, 1) + λ- · Σ- / max(n-, 1)

in which a term without hard pairs is 0. The division is in Python, not in the kernels, so that autograd
scales the gradient, and so that the sums of several processes can be added before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast, overload

import torch
from torch import Tensor

from . import dispatch, ops
from .backends.contract import PairList, Problem
from .backends.gpu.machine import constant_in_graphs
from .stats import PairStats, mean_violation
from .validation import check_inputs, check_lambda, check_listed, check_margin


@overload
def fused_tcm_loss(
    emb: Tensor,
    labels: Tensor | None,
    ref_emb: Tensor | None = ...,
    ref_labels: Tensor | None = ...,
    *,
    margin_plus: float | Tensor = ...,
    margin_minus: float | Tensor = ...,
    lambda_plus: float = ...,
    lambda_minus: float = ...,
    self_offset: int | None = ...,
    pairs: Sequence[Tensor] | None = ...,
    backend: str = ...,
    return_stats: Literal[False] = ...,
) -> Tensor: ...


@overload
def fused_tcm_loss(
    emb: Tensor,
    labels: Tensor | None,
    ref_emb: Tensor | None = ...,
    ref_labels: Tensor | None = ...,
    *,
    margin_plus: float | Tensor = ...,
    margin_minus: float | Tensor = ...,
    lambda_plus: float = ...,
    lambda_minus: float = ...,
    self_offset: int | None = ...,
    pairs: Sequence[Tensor] | None = ...,
    backend: str = ...,
    return_stats: Literal[True],
) -> tuple[Tensor, PairStats]: ...


def fused_tcm_loss(
    emb: Tensor,
    labels: Tensor | None,
    ref_emb: Tensor | None = None,
    ref_labels: Tensor | None = None,
    *,
    margin_plus: float | Tensor = 0.9,
    margin_minus: float | Tensor = 0.5,
    lambda_plus: float = 1.0,
    lambda_minus: float = 1.0,
    self_offset: int | None = None,
    pairs: Sequence[Tensor] | None = None,
    backend: str = "auto",
    return_stats: bool = False,
) -> Tensor | tuple[Tensor, PairStats]:
    """Threshold-Consistent Margin loss over all pairs, without the similarity matrix.

    Source: Zhang et al., "Threshold-Consistent Margin Loss for Open-World Deep Metric Learning",
    ICLR 2024 (arXiv 2307.04047). A pair of one class is hard where its cosine similarity is at most
    `margin_plus`, a pair of two classes where it is at least `margin_minus`; the loss is the mean
    violation of the hard positives plus the mean violation of the hard negatives.

    Args:
        emb: (N, D) embeddings, float32, float64, float16 or bfloat16, of any length: the loss
            normalises them itself, in float32 or better.
        labels: (N,) class of each row, any integer dtype, on the device of emb. May be None with pairs.
        ref_emb: (M, D) reference set (a memory bank, a gallery): pairs are then the N x M pairs between
            the two, and gradients flow to both. None, or emb itself, for the pairs within the batch.
        ref_labels: (M,) class of each reference row.
        margin_plus: m+ in [-1, 1], a float, or a 0-dim tensor without gradient (for a schedule on the
            device; its value is then not checked).
        margin_minus: m- in [-1, 1], likewise.
        lambda_plus: weight of the positive term, at least 0.
        lambda_minus: weight of the negative term, at least 0.
        self_offset: with a reference set that holds the batch itself: row i of emb is the same sample
            as row i + self_offset of ref_emb, and that pair is left out.
        pairs: pairs that a miner has chosen, in place of all pairs: (a, p, b, n) for the positives
            (a[k], p[k]) and the negatives (b[k], n[k]), each of which counts as often as it is listed; or
            triplets (a, p, n), of which each pair counts once, however many triplets have it. Vectors of
            integers on the device of emb: a and b name rows of emb, p and n rows of ref_emb, or of emb
            without one. Labels are then not read. On a GPU, where reading the list would wait for it, a
            number that names no row makes the loss NaN.
        backend: "auto" for the first backend, in dispatch's order, that takes the input, or a name from
            `available_backends()`; with pairs from `dispatch.PAIR_LIST_BACKENDS`.
        return_stats: also return a `PairStats` with sums and counts, as tensors.

    Returns:
        The loss, a 0-dim float32 tensor (float64 for float64 embeddings), or (loss, PairStats). Without
        hard pairs it is 0 with zero gradients; where the norm of any row is not finite, it and every gradient
        are NaN.

    Raises:
        TypeError: an argument has a wrong type or dtype.
        ValueError: a wrong shape, device or value; the message names the argument.
        RuntimeError: the backend asked for, or for "auto" each of them, cannot run this input, or
            forward-mode differentiation is asked for; the message says which and why.
    """
    if pairs is None:
        check_inputs(emb, labels, ref_emb, ref_labels, self_offset)
    else:
        check_listed(emb, labels, ref_emb, ref_labels, self_offset, pairs)
    check_settings(emb, margin_plus, margin_minus, lambda_plus, lambda_minus)
    if ref_emb is emb:
        ref_emb = ref_labels = None
    refuse_forward_mode(emb, ref_emb)

    margins = margins_of(emb, margin_plus, margin_minus)
    if pairs is None:
        given = (emb, cast(Tensor, labels), ref_emb, ref_labels, margins, self_offset)
        sums, counts = ops.pair_sums(
            Problem(*given, *_wanted(emb, ref_emb), precision=fp32_precision(emb)),
            dispatch.choose(backend, emb.device.type, emb.dtype),
        )
    else:
        sums, counts, listed = ops.pair_list_sums(
            PairList(emb, ref_emb, margins, *_as_pairs(pairs), len(pairs) == 3, *_wanted(emb, ref_emb)),
            dispatch.choose(backend, emb.device.type, emb.dtype, dispatch.PAIR_LIST_BACKENDS),
        )
    loss = loss_of(sums, counts, lambda_plus, lambda_minus, emb.dtype)
    if not return_stats:
        return loss
    if pairs is not None:
        return loss, PairStats.of_listed(sums, counts, listed)
    return loss, PairStats.of(sums, counts, cast(Tensor, labels), ref_labels, self_offset)


def _wanted(emb: Tensor, ref_emb: Tensor | None) -> tuple[bool, bool]:
    """Whether the gradients of emb and of the reference set will be asked for."""
    wants_grad = torch.is_grad_enabled()
    return wants_grad and emb.requires_grad, wants_grad and ref_emb is not None and ref_emb.requires_grad


def _as_pairs(pairs: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Positive anchors and partners, negative anchors and partners, as int64."""
    anchors, positives, *others = (index.to(torch.int64) for index in pairs)
    negative_anchors, negatives = others if len(others) == 2 else (anchors, *others)
    return anchors, positives, negative_anchors, negatives


def check_settings(
    emb: Tensor,
    margin_plus: float | Tensor,
    margin_minus: float | Tensor,
    lambda_plus: float,
    lambda_minus: float,
) -> None:
    """Raise TypeError or ValueError for margins and weights that `fused_tcm_loss` does not take."""
    check_lambda("lambda_plus", lambda_plus)
    check_lambda("lambda_minus", lambda_minus)
    check_margin("margin_plus", margin_plus, emb)
    check_margin("margin_minus", margin_minus, emb)


def loss_of(
    sums: Tensor, counts: Tensor, lambda_plus: float, lambda_minus: float, dtype: torch.dtype
) -> Tensor:
    """The loss of a batch of embeddings of `dtype` from its penalty sums and hard-pair counts, (2,) each."""
    pull, push = mean_violation(sums, counts).unbind()  # one launch in the backward; two of means[i] take two
    loss = lambda_plus * pull + lambda_minus * push
    return loss if dtype == torch.float64 else loss.to(torch.float32)


def margins_of(emb: Tensor, margin_plus: float | Tensor, margin_minus: float | Tensor) -> Tensor:
    """(2,) float64 on the embeddings' device; built there, so that nothing waits for a copy from the host."""
    known = not isinstance(margin_plus, Tensor) and not isinstance(margin_minus, Tensor)
    # Two launches; the code below takes four. A compiler fuses the four, and would specialise on floats here.
    if known and not torch.compiler.is_compiling():
        margins = emb.new_full((2,), float(margin_plus), dtype=torch.float64)
        margins[1:].fill_(margin_minus)
        return margins
    one = emb.new_ones((), dtype=torch.float64)
    return torch.stack((one * margin_plus, one * margin_minus))


def fp32_precision(emb: Tensor) -> str:
    """What torch allows for float32 products of emb: "highest", or "high" where it allows TF32.

    Always "highest" on a CPU, where float32 is computed in float32, and for other dtypes.
    """
    if emb.device.type != "cuda" or emb.dtype != torch.float32:
        return "highest"
    return _allowed_on_gpus()


@constant_in_graphs
def _allowed_on_gpus() -> str:
    """The precision by torch's newer switch; the older getter raises once the newer one has been used.

    torch.compile can trace neither, so a graph keeps the answer as a constant. It still follows the switch:
    torch recompiles when the switch has changed.
    """
    allowed = torch.backends.cuda.matmul.fp32_precision
    return {"ieee": "highest", "tf32": "high"}.get(allowed, "highest")


def refuse_forward_mode(*inputs: Tensor | None) -> None:
    """Raise RuntimeError where an input carries a forward-mode tangent."""
    if torch.compiler.is_compiling() or torch.autograd.forward_ad._current_level < 0:
        return
    for x in inputs:
        if x is not None and _is_dual(x):
            raise RuntimeError(
                "tcm_kernels: forward-mode automatic differentiation of the TCM loss is not supported; "
                "use reverse mode (loss.backward())"
            )


def _is_dual(x: Tensor) -> bool:
    """Whether x carries a forward-mode tangent."""
    return torch.autograd.forward_ad.unpack_dual(x).tangent is not None  # type: ignore[no-untyped-call]
