"""Threshold spread: how far apart the thresholds lie that each class would choose for itself.

Given a target error rate, every class has a threshold at which its own rate meets it. One threshold for all
suits a class the less, the further its own is away; drawing them together is what the TCM loss is for. Said
three ways:

    deviation   standard deviation of the classes' own thresholds, in units of similarity
    relative    the same as a share of (mean same-class similarity - mean other-class similarity), so that
                models whose similarities lie on different scales can be compared
    decades     the other way round: at the one threshold that meets the target over all pairs, the standard
                deviation of log10 of the classes' error rates; 1 is a factor of ten

A class with few pairs has a rate of 0 easily, and 0 has no logarithm: rates there are (errors + 1/2) /
(pairs + 1), the mean of the rate given the counts under Jeffreys' prior, Beta(1/2, 1/2).

All of it depends on two numbers of a class, its edge and its count of errors, so classes are put into the
order of these: no name and no order of classes changes a bit, of the intervals neither.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .bootstrap import check_bootstrap, multiplicities, percentile_interval
from .checks import TooFewPairsError, check_rate
from .curves import ClassCurves, Counts, Rates
from .targets import FAR, FRR, Kind, edges_at_rate, edges_of_classes, pairs_needed

Interval = tuple[float, float] | None


@dataclasses.dataclass(frozen=True, eq=False)
class ThresholdSpread:
    """The classes' own thresholds for a target error rate, and how far they lie apart; 0 is consistent.

    Deviations divide by the number of classes. Intervals are None where there were no draws or the number
    itself is NaN.

    Attributes:
        target: "far" or "frr", which error rate is meant.
        rate: the target, in (0, 1).
        classes: (C,) the classes, or the groups.
        thresholds: (C,) float64, for "far" the lowest edge at which the class's own false-accept rate is at
            most the target, for "frr" the highest at which its own false-reject rate is; NaN for a class
            without such pairs and for one that meets the target at no edge.
        mean: of those `thresholds` that are not NaN.
        deviation: their standard deviation, at least 0, in units of similarity.
        deviation_interval: (lo, hi) of the bootstrap over classes.
        interquartile_range: their 75th minus their 25th percentile, between two thresholds interpolated.
        relative: `deviation / separation`, at least 0; NaN where the separation is not positive.
        relative_interval: (lo, hi), the separation as it is.
        separation: mean similarity of all same-class pairs minus that of all other-class pairs, each pair
            counted once; NaN where there are no pairs of a kind.
        threshold: the one threshold, which meets the target over all pairs; NaN where no edge does.
        decades: standard deviation, over the classes with such pairs, of log10 of their error rate at
            `threshold`, where a rate is (errors + 1/2) / (pairs + 1) with pairs counted as the curves count
            them, so that 0 has a logarithm; NaN where there is no such threshold.
        decades_interval: (lo, hi), the threshold as it is.
        classes_used: how many classes have a threshold of their own.
        never_met: how many have such pairs but meet the target at no edge.
        classes_without: how many have no such pairs.
        classes_short: how many have such pairs, but fewer than 1 / rate distinct ones: no rate but 0 is as
            low, so that their threshold is as uncertain as the most extreme of a few similarities.
        confidence: of the intervals, in (0, 1).
    """

    target: Literal["far", "frr"]
    rate: float
    classes: npt.NDArray[Any]
    thresholds: Rates
    mean: float
    deviation: float
    deviation_interval: Interval
    interquartile_range: float
    relative: float
    relative_interval: Interval
    separation: float
    threshold: float
    decades: float
    decades_interval: Interval
    classes_used: int
    never_met: int
    classes_without: int
    classes_short: int
    confidence: float


def threshold_spread(
    curves: ClassCurves,
    *,
    far: float | None = None,
    frr: float | None = None,
    draws: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> ThresholdSpread:
    """How far apart the thresholds lie at which each class by itself meets a target error rate.

    A class's own threshold is the one that `choose_threshold(..., over="worst")` looks for in each class. A
    target f means little for classes with fewer than 1 / f pairs: see `ThresholdSpread.classes_short`.

    Args:
        curves: counts of `class_curves`, C classes.
        far: target false-accept rate in (0, 1); 1e-2 where neither is given.
        frr: target false-reject rate in (0, 1), instead of far.
        draws: of the bootstrap over the classes that have such pairs; 0 for no intervals. The threshold of
            each class, the one threshold and the separation stay as they are; which classes there are, and
            so the mean around which they lie, is drawn. Draws without any threshold are left out.
        confidence: of the percentile intervals, in (0, 1).
        seed: of the bootstrap.

    Raises:
        ValueError: an argument that cannot be used.
        TooFewPairsError: fewer than two classes have a threshold of their own.
    """
    check_bootstrap(draws, confidence)
    kind, rate = target_of(far, frr)
    edges, pairs = edges_of_classes(curves, kind, rate)
    concerned = pairs > 0
    met = concerned & (edges >= 0) & (edges <= curves.bins)
    if met.sum() < 2:
        raise TooFewPairsError(_too_few(curves, kind, rate, concerned, met))
    threshold, logarithms = _at_one_threshold(curves, kind, rate, pairs)
    separation = _separation(curves)
    share = separation if separation > 0 else math.nan

    order = np.lexsort((logarithms, edges))
    order = order[concerned[order]]
    has, edge, logarithm = met[order], edges[order].astype(np.float64), logarithms[order]
    logarithm -= logarithm[0]  # which moves no deviation, and makes it 0 exactly where all are equal
    width = (curves.hi - curves.lo) / curves.bins

    def deviations(weight: Rates) -> Rates:
        """(d, 3) of each draw (d, classes with such pairs): deviation, relative, decades."""
        own = width * _deviations(weight * has, edge)  # not weight[:, has]: laid out by columns, summed so
        return np.stack([own, own / share, _deviations(weight, logarithm)], axis=1)

    deviation, relative, decades = deviations(np.ones((1, len(order))))[0]
    drawn = [deviations(weight) for weight in multiplicities(len(order), draws, seed, width=len(order))]
    intervals = [percentile_interval(x, confidence) for x in np.concatenate([np.zeros((0, 3)), *drawn]).T]
    quartiles = np.quantile(edge[has], [0.25, 0.75])
    distinct = pairs // (2 if curves.symmetric else 1)
    return ThresholdSpread(
        target=kind.argument,
        rate=rate,
        classes=curves.classes,
        thresholds=np.where(met, curves.thresholds[edges.clip(0, curves.bins)], np.nan),
        mean=float(curves.lo + width * edge[has].mean()),
        deviation=float(deviation),
        deviation_interval=intervals[0],
        interquartile_range=float(width * (quartiles[1] - quartiles[0])),
        relative=float(relative),
        relative_interval=intervals[1],
        separation=separation,
        threshold=threshold,
        decades=float(decades),
        decades_interval=intervals[2],
        classes_used=int(met.sum()),
        never_met=int((concerned & ~met).sum()),
        classes_without=int((~concerned).sum()),
        classes_short=int((concerned & (distinct < pairs_needed(rate))).sum()),
        confidence=confidence,
    )


def target_of(far: float | None, frr: float | None) -> tuple[Kind, float]:
    """The error rate that is meant, and its target: 1e-2 false accepts where nothing is said."""
    if far is not None and frr is not None:
        raise ValueError(f"far, frr: got far={far!r}, frr={frr!r}, expected one of them at most")
    if frr is not None:
        return FRR, check_rate("frr", frr)
    return FAR, 1e-2 if far is None else check_rate("far", far)


def _at_one_threshold(curves: ClassCurves, kind: Kind, rate: float, pairs: Counts) -> tuple[float, Rates]:
    """The threshold that meets the target over all pairs, and (C,) log10 of every class's rate there."""
    table = kind.table(curves)
    edge = int(edges_at_rate(kind.pooled(curves), kind, rate)[0])
    if not 0 <= edge <= curves.bins:
        return math.nan, np.full(len(table), np.nan)
    errors = (table[:, edge + 1 :] if kind is FAR else table[:, : edge + 1]).sum(axis=1)
    return float(curves.thresholds[edge]), np.log10((errors + 0.5) / (pairs + 1))


def _separation(curves: ClassCurves) -> float:
    pairs = curves.pooled.sum(axis=1)
    if not pairs.all():
        return math.nan
    same, other = (curves.pooled * curves.similarities).sum(axis=1) / pairs
    return float(same - other)


def _deviations(weight: Rates, values: Rates) -> Rates:
    """Standard deviation, (d,), of values (K,) that each draw takes so many times, (d, K); NaN of nothing.

    Around the mean of each draw: mean square minus squared mean would leave 1e-8 where it should leave 0.
    """
    taken = weight.sum(axis=1)
    with np.errstate(invalid="ignore"):
        mean = (weight * values).sum(axis=1) / taken
        variance = (weight * np.square(values - mean[:, None])).sum(axis=1) / taken
    return np.sqrt(variance)


def _too_few(
    curves: ClassCurves, kind: Kind, rate: float, concerned: npt.NDArray[np.bool_], met: npt.NDArray[np.bool_]
) -> str:
    many = "groups" if curves.grouped else "classes"
    return (
        f"curves: got {int(met.sum())} of {len(met):,} {many} with a threshold of their own for a "
        f"{kind.rate} of {rate:g}, expected at least two: {int((~concerned).sum()):,} have no {kind.pairs} "
        f"pair, {int((concerned & ~met).sum()):,} are above that rate at every edge from {curves.lo:g} to "
        f"{curves.hi:g}, which takes a larger {kind.argument} or curves with {kind.remedy}"
    )
