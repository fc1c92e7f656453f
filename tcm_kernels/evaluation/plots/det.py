"""The DET curve: false rejects against false accepts, of all pairs together and of each class."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from ..curves import ClassCurves, Rates
from ..rates import ErrorRates, error_rates
from ..roc import equal_error_rate
from .drawing import (
    BLUE,
    PURPLE,
    QUIET,
    VERMILION,
    grid,
    kinds_of,
    legend_below,
    new_figure,
    percent,
    probit,
    say,
)

_TICKS = np.array([1e-5, 1e-4, 1e-3, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.99])


def plot_det(
    curves: ClassCurves, *, threshold: float | None = None, band: tuple[float, float] = (0.05, 0.95)
) -> Figure:
    """Detection error tradeoff: false rejects against false accepts on normal-deviate axes.

    Similarities that are normal distributions give a straight line (Martin et al., The DET curve in
    assessment of detection task performance, 1997). The band holds the curves of the classes, each with
    thresholds of its own; the points are the classes at the one threshold, on the border where one makes
    no error. How far the points lie apart along the curves is what one threshold for all costs.

    Args:
        curves: counts of `class_curves`.
        threshold: the chosen one.
        band: quantiles of the classes' false-reject rates, between which the band lies.
    """
    figure = new_figure(7.0, 7.4)
    axes = figure.subplots()
    axes.set_title("Detection error tradeoff", loc="left")
    axes.set(xlabel="false-accept rate (normal deviate)", ylabel="false-reject rate (normal deviate)")
    if not (curves.pooled.sum(axis=1) > 0).all():
        say(axes, "there are no same-class pairs, or no other-class pairs")
        return figure
    pooled = (curves.false_accept_rate, curves.false_reject_rate)
    equal = equal_error_rate(curves)
    at = None if threshold is None else error_rates(curves, threshold)
    usable = np.flatnonzero(curves.usable)
    lowest = [float(np.clip(rates[rates > 0].min(initial=0.01), 1e-5, 0.01)) for rates in pooled]
    highest = [min(max(0.5, 1.2 * rate), 0.99) for rate in _highest(at, usable, equal.rate)]

    def placed(far: float | Rates, frr: float | Rates) -> list[Rates]:
        """On the axes, or on their border."""
        return [probit(*each) for each in zip((far, frr), lowest, highest, strict=True)]

    x_limits, y_limits = ((probit(lo), probit(hi)) for lo, hi in zip(lowest, highest, strict=True))
    kinds = kinds_of(curves)
    if len(usable) > 1:
        xs = np.linspace(*x_limits, 120)
        own = _own_curves(curves, usable, np.array([NormalDist().cdf(x) for x in xs]))
        low, high = (probit(rates) for rates in np.quantile(own, band, axis=0))
        text = f"middle {100 * (band[1] - band[0]):.3g} % of {kinds}, each at thresholds of its own"
        axes.fill_between(xs, low, high, color=BLUE, alpha=0.2, lw=0, label=text)
    axes.plot(*map(probit, pooled), color=BLUE, lw=2.2, label="all pairs together")
    axes.plot([-9, 9], [-9, 9], color=QUIET, lw=0.8, ls=":")  # both rates equal
    if at is not None and len(usable) > 1:
        x, y = placed(at.false_accept[usable], at.false_reject[usable])
        text = f"each of {len(usable):,} {kinds} at the threshold"
        size = float(np.clip(4000 / len(usable), 5, 40))
        axes.scatter(x, y, s=size, color=PURPLE, alpha=0.6, lw=0, zorder=3, clip_on=False, label=text)
    text = f"equal error rate {percent(equal.rate)} at {equal.threshold:.4g}"
    point = placed(equal.rate, equal.rate)
    axes.plot(*point, "s", color="black", mfc="white", ms=8, mew=1.6, zorder=5, clip_on=False, label=text)
    if at is not None:
        rates = at.pooled_false_accept, at.pooled_false_reject
        text = f"threshold {at.threshold:.4g}: FAR {percent(rates[0])}, FRR {percent(rates[1])}"
        axes.plot(
            *placed(*rates), "D", color=VERMILION, mec="black", ms=9, zorder=6, clip_on=False, label=text
        )
    axes.set(xlim=x_limits, ylim=y_limits)
    ticks = probit(_TICKS)
    for axis, limits in ((axes.xaxis, x_limits), (axes.yaxis, y_limits)):
        inside = (ticks >= limits[0] - 1e-9) & (ticks <= limits[1] + 1e-9)
        axis.set_ticks(ticks[inside], [f"{100 * rate:g} %" for rate in _TICKS[inside]])
        axis.set_tick_params(labelsize=9)
    grid(axes)
    legend_below(figure, axes, columns=1)
    return figure


def _highest(at: ErrorRates | None, usable: npt.NDArray[np.int64], equal: float) -> list[float]:
    """The highest false-accept and false-reject rate that the DET curve has a mark for."""
    if at is None or not len(usable):
        return [equal, equal]
    return [max(equal, float(rates[usable].max())) for rates in (at.false_accept, at.false_reject)]


def _own_curves(curves: ClassCurves, chosen: npt.NDArray[np.int64], fars: Rates) -> Rates:
    """(K, F) false-reject rate of each class at its own first edge whose false-accept rate is <= far."""
    own = np.empty((len(chosen), len(fars)))
    for row, c in enumerate(chosen):
        rejects = curves.positives[c, :-1].cumsum() / curves.positives[c].sum()
        rejected = curves.negatives[c, :-1].cumsum() / curves.negatives[c].sum()  # 1 - FAR, rising
        # Where no edge does, only a threshold that accepts nothing.
        own[row] = np.append(rejects, 1.0)[np.searchsorted(rejected, 1 - fars)]
    return own
