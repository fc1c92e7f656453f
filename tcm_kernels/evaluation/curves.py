"""From embeddings to counts: how many pairs of each class have which similarity.

Everything that evaluation tells follows from these counts: rates at any threshold, OPIS, thresholds to ship,
calibration, pictures. They add up, so embeddings can come in blocks, from several processes, or over days.

Pairs are ordered, as in the loss. A pair of two classes counts for the classes of both its ends; pooled
rates count each pair once. With `groups` (domains, cameras, cohorts) in place of classes, a pair still is a
match where its labels are equal, and counts for the groups of both its ends, once where they are one.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .. import dispatch, ops
from ..backends.contract import MOST_BINS, HistogramProblem
from ..files import replacing
from ..functional import fp32_precision
from ..validation import check_inputs

Counts: TypeAlias = npt.NDArray[np.int64]
Rates: TypeAlias = npt.NDArray[np.float64]
Labels: TypeAlias = Tensor | npt.NDArray[Any] | Sequence[int] | Sequence[str]

_FORMAT = "tcm_kernels class curves 1"
_STRIPE = 8192  # rows between two reports of progress


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


def class_curves(
    emb: Tensor | npt.NDArray[Any],
    labels: Labels,
    ref_emb: Tensor | npt.NDArray[Any] | None = None,
    ref_labels: Labels | None = None,
    *,
    bins: int = 2000,
    range: tuple[float, float] = (-1.0, 1.0),
    groups: Labels | None = None,
    ref_groups: Labels | None = None,
    self_offset: int | None = None,
    backend: str = "auto",
    progress: Callable[[float], object] | None = None,
) -> ClassCurves:
    """Count the cosine similarities of all pairs, by class and bin, without the similarity matrix.

    Args:
        emb: (N, D) embeddings, float32, float64, float16 or bfloat16, of any length, in a tensor or an array
            (also one that is mapped from a file).
        labels: (N,) class of each row: integers or text.
        ref_emb: (M, D) reference set (a gallery): the pairs are then those between emb (queries) and it.
        ref_labels: (M,) class of each reference row.
        bins: B, from 1 to 30,000; a bin is (hi - lo) / B wide.
        range: (lo, hi), the similarities that the bins cover; those outside are counted as below or above.
        groups: (N,) integers or text: count by these instead of by class, domains for instance.
        ref_groups: (M,) the same for the reference set, needed with both.
        self_offset: with a reference set that holds emb itself: row i of emb is the same sample as row
            i + self_offset of ref_emb, and that pair is left out.
        backend: "auto", "cpu", "cuda" or "torch".
        progress: is called with the share of the work that has been done, up to 1.0.

    Returns:
        The counts, on the CPU: 16 (B + 2) bytes a class.

    Raises:
        TypeError, ValueError: an argument that cannot be used, rows that are not finite among them; the
            message names it.
        RuntimeError: the backend asked for cannot run this input.
    """
    emb = as_tensor("emb", emb)
    ref = None if ref_emb is None else as_tensor("ref_emb", ref_emb)
    if not isinstance(bins, int) or isinstance(bins, bool) or not 1 <= bins <= MOST_BINS:
        raise ValueError(f"bins: got {bins!r}, expected an integer from 1 to {MOST_BINS:,}")
    lo, hi = _range(range)
    _, label, ref_label = _numbered("labels", labels, ref_labels, emb.device)
    if ref_emb is emb and ref_labels is labels:
        ref_label = label
    check_inputs(emb, label, ref, ref_label, self_offset)
    if ref is emb:
        ref = ref_label = None
    if (groups is None) and ref_groups is not None:
        raise ValueError("groups: got None with ref_groups; expected both or neither")
    if groups is not None and (ref is None) != (ref_groups is None):
        raise ValueError("ref_groups: expected exactly where groups and ref_emb are given")
    name, of_rows, of_columns = (
        ("labels", labels, ref_labels) if groups is None else ("groups", groups, ref_groups)
    )
    classes, group, ref_group = _numbered(name, of_rows, None if ref is None else of_columns, emb.device)
    for what, numbers, rows in (("groups", group, emb), ("ref_groups", ref_group, ref)):
        if numbers is not None and rows is not None and len(numbers) != len(rows):
            raise ValueError(f"{what}: got {len(numbers)}, expected {len(rows)}: one per row")
    problem = HistogramProblem(
        emb.detach(), label, group,
        None if ref is None else ref.detach(), ref_label, ref_group,
        self_offset, len(classes), bins, lo, hi, fp32_precision(emb),
    )  # fmt: skip
    chosen = dispatch.choose(backend, emb.device.type, emb.dtype, dispatch.HISTOGRAM_BACKENDS)
    counts = _count(problem, chosen) if progress is None else _count_in_stripes(problem, chosen, progress)
    positives, negatives, pooled = (x.cpu().numpy() for x in counts)
    return ClassCurves(
        classes, positives, negatives, pooled, lo, hi, symmetric=ref is None, grouped=groups is not None
    )


_Counted: TypeAlias = tuple[Tensor, Tensor, Tensor]


def _count(problem: HistogramProblem, backend: str) -> _Counted:
    with torch.no_grad():
        return ops.pair_histogram(problem, backend)


def _count_in_stripes(
    problem: HistogramProblem, backend: str, progress: Callable[[float], object]
) -> _Counted:
    """The same counts, a stripe of rows at a time."""
    total: _Counted | None = None
    n = len(problem.emb)
    m = n if problem.ref is None else len(problem.ref)
    done = 0
    for begin in np.arange(0, max(n, 1), _STRIPE).tolist():
        end = min(begin + _STRIPE, n)
        for part, weight in _parts_of_stripe(problem, begin, end):
            counted = _count(part, backend)
            if total is None:
                total = cast(_Counted, tuple(x.mul_(weight) for x in counted))
            else:
                for x, more in zip(total, counted, strict=True):
                    x.add_(more, alpha=weight)
        # Rows done, each with the columns to its right where both sides are one.
        done += (
            (end - begin) * m if problem.ref is not None else (end - begin) * (2 * (n - end) + end - begin)
        )
        progress(done / (n * m) if n * m else 1.0)
    assert total is not None
    return total


def _parts_of_stripe(problem: HistogramProblem, begin: int, end: int) -> list[tuple[HistogramProblem, int]]:
    """The pairs of rows [begin, end), with how often each counts: within one set, those to the right twice.

    What lies to the left of a stripe has been counted with the stripes before.
    """
    stripe = problem._replace(
        emb=problem.emb[begin:end], labels=problem.labels[begin:end], groups=problem.groups[begin:end]
    )
    if problem.ref is not None:
        offset = problem.self_offset
        return [(stripe._replace(self_offset=None if offset is None else offset + begin), 1)]
    parts = [(stripe, 1)]
    if end < len(problem.emb):
        right = stripe._replace(
            ref=problem.emb[end:], ref_labels=problem.labels[end:], ref_groups=problem.groups[end:]
        )
        parts.append((right, 2))
    return parts


def _range(range: Any) -> tuple[float, float]:
    try:
        lo, hi = (float(x) for x in range)
    except (TypeError, ValueError):
        raise TypeError(f"range: got {range!r}, expected two numbers (lo, hi)") from None
    if not -np.inf < lo < hi < np.inf:
        raise ValueError(f"range: got {range!r}, expected finite numbers with lo < hi")
    return lo, hi


def as_tensor(name: str, x: Any) -> Tensor:
    """X as it is, or an array as a tensor over the same memory, which is only read."""
    if isinstance(x, Tensor):
        return x
    if not isinstance(x, np.ndarray):
        raise TypeError(f"{name}: got {type(x).__name__}, expected a torch.Tensor or a numpy array")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        try:
            return torch.from_numpy(x)
        except (TypeError, ValueError) as error:
            raise TypeError(f"{name}: got an array of dtype {x.dtype}, expected floats ({error})") from None


def _numbered(
    name: str, labels: Any, ref_labels: Any, device: torch.device
) -> tuple[npt.NDArray[Any], Tensor, Tensor | None]:
    """All different labels, sorted, and for each row which of them it has, as int64 on `device`."""
    own = as_labels(name, labels)
    if ref_labels is None:
        classes, numbers = np.unique(own, return_inverse=True)
        return classes, torch.from_numpy(numbers).to(device), None
    other = as_labels(f"ref_{name}", ref_labels)
    if own.dtype.kind != other.dtype.kind:
        raise TypeError(f"ref_{name}: got {other.dtype}, expected the kind of {name}, {own.dtype}")
    classes, numbers = np.unique(np.concatenate((own, other)), return_inverse=True)
    both = torch.from_numpy(numbers).to(device)
    return classes, both[: len(own)], both[len(own) :]


def as_labels(name: str, labels: Any) -> npt.NDArray[Any]:
    """Labels as an array (N,) of int64 or of text. Raises TypeError or ValueError."""
    values = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if isinstance(labels, list | tuple) and len(labels) == 0:
        values = values.astype(np.int64)  # which numpy cannot know
    if values.ndim != 1:
        raise ValueError(f"{name}: got shape {values.shape}, expected one label per row")
    if values.dtype.kind == "U":
        return values
    if values.dtype.kind not in "iu":
        raise TypeError(f"{name}: got dtype {values.dtype}, expected integers or text")
    if values.dtype == np.uint64 and len(values) and values.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{name}: got {values.max()}, expected numbers below 2^63")
    return values.astype(np.int64)
