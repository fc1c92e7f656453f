"""The threshold that each class would choose for itself, beside the one for all: what threshold spread is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..curves import ClassCurves, Counts, Rates
from ..own_thresholds import target_of
from ..targets import Edges, edges_at_rate, edges_of_classes
from .drawing import (
    BLUE,
    GREEN,
    PURPLE,
    VERMILION,
    grid,
    kinds_of,
    legend_below,
    limits,
    literal,
    name_of,
    new_figure,
    percent,
    say,
)

_BARS = 50  # at most
_NAMED = 3  # at either end
_MARKS = "osD"


def plot_own_thresholds(
    curves: ClassCurves,
    far: float | None = None,
    *,
    frr: float | None = None,
    threshold: float | None = None,
    names: Sequence[str] | None = None,
) -> Figure:
    """Histogram of the classes' own thresholds for a target error rate: how far apart they lie.

    Below it a line a class; the three lowest and the three highest are named. With `far`, a class to the
    right of the one threshold has more false accepts there than asked for, and one to the left fewer, which
    it pays for with false rejects.

    Args:
        curves: C classes.
        far: target false-accept rate in (0, 1); 1e-2 where neither is given.
        frr: target false-reject rate in (0, 1), instead of far.
        threshold: the chosen one; where None, the one that meets the target over all pairs.
        names: C names to show instead of `curves.classes`.

    Raises:
        ValueError: a target that is not in (0, 1), or two.
    """
    kind, rate = target_of(far, frr)
    edges, pairs = edges_of_classes(curves, kind, rate)
    met = (pairs > 0) & (edges >= 0) & (edges <= curves.bins)
    one = int(edges_at_rate(kind.pooled(curves), kind, rate)[0])
    if threshold is None and 0 <= one <= curves.bins:
        threshold = float(curves.thresholds[one])
    kinds = kinds_of(curves)
    figure = new_figure(9.0, 5.4)
    top, strip = figure.subplots(2, 1, sharex=True, height_ratios=(6, 1))
    left_out = len(met) - int(met.sum())
    top.set_title(
        f"Own thresholds of {int(met.sum()):,} {kinds} at {kind.argument.upper()} {percent(rate)}"
        + (f"; {left_out:,} without one left out" if left_out else ""),
        loc="left",
    )
    top.set_ylabel(kinds)
    strip.set(xlabel="threshold (cosine similarity)", yticks=[], ylim=(0, 1))
    strip.set_ylabel(f"each\n{'group' if curves.grouped else 'class'}")
    if not met.any():
        top.set_yticks([])
        strip.set_xlim(curves.lo, curves.hi)
        say(top, f"none of the {kinds} has a threshold of its own")
        return figure
    own, thresholds = edges[met], curves.thresholds
    _draw_distribution(top, strip, own, curves)
    order = np.flatnonzero(met)[np.argsort(own, kind="stable")]
    few = min(_NAMED, len(order) // 2) if own.min() < own.max() else 0

    def name(which: str, places: Edges, colour: str) -> None:
        for mark, c in zip(_MARKS, places, strict=False):
            x = thresholds[edges[c]]
            text = f"{which}, {x:.4g}: {literal(name_of(curves, names, c), 30)}"
            strip.plot(x, 0.5, mark, color=colour, mec="black", ms=7, zorder=5, clip_on=False)
            top.plot([], [], mark, color=colour, mec="black", ms=7, label=text)

    # The legend has them in this order, one end in each of its two columns.
    name("lowest", order[:few], PURPLE)
    if threshold is not None:
        for axes in (top, strip):
            text = f"one threshold for all, {threshold:.4g}"
            axes.axvline(threshold, color=VERMILION, lw=2.0, zorder=4, label=text)
    name("highest", order[::-1][:few], GREEN)
    shown = thresholds[own] if threshold is None else np.append(thresholds[own], threshold)
    strip.set_xlim(limits(shown, curves))
    top.set_ylim(bottom=0)
    top.yaxis.set_major_locator(MaxNLocator(integer=True))
    grid(top)
    legend_below(figure, top)
    return figure


def _draw_distribution(top: Axes, strip: Axes, own: Edges, curves: ClassCurves) -> None:
    """Histogram, mean and standard deviation above, a line a class below."""
    at = curves.thresholds[own]
    counts, ends = _histogram(own, curves)
    top.stairs(counts, ends, fill=True, color=BLUE, alpha=0.3)
    top.stairs(counts, ends, color=BLUE, lw=1.2)
    mean, deviation = at.mean(), at.std()
    text = f"mean {mean:.3g} ± standard deviation {deviation:.3g}"
    top.axvspan(mean - deviation, mean + deviation, color="black", alpha=0.07, lw=0)
    top.axvline(mean, color="black", ls="--", lw=1.3, label=text)
    strip.vlines(at, 0.1, 0.9, color=BLUE, lw=0.8, alpha=float(np.clip(60 / len(own), 0.1, 0.7)))


def _histogram(own: Edges, curves: ClassCurves) -> tuple[Counts, Rates]:
    """Classes by threshold: H bars of as many edges each, and their H + 1 ends, half a bin off the edges."""
    first, stop = int(own.min()), int(own.max()) + 1
    together = -(-(stop - first) // _BARS)
    starts = np.arange(first, stop + together, together)
    width = (curves.hi - curves.lo) / curves.bins
    counts = np.add.reduceat(np.bincount(own - first, minlength=stop - first), starts[:-1] - first)
    return counts, curves.lo + width * (starts.astype(np.float64) - 0.5)
