"""What people do with a loss of pytorch-metric-learning, done with that library's classes and with ours.

Each feature is a function of the library, a module with its names; it returns a loss, the rows that it is a
function of, and the same loss over explicit pairs in float64, which is the truth. `outcome` says what became
of it in a word or two: the cells of the table in docs/pytorch-metric-learning.md.
"""

from __future__ import annotations

import types
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from pytorch_metric_learning import distances, losses, miners, reducers, regularizers
from torch import Tensor
from torch.nn.functional import normalize

from tcm_kernels.integrations import pytorch_metric_learning as ours

THEIRS = types.SimpleNamespace(
    ThresholdConsistentMarginLoss=losses.ThresholdConsistentMarginLoss,
    ContrastiveLoss=losses.ContrastiveLoss,
    CrossBatchMemory=losses.CrossBatchMemory,
    SelfSupervisedLoss=losses.SelfSupervisedLoss,
)
OURS = ours
MARGINS = {"margin_plus": 0.9, "margin_minus": 0.2}
CLASSES, ROWS, COLUMNS = 8, 40, 12
Pairs = tuple[Tensor, Tensor, Tensor, Tensor]


class Found(NamedTuple):
    """A loss, what it is to be, and the rows whose gradients are compared."""

    loss: Tensor
    truth: Callable[[Tensor], Tensor]  # of the rows in float64
    rows: Tensor


def rows(seed: int) -> tuple[Tensor, Tensor]:
    """Embeddings around class centres, and labels."""
    centres = torch.randn(CLASSES, COLUMNS, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (ROWS,), generator=generator)
    noise = torch.randn(ROWS, COLUMNS, generator=generator)
    return (centres[labels] + 0.7 * noise).requires_grad_(), labels


def all_pairs(labels: Tensor, ref_labels: Tensor | None = None) -> Pairs:
    same = labels[:, None] == (labels if ref_labels is None else ref_labels)
    others = ~same
    if ref_labels is None:
        same = same & ~torch.eye(len(labels), dtype=torch.bool)
    return (*torch.where(same), *torch.where(others))


def distinct(triplets: tuple[Tensor, Tensor, Tensor]) -> Pairs:
    """The pairs of triplets, each once."""
    a, p, n = triplets
    return (*torch.stack((a, p)).unique(dim=1), *torch.stack((a, n)).unique(dim=1))


def explicit(
    emb: Tensor,
    pairs: Pairs,
    ref: Tensor | None = None,
    *,
    margin_plus: float = MARGINS["margin_plus"],
    margin_minus: float = MARGINS["margin_minus"],
    weights: tuple[float, float] = (1.0, 1.0),
) -> Tensor:
    """The loss over listed pairs, in the dtype of emb."""
    unit = normalize(emb)
    other = unit if ref is None else normalize(ref.to(emb.dtype))
    a, p, b, n = pairs
    pull = margin_plus - (unit[a] * other[p]).sum(dim=1)
    push = (unit[b] * other[n]).sum(dim=1) - margin_minus
    terms = [torch.where(x >= 0, x, 0).sum() / (x >= 0).sum().clamp_min(1) for x in (pull, push)]
    return weights[0] * terms[0] + weights[1] * terms[1]


def tcm(library: Any, **more: Any) -> Any:
    return library.ThresholdConsistentMarginLoss(**MARGINS, **more)


def contrastive(library: Any, **more: Any) -> Any:
    return library.ContrastiveLoss(0.9, 0.2, distance=distances.CosineSimilarity(), **more)


def all_pairs_of_a_batch(library: Any) -> Found:
    x, labels = rows(1)
    return Found(tcm(library)(x, labels), lambda x: explicit(x, all_pairs(labels)), x)


def settings_by_position(library: Any) -> Found:
    x, labels = rows(2)
    loss = library.ThresholdConsistentMarginLoss(2.0, 0.5, 0.8, 0.3)(x, labels)
    settings = {"margin_plus": 0.8, "margin_minus": 0.3, "weights": (2.0, 0.5)}
    return Found(loss, lambda x: explicit(x, all_pairs(labels), **settings), x)


def pairs_of_a_miner(library: Any) -> Found:
    x, labels = rows(3)
    pairs = miners.MultiSimilarityMiner()(x, labels)
    return Found(tcm(library)(x, labels, pairs), lambda x: explicit(x, pairs), x)


def triplets_of_a_miner(library: Any) -> Found:
    x, labels = rows(4)
    triplets = miners.TripletMarginMiner(margin=0.3)(x, labels)
    return Found(tcm(library)(x, labels, triplets), lambda x: explicit(x, distinct(triplets)), x)


def pairs_without_labels(library: Any) -> Found:
    x, labels = rows(5)
    pairs = miners.MultiSimilarityMiner()(x, labels)
    return Found(tcm(library)(x, indices_tuple=pairs), lambda x: explicit(x, pairs), x)


def a_reference_set(library: Any) -> Found:
    (x, labels), (ref, ref_labels) = rows(6), rows(7)
    ref = ref.detach()[:30]
    loss = tcm(library)(x, labels, ref_emb=ref, ref_labels=ref_labels[:30])
    return Found(loss, lambda x: explicit(x, all_pairs(labels, ref_labels[:30]), ref), x)


def a_larger_reference_set(library: Any) -> Found:
    (x, labels), (ref, ref_labels) = rows(6), rows(7)
    ref, ref_labels = torch.cat((ref, -ref)).detach(), torch.cat((ref_labels, ref_labels + CLASSES))
    loss = tcm(library)(x, labels, ref_emb=ref, ref_labels=ref_labels)
    return Found(loss, lambda x: explicit(x, all_pairs(labels, ref_labels), ref), x)


def pairs_of_a_miner_with_a_reference_set(library: Any) -> Found:
    (x, labels), (ref, ref_labels) = rows(8), rows(9)
    ref = ref.detach()
    pairs = miners.MultiSimilarityMiner()(x, labels, ref, ref_labels)
    loss = tcm(library)(x, labels, pairs, ref_emb=ref, ref_labels=ref_labels)
    return Found(loss, lambda x: explicit(x, pairs, ref), x)


def a_bank(library: Any, loss: Any, miner: Any = None) -> Found:
    """The third batch of a bank that holds two and a half, and is overwritten before the backward."""
    memory = library.CrossBatchMemory(loss, COLUMNS, memory_size=5 * ROWS // 2, miner=miner)
    batches = [rows(seed) for seed in (10, 11, 12)]
    for x, labels in batches:
        value = memory(x, labels)
    kept = torch.cat([emb.detach() for emb, _ in batches])[-memory.memory_size :]
    kept_labels = torch.cat([labels for _, labels in batches])[-memory.memory_size :]
    if miner is None:
        a, p, b, n = all_pairs(labels, kept_labels)
        another = a + len(kept) - ROWS != p
        pairs = (a[another], p[another], b, n)
    else:
        pairs = miner(x, labels, kept, kept_labels)
        another = pairs[0] + len(kept) - ROWS != pairs[1]
        pairs = (pairs[0][another], pairs[1][another], *pairs[2:])
    memory.embedding_memory.zero_()
    memory.label_memory.zero_()
    return Found(value, lambda x: explicit(x, pairs, kept), x)


def augmented_views(library: Any, symmetric: bool) -> Found:
    (x, _), (view, _) = rows(13), rows(13)
    with torch.no_grad():
        view = view + 0.3 * torch.randn(view.shape, generator=torch.Generator().manual_seed(14))
    labels = torch.arange(ROWS)
    loss = library.SelfSupervisedLoss(tcm(library), symmetric=symmetric)(x, view)
    if symmetric:
        return Found(
            loss, lambda x: explicit(torch.cat((x, view.to(x.dtype))), all_pairs(labels.repeat(2))), x
        )
    return Found(loss, lambda x: explicit(x, all_pairs(labels, labels), view), x)


def another_reducer(library: Any) -> Found:
    x, labels = rows(15)
    loss = tcm(library, reducer=reducers.MeanReducer())(x, labels)
    return Found(loss, lambda x: explicit(x, all_pairs(labels)), x)


def the_distance_named(library: Any) -> Found:
    x, labels = rows(16)
    loss = tcm(library, distance=distances.CosineSimilarity())(x, labels)
    return Found(loss, lambda x: explicit(x, all_pairs(labels)), x)


def a_regularizer(library: Any) -> Found:
    x, labels = rows(17)
    more = {"embedding_regularizer": regularizers.LpRegularizer(), "embedding_reg_weight": 0.1}
    loss = tcm(library, **more)(x, labels)
    return Found(loss, lambda x: explicit(x, all_pairs(labels)) + 0.1 * x.norm(dim=1).mean(), x)


def several_losses(library: Any) -> Found:
    x, labels = rows(18)
    both = losses.MultipleLosses([tcm(library), contrastive(library)], weights=[1.0, 0.5])
    return Found(both(x, labels), lambda x: 1.5 * explicit(x, all_pairs(labels)), x)


def statistics(library: Any) -> Found:
    x, labels = rows(19)
    loss = tcm(library, collect_stats=True)
    return Found(loss(x, labels), lambda x: explicit(x, all_pairs(labels)), x)


def contrastive_loss(library: Any) -> Found:
    x, labels = rows(20)
    return Found(contrastive(library)(x, labels), lambda x: explicit(x, all_pairs(labels)), x)


def contrastive_loss_of_a_miners_pairs(library: Any) -> Found:
    x, labels = rows(21)
    a, p, n = miners.TripletMarginMiner(margin=0.3)(x, labels)
    return Found(contrastive(library)(x, labels, (a, p, n)), lambda x: explicit(x, (a, p, a, n)), x)


FEATURES: dict[str, Callable[[Any], Found]] = {
    "all pairs of a batch": all_pairs_of_a_batch,
    "settings by position": settings_by_position,
    "`indices_tuple` of four": pairs_of_a_miner,
    "`indices_tuple` of three, each pair once": triplets_of_a_miner,
    "`indices_tuple` without labels": pairs_without_labels,
    "`ref_emb`, of fewer rows": a_reference_set,
    "`ref_emb`, of more rows": a_larger_reference_set,
    "`ref_emb` and `indices_tuple`": pairs_of_a_miner_with_a_reference_set,
    "`CrossBatchMemory`": lambda library: a_bank(library, tcm(library)),
    "`CrossBatchMemory` with a miner": lambda library: a_bank(
        library, tcm(library), miners.MultiSimilarityMiner()
    ),
    "`SelfSupervisedLoss`": lambda library: augmented_views(library, True),
    "`SelfSupervisedLoss(symmetric=False)`": lambda library: augmented_views(library, False),
    "`reducer=MeanReducer()`": another_reducer,
    "`distance=CosineSimilarity()`": the_distance_named,
    "`embedding_regularizer=`": a_regularizer,
    "`MultipleLosses`": several_losses,
    "`collect_stats=True`": statistics,
    "`ContrastiveLoss`, cosine": contrastive_loss,
    "`ContrastiveLoss`, triplets as they are listed": contrastive_loss_of_a_miners_pairs,
    "`ContrastiveLoss` in `CrossBatchMemory`": lambda library: a_bank(library, contrastive(library)),
}


def outcome(feature: Callable[[Any], Found], library: Any) -> str:
    """What becomes of it: "yes", "another value", "another gradient", or the exception."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            loss, truth, x = feature(library)
            (grad,) = torch.autograd.grad(loss, x)
        except Exception as error:
            return f"{type(error).__name__}: {error}" if type(error) is Exception else type(error).__name__
    exact = x.detach().double().requires_grad_()
    value = truth(exact)
    (right,) = torch.autograd.grad(value, exact)
    if abs(loss.item() - value.item()) > 2e-6:
        return "another value"
    return "yes" if (grad - right).abs().max() <= 1e-5 * right.abs().max() else "another gradient"


def table() -> str:
    """The table of docs/pytorch-metric-learning.md."""
    lines = ["| | pytorch-metric-learning 2.9 | with these kernels |", "| --- | --- | --- |"]
    lines += [
        f"| {name} | {outcome(feature, THEIRS)} | {outcome(feature, OURS)} |"
        for name, feature in FEATURES.items()
    ]
    return "\n".join(lines)
