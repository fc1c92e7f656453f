"""utilities.png: every unseen class as a line of utility over the threshold, without and with the TCM loss.

Where lines lie on each other, one threshold serves all classes alike. Below them, the thresholds that the
classes would choose for themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...evaluation import ClassCurves, threshold_spread
from ...evaluation.consistency import calibration_range, utilities
from ..comparison import SIDES
from .measures import FAR, OPIS_FAR

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LOW, _HIGH = 5, 95  # percent of the classes between which the lines are blue


def render(curves: dict[str, ClassCurves], measures: dict[str, dict[str, float]]) -> bytes:
    """The picture as PNG, of one seed's two trainings; both arguments by the names in SIDES."""
    from ...evaluation.plots.drawing import as_png, legend_below, new_figure  # noqa: PLC0415  # an extra

    figure = new_figure(12.0, 7.2)
    panels = figure.subplots(2, 2, sharex="all", sharey="row", height_ratios=(4, 1))
    shown = {side: curves[side] for side in SIDES}
    for column, (side, of_side) in enumerate(shown.items()):
        _lines(panels[0, column], of_side)
        _own_thresholds(panels[1, column], of_side)
        panels[0, column].set_title(_title(SIDES[side], measures[side]), loc="left", fontsize=11)
    panels[0, 0].set_ylabel("utility of the threshold to a class")
    panels[1, 0].set_ylabel("classes")
    count = len(next(iter(shown.values())).classes)
    figure.suptitle(f"{count:,} characters never seen in training, a line each", fontsize=13)
    legend_below(figure, panels[0, 0], columns=4)
    return as_png(figure)


def _title(side: str, measures: dict[str, float]) -> str:
    shown = [
        f"{title} {format(measures[name], pattern)}"
        for title, name, pattern in (
            ("OPIS", "opis", ".5f"),
            ("threshold spread", "threshold_spread", ".4f"),
            ("Recall@1", "recall_at_1", ".3f"),
        )
        if name in measures
    ]
    return f"{side}\n{', '.join(shown)}"


def _lines(axes: Axes, curves: ClassCurves) -> None:
    """Utility by threshold, a line a class."""
    from matplotlib.collections import LineCollection  # noqa: PLC0415

    from ...evaluation.plots.drawing import BLUE, YELLOW  # noqa: PLC0415

    utility = utilities(curves, 0, curves.bins + 1)
    x = _relative(curves)
    first, stop = calibration_range(curves, far=OPIS_FAR)
    axes.axvspan(
        x[first],
        x[stop - 1],
        color=YELLOW,
        alpha=0.35,
        lw=0,
        label="where OPIS looks: 1 % to 10 % false accepts",
    )
    lines = [np.column_stack((x, values)) for values in utility]
    axes.add_collection(LineCollection(lines, colors=BLUE, linewidths=0.5, alpha=0.25), autolim=False)
    axes.plot([], [], color=BLUE, lw=0.8, label="a class")
    axes.plot(x, utility.mean(axis=0), color="black", lw=2.0, label="mean of the classes")
    axes.set(xlim=(-0.6, 1.3), ylim=(0, 1.01))


def _own_thresholds(axes: Axes, curves: ClassCurves) -> None:
    from ...evaluation.plots.drawing import BLUE, VERMILION

    found = threshold_spread(curves, far=FAR, draws=0)
    low = _mean_other(curves)
    own = (found.thresholds - low) / found.separation
    axes.hist(own[~np.isnan(own)], bins=np.linspace(-0.6, 1.3, 96), color=BLUE, alpha=0.5)
    axes.axvline((found.threshold - low) / found.separation, color=VERMILION, lw=1.6)
    axes.set_xlabel("threshold")


def _mean_other(curves):
    edges = curves.thresholds
    c = np.concatenate([[edges[0]], (edges[1:] + edges[:-1]) / 2, [edges[-1]]])
    return float((curves.pooled[1] * c).sum() / curves.pooled[1].sum())


def _relative(curves: ClassCurves):
    found = threshold_spread(curves, far=FAR, draws=0)
    return (curves.thresholds - _mean_other(curves)) / found.separation
