"""What a training is judged by, and how each number would move had other classes been drawn.

All measures but Recall@1 come from one sweep over the pairs of the embeddings, in 2,000 bins.
Beside each value stand bootstrap draws over the classes. The draws are the same for every run on the same
classes, so that the difference of two runs can be taken draw by draw: that is the paired bootstrap.
Thresholds and calibration ranges stay as they are within the draws, as in `tcm_kernels.evaluation`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from torch import Tensor

from tcm_kernels.evaluation import (
    ClassCurves,
    TooFewPairsError,
    class_curves,
    error_rates,
    tar_at_far,
    threshold_spread,
)
from tcm_kernels.evaluation.consistency import calibration_range, utilities
from tcm_kernels.evaluation.retrieval import nearest_is_same_class

DRAWS = 100
EPSILON = 10  # percent of classes, of ε-OPIS and of the worst decile
FAR = 1e-2  # where one threshold is looked at
TAR_AT = {"tar_at_1e-2": 1e-2, "tar_at_1e-3": 1e-3}

Values: TypeAlias = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Measure:
    """How a measure is shown."""

    title: str
    higher_is_better: bool


MEASURES = {
    "recall_at_1": Measure("Recall@1", True),
    "opis": Measure("OPIS, FAR 1e-2..1e-1", False),
    "opis_strict": Measure("OPIS, FAR 1e-3..1e-2", False),
    "epsilon_opis": Measure("10 %-OPIS, FAR 1e-2..1e-1", False),
    "spread_relative": Measure("relative threshold spread at FAR 1e-2", False),
    "spread": Measure("threshold spread at FAR 1e-2", False),
    "spread_decades": Measure("spread of log10 FAR at one threshold, decades", False),
    "worst_decile_frr": Measure("FRR of the worst decile at FAR 1e-2", False),
    "tar_at_1e-2": Measure("TAR at FAR 1e-2", True),
    "tar_at_1e-3": Measure("TAR at FAR 1e-3", True),
}
"""By the name that records use."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """Measures of one set of embeddings.

    Attributes:
        value: of each measure, by its name in MEASURES; of a network that has hardly learnt anything some may
            be missing, where all similarities lie within a bin or two.
        draws: (DRAWS,) of each.
    """

    value: dict[str, float]
    draws: dict[str, Values]


def multiplicities(classes: int) -> Values:
    """(DRAWS + 1, classes): how often each class is drawn; first the data themselves, each class once."""
    drawn = np.random.default_rng(classes).integers(0, classes, size=(DRAWS, classes))
    counted = [np.bincount(row, minlength=classes) for row in drawn]
    return np.array([np.ones(classes), *counted], dtype=np.float64)


def measure(emb: Tensor, labels: Tensor) -> Measured:
    """All measures.

    Args:
        emb: (N, D) float32, on the CPU.
        labels: (N,) int64, classes 0 to C - 1, at least two samples of each.
    """
    curves = class_curves(emb, labels)
    weights = multiplicities(len(curves.classes))
    of_pairs, _ = of_curves(curves, weights)
    found = {"recall_at_1": _recall(emb, labels, weights)} | of_pairs
    return Measured(
        value={name: float(each[0]) for name, each in found.items()},
        draws={name: each[1:] for name, each in found.items()},
    )


def of_curves(curves: ClassCurves, weights: Values) -> tuple[dict[str, Values], dict[str, str]]:
    """Every measure but Recall@1.

    Args:
        curves: C classes; those without pairs of a kind have no say in what is made of such pairs.
        weights: (W, C) how often each class is drawn.

    Returns:
        (W,) values of each measure that these pairs define, and why the others are not defined, both by name.
    """
    found: dict[str, Values] = {}
    reasons: dict[str, str] = {}
    for names, far, compute in _OF_CURVES:
        try:
            _require_pairs(curves, far)
            found |= zip(names, compute(curves, weights), strict=True)
        except TooFewPairsError as error:
            reasons |= dict.fromkeys(names, str(error))
    return found, reasons


def _recall(emb: Tensor, labels: Tensor, weights: Values) -> Values:
    found = nearest_is_same_class(emb, labels).numpy().astype(np.float64)
    hits = np.bincount(labels.numpy(), found, minlength=weights.shape[1])
    samples = np.bincount(labels.numpy(), minlength=weights.shape[1])
    return (weights @ hits) / (weights @ samples)


def _require_pairs(curves: ClassCurves, far: float) -> None:
    """Refuse a false-accept rate that no share of so few pairs but 0 can reach."""
    pairs = int(curves.pooled[1].sum()) // (2 if curves.symmetric else 1)
    if pairs * far < 1:
        raise TooFewPairsError(
            f"a false-accept rate of {far:g} needs at least {round(1 / far):,} distinct other-class pairs, "
            f"got {pairs:,}"
        )


def _consistency(curves: ClassCurves, weights: Values) -> tuple[Values, Values]:
    utility, weights = _utilities(curves, weights, (1e-2, 1e-1))
    return _opis(utility, weights), _epsilon_opis(utility, weights)


def _strict_consistency(curves: ClassCurves, weights: Values) -> tuple[Values]:
    return (_opis(*_utilities(curves, weights, (1e-3, 1e-2))),)


def _utilities(curves: ClassCurves, weights: Values, far: tuple[float, float]) -> tuple[Values, Values]:
    """Utilities (C, E) within a range of false-accept rates, of the classes that have any; their weights."""
    if np.count_nonzero(curves.usable) < 2:
        raise TooFewPairsError("OPIS needs two classes with pairs of both kinds")
    return utilities(curves, *calibration_range(curves, far=far)), weights[:, curves.usable]


def _opis(utility: Values, weights: Values) -> Values:
    """Of utilities (C, E): the variance over the classes drawn, averaged over the edges."""
    share = weights / weights.sum(axis=1, keepdims=True)
    centred = utility - utility.mean(axis=0)  # little cancels
    return np.array([(s @ centred**2 - (s @ centred) ** 2).mean() for s in share])


def _epsilon_opis(utility: Values, weights: Values) -> Values:
    """Squared gap between the best and the worst EPSILON percent, averaged over the edges."""
    order = utility.mean(axis=1).argsort(kind="stable")
    found = []
    for weight in weights:
        drawn = np.repeat(order, weight[order].astype(np.int64))
        m = max(1, EPSILON * len(drawn) // 100)
        gap = utility[drawn[-m:]].mean(axis=0) - utility[drawn[:m]].mean(axis=0)
        found.append((gap**2).mean())
    return np.array(found)


def _own_thresholds(curves: ClassCurves, weights: Values) -> tuple[Values, Values, Values]:
    """How far the classes' own thresholds lie apart, and how far their rates at the one threshold do."""
    spread = threshold_spread(curves, far=FAR, draws=0)
    if not spread.separation > 0:
        raise TooFewPairsError("same-class pairs are no more similar than other-class pairs")
    deviation = _deviation(spread.thresholds, weights)
    pairs = curves.negative_pairs
    accepted = error_rates(curves, tar_at_far(curves, FAR).threshold).false_accept * pairs
    decades = np.where(pairs > 0, np.log10((accepted + 0.5) / (pairs + 1)), np.nan)
    # Of the draws' deviation the separation stays the same.
    return deviation, deviation / spread.separation, _deviation(decades, weights)


def _deviation(values: Values, weights: Values) -> Values:
    """Standard deviation over the classes drawn of values (C,); classes without one, NaN, left out."""
    known = ~np.isnan(values)
    share = weights[:, known] / weights[:, known].sum(axis=1, keepdims=True)
    centred = values[known] - values[known].mean()
    return np.sqrt((share @ centred**2 - (share @ centred) ** 2).clip(min=0))


def _worst_decile_frr(curves: ClassCurves, weights: Values) -> tuple[Values]:
    rejected = error_rates(curves, tar_at_far(curves, FAR).threshold).false_reject
    order = np.flatnonzero(curves.positive_pairs)
    order = order[(-rejected[order]).argsort(kind="stable")]
    found = []
    for weight in weights:
        drawn = np.repeat(order, weight[order].astype(np.int64))
        found.append(rejected[drawn[: max(1, EPSILON * len(drawn) // 100)]].mean())
    return (np.array(found),)


def _tar(far: float) -> Callable[[ClassCurves, Values], tuple[Values]]:
    def compute(curves: ClassCurves, weights: Values) -> tuple[Values]:
        pairs = curves.positive_pairs
        rejected = error_rates(curves, tar_at_far(curves, far).threshold).false_reject
        accepted = np.where(pairs > 0, pairs - rejected * pairs, 0.0)
        return ((weights @ accepted) / (weights @ pairs),)

    return compute


_OF_CURVES: tuple[tuple[tuple[str, ...], float, Callable[[ClassCurves, Values], tuple[Values, ...]]], ...] = (
    (("opis", "epsilon_opis"), 1e-2, _consistency),
    (("opis_strict",), 1e-3, _strict_consistency),
    (("spread", "spread_relative", "spread_decades"), FAR, _own_thresholds),
    (("worst_decile_frr",), FAR, _worst_decile_frr),
    *(((name,), far, _tar(far)) for name, far in TAR_AT.items()),
)
"""Names, the lowest false-accept rate that is looked at, and what computes the values of those names."""
