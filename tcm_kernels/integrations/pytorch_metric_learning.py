"""pytorch-metric-learning's losses with these kernels: one import changes, everything else stays.

    from tcm_kernels.integrations.pytorch_metric_learning import (
        ContrastiveLoss, CrossBatchMemory, SelfSupervisedLoss, ThresholdConsistentMarginLoss,
    )

Names, positional order, defaults and call are those of that library's version 2.9, which has to be there.
Its miners, reducers, regularisers, `MultipleLosses`, trainers and `DistributedLossWrapper` take the losses as
their own. What differs is written in docs/pytorch-metric-learning.md.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor

try:
    from pytorch_metric_learning import losses as theirs
    from pytorch_metric_learning.distances import BaseDistance, CosineSimilarity
    from pytorch_metric_learning.reducers import AvgNonZeroReducer, BaseReducer
except ImportError as error:
    raise ImportError(
        f"tcm_kernels.integrations.pytorch_metric_learning needs that library ({error}); "
        "pip install 'pytorch-metric-learning>=2.9,<3'"
    ) from error

from .. import dispatch
from ..functional import fused_tcm_loss
from ..stats import PairStats
from ..validation import check_lambda, check_margin

__all__ = ["ContrastiveLoss", "CrossBatchMemory", "SelfSupervisedLoss", "ThresholdConsistentMarginLoss"]


@dataclasses.dataclass(frozen=True)
class _AllPairs:
    """In place of an indices_tuple: all pairs with the bank, without those of a sample with itself.

    Attributes:
        own: the place in the bank of the batch's first row, with the others after it, from the last row on
            to the first; None where the batch is not in the bank.
    """

    own: int | None


class _FusedPairLoss(theirs.BaseMetricLossFunction):  # type: ignore[misc]
    """A loss over pairs by cosine similarity; the class below it says with which margins."""

    def __init__(self, backend: str = "auto", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        dispatch.check_name(backend)
        _check_distance(type(self).__name__, self.distance)
        self.backend = backend
        self.last_stats: PairStats | None = None
        names = ["hard_positives", "hard_negatives"]
        self.add_to_recordable_attributes(list_of_names=names, is_stat=True)

    def get_default_distance(self) -> BaseDistance:
        """Cosine similarity."""
        return CosineSimilarity()

    def _fused(
        self,
        embeddings: Tensor,
        labels: Tensor | None,
        indices_tuple: Any,
        ref_emb: Tensor | None,
        ref_labels: Tensor | None,
        **settings: Any,
    ) -> tuple[Tensor, PairStats]:
        """The loss and its statistics, over all pairs or those of the indices_tuple."""
        if ref_emb is embeddings:  # which is how that library says that there is no reference set
            ref_emb = ref_labels = None
        pairs, self_offset = indices_tuple, None
        if isinstance(indices_tuple, _AllPairs):
            pairs, self_offset = None, indices_tuple.own
            if self_offset is not None and ref_emb is not None and ref_labels is not None:
                wrapped = self_offset + len(embeddings) - len(ref_emb)
                if wrapped > 0:  # a copy of the bank, in which the batch's rows come one after the other
                    ref_emb, ref_labels = ref_emb.roll(-wrapped, 0), ref_labels.roll(-wrapped, 0)
                    self_offset -= wrapped
        if pairs is not None:
            pairs = [index.to(embeddings.device) for index in pairs]
        loss, stats = fused_tcm_loss(
            *(embeddings, labels, ref_emb, ref_labels),
            **settings,
            self_offset=self_offset,
            pairs=pairs,
            backend=self.backend,
            return_stats=True,
        )
        self.last_stats = stats.detach()
        if self.collect_stats:
            self.hard_positives = int(stats.positive_count)
            self.hard_negatives = int(stats.negative_count)
        return loss, stats


class ThresholdConsistentMarginLoss(_FusedPairLoss):
    """The TCM loss with the signature of pytorch-metric-learning's class; see `tcm_kernels.fused_tcm_loss`.

    Args:
        lambda_plus: weight of the positive term, at least 0.
        lambda_minus: weight of the negative term, at least 0.
        margin_plus: positives with similarity <= margin_plus are pulled together; a float in [-1, 1], or a
            0-dim tensor without gradient.
        margin_minus: negatives with similarity >= margin_minus are pushed apart; likewise.
        backend: "auto" or a name from `tcm_kernels.available_backends()`.
        kwargs: `distance` (a CosineSimilarity), `reducer` (any: the loss is reduced already),
            `embedding_regularizer`, `embedding_reg_weight`, `collect_stats`.

    Attributes:
        last_stats: detached `PairStats` of the latest forward; None before the first.
        hard_positives: with `collect_stats`, the number of the latest forward; reading it waits for a GPU.
        hard_negatives: likewise.

    Raises:
        ValueError: another distance, or a margin, weight or backend that is not accepted.
    """

    def __init__(
        self,
        lambda_plus: float = 1.0,
        lambda_minus: float = 1.0,
        margin_plus: float | Tensor = 0.9,
        margin_minus: float | Tensor = 0.5,
        *,
        backend: str = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(backend, **kwargs)
        check_lambda("lambda_plus", lambda_plus)
        check_lambda("lambda_minus", lambda_minus)
        check_margin("margin_plus", margin_plus)
        check_margin("margin_minus", margin_minus)
        self.lambda_plus = lambda_plus
        self.lambda_minus = lambda_minus
        self.margin_plus = margin_plus
        self.margin_minus = margin_minus

    def compute_loss(
        self,
        embeddings: Tensor,
        labels: Tensor | None,
        indices_tuple: Any,
        ref_emb: Tensor | None,
        ref_labels: Tensor | None,
    ) -> dict[str, Any]:
        """The loss as reducers take it. Of triplets each pair counts once, however many have it."""
        names = ("lambda_plus", "lambda_minus", "margin_plus", "margin_minus")
        settings = {name: getattr(self, name) for name in names}
        loss, _ = self._fused(embeddings, labels, indices_tuple, ref_emb, ref_labels, **settings)
        return {"loss": _reduced(loss)}


class ContrastiveLoss(_FusedPairLoss):
    """pytorch-metric-learning's ContrastiveLoss with cosine similarity and its default reducer.

    This is the TCM loss under an older name: the mean of max(pos_margin - s, 0) over the positives where it
    is not 0, and the mean of max(s - neg_margin, 0) over such negatives. A pair exactly on its margin counts
    in the mean of TCM, and not in this one.

    Args:
        pos_margin: positives with similarity < pos_margin are pulled together; in [-1, 1].
        neg_margin: negatives with similarity > neg_margin are pushed apart; in [-1, 1].
        backend: "auto" or a name from `tcm_kernels.available_backends()`.
        kwargs: as of `ThresholdConsistentMarginLoss`, but that `distance` has to be given, because the
            default there is another one, and that `reducer` has to be an AvgNonZeroReducer.

    Attributes:
        last_stats: detached `PairStats` of the latest forward; None before the first.
        hard_positives: with `collect_stats`, the number of the latest forward; reading it waits for a GPU.
        hard_negatives: likewise.

    Raises:
        ValueError: another distance or reducer, or a margin or backend that is not accepted.
    """

    def __init__(
        self, pos_margin: float = 0, neg_margin: float = 1, *, backend: str = "auto", **kwargs: Any
    ) -> None:
        if kwargs.get("distance") is None:
            raise ValueError(
                "distance: got None, which is LpDistance in pytorch-metric-learning's ContrastiveLoss, "
                "expected CosineSimilarity()"
            )
        reducer = kwargs.get("reducer")
        if reducer is not None and (type(reducer) is not AvgNonZeroReducer or reducer.high is not None):
            raise ValueError(
                f"reducer: got {type(reducer).__name__}, expected AvgNonZeroReducer(), the default: the "
                "kernels return means over the pairs with a loss, and no loss of a single pair"
            )
        super().__init__(backend, **kwargs)
        check_margin("pos_margin", pos_margin)
        check_margin("neg_margin", neg_margin)
        self.pos_margin = pos_margin
        self.neg_margin = neg_margin
        self.add_to_recordable_attributes(list_of_names=["pos_margin", "neg_margin"], is_stat=False)

    def compute_loss(
        self,
        embeddings: Tensor,
        labels: Tensor | None,
        indices_tuple: Any,
        ref_emb: Tensor | None,
        ref_labels: Tensor | None,
    ) -> dict[str, Any]:
        """Both means as reducers take them. A pair counts as often as it is listed, in triplets too."""
        if isinstance(indices_tuple, (tuple, list)) and len(indices_tuple) == 3:
            anchors, positives, negatives = indices_tuple
            indices_tuple = (anchors, positives, anchors, negatives)
        _, stats = self._fused(
            *(embeddings, labels, indices_tuple, ref_emb, ref_labels),
            # s < m is s <= the number before m, in float64; the kernels round that down to what s can be.
            margin_plus=torch.tensor(math.nextafter(self.pos_margin, -2.0), dtype=torch.float64),
            margin_minus=torch.tensor(math.nextafter(self.neg_margin, 2.0), dtype=torch.float64),
        )
        dtype = torch.promote_types(embeddings.dtype, torch.float32)
        return {
            "pos_loss": _reduced(stats.positive_term.to(dtype)),
            "neg_loss": _reduced(stats.negative_term.to(dtype)),
        }

    def get_default_reducer(self) -> BaseReducer:
        """The mean over pairs with a loss, which is what the kernels compute."""
        return AvgNonZeroReducer()

    def _sub_loss_names(self) -> list[str]:
        return ["pos_loss", "neg_loss"]


class _AcceptsOurLosses:
    """A wrapper that knows losses by the names of their classes, and ours in addition, if they are ours."""

    def __init__(self, loss: Any, *args: Any, **kwargs: Any) -> None:
        if not isinstance(loss, _FusedPairLoss):
            super().check_loss_support(type(loss).__name__)  # type: ignore[misc]
        super().__init__(loss, *args, **kwargs)  # type: ignore[call-arg]

    @classmethod
    def check_loss_support(cls, loss_name: str) -> None:
        """Raise where the loss is not supported; ours have been seen to be ours."""
        if loss_name not in (ThresholdConsistentMarginLoss.__name__, ContrastiveLoss.__name__):
            super().check_loss_support(loss_name)  # type: ignore[misc]


class CrossBatchMemory(_AcceptsOurLosses, theirs.CrossBatchMemory):  # type: ignore[misc]
    """Theirs, which takes our losses too. With these and without a miner it lists no pairs."""

    def create_indices_tuple(
        self,
        embeddings: Tensor,
        labels: Tensor,
        E_mem: Tensor,  # noqa: N803 - its name there
        L_mem: Tensor,  # noqa: N803
        input_indices_tuple: Any,
        do_remove_self_comparisons: bool,
    ) -> Any:
        """The pairs of the batch with the bank, in which the batch is already."""
        if self.miner or input_indices_tuple is not None or not isinstance(self.loss, _FusedPairLoss):
            return super().create_indices_tuple(
                embeddings, labels, E_mem, L_mem, input_indices_tuple, do_remove_self_comparisons
            )
        first = (self.queue_idx - len(embeddings)) % self.memory_size
        return _AllPairs(first if do_remove_self_comparisons else None)


class SelfSupervisedLoss(_AcceptsOurLosses, theirs.SelfSupervisedLoss):  # type: ignore[misc]
    """Theirs, which takes our losses too."""


def _check_distance(loss: str, distance: BaseDistance) -> None:
    """Raise ValueError for anything but the cosine similarity."""
    if type(distance) is not CosineSimilarity or distance.power != 1 or distance.p != 2:
        shown = type(distance).__name__
        if isinstance(distance, CosineSimilarity):
            shown += f"(p={distance.p}, power={distance.power})"
        raise ValueError(
            f"distance: got {shown}, expected CosineSimilarity(), which is all that {loss} takes"
        )


def _reduced(loss: Tensor) -> dict[str, Any]:
    return {"losses": loss, "indices": None, "reduction_type": "already_reduced"}
