"""The truth for evaluation: every ordered pair on its own, in float64, by the definitions and nothing else.

Written for being read, not for being run on more than a few hundred rows; nothing here knows how the library
counts or adds up. A `Truth` holds the pairs; everything else is arithmetic on masks over them.

    s >= edge k   <=>   column of s > k       (column 0: s < lo; column b + 1: bin b; column B + 1: s >= hi)

so that a rate at an edge is that of the binned similarities, which is what curves claim to be exact for.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Array = npt.NDArray[Any]


def as_array(x: Any) -> Array:
    """Tensors of any float dtype as float64, every other thing as numpy sees it."""
    if isinstance(x, torch.Tensor):
        return x.detach().cpu().double().numpy() if x.is_floating_point() else x.cpu().numpy()
    return np.asarray(x)


def unit_rows(emb: Any) -> Array:
    """x / max(|x|, 1e-12), float64."""
    rows = as_array(emb).astype(np.float64)
    norms = np.sqrt((rows * rows).sum(axis=1))
    return rows / np.maximum(norms, 1e-12)[:, None]


def columns_of(similarity: Array, bins: int, lo: float, hi: float) -> Array:
    """The column of a table in which each similarity counts."""
    inside = np.floor((similarity - lo) * bins / (hi - lo)).clip(0, bins - 1).astype(np.int64) + 1
    return np.where(similarity < lo, 0, np.where(similarity >= hi, bins + 1, inside))


@dataclasses.dataclass(frozen=True)
class Truth:
    """All P ordered pairs.

    `left` and `right` say which class, or group, stands at each end; `classes` which of them there are.
    """

    similarity: Array  # (P,) float64
    same: Array  # (P,) bool
    left: Array  # (P,)
    right: Array  # (P,)
    classes: Array  # (C,) sorted
    bins: int
    lo: float
    hi: float

    @functools.cached_property
    def column(self) -> Array:
        return columns_of(self.similarity, self.bins, self.lo, self.hi)

    @property
    def edges(self) -> range:
        return range(self.bins + 1)

    def of_class(self, c: Any) -> Array:
        """(P,) whether a pair counts for c: once, whether one of its ends or both are of c."""
        return (self.left == c) | (self.right == c)

    def table(self, sign: bool) -> Array:
        """(C, B + 2) counts of same-class pairs (True) or other-class pairs (False)."""
        table = np.zeros((len(self.classes), self.bins + 2), np.int64)
        counted = self.same == sign
        for ends, once in ((self.left, counted), (self.right, counted & (self.left != self.right))):
            np.add.at(table, (np.searchsorted(self.classes, ends[once]), self.column[once]), 1)
        return table

    def pooled_table(self) -> Array:
        """(2, B + 2) counts of all same-class pairs and of all other-class pairs."""
        table = np.zeros((2, self.bins + 2), np.int64)
        np.add.at(table, (np.where(self.same, 0, 1), self.column), 1)
        return table

    def accepted(self, sign: bool, k: int, c: Any = None) -> tuple[int, int]:
        """How many pairs of a sign (of class c) are >= edge k, and how many there are."""
        mask = self.same == sign
        if c is not None:
            mask = mask & self.of_class(c)
        return int((mask & (self.column > k)).sum()), int(mask.sum())

    def true_accept(self, k: int, c: Any = None) -> float:
        """Sensitivity: share of same-class pairs >= edge k; NaN where there is none."""
        hits, total = self.accepted(True, k, c)
        return hits / total if total else np.nan

    def false_accept(self, k: int, c: Any = None) -> float:
        hits, total = self.accepted(False, k, c)
        return hits / total if total else np.nan

    def false_reject(self, k: int, c: Any = None) -> float:
        hits, total = self.accepted(True, k, c)
        return (total - hits) / total if total else np.nan

    def true_reject(self, k: int, c: Any = None) -> float:
        """Specificity: share of other-class pairs < edge k; NaN where there is none."""
        hits, total = self.accepted(False, k, c)
        return (total - hits) / total if total else np.nan

    def usable(self) -> list[Any]:
        """Classes with a pair of either kind."""
        return [c for c in self.classes if self.accepted(True, 0, c)[1] and self.accepted(False, 0, c)[1]]

    def utilities(self, first: int, stop: int, k: float = 1.0) -> Array:
        """(C used, stop - first)."""
        rows = [
            [utility(self.true_reject(t, c), self.true_accept(t, c), k) for t in range(first, stop)]
            for c in self.usable()
        ]
        return np.array(rows).reshape(len(rows), stop - first)

    def first_edge_with_far(self, far: float, c: Any = None) -> int | None:
        return next((t for t in self.edges if self.false_accept(t, c) <= far), None)

    def last_edge_with_frr(self, frr: float, c: Any = None) -> int | None:
        return next((t for t in reversed(self.edges) if self.false_reject(t, c) <= frr), None)

    def equal_error(self) -> tuple[float, float]:
        """The rate, and the threshold, at which the straight lines between edges first cross.

        Below the first edge everything is accepted and above the last nothing, at its own threshold.
        """
        step = (self.hi - self.lo) / self.bins
        points = [(1.0, 0.0, self.lo)]
        points += [(self.false_accept(k), self.false_reject(k), self.lo + k * step) for k in self.edges]
        points += [(0.0, 1.0, self.hi)]
        at = next(i for i, (accept, reject, _) in enumerate(points) if reject >= accept)
        (accept, reject, t), (next_accept, next_reject, next_t) = points[at - 1], points[at]
        share = (accept - reject) / (accept - reject + next_reject - next_accept)
        return accept + share * (next_accept - accept), t + share * (next_t - t)

    def area(self) -> float:
        """P(same > other) + P(same = other) / 2 over columns: every positive pair meets every negative."""
        difference = self.column[self.same][:, None] - self.column[~self.same][None, :]
        return float(((difference > 0) + 0.5 * (difference == 0)).mean())

    def values(self) -> Array:
        """(P,) the similarity that a column stands for: its middle, and lo or hi for what is outside."""
        width = (self.hi - self.lo) / self.bins
        centre = self.lo + (self.column - 0.5) * width
        return np.where(self.column == 0, self.lo, np.where(self.column == self.bins + 1, self.hi, centre))

    def mean_similarity(self, sign: bool, c: Any) -> float:
        mask = self.of_class(c) & (self.same == sign)
        return float(self.values()[mask].mean()) if mask.any() else np.nan

    def f1(self, k: int, c: Any = None) -> float:
        """0/0, where nothing is accepted, is 0."""
        hits, positives = self.accepted(True, k, c)
        wrong, _ = self.accepted(False, k, c)
        return 2 * hits / (positives + hits + wrong) if positives + hits + wrong else 0.0

    def balanced_accuracy(self, k: int, c: Any = None) -> float:
        return (self.true_accept(k, c) + self.true_reject(k, c)) / 2


def all_pairs(
    emb: Any,
    labels: Any,
    ref: Any = None,
    ref_labels: Any = None,
    *,
    groups: Any = None,
    ref_groups: Any = None,
    self_offset: int | None = None,
    bins: int = 2000,
    range: tuple[float, float] = (-1.0, 1.0),
    classes: Any = None,
) -> Truth:
    """Within one set: all (i, j) with i != j. Between two: all, except that (i, i + self_offset) is no pair.

    `classes` are those to count by: where None, the different labels, or groups, that there are.
    """
    if ref is None:
        ref, ref_labels, ref_groups, self_offset = emb, labels, groups, 0
    y, z = as_array(labels), as_array(ref_labels)
    g, h = (y, z) if groups is None else (as_array(groups), as_array(ref_groups))
    i, j = (x.ravel() for x in np.indices((len(y), len(z))))
    counts = np.ones(len(i), bool) if self_offset is None else j != i + self_offset
    i, j = i[counts], j[counts]
    similarity = (unit_rows(emb) @ unit_rows(ref).T)[i, j]
    if classes is None:
        classes = np.unique(np.concatenate((g, h)))
    return Truth(similarity, y[i] == z[j], g[i], h[j], as_array(classes), bins, *range)


def exact_rows(
    n: int, d: int, seed: int = 0, *, dtype: torch.dtype = torch.float32, zeros: bool = True
) -> torch.Tensor:
    """(n, d) rows whose norms are powers of two, so that every similarity is k/16: no rounding anywhere.

    One, four or sixteen entries are ±1, in at most sixteen columns from the first to the last; then each row
    is scaled by a power of two. With `zeros` every eighth row is zero.
    """
    draw = np.random.default_rng(seed)
    active = np.unique(np.linspace(0, d - 1, min(d, 16)).astype(int))
    entries = draw.choice([k for k in (1, 4, 16) if k <= len(active)], (n, 1))
    chosen = draw.permuted(np.tile(np.arange(len(active)), (n, 1)), axis=1) < entries
    rows = np.zeros((n, d))
    rows[:, active] = chosen * draw.choice([-1.0, 1.0], chosen.shape) * 2.0 ** draw.integers(-3, 4, (n, 1))
    if zeros:
        rows[5::8] = 0.0
    return torch.from_numpy(rows).to(dtype)


def utility(specificity: float, sensitivity: float, k: float = 1.0) -> float:
    """(1 + k²)·spec·sens / (k²·spec + sens), 0/0 = 0."""
    below = k * k * specificity + sensitivity
    return (1 + k * k) * specificity * sensitivity / below if below else 0.0


def opis(u: Array) -> float:
    """Mean over edges and classes of (U_c(t) - mean_c U_c(t))²; u is (C, T)."""
    classes, edges = u.shape
    return sum((u[c, t] - u[:, t].mean()) ** 2 for c in range(classes) for t in range(edges)) / (
        classes * edges
    )


def tail(classes: int, epsilon: float) -> int:
    """How many classes are the best, and how many the worst."""
    return max(1, int(epsilon * classes / 100 + 1e-9))


def ranked(u: Array) -> Array:
    """Curves from the worst mean to the best; of two equal ones first that which is the lower at first."""
    return np.array(sorted(u.tolist(), key=lambda curve: (np.mean(curve), curve)))


def epsilon_opis(u: Array, epsilon: float) -> float:
    """Mean over edges of (mean U of the best m - mean U of the worst m)²."""
    m = tail(len(u), epsilon)
    best, worst = ranked(u)[-m:], ranked(u)[:m]
    return float(((best.mean(axis=0) - worst.mean(axis=0)) ** 2).mean())


def ranking_is_clear(u: Array, epsilon: float) -> bool:
    """Whether no two different curves of one mean, up to rounding, stand where the best or worst begin."""
    m = tail(len(u), epsilon)
    order = ranked(u)
    for cut in {m, len(u) - m}:
        tied = np.array([x for x in order if abs(np.mean(x) - np.mean(order[cut])) < 1e-12])
        if abs(np.mean(order[cut - 1]) - np.mean(order[cut])) < 1e-12 and np.ptp(tied, axis=0).max() > 1e-12:
            return False
    return True


def resamples(u: Array) -> Sequence[Array]:
    """All C^C ways to draw C classes with replacement, each as likely as any other."""
    return [u[list(drawn)] for drawn in itertools.product(range(len(u)), repeat=len(u))]


def deviation(values: Sequence[float]) -> float:
    """Standard deviation, divided by how many there are."""
    mean = sum(values) / len(values)
    return math.sqrt(sum((x - mean) ** 2 for x in values) / len(values))


def gap(rates: Sequence[float]) -> float:
    """The largest rate minus the smallest, of the classes that have one."""
    known = [x for x in rates if not np.isnan(x)]
    return max(known) - min(known)


def ratio(rates: Sequence[float]) -> float:
    """The largest over the smallest, of the classes that have one; 1 where all are 0."""
    known = [x for x in rates if not np.isnan(x)]
    if max(known) == 0.0:
        return 1.0
    return max(known) / min(known) if min(known) else np.inf


def gini(rates: Sequence[float]) -> float:
    """Mean of |a - b| over all pairs of two different classes, as a share of twice the mean rate."""
    known = [x for x in rates if not np.isnan(x)]
    differences = [abs(a - b) for a, b in itertools.permutations(known, 2)]
    return float(np.mean(differences) / (2 * np.mean(known))) if len(known) > 1 and any(known) else 0.0
