"""Counts of similarities: how many pairs of each class have which.

Everything that evaluation tells follows from these counts: rates at any threshold, OPIS, thresholds to ship,
calibration, pictures. They add up, so embeddings can come in blocks, from several processes, or over days.

Pairs are ordered, as in the loss. A pair of two classes counts for the classes of both its ends; pooled
rates count each pair once. With `groups` (domains, cameras, cohorts) in place of classes, a pair still is a
match where its labels are equal, and counts for the groups of both its ends, once where they are one.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..files import replacing

Counts: TypeAlias = npt.NDArray[np.int64]
Rates: TypeAlias = npt.NDArray[np.float64]

_FORMAT = "tcm_kernels class curves 1"


@dataclasses.dataclass(frozen=True, eq=False)
class ClassCurves:
    """Counts of similarities by class and bin, and the rates that follow from them.

    A column of the counts is: similarities below `lo`; each of the B bins; at least `hi`. So the rates at
    the B + 1 edges of the bins are exact. Only counts are kept; rates are computed when asked for.

    Attributes:
        classes: (C,) sorted, int64 or text; with groups, the groups.
        positives: (C, B + 2) int64, same-class pairs.
        negatives: (C, B + 2) int64, other-class pairs.
        pooled: (2, B + 2) int64, all same-class pairs and all other-class pairs, each counted once.
        lo: lower edge of the first bin, a cosine similarity.
        hi: upper edge of the last bin.
        symmetric: whether every pair was counted in both orders, as within one set of embeddings.
        grouped: whether `classes` are groups that the user chose.
    """

    classes: npt.NDArray[Any]
    positives: Counts
    negatives: Counts
    pooled: Counts
    lo: float = -1.0
    hi: float = 1.0
    symmetric: bool = True
    grouped: bool = False

    @property
    def bins(self) -> int:
        """B, the number of bins between `lo` and `hi`."""
        return self.pooled.shape[1] - 2

    @property
    def thresholds(self) -> Rates:
        """(B + 1,) the edges of the bins."""
        return self.lo + np.arange(self.bins + 1) * (self.hi - self.lo) / self.bins

    @property
    def similarities(self) -> Rates:
        """(B + 2,) what a pair of each column counts as: the centre of its bin, or `lo` or `hi` outside."""
        edges = self.thresholds
        return np.concatenate([[self.lo], (edges[:-1] + edges[1:]) / 2, [self.hi]])

    @property
    def positive_pairs(self) -> Counts:
        """(C,) same-class pairs of each class."""
        return self.positives.sum(axis=1)

    @property
    def negative_pairs(self) -> Counts:
        """(C,) other-class pairs of each class."""
        return self.negatives.sum(axis=1)

    @property
    def usable(self) -> npt.NDArray[np.bool_]:
        """(C,) whether a class has a pair of either kind, so that it has both rates."""
        return (self.positive_pairs > 0) & (self.negative_pairs > 0)

    @property
    def sensitivity(self) -> Rates:
        """(C, B + 1) share of same-class pairs with s >= threshold; NaN where there is none."""
        return shares(at_least(self.positives, 0, self.bins + 1), self.positive_pairs)

    @property
    def specificity(self) -> Rates:
        """(C, B + 1) share of other-class pairs with s < threshold; NaN where there is none."""
        pairs = self.negative_pairs
        return shares(pairs[:, None] - at_least(self.negatives, 0, self.bins + 1), pairs)

    @property
    def pooled_sensitivity(self) -> Rates:
        """(B + 1,) share of all same-class pairs with s >= threshold: the true-accept rate."""
        return self._pooled(0, rejected=False)

    @property
    def pooled_specificity(self) -> Rates:
        """(B + 1,) share of all other-class pairs with s < threshold."""
        return self._pooled(1, rejected=True)

    @property
    def false_accept_rate(self) -> Rates:
        """(B + 1,) share of all other-class pairs with s >= threshold."""
        return self._pooled(1, rejected=False)

    @property
    def false_reject_rate(self) -> Rates:
        """(B + 1,) share of all same-class pairs with s < threshold."""
        return self._pooled(0, rejected=True)

    def _pooled(self, sign: int, *, rejected: bool) -> Rates:
        """Each rate is one division of counts: 1 minus a rounded rate would be rounded twice."""
        accepted = at_least(self.pooled[sign : sign + 1], 0, self.bins + 1)
        pairs = self.pooled[sign : sign + 1].sum(axis=1)
        return shares(pairs[:, None] - accepted if rejected else accepted, pairs)[0]

    def edge(self, threshold: float) -> int:
        """The number of the edge nearest to a threshold within [lo, hi]."""
        if not self.lo <= threshold <= self.hi:
            raise ValueError(f"threshold: got {threshold!r}, expected a similarity in [{self.lo}, {self.hi}]")
        return int(np.abs(self.thresholds - threshold).argmin())

    def __add__(self, other: ClassCurves) -> ClassCurves:
        """The curves of both sets of pairs together; classes may differ, bins may not."""
        if not isinstance(other, ClassCurves):
            return NotImplemented
        mine, theirs = (self.bins, self.lo, self.hi), (other.bins, other.lo, other.hi)
        if mine != theirs:
            raise ValueError(f"cannot add curves of bins, lo, hi {mine} and {theirs}: expected the same")
        if self.grouped != other.grouped:
            raise ValueError("cannot add curves of classes and curves of groups")
        if self.classes.dtype.kind != other.classes.dtype.kind:
            raise ValueError(
                f"cannot add curves of classes of dtype {self.classes.dtype} and {other.classes.dtype}"
            )
        classes = np.union1d(self.classes, other.classes)
        positives = np.zeros((len(classes), self.bins + 2), np.int64)
        negatives = np.zeros_like(positives)
        for curves in (self, other):
            at = np.searchsorted(classes, curves.classes)
            positives[at] += curves.positives
            negatives[at] += curves.negatives
        return dataclasses.replace(
            self,
            classes=classes,
            positives=positives,
            negatives=negatives,
            pooled=self.pooled + other.pooled,
            symmetric=self.symmetric and other.symmetric,
        )

    def save(self, path: str | Path) -> None:
        """Write an `.npz` file, whole or not at all."""
        with replacing(Path(path)) as file:
            np.savez_compressed(
                file,
                format=np.array(_FORMAT),
                classes=self.classes,
                positives=self.positives,
                negatives=self.negatives,
                pooled=self.pooled,
                range=np.array([self.lo, self.hi]),
                symmetric=np.array(self.symmetric),
                grouped=np.array(self.grouped),
            )

    @classmethod
    def load(cls, path: str | Path) -> ClassCurves:
        """Read what `save` wrote; nothing is unpickled. Raises ValueError for any other file."""
        try:
            # Opened here: numpy leaves a file open that turns out to be none of its own.
            with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
                content = {name: file[name] for name in file.files}
            if str(content["format"]) != _FORMAT:
                raise ValueError(f"its format is {content['format']}")
            lo, hi = (float(x) for x in content["range"])
            curves = cls(
                classes=content["classes"],
                positives=content["positives"],
                negatives=content["negatives"],
                pooled=content["pooled"],
                lo=lo,
                hi=hi,
                symmetric=bool(content["symmetric"]),
                grouped=bool(content["grouped"]),
            )
            curves._check()
        except OSError:
            raise
        except Exception as error:  # whatever a file of another kind makes numpy say
            raise ValueError(f"{path} is not a file of class curves: {error}") from error
        return curves

    def _check(self) -> None:
        """What a file must hold for the rates to mean anything."""
        shape = (len(self.classes), self.pooled.shape[-1])
        right = {"positives": shape, "negatives": shape, "pooled": (2, shape[1])}
        for name, expected in right.items():
            counts = getattr(self, name)
            if counts.shape != expected or counts.dtype != np.int64 or (counts < 0).any():
                raise ValueError(f"{name} is not an array {expected} of counts")
        ascending = self.classes.ndim == 1 and bool((self.classes[1:] > self.classes[:-1]).all())
        if not ascending or not (self.classes.dtype == np.int64 or self.classes.dtype.kind == "U"):
            raise ValueError("classes is not a sorted array of integers or text")
        if self.bins < 1 or not -np.inf < self.lo < self.hi < np.inf:
            raise ValueError(f"its range is {self.lo} to {self.hi} in {self.bins} bins")


def at_least(counts: Counts, first: int, stop: int) -> Counts:
    """How many similarities of each row of counts, (K, B + 2), are >= edge k, for k in [first, stop)."""
    accepted = counts[:, first + 1 : stop + 1][:, ::-1].cumsum(axis=1)[:, ::-1]
    accepted += counts[:, stop + 1 :].sum(axis=1, keepdims=True)
    return accepted


def shares(counts: Counts, totals: Counts) -> Rates:
    """Counts (K, E) over totals (K,); NaN where the total is 0."""
    with np.errstate(invalid="ignore"):
        return counts / totals[:, None]
