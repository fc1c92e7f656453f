"""Threshold spread as its users meet it: lines, JSON, notes, the report's picture, the command."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from report_pages import small_curves

from tcm_kernels import cli
from tcm_kernels.evaluation import ClassCurves, Evaluation, class_curves, evaluate, threshold_spread

pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'tcm-kernels[evaluation]'")
pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install 'tcm-kernels[evaluation]'")
pytest.importorskip("tqdm", reason="tqdm is not installed: pip install 'tcm-kernels[evaluation]'")

from tcm_kernels.evaluation import plots

TITLES = ("Threshold spread", "Own thresholds", "FAR spread in decades")


def _one_class_alone() -> tuple[np.ndarray, np.ndarray]:
    """100 rows of a class, and two classes of two equal rows, which accept one another at every threshold.

    That is 4 of 404 pairs, under 1 %, but 2 % of the pairs of either class.
    """
    emb = np.zeros((104, 9), np.float32)
    emb[:100, :8] = np.random.default_rng(0).normal(size=(100, 8))
    emb[:100, 8] = np.linspace(0, 3, 100)
    emb[100:, 8] = 1.0
    return emb, np.repeat([0, 1, 2], [100, 2, 2])


def _lines(found: Evaluation) -> dict[str, tuple[str, str]]:
    return {line.title: (line.value, line.meaning) for line in found.lines()}


def test_the_lines_say_relative_deviation_and_decades_each_with_its_interval() -> None:
    curves = small_curves()
    found = evaluate(curves, threshold_far=0.05, draws=200, seed=7)
    spread = threshold_spread(curves, far=0.05, draws=200, seed=7)
    assert found.threshold_far == 0.05
    lines = _lines(found)
    titles = list(lines)
    assert titles[titles.index(TITLES[0]) :][:3] == list(TITLES)

    def interval(ends: tuple[float, float] | None) -> str:
        assert ends is not None
        return f"({ends[0]:.3g} to {ends[1]:.3g})"

    assert lines[TITLES[0]][0] == f"{spread.relative:.3g} {interval(spread.relative_interval)}"
    deviation = f"{spread.deviation:.3g} {interval(spread.deviation_interval)}"
    assert lines[TITLES[1]][0] == f"{spread.mean:.3f} ± {deviation}"
    assert lines[TITLES[2]][0] == f"{spread.decades:.3g} {interval(spread.decades_interval)}"
    assert all("FAR 0.05" in lines[title][1] for title in TITLES[:2])
    assert lines[TITLES[2]][1].endswith(f"log10 FAR at the one threshold {spread.threshold:.4g}")
    assert all(title in found.text(curves) for title in TITLES)


def test_the_target_is_the_lower_rate_unless_told_otherwise_also_for_the_worst_class() -> None:
    found = evaluate(small_curves(), far=(0.02, 0.2), over="worst", draws=0)
    assert found.threshold_spread is not None
    assert (found.threshold_far, found.threshold_spread.rate) == (0.02, 0.02)
    assert found.threshold.threshold == found.threshold_spread.thresholds.max()
    assert "(" not in _lines(found)[TITLES[0]][0]  # no draws, no interval


def test_groups_are_called_groups() -> None:
    lines = _lines(evaluate(dataclasses.replace(small_curves(), grouped=True), draws=5))
    assert all("groups" in lines[title][1] and "class's" not in lines[title][1] for title in TITLES)


def test_what_must_be_known_of_the_classes_is_noted() -> None:
    notes = " ".join(evaluate(small_curves(), threshold_far=0.004, draws=0).notes())
    short = threshold_spread(small_curves(), far=0.004, draws=0).classes_short
    assert short > 0
    assert f"{short} classes have fewer than 250 distinct other-class pairs" in notes
    assert "fewer than" not in " ".join(evaluate(small_curves(), threshold_far=0.05, draws=0).notes())
    emb, labels = _one_class_alone()
    curves = class_curves(np.concatenate([emb, emb[:50, ::-1]]), [*labels, *[3] * 50], bins=200)
    found = evaluate(curves, threshold_far=0.004, far=(0.004, 0.1), draws=0)
    assert found.threshold_spread is not None
    assert found.threshold_spread.never_met == 2
    assert "2 classes have a FAR above 0.004 at every threshold." in found.notes()


def test_json_holds_every_number_and_the_classes_once() -> None:
    curves = small_curves()
    found = evaluate(curves, draws=50)
    content = json.loads(json.dumps(found.as_dict(curves), allow_nan=False))
    spread = found.threshold_spread
    assert spread is not None
    for field in dataclasses.fields(spread):
        value = getattr(spread, field.name)
        if field.name == "classes":
            assert "classes" not in content["threshold_spread"]
        elif field.name == "thresholds":
            assert content["threshold_spread"]["thresholds"] == value.tolist()
        else:
            wanted = list(value) if isinstance(value, tuple) else value
            assert content["threshold_spread"][field.name] == wanted
    assert content["threshold_far"] == 0.01


def test_where_too_few_classes_have_a_threshold_the_rest_is_told_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    emb, labels = _one_class_alone()
    np.savez(tmp_path / "emb.npz", embeddings=emb, labels=labels)
    files = [tmp_path / name for name in ("out.json", "out.html")]
    outputs = [*("--json", files[0]), *("--report", files[1])]
    assert cli.main([str(x) for x in ("evaluate", tmp_path / "emb.npz", *outputs)]) == 0
    printed = capsys.readouterr().out
    assert "fewer than two classes have a threshold of their own at FAR 0.01" in printed
    assert "Own thresholds" not in printed
    assert json.loads(files[0].read_text())["threshold_spread"] is None
    assert "fewer than two classes have a threshold of their own" in files[1].read_text(encoding="utf-8")


def test_what_is_nan_is_said_and_not_shown() -> None:
    found = evaluate(small_curves(), draws=20)
    assert found.threshold_spread is not None
    nothing = dataclasses.replace(
        found.threshold_spread,
        **dict.fromkeys(("relative", "decades", "threshold"), math.nan),
        **dict.fromkeys(("relative_interval", "decades_interval")),
    )
    lines = _lines(dataclasses.replace(found, threshold_spread=nothing))
    assert lines[TITLES[0]] == ("none", "same-class pairs are no more similar than other-class pairs")
    assert lines[TITLES[2]][0] == "none"


# The picture


def _texts(figure: plots.Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


@pytest.mark.parametrize("target", [{"far": 0.05}, {"frr": 0.2}, {}], ids=str)
def test_the_picture_holds_every_class_and_names_the_extremes(target: dict[str, float]) -> None:
    curves = small_curves()
    spread = threshold_spread(curves, **target, draws=0)
    figure = plots.plot_own_thresholds(curves, **target)
    top, strip = figure.axes
    own = spread.thresholds[~np.isnan(spread.thresholds)]
    values, edges, _ = top.patches[0].get_data()
    assert values.sum() == len(own)
    np.testing.assert_array_equal(values, np.histogram(own, edges)[0])
    (rug,) = strip.collections
    assert sorted(segment[0, 0] for segment in rug.get_segments()) == pytest.approx(sorted(own))
    texts = _texts(figure)
    assert f"one threshold for all, {spread.threshold:.4g}" in texts
    assert f"mean {spread.mean:.3g} ± standard deviation {spread.deviation:.3g}" in texts
    for which, c in (
        ("lowest", np.nanargmin(spread.thresholds)),
        ("highest", np.nanargmax(spread.thresholds)),
    ):
        named = [text for text in texts if text.startswith(f"{which}, ")]
        assert len(named) == 3
        assert named[0].startswith(f"{which}, {spread.thresholds[c]:.4g}: ")
    left_out = len(curves.classes) - len(own)
    assert (f"; {left_out} without one left out" in top.get_title(loc="left")) == (left_out > 0)


def test_the_picture_of_many_classes_has_few_bars_and_loses_none() -> None:
    generator = np.random.default_rng(0)
    negatives = generator.multinomial(500, np.full(1002, 1 / 1002), size=700)
    negatives[:, 500:] //= generator.integers(1, 30, (700, 1))
    curves = ClassCurves(np.arange(700), negatives, negatives, np.stack([negatives.sum(axis=0)] * 2))
    figure = plots.plot_own_thresholds(curves, 0.2)
    values, edges, _ = figure.axes[0].patches[0].get_data()
    assert 20 < len(values) <= 51
    assert values.sum() == 700
    assert np.ptp(np.diff(edges)) < 1e-12


def test_the_picture_marks_the_threshold_that_was_chosen() -> None:
    texts = _texts(plots.plot_own_thresholds(small_curves(), 0.05, threshold=0.33))
    assert [text for text in texts if "one threshold" in text] == ["one threshold for all, 0.33"]


def test_equal_thresholds_have_no_extremes_to_name() -> None:
    emb = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    curves = class_curves(emb, np.arange(8) % 4, bins=1)
    assert not any(
        text.startswith(("lowest", "highest")) for text in _texts(plots.plot_own_thresholds(curves))
    )


def test_the_picture_refuses_what_the_number_refuses() -> None:
    with pytest.raises(ValueError, match=r"^far: got 2"):
        plots.plot_own_thresholds(small_curves(), 2)
    with pytest.raises(ValueError, match=r"^far, frr: got"):
        plots.plot_own_thresholds(small_curves(), 0.1, frr=0.1)
