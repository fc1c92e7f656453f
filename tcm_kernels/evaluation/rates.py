"""Error rates at one threshold, and what the whole curves tell: TAR@FAR, EER, AUC, spread of similarities.

Rates are shares of integer counts at the edges of the bins, where they are exact. What is said about the
differences between classes (or between groups, which is the same) leaves out those that have no pair of the
kind in question.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .blocks import blocks
from .checks import TooFewPairsError, check_count, check_rate
from .curves import ClassCurves, Counts, Rates, shares
from .inequality import gap, gini, ratio


def first_edge(curves: ClassCurves, far: float) -> int:
    """The lowest edge with a pooled false-accept rate <= far.

    Raises:
        ValueError: far is not in (0, 1).
        TooFewPairsError: there is no such edge, or there are no other-class pairs.
    """
    far = check_rate("far", far)
    require_pairs(curves, "negative")
    rates = curves.false_accept_rate
    if not rates[-1] <= far:
        raise TooFewPairsError(
            f"far: got {far:g}, but {rates[-1]:.3g} of the other-class pairs are still accepted at "
            f"{curves.hi:g}, the highest edge; expected a larger far, or curves with a higher end of `range`"
        )
    return int((rates <= far).argmax())


def require_pairs(curves: ClassCurves, *kinds: Literal["positive", "negative"]) -> None:
    """Refuse curves without pairs of a kind."""
    for kind in kinds:
        row, what = (0, "same-class") if kind == "positive" else (1, "other-class")
        if not curves.pooled[row].any():
            raise TooFewPairsError(f"curves: got no {what} pair, expected at least one")


@dataclasses.dataclass(frozen=True, eq=False)
class ErrorRates:
    """What one threshold does to every class; a pair is accepted where its similarity is at least that.

    Attributes:
        threshold: the edge of a bin that the rates are exact for.
        classes: (C,) the classes, or the groups.
        false_accept: (C,) share of a class's other-class pairs that are accepted; NaN where it has none.
        false_reject: (C,) share of a class's same-class pairs that are rejected; NaN where it has none.
        pooled_false_accept: share of all other-class pairs, each counted once.
        pooled_false_reject: share of all same-class pairs.
    """

    threshold: float
    classes: npt.NDArray[Any]
    false_accept: Rates
    false_reject: Rates
    pooled_false_accept: float
    pooled_false_reject: float

    @property
    def false_accept_gap(self) -> float:
        """Largest minus smallest false-accept rate of a class."""
        return gap(self.false_accept)

    @property
    def false_reject_gap(self) -> float:
        """Largest minus smallest false-reject rate of a class."""
        return gap(self.false_reject)

    @property
    def false_accept_gini(self) -> float:
        """Gini coefficient of the classes' false-accept rates, see `gini`."""
        return gini(self.false_accept)

    @property
    def false_reject_gini(self) -> float:
        """Gini coefficient of the classes' false-reject rates, see `gini`."""
        return gini(self.false_reject)

    @property
    def false_accept_ratio(self) -> float:
        """Largest over smallest false-accept rate of a class, see `ratio`."""
        return ratio(self.false_accept)

    @property
    def false_reject_ratio(self) -> float:
        """Largest over smallest false-reject rate of a class, see `ratio`."""
        return ratio(self.false_reject)

    def worst(
        self, count: int, by: Literal["false_reject", "false_accept"] = "false_reject"
    ) -> npt.NDArray[np.intp]:
        """The classes with the highest rates.

        Args:
            count: how many at most.
            by: which rate.

        Returns:
            Indices into `classes`, the worst first, equal ones in the order of `classes`; classes without
            such pairs are not among them.
        """
        if by not in ("false_reject", "false_accept"):
            raise ValueError(f'by: got {by!r}, expected "false_reject" or "false_accept"')
        count = check_count("count", count)
        rates: Rates = getattr(self, by)
        order = np.argsort(-rates, kind="stable")  # NaN comes last
        return order[: min(count, int((~np.isnan(rates)).sum()))]


def error_rates(curves: ClassCurves, threshold: float) -> ErrorRates:
    """The error rates of every class at a threshold.

    Args:
        curves: counts of `class_curves`.
        threshold: a similarity in [lo, hi] of the curves; the nearest edge of a bin is used.

    Raises:
        ValueError: the threshold is outside.
    """
    edge = curves.edge(threshold)

    def accepted(counts: Counts) -> Rates:
        return _share(counts[:, edge + 1 :].sum(axis=1), counts.sum(axis=1))

    def rejected(counts: Counts) -> Rates:
        return _share(counts[:, : edge + 1].sum(axis=1), counts.sum(axis=1))

    return ErrorRates(
        threshold=float(curves.thresholds[edge]),
        classes=curves.classes,
        false_accept=accepted(curves.negatives),
        false_reject=rejected(curves.positives),
        pooled_false_accept=float(accepted(curves.pooled[1:])[0]),
        pooled_false_reject=float(rejected(curves.pooled[:1])[0]),
    )


def _share(counts: Counts, totals: Counts) -> Rates:
    return np.divide(counts, totals, out=np.full(len(totals), np.nan), where=totals > 0)


@dataclasses.dataclass(frozen=True)
class TarAtFar:
    """Same-class pairs accepted where few others are.

    Attributes:
        tar: true-accept rate, the share of all same-class pairs with s >= threshold.
        far: the false-accept rate asked for; the one at the threshold is at most this.
        threshold: the lowest edge of a bin where that is so.
    """

    tar: float
    far: float
    threshold: float


def tar_at_far(curves: ClassCurves, far: float) -> TarAtFar:
    """The true-accept rate at the lowest edge whose pooled false-accept rate is at most `far`.

    Args:
        curves: counts of `class_curves`.
        far: a number in (0, 1).

    Raises:
        ValueError: far is outside.
        TooFewPairsError: far is reached at no edge, or there is no pair of one kind.
    """
    require_pairs(curves, "positive")
    edge = first_edge(curves, far)
    return TarAtFar(float(curves.pooled_sensitivity[edge]), float(far), float(curves.thresholds[edge]))


@dataclasses.dataclass(frozen=True)
class EqualErrorRate:
    """Where false accepts and false rejects are equally frequent.

    Attributes:
        rate: both rates there.
        threshold: the similarity there; where that is outside the bins, their nearest end.
    """

    rate: float
    threshold: float


def equal_error_rate(curves: ClassCurves) -> EqualErrorRate:
    """The point of the ROC polyline through all edges at which the two pooled error rates are equal.

    Between two edges both rates and the threshold are taken to be linear. What is below or above all bins
    counts as one tie, as the pairs of a bin do. The lowest such point, where there are several.

    Raises:
        TooFewPairsError: there is no pair of one kind.
    """
    require_pairs(curves, "positive", "negative")
    edges = curves.thresholds
    # Shares of counts, not 1 - share, so that equal rates are equal in floating point.
    rejected = curves.pooled[:1].cumsum(axis=1)[:, :-1]
    false_reject = shares(rejected, curves.pooled[:1].sum(axis=1))[0]
    accepts = np.concatenate([[1.0], curves.false_accept_rate, [0.0]])
    rejects = np.concatenate([[0.0], false_reject, [1.0]])
    at = np.concatenate([edges[:1], edges, edges[-1:]])
    difference = rejects - accepts  # from -1 to 1, never falling
    right = int((difference >= 0).argmax())
    left = right - 1
    part = -difference[left] / (difference[right] - difference[left])
    return EqualErrorRate(
        rate=float(accepts[left] + part * (accepts[right] - accepts[left])),
        threshold=float(at[left] + part * (at[right] - at[left])),
    )


def roc_auc(curves: ClassCurves) -> float:
    """The chance that a same-class pair is more similar than an other-class pair, over all pairs.

    Pairs in one bin are ties and count one half; for similarities so binned the result is exact: the sum is
    made of integers and rounded once.

    Raises:
        TooFewPairsError: there is no pair of one kind.
    """
    require_pairs(curves, "positive", "negative")
    same, other = ([int(n) for n in row] for row in curves.pooled)
    below = wins = 0
    for p, n in zip(same, other, strict=True):
        wins += p * (2 * below + n)
        below += n
    return wins / (2 * sum(same) * below)


@dataclasses.dataclass(frozen=True, eq=False)
class SimilaritySpread:
    """Mean similarities of every class, and how far they lie apart.

    A similarity counts as the centre of its bin; those outside the bins as `lo` or `hi`. Deviations divide
    by the number of classes. Classes without such pairs are NaN and left out of mean and deviation, which
    are NaN where there is no other.

    Attributes:
        classes: (C,) the classes, or the groups.
        intra: (C,) mean similarity of same-class pairs.
        inter: (C,) mean similarity of other-class pairs.
        intra_mean: mean of `intra` over classes, each counted once.
        intra_deviation: its standard deviation across classes.
        inter_mean: mean of `inter`.
        inter_deviation: its standard deviation.
    """

    classes: npt.NDArray[Any]
    intra: Rates
    inter: Rates
    intra_mean: float
    intra_deviation: float
    inter_mean: float
    inter_deviation: float


def similarity_spread(curves: ClassCurves) -> SimilaritySpread:
    """How similar the pairs of each class are, and how much classes differ in it."""
    centres = (curves.thresholds[:-1] + curves.thresholds[1:]) / 2
    values = np.concatenate([[curves.lo], centres, [curves.hi]])
    intra, inter = _means(curves.positives, values), _means(curves.negatives, values)
    return SimilaritySpread(curves.classes, intra, inter, *_moments(intra), *_moments(inter))


def _means(counts: Counts, values: Rates) -> Rates:
    """Mean value of each row of counts, (C, B + 2)."""
    means = np.full(len(counts), np.nan)
    for rows in blocks(*counts.shape):
        totals = counts[rows].sum(axis=1)
        # A sum of each row by itself, unlike a matrix product, does not depend on where the row stands.
        np.divide((counts[rows] * values).sum(axis=1), totals, out=means[rows], where=totals > 0)
    return means


def _moments(means: Rates) -> tuple[float, float]:
    known = np.sort(means[~np.isnan(means)])  # sorted: the same sum in whatever order classes come
    return (float(known.mean()), float(known.std())) if len(known) else (math.nan, math.nan)


@dataclasses.dataclass(frozen=True)
class SpreadDifference:
    """By how much the similarities of one data set exceed those of another; fields of `SimilaritySpread`."""

    intra_mean: float
    intra_deviation: float
    inter_mean: float
    inter_deviation: float


def spread_difference(
    a: ClassCurves | SimilaritySpread, b: ClassCurves | SimilaritySpread
) -> SpreadDifference:
    """What changes in the spread of similarities from data set a to data set b: b's numbers minus a's.

    Args:
        a: counts of `class_curves`, or their `similarity_spread`.
        b: the same for the other data set; its classes may be others.
    """
    before, after = (x if isinstance(x, SimilaritySpread) else similarity_spread(x) for x in (a, b))
    return SpreadDifference(
        intra_mean=after.intra_mean - before.intra_mean,
        intra_deviation=after.intra_deviation - before.intra_deviation,
        inter_mean=after.inter_mean - before.inter_mean,
        inter_deviation=after.inter_deviation - before.inter_deviation,
    )
