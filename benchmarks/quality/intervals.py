"""How sure a difference is: over seeds, and over the classes that were drawn.

Seeds say how much a training changes by chance; classes, how much other unseen classes would. Either alone
is too sure of itself, so both intervals are formed around the mean difference and the wider one decides.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence

import numpy as np
from scipy import stats

from .measures import Values

CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Difference:
    """A mean paired difference with its interval.

    Attributes:
        mean: over the pairs.
        low, high: the wider of the two intervals, of CONFIDENCE.
        pairs: how many.
        by: "seeds" or "classes", whichever is wider; "nothing" with a single pair and no draws.
    """

    mean: float
    low: float
    high: float
    pairs: int
    by: str

    @property
    def sign(self) -> int:
        """1 or -1 where the interval leaves no doubt, else 0."""
        return (self.low > 0) - (self.high < 0)

    @property
    def verdict(self) -> str:
        """What the interval says, in words."""
        return {1: "higher", -1: "lower", 0: "no difference beyond chance"}[self.sign]


def difference(
    before: Sequence[float],
    after: Sequence[float],
    draws_before: Sequence[Values] = (),
    draws_after: Sequence[Values] = (),
) -> Difference:
    """After minus before, pair by pair.

    Args:
        before: one value a seed.
        after: as many, of the same seeds.
        draws_before: (DRAWS,) of every run; all draw the same classes. None: seeds alone.
        draws_after: the same.
    """
    changes = [b - a for a, b in zip(before, after, strict=True)]
    mean = statistics.fmean(changes)
    halves = {}
    if len(changes) > 1:
        t = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(changes) - 1))
        halves["seeds"] = t * statistics.stdev(changes) / len(changes) ** 0.5
    if len(draws_before):
        drawn = np.mean([b - a for a, b in zip(draws_before, draws_after, strict=True)], axis=0)
        # The deviation of a hundred draws is known to 7 %, their 2.5 % quantile hardly at all.
        halves["classes"] = float(stats.norm.ppf((1 + CONFIDENCE) / 2) * drawn.std(ddof=1))
    if not halves:
        return Difference(mean, -np.inf, np.inf, len(changes), "nothing")
    by = max(halves, key=halves.__getitem__)
    return Difference(mean, mean - halves[by], mean + halves[by], len(changes), by)
