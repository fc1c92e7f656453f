"""From embeddings to counts: similarities of all pairs by class and bin, without the similarity matrix."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .. import dispatch, ops
from ..backends.contract import MOST_BINS, HistogramProblem
from ..functional import fp32_precision
from ..validation import check_inputs
from .curves import ClassCurves

Labels: TypeAlias = Tensor | npt.NDArray[Any] | Sequence[int] | Sequence[str]

_STRIPE = 8192  # rows between two reports of progress


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
    classes, label, ref_label = _numbered("labels", labels, ref_labels, emb.device)
    if ref_emb is emb and ref_labels is labels:
        ref_label = label
    check_inputs(emb, label, ref, ref_label, self_offset)
    if ref is emb:
        ref = ref_label = None
    group, ref_group = label, ref_label
    if groups is not None or ref_groups is not None:
        _check_given_together(groups, ref, ref_groups)
        classes, group, ref_group = _numbered("groups", groups, ref_groups, emb.device)
        _check_one_per_row("groups", group, emb)
        if ref is not None:
            _check_one_per_row("ref_groups", ref_group, ref)
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


def _check_given_together(groups: Any, ref: Tensor | None, ref_groups: Any) -> None:
    if groups is None:
        raise ValueError("groups: got None with ref_groups; expected both or neither")
    if (ref is None) != (ref_groups is None):
        raise ValueError("ref_groups: expected exactly where groups and ref_emb are given")


def _check_one_per_row(name: str, groups: Tensor | None, rows: Tensor) -> None:
    count = 0 if groups is None else len(groups)
    if count != len(rows):
        raise ValueError(f"{name}: got {count}, expected {len(rows)}: one per row")


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
