"""The pictures hold the numbers they claim, draw names as they are, and need neither a display nor pyplot."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from report_pages import HOSTILE, many_curves, small_curves

import tcm_kernels
from tcm_kernels.evaluation import ClassCurves, class_curves

pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'tcm-kernels[evaluation]'")

from matplotlib.text import Text

from tcm_kernels.evaluation import plots
from tcm_kernels.evaluation.consistency import utilities
from tcm_kernels.evaluation.plots import drawing
from tcm_kernels.evaluation.rates import error_rates
from tcm_kernels.evaluation.roc import equal_error_rate

RANGE = (0.2, 0.5)
RELIABILITY = SimpleNamespace(
    predicted=np.array([0.1, np.nan, 0.9]),
    observed=np.array([0.2, np.nan, 0.7]),
    weight=np.array([3.0, 0.0, 1.0]),
    ece=0.125,
    brier=0.0625,
)
PLOTS: dict[str, Callable[[ClassCurves], Any]] = {
    "utilities": lambda curves: plots.plot_utilities(curves, range=RANGE),
    "similarities": lambda curves: plots.plot_similarities(curves, margins=(0.9, 0.5), threshold=0.33),
    "det": lambda curves: plots.plot_det(curves, threshold=0.33),
    "own thresholds": lambda curves: plots.plot_own_thresholds(curves, 0.05, threshold=0.33),
    "worst classes": lambda curves: plots.plot_worst_classes(curves, 0.33),
}


def collapsed() -> ClassCurves:
    return class_curves(np.ones((12, 4), np.float32), np.repeat([0, 1, 2], 4), bins=50, backend="torch")


def one_class() -> ClassCurves:
    emb = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    return class_curves(emb, np.zeros(8, int), bins=50, backend="torch")


def only_singletons() -> ClassCurves:
    emb = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    return class_curves(emb, np.arange(8), bins=50, backend="torch")


def one_bin() -> ClassCurves:
    return small_curves(bins=1)


def nothing_in_the_bins() -> ClassCurves:
    empty = np.zeros((0, 12), np.int64)
    return ClassCurves(np.zeros(0, np.int64), empty, empty, np.zeros((2, 12), np.int64))


def texts_of(figure: Any) -> list[str]:
    figure.draw_without_rendering()
    return [text.get_text() for text in figure.findobj(Text)]


def labels_of(figure: Any) -> list[str]:
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def lines_of(axes: Any) -> dict[str, Any]:
    return {line.get_label(): line.get_xydata() for line in axes.get_lines()}


@pytest.mark.parametrize("name", PLOTS)
@pytest.mark.parametrize(
    "make", [small_curves, collapsed, one_class, only_singletons, one_bin, nothing_in_the_bins]
)
def test_any_data_give_a_picture_without_a_warning(make: Callable[[], ClassCurves], name: str) -> None:
    content = drawing.as_png(PLOTS[name](make()), dpi=40)
    assert content.startswith(b"\x89PNG")


@pytest.mark.parametrize("chosen", [RANGE, (-0.3, 0.3), (0.5, 0.8)])
def test_utilities_are_a_line_a_class_their_mean_and_standard_deviation(chosen: tuple[float, float]) -> None:
    curves = small_curves()
    axes = plots.plot_utilities(curves, range=chosen, k=2.0).axes[0]
    u = utilities(curves, 0, curves.bins + 1, 2.0)
    first, last = (curves.edge(end) for end in chosen)
    over_range = u[:, first : last + 1].mean(axis=1)
    usable = curves.classes[curves.usable]
    lines = lines_of(axes)
    for text, values in (
        (f"lowest in the range: {usable[over_range.argmin()]}", u[over_range.argmin()]),
        (f"highest in the range: {usable[over_range.argmax()]}", u[over_range.argmax()]),
        ("mean of 24 classes", u.mean(axis=0)),
        ("mean ± standard deviation", u.mean(axis=0) - u.std(axis=0)),
    ):
        assert lines[text] == pytest.approx(np.column_stack([curves.thresholds, values]), abs=1e-12), text
    drawn = np.array([line.get_ydata() for line in axes.get_lines()])
    assert all(np.abs(drawn - values).max(axis=1).min() < 1e-12 for values in u)
    assert len(drawn) == 24 + 3
    assert (
        axes.get_title(loc="left")
        == "Utility of 24 classes by threshold; 4 without pairs of both kinds left out"
    )


def test_thousands_of_classes_become_bands_and_a_few_lines() -> None:
    curves = many_curves(3000, bins=200)
    axes = plots.plot_utilities(curves, range=RANGE).axes[0]
    u = utilities(curves, 0, curves.bins + 1)
    assert len(axes.get_lines()) == 10 + 3
    bands = {band.get_label(): band.get_paths()[0].vertices for band in axes.collections}
    for text, quantiles in (
        ("middle 90 % of classes", (0.05, 0.95)),
        ("middle 50 % of classes", (0.25, 0.75)),
    ):
        corners = {tuple(corner) for corner in bands[text].round(9)}
        for quantile in quantiles:
            edge = np.column_stack([curves.thresholds, np.quantile(u, quantile, axis=0)])
            assert {tuple(corner) for corner in edge.round(9)} <= corners


def test_similarities_are_shares_of_all_pairs_with_those_outside_in_the_end_bins() -> None:
    emb = np.array([[1, 0], [1, 0], [0, 1], [-1, 0]], np.float32)
    curves = class_curves(emb, np.array([0, 0, 1, 1]), bins=4, range=(-0.5, 0.5), backend="torch")
    panels = plots.plot_similarities(curves, margins=(0.4, 0.1), threshold=0.25).axes
    for axes in panels:
        shares = {
            patch.get_label(): patch.get_data() for patch in axes.patches if "pairs" in patch.get_label()
        }
        same, other = shares["4 same-class pairs"], shares["8 other-class pairs"]
        assert same.edges == pytest.approx([-0.5, -0.25, 0.0, 0.25, 0.5])
        assert same.values == pytest.approx([0, 0, 0.5, 0.5])  # 0 and, above the bins, 1
        assert other.values == pytest.approx([0.5, 0, 0.5, 0])
        marks = {text: x for text, ((x, _), _) in lines_of(axes).items()}
        assert marks == {"margin_minus 0.1": 0.1, "margin_plus 0.4": 0.4, "threshold 0.25": 0.25}


@pytest.mark.parametrize("bins", [450, 1200, 1999])
def test_fine_bins_are_drawn_together_without_losing_a_pair(bins: int) -> None:
    curves = small_curves(bins)
    axes = plots.plot_similarities(curves).axes[0]
    totals = [
        f"{total:,} {kind}-class pairs"
        for total, kind in zip(curves.pooled.sum(axis=1), ("same", "other"), strict=True)
    ]
    assert axes.get_legend_handles_labels()[1] == totals
    for patch in axes.patches:
        values, edges, _ = patch.get_data()
        assert 100 < len(values) <= 200
        assert values.sum() == pytest.approx(1)
        assert np.diff(edges) == pytest.approx(edges[1] - edges[0])


def test_the_det_curve_is_on_normal_deviate_axes_with_both_marks_on_it() -> None:
    curves = small_curves()
    axes = plots.plot_det(curves, threshold=0.33).axes[0]
    lines = lines_of(axes)
    deviate = NormalDist().inv_cdf
    pooled = lines["all pairs together"]
    edge = curves.edge(0.33)
    at = error_rates(curves, 0.33)
    right = [deviate(at.pooled_false_accept), deviate(at.pooled_false_reject)]
    assert pooled[edge] == pytest.approx(right)
    (mark,) = (xy for text, xy in lines.items() if text.startswith("threshold 0.33: FAR"))
    assert mark[0] == pytest.approx(right)
    (equal,) = (xy for text, xy in lines.items() if text.startswith("equal error rate"))
    assert equal[0] == pytest.approx([deviate(equal_error_rate(curves).rate)] * 2)
    points = axes.collections[-1].get_offsets()
    assert len(points) == 24
    inside = curves.usable & (at.false_reject > 0) & (at.false_accept > 0)
    for c in np.flatnonzero(inside):
        own = [deviate(at.false_accept[c]), deviate(at.false_reject[c])]
        assert np.abs(points - own).max(axis=1).min() < 1e-9
    ticks = dict(zip((text.get_text() for text in axes.get_xticklabels()), axes.get_xticks(), strict=True))
    assert ticks["10 %"] == pytest.approx(deviate(0.1))


def test_the_band_of_the_det_curve_holds_the_classes_at_thresholds_of_their_own() -> None:
    curves = small_curves()
    axes = plots.plot_det(curves, band=(0.0, 1.0)).axes[0]
    corners = axes.collections[0].get_paths()[0].vertices
    far = 1 - curves.specificity[curves.usable]
    frr = 1 - curves.sensitivity[curves.usable]
    deviate = NormalDist().inv_cdf
    for x in np.unique(corners[:, 0])[5:-5:10]:
        rate = NormalDist().cdf(x)
        own = [frr[c][np.flatnonzero(far[c] <= rate)[0]] for c in range(24)]
        right = [deviate(np.clip(rate, 1e-9, 1 - 1e-9)) for rate in (min(own), max(own))]
        ys = corners[corners[:, 0] == x, 1]
        assert [ys.min(), ys.max()] == pytest.approx(right)


def test_worst_classes_are_bars_in_order_with_their_rates() -> None:
    curves = small_curves()
    at = error_rates(curves, 0.33)
    names = [f"name {c}" for c in range(28)]
    figure = plots.plot_worst_classes(curves, 0.33, count=7, names=names)
    figure.draw_without_rendering()
    for axes, by, pooled in (
        (figure.axes[0], "false_reject", at.pooled_false_reject),
        (figure.axes[1], "false_accept", at.pooled_false_accept),
    ):
        worst = at.worst(7, by)
        assert [bar.get_width() for bar in axes.patches] == pytest.approx(getattr(at, by)[worst].tolist())
        assert [text.get_text() for text in axes.get_yticklabels()] == [names[c] for c in worst]
        assert axes.get_lines()[0].get_xdata()[0] == pooled
        top, bottom = axes.get_ylim()[::-1]
        assert top < bottom, "the worst on top"


def test_reliability_leaves_empty_bins_out_and_names_both_scores() -> None:
    after = SimpleNamespace(**{**vars(RELIABILITY), "ece": 0.01, "brier": 0.05})
    figure = plots.plot_reliability(RELIABILITY, after)
    top, bottom = figure.axes
    points = lines_of(top)["before calibration: ECE 0.125, Brier score 0.0625"]
    assert points == pytest.approx(np.array([[0.1, 0.2], [0.9, 0.7]]))
    assert bottom.get_lines()[0].get_ydata() == pytest.approx([0.75, 0.25])
    assert "after calibration: ECE 0.01, Brier score 0.05" in labels_of(figure)
    assert drawing.as_png(plots.plot_reliability(RELIABILITY), dpi=40).startswith(b"\x89PNG")


@pytest.mark.parametrize("text", ["$x^2$", r"$\frac{", "a_b^c", "100 % & <b>", "naïve"])
def test_names_are_drawn_as_they_are(text: str) -> None:
    curves = small_curves()
    for figure in (
        plots.plot_worst_classes(curves, 0.33, names=[text] * 28),
        plots.plot_utilities(curves, names=[text] * 28),
        plots.plot_own_thresholds(curves, names=[text] * 28),
    ):
        figure.draw_without_rendering()
        holders = [holder for holder in figure.findobj(Text) if text in holder.get_text()]
        assert holders
        assert not any(holder.get_parse_math() for holder in holders)
        drawing.as_png(figure, dpi=40)


def test_hostile_names_are_drawn_on_one_line_without_a_warning() -> None:
    curves = small_curves()
    names = [HOSTILE[c % len(HOSTILE)] for c in range(28)]
    for figure in (
        plots.plot_worst_classes(curves, 0.33, names=names),
        plots.plot_utilities(curves, names=names, max_lines=100),
        plots.plot_own_thresholds(curves, names=names),
    ):
        drawing.as_png(figure, dpi=40)
    for text in HOSTILE:
        shown = drawing.literal(text)
        assert 0 < len(shown) <= 40
        assert shown.isprintable()
    assert drawing.literal("飛") == r"\u98db"
    assert drawing.literal("") == '""'


def test_legends_stand_below_the_axes() -> None:
    curves = small_curves()
    for name in ("utilities", "similarities", "det", "own thresholds"):
        figure = PLOTS[name](curves)
        figure.draw_without_rendering()
        lowest = min(axes.get_tightbbox().y0 for axes in figure.axes)
        (legend,) = figure.legends
        assert legend.get_window_extent().y1 <= lowest + 1, name


def test_groups_are_called_groups() -> None:
    curves = dataclasses.replace(small_curves(), grouped=True)
    for make in PLOTS.values():
        assert not any("classes" in text for text in texts_of(make(curves)))


def test_pyplot_is_not_imported_and_no_display_is_needed() -> None:
    code = (
        "import sys, numpy as np; from tcm_kernels.evaluation import class_curves, plots\n"
        "emb = np.random.default_rng(0).normal(size=(20, 4)).astype('f4')\n"
        "curves = class_curves(emb, np.arange(20) % 5, bins=50, backend='torch')\n"
        "print(len(plots.as_png(plots.plot_det(curves)))); assert 'matplotlib.pyplot' not in sys.modules"
    )
    without = {
        name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**without, "MPLBACKEND": "tkagg"},
        cwd=Path(tcm_kernels.__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
