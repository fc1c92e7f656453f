"""What the report's slider shows, counted for every step it has: small enough for one file, exact at each.

Counts of 11,000 classes at 2,001 edges are 44 million numbers, too many for a page. What a reader moves a
threshold for is bounded whatever the number of classes: the pooled rates, how the classes' rates are spread,
and which classes are worst. That is here for every step. Counts of every class come along where they fit,
as differences from step to step, most of which are 0 or short; otherwise the page says that it leaves them
out. Steps are edges of bins, thinned evenly where there are many and nothing in between ever shown, so that
every rate on the page is the exact one of a threshold that can be used.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from ..curves import ClassCurves, Counts, Rates, shares

WORST = 20
# By name, where {0} stands for "class" or "group" and {1} for their plural.
QUANTILES = {
    "lowest {0}": 0.0,
    "5th percentile of {1}": 0.05,
    "median {0}": 0.5,
    "95th percentile of {1}": 0.95,
    "highest {0}": 1.0,
}
MOST_BYTES = 6_000_000  # of counts of every class; the rest is less than a million, and names
_STEPS = (401, 201, 101)  # how many the slider has at most, finest first
_NAME_TEXT = 500_000  # characters that all names may have together before long ones are cut
_CUT = 200  # characters that remain of them

# Bounds of the bars that tell how many classes have which rate: thirds of a decade, 0 by itself.
_BOUNDS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3)


def histogram_names() -> list[str]:
    """The names of the bars, lowest rate first."""
    bounds = [f"{100 * bound:g}" for bound in _BOUNDS] + ["100"]
    between = [f"{low} to {high} %" for low, high in itertools.pairwise(bounds)]
    return ["0 %", f"under {bounds[0]} %", *between]


def threshold_texts(curves: ClassCurves) -> list[str]:
    """Every edge with as few decimals as tell it from its neighbours, exactly where ten would do."""
    edges = curves.thresholds
    digits = next((d for d in range(2, 6) if np.abs(edges.round(d) - edges).max() < 1e-9), None)
    if digits is None:
        digits = max(2, math.ceil(-math.log10((curves.hi - curves.lo) / curves.bins)) + 1)
    return [f"{round(float(edge), digits) + 0.0:.{digits}f}" for edge in edges]  # + 0.0: no "-0.00"


def thinned(curves: ClassCurves, wanted: Sequence[int], most: int) -> npt.NDArray[np.int64]:
    """At most about `most` edges, evenly, where anything changes; those wanted are always among them."""
    occupied = np.flatnonzero(curves.pooled.sum(axis=0))
    # Column j lies between edges j - 1 and j: before the first of these, after the last, nothing changes.
    first, last = (occupied[0] - 1, occupied[-1]) if len(occupied) else (0, curves.bins)
    first, last = max(0, min(first, *wanted)), min(curves.bins, max(last, *wanted))
    stride = max(1, math.ceil((last - first) / (most - 1)))
    return np.union1d(np.arange(first, last + 1, stride), [*wanted, last]).astype(np.int64)


def below(counts: Counts, edges: npt.NDArray[np.int64]) -> Counts:
    """How many similarities of each row of counts, (K, B + 2), are < each of S edges: (K, S)."""
    totals = np.add.reduceat(counts, np.concatenate(([0], edges + 1)), axis=1)[:, :-1]
    return totals.cumsum(axis=1)


def page_data(
    curves: ClassCurves, names: Sequence[str], wanted: Sequence[int], start: int
) -> tuple[dict[str, Any], npt.NDArray[np.int64]]:
    """The data of the page, made of what JSON knows, and the S edges that are the slider's steps.

    Args:
        curves: C classes.
        names: C names to show.
        wanted: edges that must be steps.
        start: the edge where the slider stands first.
    """
    edges, complete = _steps(curves, (*wanted, start))
    positives, negatives = curves.positive_pairs, curves.negative_pairs
    rejects = below(curves.positives, edges)
    accepts = negatives[:, None] - below(curves.negatives, edges)
    far, frr = shares(accepts, negatives), shares(rejects, positives)
    worst = {
        name: [
            [[c, int(accepts[c, s]), int(rejects[c, s])] for c in _worst(rates[:, s])]
            for s in range(len(edges))
        ]
        for name, rates in (("far", far), ("frr", frr))
    }
    shown = np.arange(len(names)) if complete else _renumbered(worst)
    names = _bounded([names[c] for c in shown])
    texts = threshold_texts(curves)
    pooled, totals = below(curves.pooled, edges), curves.pooled.sum(axis=1)
    kinds = ("group", "groups") if curves.grouped else ("class", "classes")
    data = {
        "thresholds": [texts[edge] for edge in edges],
        "start": int(np.searchsorted(edges, start)),
        "names": names,
        "positives": positives[shown].tolist(),
        "negatives": negatives[shown].tolist(),
        "pooled": {
            "positives": int(totals[0]),
            "negatives": int(totals[1]),
            "rejects": pooled[0].tolist(),
            "accepts": (totals[1] - pooled[1]).tolist(),
        },
        "quantile_names": [name.format(*kinds) for name in QUANTILES],
        "quantiles": {"far": _quantiles(far), "frr": _quantiles(frr)},
        "histogram_names": histogram_names(),
        "histogram": {"far": _histogram(far), "frr": _histogram(frr)},
        "worst": worst,
        "every": None,
    }
    if complete:
        data["every"] = {
            "positives": _differences(rejects).tolist(),
            "negatives": _differences(negatives[:, None] - accepts).tolist(),
        }
    return data, edges


def _steps(curves: ClassCurves, wanted: Sequence[int]) -> tuple[npt.NDArray[np.int64], bool]:
    """The most edges with which counts of every class fit, and whether they do with any."""
    for most in _STEPS:
        edges = thinned(curves, wanted, most)
        counts = (curves.positives, curves.negatives)
        if sum(_characters(_differences(below(part, edges))) for part in counts) <= MOST_BYTES:
            return edges, True
    return thinned(curves, wanted, _STEPS[0]), False


def _differences(counts: Counts) -> Counts:
    return np.diff(counts, axis=1, prepend=0)


def _characters(counts: Counts) -> int:
    """How long counts are in JSON: their digits, and a comma each."""
    most = int(counts.max(initial=0))
    return 2 * counts.size + sum(int((counts >= 10**d).sum()) for d in range(1, len(str(most))))


def _worst(rates: Rates) -> list[int]:
    """The classes of the highest rates, (C,), highest first; those without such pairs have none."""
    order = np.argsort(-rates, kind="stable")  # NaN comes last
    return [int(c) for c in order[:WORST] if not np.isnan(rates[c])]


def _renumbered(worst: dict[str, list[list[list[int]]]]) -> npt.NDArray[np.int64]:
    """The classes that are among the worst anywhere; in the lists, their places in that array instead."""
    rows = [row for steps in worst.values() for step in steps for row in step]
    classes, places = np.unique(np.array([row[0] for row in rows], np.int64), return_inverse=True)
    for row, place in zip(rows, places, strict=True):
        row[0] = int(place)
    return classes


def _quantiles(rates: Rates) -> list[list[float] | None]:
    """Of the classes that have such pairs, at every step: rates that classes have, nothing in between."""
    rates = rates[~np.isnan(rates[:, 0])]
    if not len(rates):
        return [None] * rates.shape[1]
    found = np.quantile(rates, list(QUANTILES.values()), axis=0, method="inverted_cdf")
    return cast("list[list[float] | None]", found.T.tolist())


def _histogram(rates: Rates) -> list[list[int]]:
    """How many classes have a rate within the bounds of each bar, at every step."""
    rates = rates[~np.isnan(rates[:, 0])]
    under = [(rates == 0).sum(axis=0), *((rates < bound).sum(axis=0) for bound in _BOUNDS)]
    under.append(np.full(rates.shape[1], len(rates)))
    return cast("list[list[int]]", np.diff(under, axis=0, prepend=0).T.tolist())


def _bounded(names: Sequence[str]) -> list[str]:
    """The names, the long ones cut where all together are too long for a page."""
    if sum(map(len, names)) <= _NAME_TEXT:
        return list(names)
    return [name if len(name) <= _CUT else f"{name[:_CUT]}… ({len(name):,} characters)" for name in names]
