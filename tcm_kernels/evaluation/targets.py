"""The edge that meets a target error rate, of all pairs and of each class: the one place that says which.

    false-accept rate   the lowest edge where it is at most the target; it falls as the threshold rises
    false-reject rate   the highest edge where it is; it rises

The threshold to ship and the classes' own thresholds both come from here.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from .blocks import blocks
from .curves import ClassCurves, Counts, at_least, shares

Edges: TypeAlias = npt.NDArray[np.intp]


class Kind(NamedTuple):
    """What differs between a target false-accept rate and a target false-reject rate."""

    argument: Literal["far", "frr"]
    rate: str
    pairs: str
    row: Literal[0, 1]  # of the pooled counts
    side: Literal["lowest", "highest"]  # edge that meets the target; the rate is least at the other end
    remedy: str

    def table(self, curves: ClassCurves) -> Counts:
        """(C, B + 2) counts of the pairs in which this error can be made."""
        return curves.negatives if self.row else curves.positives

    def pooled(self, curves: ClassCurves) -> Counts:
        """(1, B + 2) the same of all pairs, each counted once."""
        return curves.pooled[self.row : self.row + 1]


FAR = Kind("far", "false-accept rate", "other-class", 1, "lowest", "a higher end of `range`")
FRR = Kind("frr", "false-reject rate", "same-class", 0, "highest", "a lower start of `range`")


def accepted_pairs(counts: Counts) -> tuple[Counts, Counts]:
    """Pairs accepted at every edge, (K, B + 1), and pairs, (K,), of counts (K, B + 2).

    In a draw a count may be below zero, to first order; what is accepted is kept between none and all.
    """
    pairs = counts.sum(axis=1).clip(min=0)
    return at_least(counts, 0, counts.shape[1] - 1).clip(0, pairs[:, None]), pairs


def edges_at_rate(counts: Counts, kind: Kind, rate: float) -> Edges:
    """The edge of each row of counts (K, B + 2) that the target asks for; -1 or B + 1 where there is none."""
    accepted, pairs = accepted_pairs(counts)
    if kind.side == "lowest":
        reached = shares(accepted, pairs) <= rate
        return np.where(reached.any(axis=1), reached.argmax(axis=1), reached.shape[1])
    reached = (shares(pairs[:, None] - accepted, pairs) <= rate)[:, ::-1]
    return np.where(reached.any(axis=1), reached.shape[1] - 1 - reached.argmax(axis=1), -1)


def edges_of_classes(curves: ClassCurves, kind: Kind, rate: float) -> tuple[Edges, Counts]:
    """`edges_at_rate` of every class, (C,), and how many pairs of the kind it has, (C,)."""
    table = kind.table(curves)
    edges = [edges_at_rate(table[rows], kind, rate) for rows in blocks(*table.shape)]
    return np.concatenate([np.zeros(0, np.intp), *edges]), table.sum(axis=1)


def pairs_needed(rate: float) -> int:
    """The fewest pairs of which a share `rate`, and not only none, can be errors."""
    return math.ceil((1 - 1e-12) / rate)  # 1 / 0.07 is rounded, 1 / 0.01 must stay 100
