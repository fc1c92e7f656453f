"""How similar the pairs of each class are, how much classes differ in it, and data sets, too."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from .blocks import blocks
from .curves import ClassCurves, Counts, Rates


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
    values = curves.similarities
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
