"""The pictures: each function takes curves and returns a matplotlib `Figure`, for its caller to save or show.

Figures are made without pyplot, so that a user's backend, open figures and settings stay as they are, and
nothing needs a display. Lines differ in style as well as in colour, for print. Rates of all classes at all
edges are too many to hold at once (11,000 classes at 2,001 edges are 176 MB): a few edges at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from ..consistency import utilities
from ..curves import ClassCurves, Counts, Rates
from ..rates import error_rates
from .det import plot_det
from .drawing import (
    BLUE,
    GREEN,
    PURPLE,
    QUIET,
    VERMILION,
    YELLOW,
    as_png,
    grid,
    kinds_of,
    legend_below,
    limits,
    literal,
    name_of,
    new_figure,
    percent,
    percent_ticks,
    say,
)
from .own_thresholds import plot_own_thresholds

if TYPE_CHECKING:
    from ..calibration import Reliability

__all__ = [
    "as_png",
    "plot_det",
    "plot_own_thresholds",
    "plot_reliability",
    "plot_similarities",
    "plot_utilities",
    "plot_worst_classes",
]

_EDGES = 256  # at a time: 11,000 classes of them are 23 MB
_BARS = 200  # of a histogram at most


def plot_utilities(
    curves: ClassCurves,
    *,
    range: tuple[float, float] | None = None,
    k: float = 1.0,
    max_lines: int = 30,
    names: Sequence[str] | None = None,
) -> Figure:
    """Utility of each class by threshold: OPIS is how far these lie apart within the range.

    Up to `max_lines` classes are a line each; of more, bands hold the middle half and the middle 90 %, and a
    third of `max_lines` are drawn, evenly by rank. Those lowest and highest over the range stand out.

    Args:
        curves: C classes.
        range: (lo, hi), the calibration range as thresholds, shaded.
        k: weight of sensitivity in the utility, as for `opis`.
        max_lines: see above.
        names: C names to show instead of `curves.classes`.
    """
    figure = new_figure(9.0, 5.6)
    axes = figure.subplots()
    usable, kinds = np.flatnonzero(curves.usable), kinds_of(curves)
    first, last = (0, curves.bins) if range is None else (curves.edge(range[0]), curves.edge(range[1]))
    axes.set(xlabel="threshold (cosine similarity)", ylabel=f"utility (k = {k:g})", ylim=(0, 1.02))
    if range is not None:
        text = f"calibration range {range[0]:.4g} to {range[1]:.4g}"
        axes.axvspan(*range, color=YELLOW, alpha=0.3, lw=0, label=text)
    if not len(usable):
        axes.set_xlim(curves.lo, curves.hi)
        say(axes, f"none of the {kinds} has pairs of both kinds")
        return figure
    over_range = np.concatenate(list(_utilities(curves, first, last + 1, k)), axis=1).mean(axis=1)
    order = np.argsort(over_range, kind="stable")
    many = len(usable) > max_lines
    count = max(2, max_lines // 3) if many else len(usable)
    drawn = order[np.unique(np.linspace(0, len(order) - 1, count).astype(int))]
    parts = [
        (u[drawn], u.mean(axis=0), u.std(axis=0), np.quantile(u, (0.05, 0.25, 0.75, 0.95), axis=0))
        for u in _utilities(curves, 0, curves.bins + 1, k)
    ]
    each, mean, deviation, bands = (np.concatenate(part, axis=-1) for part in zip(*parts, strict=True))
    t = curves.thresholds
    if many:
        axes.fill_between(
            t, bands[0], bands[3], color=BLUE, alpha=0.16, lw=0, label=f"middle 90 % of {kinds}"
        )
        axes.fill_between(t, bands[1], bands[2], color=BLUE, alpha=0.3, lw=0, label=f"middle 50 % of {kinds}")
    ends = {order[0]: ("lowest", PURPLE, "-."), order[-1]: ("highest", GREEN, ":")} if len(order) > 1 else {}
    where = "in the range" if range is not None else "on average"
    for place, values in zip(drawn, each, strict=True):
        if place in ends:
            which, colour, style = ends[place]
            text = f"{which} {where}: {literal(name_of(curves, names, usable[place]), 30)}"
            axes.plot(t, values, color=colour, ls=style, lw=1.8, zorder=3, label=text)
        else:
            axes.plot(t, values, color=BLUE, lw=0.7, alpha=0.55)
    axes.plot(t, mean, color="black", lw=2.2, label=f"mean of {len(usable):,} {kinds}")
    axes.plot(t, mean - deviation, color="black", ls="--", lw=1.1, label="mean ± standard deviation")
    axes.plot(t, mean + deviation, color="black", ls="--", lw=1.1)
    seen = np.flatnonzero((each > 0.01).any(axis=0) | (mean > 0.01))
    axes.set_xlim(limits(t[seen if range is None else [*seen, first, last]], curves))
    left_out = len(curves.classes) - len(usable)
    without = f"; {left_out:,} without pairs of both kinds left out" if left_out else ""
    axes.set_title(f"Utility of {len(usable):,} {kinds} by threshold{without}", loc="left")
    legend_below(figure, axes)
    return figure


def plot_similarities(
    curves: ClassCurves, *, margins: tuple[float, float] | None = None, threshold: float | None = None
) -> Figure:
    """Similarities of all same-class and all other-class pairs; above as they are, below with a log axis.

    Errors are in the tails, which only the log axis shows. Pairs outside [lo, hi] stand in the end bins.

    Args:
        curves: counts of `class_curves`.
        margins: (margin_plus, margin_minus) of the loss, as broken lines.
        threshold: the chosen one, as a line.
    """
    figure = new_figure(9.0, 6.6)
    panels = figure.subplots(2, 1, sharex=True)
    counts, edges = _histogram(curves)
    totals = counts.sum(axis=1)
    shares = counts / np.maximum(totals, 1)[:, None]
    kinds = ("same", BLUE, "-"), ("other", VERMILION, "--")
    for axes in panels:
        for share, total, (name, colour, style) in zip(shares, totals, kinds, strict=True):
            axes.stairs(share, edges, fill=True, color=colour, alpha=0.22)
            axes.stairs(share, edges, color=colour, ls=style, lw=1.5, label=f"{total:,} {name}-class pairs")
        for margin, name, style in zip(
            margins or (), ("margin_plus", "margin_minus"), ("-.", ":"), strict=False
        ):
            axes.axvline(margin, color="black", ls=style, lw=1.4, label=f"{name} {margin:g}")
        if threshold is not None:
            axes.axvline(threshold, color=QUIET, lw=1.6, label=f"threshold {threshold:.4g}")
    panels[0].set_title("Similarities of pairs", loc="left")
    panels[0].set_ylabel(f"share of pairs\nper {edges[1] - edges[0]:.3g}")
    panels[0].set_ylim(bottom=0)
    panels[1].set(xlabel="cosine similarity of a pair", ylabel="the same, log axis")
    panels[1].set_ylim(min(shares[shares > 0].min(initial=1.0) / 2, 1e-3), 1.5)
    panels[1].set_yscale("log")  # after its limits, lest matplotlib looks for some and finds no pairs
    panels[1].yaxis.set_minor_formatter(NullFormatter())
    for axes in panels:
        axes.yaxis.set_major_formatter(percent_ticks())
    marks = [*(margins or ()), *([] if threshold is None else [threshold])]
    panels[1].set_xlim(limits(np.array([edges[0], edges[-1], *marks]), curves))
    legend_below(figure, panels[0])
    return figure


def plot_worst_classes(
    curves: ClassCurves, threshold: float, count: int = 20, *, names: Sequence[str] | None = None
) -> Figure:
    """The classes with the highest false-reject and false-accept rates at a threshold, as bars.

    Args:
        curves: C classes.
        threshold: the nearest edge is used.
        count: how many of either.
        names: C names to show instead of `curves.classes`.
    """
    at = error_rates(curves, threshold)
    one = "group" if curves.grouped else "class"
    sides = (
        ("false rejects", at.worst(count), at.false_reject, at.pooled_false_reject, BLUE, "same"),
        ("false accepts", at.worst(count, "false_accept"), at.false_accept, at.pooled_false_accept, VERMILION,
         "other"),
    )  # fmt: skip
    figure = new_figure(11.0, 1.8 + 0.27 * max(3, *(len(worst) for _, worst, *_ in sides)))
    figure.suptitle(f"Worst {kinds_of(curves)} at the threshold {at.threshold:.4g}", fontsize=13)
    for axes, (title, worst, rates, pooled, colour, pairs) in zip(figure.subplots(1, 2), sides, strict=True):
        axes.set_title(f"Most {title}", loc="left")
        axes.set_xlabel(
            f"share of a {one}'s {pairs}-class pairs\n(dashed: of all pairs together, {percent(pooled)})"
        )
        if not len(worst):
            say(axes, f"none of the {kinds_of(curves)} has such pairs")
            continue
        labels = [literal(name_of(curves, names, c), 28) for c in worst]
        _bars(axes, labels, rates[worst], colour)
        axes.axvline(pooled, color="black", ls="--", lw=1.3)
        axes.set_xlim(0, 1.2 * max(float(rates[worst].max()), float(pooled)) or 1.0)
    return figure


def plot_reliability(before: Reliability, after: Reliability | None = None) -> Figure:
    """Reliability diagram: of the pairs said to match with some probability, how many do.

    Args:
        before: of similarities taken as probabilities.
        after: the same after calibration.
    """
    figure = new_figure(7.0, 7.2)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    top.plot([0, 1], [0, 1], color=QUIET, ls=":", lw=1.3, label="perfectly calibrated")
    sides = [
        (before, "before calibration", VERMILION, "s", "--"),
        (after, "after calibration", BLUE, "o", "-"),
    ]
    for found, name, colour, marker, style in sides:
        if found is None:
            continue
        filled = found.weight > 0
        share = found.weight[filled] / found.weight.sum()
        text = f"{name}: ECE {found.ece:.3g}, Brier score {found.brier:.3g}"
        look = {"color": colour, "marker": marker, "ls": style, "mec": "white", "clip_on": False, "zorder": 3}
        top.plot(found.predicted[filled], found.observed[filled], **look, ms=7, label=text)
        bottom.plot(found.predicted[filled], share, **look, ms=6)
    top.set_title("Reliability", loc="left")
    top.set(ylabel="observed share of same-class pairs", ylim=(0, 1))
    bottom.set(xlabel="predicted probability that a pair is of one class", ylabel="share of pairs")
    bottom.set(xlim=(0, 1), yscale="log")
    bottom.yaxis.set_major_formatter(percent_ticks())
    bottom.yaxis.set_minor_formatter(NullFormatter())
    for axes in (top, bottom):
        grid(axes)
    legend_below(figure, top, columns=1)
    return figure


def _utilities(curves: ClassCurves, first: int, stop: int, k: float) -> Iterator[Rates]:
    """Utilities of the usable classes, (C, edges), some edges at a time."""
    for begin in np.arange(first, stop, _EDGES).tolist():
        yield utilities(curves, begin, min(begin + _EDGES, stop), k)


def _histogram(curves: ClassCurves) -> tuple[Counts, Rates]:
    """Pooled counts, (2, H), in at most `_BARS` bars where there are any pairs, and their H + 1 edges."""
    counts = curves.pooled[:, 1:-1].copy()
    counts[:, 0] += curves.pooled[:, 0]
    counts[:, -1] += curves.pooled[:, -1]
    occupied = np.flatnonzero(counts.any(axis=0))
    first, stop = (int(occupied[0]), int(occupied[-1]) + 1) if len(occupied) else (0, curves.bins)
    together = -(-(stop - first) // _BARS)
    first = max(0, stop - together * -(-(stop - first) // together))  # bars of one width, where there is room
    starts = np.arange(first, stop, together)
    return np.add.reduceat(counts[:, :stop], starts, axis=1), curves.thresholds[[*starts, stop]]


def _bars(axes: Axes, labels: list[str], rates: Rates, colour: str) -> None:
    """Horizontal bars, the first on top, with their values."""
    places = np.arange(len(labels))
    axes.barh(places, rates, color=colour, height=0.7)
    behind = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
    for place, rate in zip(places, rates, strict=True):
        axes.annotate(
            percent(rate), (rate, place), (4, 0), textcoords="offset points",
            va="center", fontsize=8, bbox=behind, zorder=4,
        )  # fmt: skip
    axes.set_yticks(places, labels, fontsize=8.5, parse_math=False)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.xaxis.set_major_formatter(percent_ticks())
    axes.spines[["top", "right"]].set_visible(False)
