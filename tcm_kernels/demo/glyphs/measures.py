"""What is measured on characters that the network has never seen: 18,000 images, so counted, not stored.

A verification system has one threshold for everybody. Consistent means that this one threshold treats every
class alike: OPIS and ε-OPIS, the paper's measures, look at the classes' rates over a range of such
thresholds, threshold spread at how far the thresholds lie apart that the classes would choose for themselves.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

from ...evaluation import (
    ClassCurves,
    TooFewPairsError,
    class_curves,
    epsilon_opis,
    error_rates,
    opis,
    tar_at_far,
    threshold_spread,
)
from ...evaluation.retrieval import recall_at_1
from ..comparison import Meaning

FAR = 1e-2  # of the one threshold
OPIS_FAR, STRICT_FAR = (1e-2, 1e-1), (1e-3, 1e-2)
_DECILE = 10  # percent of classes

MEANINGS = {
    "recall_at_1": Meaning(
        "Recall@1",
        "share of images whose nearest other image is of the same class",
        higher_is_better=True,
        is_consistency=False,
    ),
    "tar_at_far": Meaning(
        "TAR at FAR 0.1 %",
        "share of same-class pairs accepted where 0.1 % of other-class pairs are",
        higher_is_better=True,
        is_consistency=False,
    ),
    "opis": Meaning(
        "OPIS",
        "variance across classes of their utility (of both rates), at false-accept rates of 1 % to 10 %",
        higher_is_better=False,
        is_consistency=True,
    ),
    "opis_strict": Meaning(
        "strict OPIS",
        "the same at 0.1 % to 1 %",
        higher_is_better=False,
        is_consistency=True,
    ),
    "epsilon_opis": Meaning(
        "10 %-OPIS",
        "squared gap in that utility between the best and the worst tenth of the classes",
        higher_is_better=False,
        is_consistency=True,
    ),
    "threshold_spread": Meaning(
        "threshold spread",
        "deviation of the thresholds at which each class by itself accepts 1 % of its other-class pairs, "
        "over the distance between the mean similarities of same-class and other-class pairs",
        higher_is_better=False,
        is_consistency=True,
    ),
    "worst_decile_frr": Meaning(
        "FRR of the worst tenth",
        "share of same-class pairs rejected at the one threshold for 1 % false accepts, mean over the tenth "
        "of the classes that suffers most",
        higher_is_better=False,
        is_consistency=True,
    ),
}
"""By the name that results.json has."""


def measure(emb: Tensor, labels: Tensor) -> tuple[dict[str, float], dict[str, str]]:
    """All measures that the embeddings define.

    Args:
        emb: (N, D) float32, at least two rows.
        labels: (N,) int64.

    Returns:
        Values, by the name in MEANINGS; and why the others are missing: a training that has diverged, or one
        that has learnt so little that all similarities lie within a bin or two.
    """
    if not bool(emb.isfinite().all()):
        return {}, dict.fromkeys(MEANINGS, "the training has diverged")
    curves = class_curves(emb, labels)
    found = {"recall_at_1": recall_at_1(emb, labels)}
    reasons = {}
    for name, compute in _OF_CURVES.items():
        try:
            found[name] = compute(curves)
        except TooFewPairsError as error:
            reasons[name] = str(error)
    return found, reasons


def _threshold_spread(curves: ClassCurves) -> float:
    found = threshold_spread(curves, far=FAR, draws=0)
    if not found.separation > 0:
        raise TooFewPairsError("same-class pairs are no more similar than other-class pairs")
    return found.relative


def _worst_decile_frr(curves: ClassCurves) -> float:
    rejected = np.sort(error_rates(curves, tar_at_far(curves, FAR).threshold).false_reject)
    return float(rejected[-max(1, _DECILE * len(rejected) // 100) :].mean())


_OF_CURVES: dict[str, Callable[[ClassCurves], float]] = {
    "tar_at_far": lambda curves: tar_at_far(curves, 1e-3).tar,
    "opis": lambda curves: opis(curves, far=OPIS_FAR, draws=0).value,
    "opis_strict": lambda curves: opis(curves, far=STRICT_FAR, draws=0).value,
    "epsilon_opis": lambda curves: epsilon_opis(curves, far=OPIS_FAR, epsilon=_DECILE, draws=0).value,
    "threshold_spread": _threshold_spread,
    "worst_decile_frr": _worst_decile_frr,
}
