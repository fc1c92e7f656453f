"""What is measured on the digits that the network has never seen.

A verification system has one threshold for everybody. It is set here as such a system would set it: the
lowest one at which at most 1 % of all other-class pairs are accepted. Consistent means that this one
threshold treats every class alike, so the two gaps are differences between classes *at that threshold*.
Rates do not depend on how wide the similarities are spread, which a difference of per-class thresholds
would: a loss that squeezes all similarities into [0.9, 1] would look consistent and not be it. OPIS and
ε-OPIS, the paper's measures, look at a whole range of such thresholds.

Everything is in float64: a few hundred images.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ...evaluation import ClassCurves, class_curves, epsilon_opis, opis, tar_at_far
from ...evaluation.retrieval import recall_at_1
from ..comparison import Meaning

FALSE_ACCEPT_RATE = 0.01
HIGHEST_FALSE_ACCEPT_RATE = 0.1  # of the thresholds that OPIS looks at


@dataclasses.dataclass(frozen=True)
class Measures:
    """The measures of one trained network on the unseen classes, all in [0, 1]."""

    recall_at_1: float
    false_reject_rate: float
    worst_false_reject_rate: float
    false_accept_gap: float
    false_reject_gap: float
    opis: float
    epsilon_opis: float


MEANINGS = {
    "recall_at_1": Meaning(
        "Recall@1",
        "share of images whose nearest other image is of the same class",
        higher_is_better=True,
        is_consistency=False,
    ),
    "false_reject_rate": Meaning(
        "FRR",
        f"share of same-class pairs rejected by the one threshold, which accepts {FALSE_ACCEPT_RATE:.0%} of "
        "other-class pairs",
        higher_is_better=False,
        is_consistency=False,
    ),
    "worst_false_reject_rate": Meaning(
        "FRR of the worst class",
        "the same for the class that suffers most",
        higher_is_better=False,
        is_consistency=False,
    ),
    "false_accept_gap": Meaning(
        "FAR gap",
        "other-class pairs accepted at the one threshold, highest class minus lowest; 0 is consistent",
        higher_is_better=False,
        is_consistency=True,
    ),
    "false_reject_gap": Meaning(
        "FRR gap",
        "same-class pairs rejected at the one threshold, highest class minus lowest; 0 is consistent",
        higher_is_better=False,
        is_consistency=True,
    ),
    "opis": Meaning(
        "OPIS",
        "variance across classes of their utility (of both rates), at false-accept rates of 1 % to 10 %",
        higher_is_better=False,
        is_consistency=True,
    ),
    "epsilon_opis": Meaning(
        "10 %-OPIS",
        "squared gap in that utility between the best and the worst class",
        higher_is_better=False,
        is_consistency=True,
    ),
}
"""By field of `Measures`."""


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Cosine similarities of all ordered pairs of different images.

    Attributes:
        similarity: (N, N) float64.
        same: (N, N) bool, pairs of one class, an image with itself left out.
        other: (N, N) bool, pairs of two classes.
    """

    similarity: Tensor
    same: Tensor
    other: Tensor

    @classmethod
    def of(cls, emb: Tensor, labels: Tensor) -> Pairs:
        """All pairs of emb, (N, D), with labels, (N,)."""
        unit = normalize(emb.double())
        same = labels[:, None] == labels[None, :]
        return cls(unit @ unit.T, same & ~torch.eye(len(labels), dtype=torch.bool), ~same)

    def threshold(self) -> float:
        """The lowest threshold that accepts at most FALSE_ACCEPT_RATE of the other-class pairs."""
        falling = self.similarity[self.other].sort(descending=True).values
        first_rejected = falling[int(FALSE_ACCEPT_RATE * len(falling))]
        return float(torch.nextafter(first_rejected, torch.tensor(torch.inf, dtype=torch.float64)))


def measure(emb: Tensor, labels: Tensor) -> Measures:
    """All measures of the embeddings, (N, D), of at least two classes with two images each."""
    pairs = Pairs.of(emb, labels)
    accepted = pairs.similarity >= pairs.threshold()
    false_accepts, false_rejects = [], []
    for label in torch.unique(labels):
        rows = labels == label
        false_accepts.append(_share(accepted[rows], pairs.other[rows]))
        false_rejects.append(_share(~accepted[rows], pairs.same[rows]))
    curves = class_curves(emb.double(), labels)
    thresholds = _thresholds(curves)
    return Measures(
        recall_at_1=recall_at_1(emb.double(), labels),
        false_reject_rate=_share(~accepted, pairs.same),
        worst_false_reject_rate=max(false_rejects),
        false_accept_gap=max(false_accepts) - min(false_accepts),
        false_reject_gap=max(false_rejects) - min(false_rejects),
        opis=opis(curves, range=thresholds, draws=0).value,
        epsilon_opis=epsilon_opis(curves, range=thresholds, draws=0).value,
    )


def _thresholds(curves: ClassCurves) -> tuple[float, float]:
    """Those with false-accept rates from HIGHEST_FALSE_ACCEPT_RATE down to FALSE_ACCEPT_RATE.

    Perfectly separated classes have a single one: it and the next, because OPIS is a mean of several.
    """
    rates = sorted((FALSE_ACCEPT_RATE, HIGHEST_FALSE_ACCEPT_RATE), reverse=True)
    lo, hi = (tar_at_far(curves, rate).threshold for rate in rates)
    return lo, max(hi, lo + (curves.hi - curves.lo) / curves.bins)


def _share(chosen: Tensor, among: Tensor) -> float:
    return float(chosen[among].double().mean())
