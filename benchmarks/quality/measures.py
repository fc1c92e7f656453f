"""What a run is judged by, and how each number would move had other classes been drawn.

All measures come from one sweep over the pairs of the embeddings, in 2,000 bins; Recall@1 from a second.
Beside each value stand bootstrap draws over the classes. The draws are the same for every run on the same
classes, so that the difference of two runs can be taken draw by draw: that is the paired bootstrap.
Thresholds and calibration ranges stay as they are within the draws, as in `tcm_kernels.evaluation`.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from torch import Tensor

from tcm_kernels.demo.measures import nearest_is_same_class
from tcm_kernels.evaluation import (
    ClassCurves,
    TooFewPairsError,
    class_curves,
    error_rates,
    tar_at_far,
    threshold_spread,
)
from tcm_kernels.evaluation.consistency import calibration_range, utilities

DRAWS = 100
EPSILON = 10  # percent of classes, of ε-OPIS and of the worst decile
FAR = 1e-2  # where one threshold is looked at
TAR_AT = {"tar_at_1e-2": 1e-2, "tar_at_1e-3": 1e-3}
OPIS_RANGES = {"opis": (1e-2, 1e-1), "opis_strict": (1e-3, 1e-2)}

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
"""By column of the records."""


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
    found = {"recall_at_1": _recall(emb, labels, weights)}
    for of_curves in (_consistency, _own_thresholds, _worst_decile_frr, _tar):
        with contextlib.suppress(TooFewPairsError):
            found |= of_curves(curves, weights)
    return Measured(
        value={name: float(each[0]) for name, each in found.items()},
        draws={name: each[1:] for name, each in found.items()},
    )


def recall_alone(emb: Tensor, labels: Tensor) -> float:
    """Recall@1, for where nothing else is asked."""
    return float(nearest_is_same_class(emb, labels).double().mean())


def _recall(emb: Tensor, labels: Tensor, weights: Values) -> Values:
    found = nearest_is_same_class(emb, labels).numpy().astype(np.float64)
    hits = np.bincount(labels.numpy(), found, minlength=weights.shape[1])
    samples = np.bincount(labels.numpy(), minlength=weights.shape[1])
    return (weights @ hits) / (weights @ samples)


def _consistency(curves: ClassCurves, weights: Values) -> dict[str, Values]:
    found = {}
    for name, far in OPIS_RANGES.items():
        utility = utilities(curves, *calibration_range(curves, far=far))
        found[name] = _opis(utility, weights)
        if name == "opis":
            found["epsilon_opis"] = _epsilon_opis(utility, weights)
    return found


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


def _own_thresholds(curves: ClassCurves, weights: Values) -> dict[str, Values]:
    """How far the classes' own thresholds lie apart, and how far their rates at the one threshold do."""
    spread = threshold_spread(curves, far=FAR, draws=0)
    deviation = _deviation(spread.thresholds, weights)
    accepted = error_rates(curves, tar_at_far(curves, FAR).threshold).false_accept * curves.negative_pairs
    return {
        "spread": deviation,
        "spread_relative": deviation / spread.separation,  # which is the same in every draw
        "spread_decades": _deviation(np.log10((accepted + 0.5) / (curves.negative_pairs + 1)), weights),
    }


def _deviation(values: Values, weights: Values) -> Values:
    """Standard deviation over the classes drawn of values (C,); classes without one, NaN, left out."""
    known = ~np.isnan(values)
    share = weights[:, known] / weights[:, known].sum(axis=1, keepdims=True)
    centred = values[known] - values[known].mean()
    return np.sqrt((share @ centred**2 - (share @ centred) ** 2).clip(min=0))


def _worst_decile_frr(curves: ClassCurves, weights: Values) -> dict[str, Values]:
    rejected = error_rates(curves, tar_at_far(curves, FAR).threshold).false_reject
    order = (-rejected).argsort(kind="stable")
    found = []
    for weight in weights:
        drawn = np.repeat(order, weight[order].astype(np.int64))
        found.append(rejected[drawn[: max(1, EPSILON * len(drawn) // 100)]].mean())
    return {"worst_decile_frr": np.array(found)}


def _tar(curves: ClassCurves, weights: Values) -> dict[str, Values]:
    pairs, found = curves.positive_pairs, {}
    for name, far in TAR_AT.items():
        rejected = error_rates(curves, tar_at_far(curves, far).threshold).false_reject
        found[name] = (weights @ (pairs - rejected * pairs)) / (weights @ pairs)
    return found
