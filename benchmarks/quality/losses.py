"""The base losses of the study, as pytorch-metric-learning has them.

Their own settings are the library's defaults, which are their papers', with two exceptions that are said
below. Learning rate and weight decay are tuned for each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize


class SmoothAPLoss(nn.Module):
    """One minus the mean average precision of the batch, with ranks made smooth by a sigmoid.

    Brown, Xie, Kalogeiton and Zisserman, "Smooth-AP: Smoothing the Path Towards Large-Scale Image Retrieval",
    ECCV 2020 (arXiv 2007.12163), equation 5, with their temperature. The average precision of an anchor i is
    the mean, over its positives p, of

        (1 + Σ over other positives q of σ((s_iq - s_ip) / τ)) / (1 + Σ over all others q of the same)

    Only differences to positives are formed, P · N of them where pytorch-metric-learning forms N³.

    Args:
        temperature: τ, in units of cosine similarity.
    """

    def __init__(self, temperature: float = 0.01) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, emb: Tensor, labels: Tensor) -> Tensor:
        """The loss, in [0, 1), of emb (N, D) and labels (N,); 0 where no anchor has a positive."""
        unit = normalize(emb)
        similarity = unit @ unit.T
        itself = torch.eye(len(labels), dtype=torch.bool, device=emb.device)
        same = (labels[:, None] == labels) & ~itself
        anchor, positive = same.nonzero(as_tuple=True)
        if not len(anchor):
            return 0 * emb.sum()
        ahead = (similarity[anchor] - similarity[anchor, positive][:, None]) / self.temperature
        # Neither the anchor nor the positive itself ranks before the positive.
        ahead = ahead.sigmoid().masked_fill(itself[anchor] | itself[positive], 0.0)
        precision = (1 + (ahead * same[anchor]).sum(dim=1)) / (1 + ahead.sum(dim=1))
        positives = same.sum(dim=1)
        mean = torch.zeros_like(unit[:, 0]).index_add(0, anchor, precision / positives[anchor])
        return 1 - mean.sum() / (positives > 0).sum()


@dataclasses.dataclass(frozen=True)
class Base:
    """A base loss.

    Attributes:
        title: as tables name it.
        make: from the number of training classes and the embedding's length to the loss.
        has_pair_margins: whether it compares pairs with margins or temperatures of its own; the others pull
            towards proxies or weights of classes.
    """

    title: str
    make: Callable[[int, int], nn.Module]
    has_pair_margins: bool


def _triplet(_: int, __: int) -> nn.Module:
    from pytorch_metric_learning import distances, losses  # noqa: PLC0415  # an extra

    # The library takes all triplets by default, 3,000,000 of a batch.
    return losses.TripletMarginLoss(margin=0.1, triplets_per_anchor=50, distance=distances.CosineSimilarity())


def _of_library(name: str, *, proxies: bool, **settings: float) -> Callable[[int, int], nn.Module]:
    def make(classes: int, dimension: int) -> nn.Module:
        from pytorch_metric_learning import losses  # noqa: PLC0415

        return getattr(losses, name)(*((classes, dimension) if proxies else ()), **settings)

    return make


BASES = {
    "triplet": Base("Triplet", _triplet, has_pair_margins=True),
    "normalized_softmax": Base(
        "Normalized Softmax", _of_library("NormalizedSoftmaxLoss", proxies=True), has_pair_margins=False
    ),
    # The scale of ProxyNCA++ (Teh, DeVries and Taylor, ECCV 2020); the library's default, 1, trains worse.
    "proxy_nca": Base(
        "Proxy-NCA", _of_library("ProxyNCALoss", proxies=True, softmax_scale=9.0), has_pair_margins=False
    ),
    "proxy_anchor": Base(
        "Proxy-Anchor", _of_library("ProxyAnchorLoss", proxies=True), has_pair_margins=False
    ),
    "arcface": Base("ArcFace", _of_library("ArcFaceLoss", proxies=True), has_pair_margins=False),
    "multi_similarity": Base(
        "MultiSimilarity", _of_library("MultiSimilarityLoss", proxies=False), has_pair_margins=True
    ),
    "supcon": Base("SupCon", _of_library("SupConLoss", proxies=False), has_pair_margins=True),
    "smooth_ap": Base("Smooth-AP", lambda *_: SmoothAPLoss(), has_pair_margins=True),
}
"""By the name that records use. ContrastiveLoss on cosine similarity at 0.9 and 0.5 is TCM alone, an arm."""
