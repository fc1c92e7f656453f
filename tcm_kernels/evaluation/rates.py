"""Error rates of every class (or group) at one threshold, and how unequal they are.

Rates are shares of integer counts at the edges of the bins, where they are exact. What is said about the
differences between classes leaves out those that have no pair of the kind in question.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .checks import check_count
from .curves import ClassCurves, Counts, Rates
from .inequality import gap, gini, ratio


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
