"""The threshold to ship: for a target error rate, or for the best F1 or balanced accuracy.

The interval comes from a bootstrap over classes. An other-class pair depends on two classes, so a draw that
takes class c w_c times should count the pairs of classes a and b w_a · w_b times. Curves know how many pairs
each class takes part in, not with which other; to first order, w_a w_b = 1 + (w_a - 1) + (w_b - 1), and so

    pooled counts of a draw  =  pooled counts  +  Σ_c (w_c - 1) · counts of class c

which is one matrix product for all draws, of integers below 2⁵³ and therefore exact. (Σ_c w_c · counts of
class c alone, where every other-class pair stands twice, would let its rates move half as far.) Without the
second order an interval is somewhat narrower than that of classes drawn anew and their pairs counted: by a
tenth to a third with tens of classes.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from .blocks import blocks
from .bootstrap import check_bootstrap, multiplicities, order_of_counts, percentile_interval
from .checks import TooFewPairsError, check_rate
from .curves import ClassCurves, Counts, Rates, shares
from .rates import error_rates
from .roc import require_pairs
from .targets import FAR, FRR, Edges, Kind, accepted_pairs, edges_at_rate, edges_of_classes, pairs_needed

Best = Literal["f1", "balanced_accuracy"]
Over = Literal["pooled", "worst"]
_UNSUPPORTED = "The data cannot support the target"


@dataclasses.dataclass(frozen=True)
class ThresholdChoice:
    """A threshold, what it was chosen for, and how far to trust it. A pair is accepted where s >= threshold.

    Attributes:
        threshold: an edge of a bin.
        criterion: what it was chosen for, as text.
        false_accept_rate: pooled, at the threshold; NaN where there are no other-class pairs.
        false_reject_rate: pooled, at the threshold; NaN where there are no same-class pairs.
        interval: (lo, hi) of the bootstrap over classes; None without draws or with one class.
        confidence: of the interval, in (0, 1).
        supported: whether there are enough pairs to speak of the target rate at all.
        statement: why, or why not; for "f1", what it depends on.
    """

    threshold: float
    criterion: str
    false_accept_rate: float
    false_reject_rate: float
    interval: tuple[float, float] | None
    confidence: float
    supported: bool
    statement: str


class _Found(NamedTuple):
    """An edge, and how to find it in draws: multiplicities (d, C) to edges (d,), NaN where there is none."""

    edge: int
    of_draws: Callable[[Rates], Rates]
    criterion: str
    supported: bool = True
    statement: str = ""


def choose_threshold(
    curves: ClassCurves,
    *,
    far: float | None = None,
    frr: float | None = None,
    best: Best | None = None,
    over: Over = "pooled",
    draws: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> ThresholdChoice:
    """Choose a threshold among the edges of the bins.

    A target f needs at least 1 / f distinct pairs of its kind: with fewer, no rate but 0 is as low. Where
    they are missing the threshold comes back all the same, with `supported` false and a statement that says
    how many there are. That many is the least, not plenty: to know a rate within about 30 % takes 30 errors,
    so 30 / f independent pairs (the rule of 30; Doddington et al., Speech Communication 31, 2000).

    Args:
        curves: counts of `class_curves`.
        far: target false-accept rate in (0, 1): the lowest edge where the rate is at most this.
        frr: target false-reject rate in (0, 1): the highest edge where the rate is at most this.
        best: "f1", the highest pooled F1, which depends on the share of same-class pairs among all pairs and
            so holds where that is the same; or "balanced_accuracy", the mean of pooled sensitivity and
            specificity, which does not. The lowest edge where several are equally good. Exactly one of far,
            frr and best is given.
        over: "pooled": the rate over all pairs is meant; "worst": the rate of every class (or group) that
            has such pairs, so that of the worst one. Only with far and frr.
        draws: of the bootstrap over classes; 0 for no interval. A draw that reaches the target at no edge
            counts with the nearest end of the bins.
        confidence: of the percentile interval, in (0, 1). With over="worst" no draw has a worse class than
            the data, so that the interval ends at the threshold.
        seed: of the bootstrap.

    Raises:
        ValueError: an argument that cannot be used.
        TooFewPairsError: no pair of a kind that is needed, or no edge that reaches the target.
    """
    check_bootstrap(draws, confidence)
    if (far is not None) + (frr is not None) + (best is not None) != 1:
        raise ValueError(f"got far={far!r}, frr={frr!r}, best={best!r}, expected exactly one of them")
    if over not in get_args(Over):
        raise ValueError(f"over: got {over!r}, expected one of {', '.join(get_args(Over))}")
    if best is not None:
        found = _best(curves, best, over)
    else:
        kind, rate = (FAR, check_rate("far", far)) if frr is None else (FRR, check_rate("frr", frr))
        found = _at_rate(curves, kind, rate, over)
    threshold = float(curves.thresholds[found.edge])
    at = error_rates(curves, threshold)
    return ThresholdChoice(
        threshold=threshold,
        criterion=found.criterion,
        false_accept_rate=at.pooled_false_accept,
        false_reject_rate=at.pooled_false_reject,
        interval=_interval(curves, found, draws, confidence, seed),
        confidence=confidence,
        supported=found.supported,
        statement=found.statement,
    )


def _best(curves: ClassCurves, best: Best, over: Over) -> _Found:
    if best not in get_args(Best):
        raise ValueError(f"best: got {best!r}, expected one of {', '.join(get_args(Best))}")
    if over != "pooled":
        raise ValueError(f"over: got {over!r} with best, expected it with far or frr only")
    require_pairs(curves, "positive", "negative")
    pick = functools.partial(_best_edges, best=best)
    found = _Found(
        edge=int(pick([curves.pooled[:1], curves.pooled[1:]])[0]),
        of_draws=functools.partial(_pooled_draws, curves, (0, 1), pick),
        criterion=f"highest {best.replace('_', ' ').replace('f1', 'F1')} over all pairs",
    )
    if best == "balanced_accuracy":
        return found
    same, other = (int(counts.sum()) for counts in curves.pooled)
    share = f"here {100 * same / (same + other):.3g} % of all pairs"
    return found._replace(statement=f"The best F1 depends on the share of same-class pairs, {share}.")


def _at_rate(curves: ClassCurves, kind: Kind, rate: float, over: Over) -> _Found:
    require_pairs(curves, "negative" if kind.row else "positive")
    of_table = functools.partial(edges_at_rate, kind=kind, rate=rate)
    many, one = ("groups", "group") if curves.grouped else ("classes", "class")
    if over == "pooled":
        edge = int(of_table(kind.pooled(curves))[0])
        where = "over all pairs"
        failing = 0 if 0 <= edge <= curves.bins else 1
        what = f"the {kind.rate} over all pairs is above that"
        of_draws = functools.partial(_pooled_draws, curves, (kind.row,), lambda tables: of_table(tables[0]))
    else:
        edges, pairs = edges_of_classes(curves, kind, rate)
        concerned = pairs > 0
        worst = np.max if kind.side == "lowest" else np.min
        edge = int(worst(edges[concerned]))
        where = f"in every {one}"
        failing = int(((edges < 0) | (edges > curves.bins))[concerned].sum())
        what = f"{failing:,} of {int(concerned.sum()):,} {many} have a higher {kind.rate}"
        of_draws = functools.partial(_worst_draws, edges, concerned, kind)
    if failing:
        end = f"highest edge, {curves.hi:g}" if kind.side == "lowest" else f"lowest edge, {curves.lo:g}"
        raise TooFewPairsError(
            f"{kind.argument}: got {rate:g}, but even at the {end}, {what}; expected a larger "
            f"{kind.argument}, or curves with {kind.remedy}"
        )
    supported, statement = _support(curves, kind, rate, over)
    criterion = f"{kind.side} threshold with a {kind.rate} of at most {rate:g} {where}"
    return _Found(edge, of_draws, criterion, supported, statement)


def _support(curves: ClassCurves, kind: Kind, rate: float, over: Over) -> tuple[bool, str]:
    """Whether there are 1 / rate distinct pairs, and the sentence that says so."""
    need = pairs_needed(rate)
    orders = 2 if curves.symmetric else 1
    takes = f"a {kind.rate} of {rate:g} takes at least {need:,}"
    if over == "pooled":
        have = int(curves.pooled[kind.row].sum()) // orders
        there = f"there are {have:,} distinct {kind.pairs} pairs, and {takes}."
        return (True, there.capitalize()) if have >= need else (False, f"{_UNSUPPORTED}: {there}")
    many, one = ("groups", "group") if curves.grouped else ("classes", "class")
    pairs = (curves.negative_pairs if kind.row else curves.positive_pairs) // orders
    known = pairs[pairs > 0]
    none = len(pairs) - len(known)
    without = f" {none:,} {many} have none and are left out." if none else ""
    short = int((known < need).sum())
    fewest = f"distinct {kind.pairs} pairs (the fewest: {int(known.min()):,})"
    if not short:
        return True, f"Each of {len(known):,} {many} has {need:,} or more {fewest}; {takes}.{without}"
    return False, (
        f"{_UNSUPPORTED} in every {one}: {short:,} of {len(known):,} {many} have fewer "
        f"than {need:,} {fewest}, and {takes}.{without}"
    )


def _best_edges(tables: list[Counts], best: Best) -> Edges:
    """The lowest edge of each row of same-class and other-class counts, (K, B + 2) each, that is best."""
    (true, same), (false, other) = (accepted_pairs(counts) for counts in tables)
    if best == "f1":
        quality = 2 * true / (same[:, None] + true + false).clip(min=1)
    else:
        quality = shares(true, same) + shares(other[:, None] - false, other)
    # What differs by rounding alone is equally good.
    return (quality >= (1 - 1e-12) * quality.max(axis=1, keepdims=True)).argmax(axis=1)


def _pooled_draws(
    curves: ClassCurves, signs: tuple[int, ...], pick: Callable[[list[Counts]], Edges], weight: Rates
) -> Rates:
    """What `pick` finds in the pooled counts of each draw, see the top of the file."""
    drawn = []
    for sign in signs:
        table = curves.negatives if sign else curves.positives
        more = np.zeros((len(weight), table.shape[1]))
        for rows in blocks(*table.shape):
            more += (weight[:, rows] - 1) @ table[rows].astype(np.float64)
        drawn.append(curves.pooled[sign] + more.astype(np.int64))
    known = np.all([counts.sum(axis=1) > 0 for counts in drawn], axis=0)
    return np.where(known, pick(drawn).clip(0, curves.bins), np.nan)


def _worst_draws(edges: Edges, concerned: npt.NDArray[np.bool_], kind: Kind, weight: Rates) -> Rates:
    """The edge that suits all classes of each draw, from the edges that suit each class, (C,)."""
    nothing, worst = (-np.inf, np.max) if kind.side == "lowest" else (np.inf, np.min)
    found = worst(np.where((weight > 0) & concerned, edges, nothing), axis=1)
    return np.where(np.isinf(found), np.nan, found)


def _interval(
    curves: ClassCurves, found: _Found, draws: int, confidence: float, seed: int
) -> tuple[float, float] | None:
    if not draws or len(curves.classes) < 2:
        return None
    place = np.argsort(order_of_counts(curves.positives, curves.negatives))  # of each class in that order
    parts = multiplicities(len(place), draws, seed, width=curves.bins + 2)
    edges = np.concatenate([found.of_draws(weight[:, place]) for weight in parts])
    thresholds = np.interp(edges, np.arange(curves.bins + 1), curves.thresholds)
    return percentile_interval(thresholds, confidence)
