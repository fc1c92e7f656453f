"""utilities.png: every unseen class as a line of utility over the threshold, without and with the TCM loss.

Where lines lie on each other, one threshold serves all classes alike. Below them stand the
thresholds that the classes would choose for themselves. The axis is not the cosine but what a network makes
of it: a loss that draws all similarities together would otherwise look consistent and not be it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...evaluation import ClassCurves, threshold_spread
from ...evaluation.consistency import calibration_range, utilities
from ...evaluation.curves import Rates
from ..comparison import SIDES
from .measures import FAR, OPIS_FAR

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHOWN = (0.2, 1.25)  # of the axis
_BARS = 84
_ONE: dict[str, Any] = {"color": "black", "ls": "--", "lw": 1.5}


def render(curves: Mapping[str, ClassCurves], measures: Mapping[str, Mapping[str, float]]) -> bytes:
    """The picture as PNG, of one seed's two trainings.

    Args:
        curves: of each, by the names in SIDES; from them all measures can be taken.
        measures: of each, by the names in MEANINGS.
    """
    from ...evaluation.plots.drawing import as_png, legend_below, new_figure  # noqa: PLC0415  # an extra

    figure = new_figure(12.0, 7.4)
    panels = figure.subplots(2, 2, sharex="all", sharey="row", height_ratios=(4, 1))
    for (lines, own), (side, title) in zip(panels.T, SIDES.items(), strict=True):
        lines.set_title(_title(title, measures[side]), loc="left", fontsize=11.5)
        drawn = _Drawn.of(curves[side])
        _draw_lines(lines, drawn)
        _draw_own_thresholds(own, drawn)
    panels[0, 0].set_ylabel("utility of the threshold to a class")
    panels[1, 0].set_ylabel("classes, by their\nown threshold")
    count = len(next(iter(curves.values())).classes)
    text = f"One threshold for {count:,} characters never seen in training: how well it serves each"
    figure.suptitle(text, fontsize=13.5)
    legend_below(figure, panels[0, 0], columns=3)
    return as_png(figure)


def _title(side: str, measures: Mapping[str, float]) -> str:
    return (
        f"{side}\nOPIS {measures['opis']:.5f}, threshold spread {measures['threshold_spread']:.4f}, "
        f"Recall@1 {measures['recall_at_1']:.3f}"
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Drawn:
    """What a panel shows; places on the axis are relative to both kinds' mean similarity.

    Attributes:
        places: (E,) of the edges.
        utility: (C, E).
        range: the two ends of the calibration range.
        worst: (C,) bool, the tenth of the classes with the lowest mean utility in that range.
        own: places of the classes' own thresholds.
        one: place of the one threshold.
    """

    places: Rates
    utility: Rates
    range: tuple[float, float]
    worst: npt.NDArray[np.bool_]
    own: Rates
    one: float

    @classmethod
    def of(cls, curves: ClassCurves) -> _Drawn:
        found = threshold_spread(curves, far=FAR, draws=0)
        other = curves.pooled[1]
        zero = float((other * curves.similarities).sum() / other.sum())
        places = (curves.thresholds - zero) / found.separation
        first, stop = calibration_range(curves, far=OPIS_FAR)
        utility = utilities(curves, 0, curves.bins + 1)
        in_range = utility[:, first:stop].mean(axis=1)
        return cls(
            places=places,
            utility=utility,
            range=(places[first], places[stop - 1]),
            worst=in_range.argsort(kind="stable").argsort(kind="stable") < max(1, len(utility) // 10),
            own=(found.thresholds[~np.isnan(found.thresholds)] - zero) / found.separation,
            one=(found.threshold - zero) / found.separation,
        )


def _draw_lines(axes: Axes, drawn: _Drawn) -> None:
    from matplotlib.collections import LineCollection  # noqa: PLC0415

    from ...evaluation.plots.drawing import BLUE, VERMILION, YELLOW, grid  # noqa: PLC0415

    text = "where OPIS looks: 1 % to 10 % false accepts"
    axes.axvspan(*drawn.range, color=YELLOW, alpha=0.3, lw=0, label=text)
    kinds = (
        (~drawn.worst, BLUE, 0.22, "a class"),
        (drawn.worst, VERMILION, 0.45, "one of the worst tenth there"),
    )
    for chosen, colour, alpha, name in kinds:
        lines = [np.column_stack((drawn.places, values)) for values in drawn.utility[chosen]]
        axes.add_collection(LineCollection(lines, colors=colour, linewidths=0.6, alpha=alpha), autolim=False)
        axes.plot([], [], color=colour, lw=1.2, label=name)
    axes.plot(drawn.places, drawn.utility.mean(axis=0), color="black", lw=2.2, label="mean of all classes")
    axes.plot([], [], **_ONE, label="the one threshold for 1 % false accepts")
    axes.set(xlim=_SHOWN, ylim=(0, 1.005))
    grid(axes)


def _draw_own_thresholds(axes: Axes, drawn: _Drawn) -> None:
    from ...evaluation.plots.drawing import BLUE, grid  # noqa: PLC0415

    axes.hist(drawn.own, bins=np.linspace(*_SHOWN, _BARS + 1).tolist(), color=BLUE, alpha=0.6)
    axes.axvline(drawn.one, **_ONE)
    axes.set_xlabel("threshold; 0 and 1: mean similarity of other-class and of same-class pairs")
    grid(axes)
