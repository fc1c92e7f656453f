"""What the curves of all pairs tell: TAR at a FAR, equal error rate, area under the ROC curve."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from .checks import TooFewPairsError, check_rate
from .curves import ClassCurves


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
    accepts = np.concatenate([[1.0], curves.false_accept_rate, [0.0]])
    rejects = np.concatenate([[0.0], curves.false_reject_rate, [1.0]])
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
