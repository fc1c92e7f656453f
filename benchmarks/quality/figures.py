"""The pictures of the study: where each base loss stands, where TCM takes it, and where training alone went.

One panel a range of false-accept rates or a measure of spread; Recall@1 to the right, inconsistency
upwards, so that down and to the right is better. Behind every arrow lies the base's own training curve: an
arrow that goes on along it is what more training might bring as well, one that turns off downwards is what
TCM adds. Means over the seeds, bars of the intervals of the changes at the arrow's tip.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tcm_kernels.evaluation.plots.drawing import GREEN, PURPLE, QUIET, VERMILION, grid, new_figure

from .measures import MEASURES
from .plan import ARMS, SPLITS, Arm
from .summary import Compared, Runs

COLOURS = {
    "triplet": "#56B4E9",
    "normalized_softmax": "#E69F00",
    "proxy_nca": GREEN,
    "proxy_anchor": "#0072B2",
    "arcface": VERMILION,
    "multi_similarity": PURPLE,
    "supcon": "#8C6D31",
    "smooth_ap": "#000000",
}
MARKERS = dict(zip(COLOURS, "osD^vP*X", strict=True))
_FIRST_SHOWN = 0.45  # Recall@1 from which a training curve is drawn: before that it is far off


def arrows(rows: Sequence[Compared], measures: Sequence[str], split: str, arm: Arm) -> Figure:
    """Recall@1 against some measures on one split, a panel each, with an arrow from base to base + TCM."""
    of_split = [row for row in rows if row.split == split and arm in row.arms]
    figure = new_figure(5.6 * len(measures), 5.6)
    panels = figure.subplots(1, len(measures), squeeze=False)[0]
    for axes, measure in zip(panels, measures, strict=True):
        for row in of_split:
            _arrow(axes, row, measure, arm)
        alone = next((row.arms["alone"] for row in of_split if "alone" in row.arms), None)
        if alone is not None:
            point = alone.mean("recall_at_1"), alone.mean(measure)
            axes.plot(*point, marker="h", ms=11, mfc="white", mec="black", ls="none", label="TCM alone")
        axes.set(xlabel="Recall@1, unseen classes", ylabel=MEASURES[measure].title)
        axes.set_yscale("log")
        grid(axes)
        fallen = [_told_of_fallen(row, arm) for row in of_split if _fell(row, arm)]
        axes.annotate("\n".join(fallen), (0.03, 0.03), xycoords="axes fraction", fontsize=9)
    figure.suptitle(
        f"From base loss to {ARMS[arm]}: {SPLITS[split]}\n"
        "thin: the base's own training; down and to the right is better",
        fontsize=12,
    )
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=5, frameon=False)
    return figure


def _fell(row: Compared, arm: Arm) -> bool:
    """Whether the mean with TCM lies where no training curve is drawn any more, and the base's does not."""
    return row.arms[arm].mean("recall_at_1") < _FIRST_SHOWN <= row.arms["base"].mean("recall_at_1")


def _told_of_fallen(row: Compared, arm: Arm) -> str:
    recall = row.arms[arm].mean("recall_at_1")
    return f"{row.title}: to Recall@1 {recall:.2f},\nsome of its trainings collapsed"


def _arrow(axes: Axes, row: Compared, measure: str, arm: Arm) -> None:
    colour = COLOURS[row.base]
    base, with_tcm = row.arms["base"], row.arms[arm]
    curve = [point for point in _mean_curve(base, measure) if point[0] >= _FIRST_SHOWN]
    axes.plot(*zip(*curve, strict=True), color=colour, lw=1.0, alpha=0.55, zorder=1)
    tail = base.mean("recall_at_1"), base.mean(measure)
    axes.plot(*tail, marker=MARKERS[row.base], color=colour, ms=7, ls="none", label=row.title, zorder=3)
    if _fell(row, arm):
        return
    tip = with_tcm.mean("recall_at_1"), with_tcm.mean(measure)
    axes.annotate(
        "",
        tip,
        tail,
        arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 1.8, "shrinkA": 0, "shrinkB": 0},
    )
    across, up = row.change("recall_at_1", arm), row.change(measure, arm)
    axes.errorbar(
        *tip,
        xerr=[[across.mean - across.low], [across.high - across.mean]],
        yerr=[[min(up.mean - up.low, 0.9 * tip[1])], [up.high - up.mean]],
        color=QUIET, lw=0.8, capsize=2, zorder=2,
    )  # fmt: skip


def _mean_curve(runs: Runs, measure: str) -> list[tuple[float, float]]:
    return [
        (statistics.fmean(r["recall_at_1"] for r in stop), statistics.fmean(r[measure] for r in stop))
        for stop in zip(*runs.curves, strict=True)
        if all(r[measure] is not None for r in stop)
    ]
