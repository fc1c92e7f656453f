"""The choice of a threshold against the same choice from explicit pairs, on layouts from hypothesis."""

from __future__ import annotations

import itertools
import math
from typing import Any, Literal

import numpy as np
import pytest
import torch
from brute_force import Truth
from evaluation_layouts import Layout, assert_close, both_kinds, four_classes, layouts, signs
from hypothesis import assume, given
from hypothesis import strategies as st

from tcm_kernels.evaluation import ClassCurves, class_curves, thresholds

WIDE = layouts(ranges=((-1.0, 1.0),))  # every similarity on one side of the range or within
OVER = ("pooled", "worst")


def _edge_by_definition(truth: Truth, far: float | None, frr: float | None, over: str) -> int | None:
    """The lowest edge that keeps a false-accept rate, or the highest that keeps a false-reject rate."""

    def rate(k: int) -> float:
        of = truth.false_reject if far is None else truth.false_accept
        if over == "pooled":
            return of(k)
        return max(x for x in (of(k, c) for c in truth.classes) if not math.isnan(x))

    if far is not None:
        return next((k for k in truth.edges if rate(k) <= far), None)
    return next((k for k in reversed(truth.edges) if rate(k) <= frr), None)


RATES = st.sampled_from([0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.7])


@given(layout=layouts(), target=st.sampled_from(["far", "frr"]), rate=RATES, over=st.sampled_from(OVER))
def test_the_threshold_for_a_rate(layout: Layout, target: str, rate: float, over: str) -> None:
    curves, truth = layout.curves, layout.truth
    assume(both_kinds(truth))
    arguments = {target: rate}
    k = _edge_by_definition(truth, arguments.get("far"), arguments.get("frr"), over)
    if k is None:
        with pytest.raises(ValueError, match=target):
            thresholds.choose_threshold(curves, **arguments, over=over, draws=10)
        return
    got = thresholds.choose_threshold(curves, **arguments, over=over, draws=10)
    assert got.threshold == curves.thresholds[k]
    assert_close(got.false_accept_rate, truth.false_accept(k))
    assert_close(got.false_reject_rate, truth.false_reject(k))
    if len(truth.classes) == 1:
        assert got.interval is None
    else:
        assert got.interval is not None
        assert curves.lo <= got.interval[0] <= got.interval[1] <= curves.hi


@given(layout=layouts(), best=st.sampled_from(["f1", "balanced_accuracy"]))
def test_the_threshold_of_the_best_score(layout: Layout, best: str) -> None:
    curves, truth = layout.curves, layout.truth
    assume(both_kinds(truth))
    score = truth.f1 if best == "f1" else truth.balanced_accuracy
    got = thresholds.choose_threshold(curves, best=best, draws=10)
    k = curves.edge(got.threshold)
    assert got.threshold == curves.thresholds[k]
    assert_close(score(k), max(score(k) for k in truth.edges))
    assert_close(got.false_accept_rate, truth.false_accept(k))
    assert_close(got.false_reject_rate, truth.false_reject(k))
    assert all(score(below) < score(k) - 1e-15 for below in range(k))  # of equally good ones the lowest


def test_a_rate_that_is_exactly_the_target_meets_it() -> None:
    """Three pairs of ten are below 0: that is 0.3, though 1 - 0.7 is more in float64."""
    for below in range(1, 10):
        table = np.array([[0, below, 10 - below, 0]] * 2)
        others = table[:, ::-1].copy()
        pooled = np.stack([table.sum(axis=0), others.sum(axis=0) // 2])
        curves = ClassCurves(np.arange(2), table, others, pooled)
        got = thresholds.choose_threshold(curves, frr=below / 10, draws=0)
        assert (got.threshold, got.false_reject_rate) == (0.0, pytest.approx(below / 10, abs=1e-12))
        assert thresholds.choose_threshold(curves, far=below / 10, draws=0).threshold == 0.0


@pytest.mark.parametrize("over", OVER)
def test_a_target_that_the_data_cannot_support_is_said_to_be_one(over: Literal["pooled", "worst"]) -> None:
    """Sixty rows, ten a class: 60 · 50 / 2 distinct other-class pairs, 10 · 50 of them of one class."""
    emb, labels = signs(np.random.default_rng(0), [10] * 6, [0.02] * 6)
    emb[:, 0] = labels.double() - 2.5  # of no class are all similarities 1
    curves = class_curves(emb, labels, bins=100)
    distinct = 1500 if over == "pooled" else 500
    for pairs, supported in ((distinct * 0.9, True), (distinct * 1.1, False)):
        got = thresholds.choose_threshold(curves, far=1 / pairs, over=over, draws=5)
        assert got.supported == supported
        assert supported or f"{distinct:,}" in got.statement or str(distinct) in got.statement
    distinct = 270 if over == "pooled" else 45
    for pairs, supported in ((distinct * 0.9, True), (distinct * 1.1, False)):
        got = thresholds.choose_threshold(curves, frr=1 / pairs, over=over, draws=5)
        assert got.supported == supported


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("got far=.*, frr=.*, best", {}),
        ("got far=.*, frr=.*, best", {"far": 0.1, "frr": 0.1}),
        ("got far=.*, frr=.*, best", {"far": 0.1, "best": "f1"}),
        ("best", {"best": "accuracy"}),
        ("over", {"far": 0.1, "over": "mean"}),
        ("over", {"best": "f1", "over": "worst"}),
        ("draws", {"far": 0.1, "draws": -1}),
        ("confidence", {"far": 0.1, "confidence": 1.0}),
    ],
)
def test_errors_of_the_choice_name_the_argument(name: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"^{name}\b"):
        thresholds.choose_threshold(four_classes().curves, **arguments)


def _thresholds_of_resamples(layout: Layout, far: float, draws: int) -> np.ndarray:
    """The threshold for a rate when classes are drawn anew: a pair of classes counts as often as both."""
    truth = layout.truth
    numbers = {c: i for i, c in enumerate(truth.classes)}
    left, right = (np.array([numbers[c] for c in ends[~truth.same]]) for ends in (truth.left, truth.right))
    column = truth.column[~truth.same]
    random = np.random.default_rng(0)
    chosen = []
    for _ in range(draws):
        times = np.bincount(random.integers(0, len(numbers), len(numbers)), minlength=len(numbers))
        counts = np.bincount(column, times[left] * times[right], truth.bins + 2)
        accepted = counts[::-1].cumsum()[::-1][1:] / counts.sum()
        chosen.append(truth.lo + int((accepted <= far).argmax()) * (truth.hi - truth.lo) / truth.bins)
    return np.array(chosen)


def test_the_interval_of_a_threshold_is_as_wide_as_classes_drawn_anew_make_it() -> None:
    """Roughly: curves know pairs by one of their classes and not by both, which loses some of the spread.

    Half as wide it would be if every pair followed one of its classes only.
    """
    random = np.random.default_rng(0)
    centres = random.normal(size=(30, 6))
    emb = torch.from_numpy(np.repeat(centres, 6, axis=0) + 0.3 * random.normal(size=(180, 6)))
    layout = Layout(emb, torch.arange(30).repeat_interleave(6), 400, (-1.0, 1.0))
    got = thresholds.choose_threshold(layout.curves, far=0.1, draws=2000)
    wanted = np.quantile(_thresholds_of_resamples(layout, 0.1, 2000), [0.025, 0.975])
    assert got.interval is not None
    width = wanted[1] - wanted[0]
    assert width > 20 * 2 / 400  # twenty bins
    assert 0.7 * width < got.interval[1] - got.interval[0] < 1.1 * width
    np.testing.assert_allclose(got.interval, wanted, rtol=0, atol=0.2 * width)


def test_the_interval_for_the_worst_class_is_that_of_the_worst_class_drawn() -> None:
    """Of all 4^4 draws of classes, each with the lowest edge that keeps the rate for every class drawn."""
    layout = four_classes()
    truth = layout.truth
    edges = [next(k for k in truth.edges if truth.false_accept(k, c) <= 0.2) for c in truth.classes]
    assert len(set(edges)) > 1
    worst = sorted(max(drawn) for drawn in itertools.product(edges, repeat=len(edges)))
    got = thresholds.choose_threshold(layout.curves, far=0.2, over="worst", draws=4000, confidence=0.6)
    assert got.interval is not None
    for end, share in zip(got.interval, (0.2, 0.8), strict=True):
        below, above = (worst[int((share + by) * len(worst))] for by in (-0.03, 0.03))
        assert layout.curves.thresholds[below] <= end <= layout.curves.thresholds[above]
    assert got.interval[1] == got.threshold


def test_the_best_f1_says_what_share_of_the_pairs_it_holds_for() -> None:
    layout = four_classes()
    share = 100 * layout.truth.same.mean()
    assert f"{share:.3g} %" in thresholds.choose_threshold(layout.curves, best="f1", draws=0).statement
    other = thresholds.choose_threshold(layout.curves, best="balanced_accuracy", draws=0)
    assert f"{share:.3g} %" not in other.statement
    assert other.interval is None


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 1.5, math.nan])
def test_a_target_outside_0_and_1_is_refused(rate: float) -> None:
    for name in ("far", "frr"):
        with pytest.raises(ValueError, match=rf"^{name}: got"):
            thresholds.choose_threshold(four_classes().curves, **{name: rate})


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 1, 2, 3]], ids=["one_class", "all_singletons"])
def test_without_pairs_of_both_kinds_there_is_no_best_threshold(labels: list[int]) -> None:
    for best in ("f1", "balanced_accuracy"):
        with pytest.raises(ValueError, match=r"pair|class"):
            thresholds.choose_threshold(class_curves(torch.eye(4), labels, bins=4), best=best)
