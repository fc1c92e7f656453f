"""OPIS and ε-OPIS: how differently one threshold serves the classes, over a range of thresholds.

Zhang et al., "Threshold-Consistent Margin Loss for Open-World Deep Metric Learning", ICLR 2024 (arXiv
2307.04047). The utility of threshold t to class c is

    U_c(t) = (1 + k²) · spec_c(t) · sens_c(t) / (k² · spec_c(t) + sens_c(t)),   0/0 = 0

OPIS is the variance of U over classes, ε-OPIS the squared gap between the mean U of the best and of the worst
ε percent of classes, both averaged over the edges of the bins within the calibration range.

Everything after the utilities works on classes in ascending order of their mean utility over the range,
equal ones by their curves. So no name and no order of classes changes a bit of the result, and the best and
the worst classes of every bootstrap draw follow from the cumulated multiplicities, without sorting again.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from .blocks import blocks
from .bootstrap import check_bootstrap, multiplicities, percentile_interval
from .checks import TooFewPairsError, check_positive, check_rate, is_number
from .curves import ClassCurves, Rates, at_least, shares
from .roc import first_edge


@dataclasses.dataclass(frozen=True)
class Consistency:
    """A measure of threshold inconsistency; 0 means that every threshold serves all classes alike.

    Attributes:
        value: OPIS or ε-OPIS, from 0 to 1.
        range: (lo, hi), the lowest and the highest threshold that were looked at.
        classes_used: how many classes have pairs of both kinds.
        classes_left_out: how many have not.
        interval: (lo, hi) of the bootstrap over classes; None where there were no draws.
        confidence: of the interval, in (0, 1).
    """

    value: float
    range: tuple[float, float]
    classes_used: int
    classes_left_out: int
    interval: tuple[float, float] | None
    confidence: float


def calibration_range(
    curves: ClassCurves,
    *,
    far: tuple[float, float] = (1e-2, 1e-1),
    range: tuple[float, float] | None = None,
) -> tuple[int, int]:
    """The edges of the bins that OPIS looks at.

    Args:
        curves: counts of `class_curves`.
        far: two pooled false-accept rates in (0, 1), in any order: from the first edge at or under the larger
            one to the first edge at or under the smaller one, both included.
        range: (lo, hi), thresholds to use instead of those: all edges inside, ends included.

    Returns:
        (first, stop): edges first, ..., stop - 1.

    Raises:
        ValueError: arguments out of range.
        TooFewPairsError: fewer than two edges, or no edge with so low a rate.
    """
    lower, upper = _far(far)
    if range is None:
        first, stop = first_edge(curves, upper), first_edge(curves, lower) + 1
        asked = f"far: {lower:g} to {upper:g}"
    else:
        lo, hi = _thresholds(range)
        noise = 1e-6 * (curves.hi - curves.lo) / curves.bins  # of computing an edge, far less than a bin
        inside = np.flatnonzero((curves.thresholds >= lo - noise) & (curves.thresholds <= hi + noise))
        first, stop = (int(inside[0]), int(inside[-1]) + 1) if len(inside) else (0, 0)
        asked = f"range: {lo:g} to {hi:g}"
    if stop - first < 2:
        raise TooFewPairsError(
            f"{asked} covers {stop - first} of the {curves.bins + 1:,} edges between {curves.lo:g} and "
            f"{curves.hi:g}, expected at least two: count with more bins, set far apart further, or give a "
            "wider range"
        )
    return first, stop


def _far(far: object) -> tuple[float, float]:
    if not isinstance(far, tuple | list) or len(far) != 2:
        raise ValueError(f"far: got {far!r}, expected two numbers in (0, 1)")
    lower, upper = sorted(check_rate("far", rate) for rate in far)
    return lower, upper


def _thresholds(range: object) -> tuple[float, float]:
    if (
        not isinstance(range, tuple | list)
        or len(range) != 2
        or not all(is_number(x) for x in range)
        or not -math.inf < range[0] <= range[1] < math.inf
    ):
        raise ValueError(f"range: got {range!r}, expected two thresholds lo <= hi")
    return float(range[0]), float(range[1])


def utilities(curves: ClassCurves, first: int, stop: int, k: float = 1.0) -> Rates:
    """Utility of each usable class at each edge in [first, stop).

    Args:
        curves: counts of `class_curves`.
        first: the first edge, from 0.
        stop: the edge after the last, at most B + 1.
        k: weight of sensitivity against specificity, as in an F-score; 1 is their harmonic mean.

    Returns:
        (C_used, stop - first) float64 in [0, 1], in the order of `curves.classes[curves.usable]`.
    """
    if not 0 <= first < stop <= curves.bins + 1:
        raise ValueError(f"first, stop: got {first}, {stop}, expected edges from 0 to {curves.bins}")
    k = check_positive("k", k)
    usable = np.flatnonzero(curves.usable)
    utility = np.zeros((len(usable), stop - first))
    for rows in blocks(len(usable), curves.bins + 2):
        positives, negatives = curves.positives[usable[rows]], curves.negatives[usable[rows]]
        sensitivity = shares(at_least(positives, first, stop), positives.sum(axis=1))
        pairs = negatives.sum(axis=1)
        specificity = shares(pairs[:, None] - at_least(negatives, first, stop), pairs)
        below = k**2 * specificity + sensitivity
        above = (1 + k**2) * specificity * sensitivity
        np.divide(above, below, out=utility[rows], where=below > 0)
    return utility


def opis(
    curves: ClassCurves,
    *,
    far: tuple[float, float] = (1e-2, 1e-1),
    range: tuple[float, float] | None = None,
    k: float = 1.0,
    draws: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Consistency:
    """Operating-point inconsistency score: the variance of utility over classes, averaged over the range.

    Mean over the edges of the range, and over classes (divided by their number), of
    (U_c(t) - mean of U(t) over classes)².

    Args:
        curves: counts of `class_curves`.
        far: false-accept rates between which thresholds are looked at, see `calibration_range`.
        range: thresholds (lo, hi) to use instead.
        k: weight of sensitivity in the utility, positive.
        draws: of the bootstrap over classes; 0 for no interval. The range stays as it is.
        confidence: of the percentile interval, in (0, 1).
        seed: of the bootstrap.

    Raises:
        ValueError: arguments out of range.
        TooFewPairsError: fewer than two edges in the range, or two classes with pairs of both kinds.
    """
    check_bootstrap(draws, confidence)
    first, stop = calibration_range(curves, far=far, range=range)
    utility = _ranked_utilities(curves, first, stop, k)
    value = float(utility.var(axis=0).mean())
    count = len(utility)
    # Mean square minus squared mean, of deviations from the mean so that little cancels.
    deviation = utility - utility.mean(axis=0)
    square = np.square(deviation).mean(axis=1)

    def of_draws(weight: Rates) -> Rates:
        mean = weight @ deviation / count
        found: Rates = (weight @ square / count - np.square(mean).mean(axis=1)).clip(min=0)
        return found

    return _result(curves, (first, stop), value, count, of_draws, draws, confidence, seed)


def epsilon_opis(
    curves: ClassCurves,
    epsilon: float = 10.0,
    *,
    far: tuple[float, float] = (1e-2, 1e-1),
    range: tuple[float, float] | None = None,
    k: float = 1.0,
    draws: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Consistency:
    """ε-OPIS: squared gap in utility between the best and the worst classes, averaged over the range.

    Mean over the edges of the range of (mean U of the best m classes - mean U of the worst m)², with
    m = max(1, floor(ε C / 100)) of C classes. The paper leaves open how classes are ranked; here they are
    ranked once for the whole range, by their mean utility over it, and where that is equal by their curves:
    the one with the lower utility at the first edge where they differ is the worse one.

    Args:
        curves: counts of `class_curves`.
        epsilon: ε, percent of classes taken from either end, at most 50.
        far: false-accept rates between which thresholds are looked at, see `calibration_range`.
        range: thresholds (lo, hi) to use instead.
        k: weight of sensitivity in the utility, positive.
        draws: of the bootstrap over classes; 0 for no interval. The range stays as it is, classes are ranked
            anew in every draw.
        confidence: of the percentile interval, in (0, 1).
        seed: of the bootstrap.

    Raises:
        ValueError: as `opis`; or epsilon is not positive, or so large that one class would be among the best
            and the worst.
    """
    check_bootstrap(draws, confidence)
    epsilon = check_positive("epsilon", epsilon)
    first, stop = calibration_range(curves, far=far, range=range)
    utility = _ranked_utilities(curves, first, stop, k)
    count = len(utility)
    m = max(1, math.floor(epsilon * count / 100))
    if 2 * m > count:
        raise ValueError(
            f"epsilon: got {epsilon:g}, which takes the {m:,} best and the {m:,} worst of {count:,} usable "
            "classes; expected at most 50"
        )
    value = float(np.square(utility[-m:].mean(axis=0) - utility[:m].mean(axis=0)).mean())

    def of_draws(weight: Rates) -> Rates:
        # How many of the m worst, and of the m best, are copies of the classes up to here.
        worst = np.minimum(weight.cumsum(axis=1), m)
        best = np.minimum(weight[:, ::-1].cumsum(axis=1), m)
        taken = np.diff(best, axis=1, prepend=0)[:, ::-1] - np.diff(worst, axis=1, prepend=0)
        found: Rates = np.square(taken @ utility / m).mean(axis=1)
        return found

    return _result(curves, (first, stop), value, count, of_draws, draws, confidence, seed)


def _ranked_utilities(curves: ClassCurves, first: int, stop: int, k: float) -> Rates:
    """`utilities` in ascending order of their mean, then of the utilities from the first edge on."""
    utility = utilities(curves, first, stop, k)
    if len(utility) < 2:
        raise TooFewPairsError(_too_few(curves))
    keys = np.column_stack([utility.mean(axis=1), utility]).astype(">f8")
    # Big-endian bytes of non-negative numbers compare as the numbers do: one comparison per two rows.
    rows = keys.view(np.dtype((np.void, keys.shape[1] * keys.itemsize)))[:, 0]
    return utility[rows.argsort()]


def _too_few(curves: ClassCurves) -> str:
    many = "groups" if curves.grouped else "classes"
    no_positive, no_negative = curves.positive_pairs == 0, curves.negative_pairs == 0
    return (
        f"curves: got {int(curves.usable.sum())} usable of {len(curves.classes):,} {many}, expected at least "
        f"two with same-class and other-class pairs: {int((no_positive & ~no_negative).sum()):,} have no "
        f"same-class pair, {int((no_negative & ~no_positive).sum()):,} no other-class pair, "
        f"{int((no_positive & no_negative).sum()):,} neither"
    )


def _result(
    curves: ClassCurves,
    edges: tuple[int, int],
    value: float,
    count: int,
    of_draws: Callable[[Rates], Rates],
    draws: int,
    confidence: float,
    seed: int,
) -> Consistency:
    """With the interval: `of_draws` turns multiplicities (d, C) of the ranked classes into values (d,)."""
    found = [of_draws(weight) for weight in multiplicities(count, draws, seed, width=edges[1] - edges[0])]
    thresholds = curves.thresholds
    return Consistency(
        value=value,
        range=(float(thresholds[edges[0]]), float(thresholds[edges[1] - 1])),
        classes_used=count,
        classes_left_out=len(curves.classes) - count,
        interval=percentile_interval(np.concatenate(found), confidence) if found else None,
        confidence=confidence,
    )
