"""Threshold spread against loops over explicit pairs, by hand, and what it refuses."""

from __future__ import annotations

import dataclasses
import math
import types
from typing import Any

import numpy as np
import pytest
import torch
from brute_force import Truth, deviation
from evaluation_layouts import Layout, assert_close, four_classes, layouts, signs
from hypothesis import given, settings
from hypothesis import strategies as st
from small_curves import by_hand

import tcm_kernels.evaluation
from tcm_kernels.evaluation import (
    ClassCurves,
    TooFewPairsError,
    choose_threshold,
    class_curves,
    threshold_spread,
)

NUMBERS = ("mean", "deviation", "interquartile_range", "relative", "separation", "threshold", "decades")
INTERVALS = ("deviation_interval", "relative_interval", "decades_interval")
COUNTS = ("classes_used", "never_met", "classes_without", "classes_short")


def _edge(truth: Truth, target: str, rate: float, c: Any = None) -> int | None:
    return truth.first_edge_with_far(rate, c) if target == "far" else truth.last_edge_with_frr(rate, c)


def _errors(truth: Truth, target: str, k: int, c: Any) -> tuple[int, int]:
    """How many pairs of a class are errors at edge k, and how many there are."""
    accepted, pairs = truth.accepted(target == "frr", k, c)
    return (accepted if target == "far" else pairs - accepted), pairs


def _quantile(values: list[float], share: float) -> float:
    """On the straight line through the sorted values."""
    place = share * (len(values) - 1)
    low, part = int(place), place - int(place)
    values = sorted(values)
    return values[low] + (part * (values[low + 1] - values[low]) if part else 0.0)


def _by_definition(truth: Truth, target: str, rate: float) -> dict[str, Any]:
    """What `ThresholdSpread` must hold, from every pair on its own."""
    width = (truth.hi - truth.lo) / truth.bins
    pairs = {c: truth.accepted(target == "frr", 0, c)[1] for c in truth.classes}
    edges = {c: _edge(truth, target, rate, c) for c in truth.classes}
    own = [truth.lo + k * width for k in edges.values() if k is not None]
    same, other = (truth.values()[truth.same == sign] for sign in (True, False))
    separation = same.mean() - other.mean() if len(same) and len(other) else math.nan
    one = _edge(truth, target, rate)
    decades = math.nan
    if one is not None:
        known = [_errors(truth, target, one, c) for c in truth.classes if pairs[c]]
        decades = deviation([math.log10((errors + 0.5) / (total + 1)) for errors, total in known])
    return {
        "thresholds": [math.nan if k is None else truth.lo + k * width for k in edges.values()],
        "mean": sum(own) / len(own),
        "deviation": deviation(own),
        "interquartile_range": _quantile(own, 0.75) - _quantile(own, 0.25),
        "relative": deviation(own) / separation if separation > 0 else math.nan,
        "separation": separation,
        "threshold": math.nan if one is None else truth.lo + one * width,
        "decades": decades,
        "classes_used": len(own),
        "never_met": sum(edges[c] is None and pairs[c] > 0 for c in truth.classes),
        "classes_without": sum(pairs[c] == 0 for c in truth.classes),
    }


@given(
    layout=layouts(),
    target=st.sampled_from(["far", "frr"]),
    rate=st.sampled_from([0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.7]),
)
def test_every_number_is_that_of_explicit_pairs(layout: Layout, target: str, rate: float) -> None:
    curves, truth = layout.curves, layout.truth
    if sum(_edge(truth, target, rate, c) is not None for c in truth.classes) < 2:
        with pytest.raises(TooFewPairsError, match=r"^curves: got [01] of"):
            threshold_spread(curves, **{target: rate}, draws=10)
        return
    got = threshold_spread(curves, **{target: rate}, draws=10)
    wanted = _by_definition(truth, target, rate)
    np.testing.assert_array_equal(got.classes, curves.classes)
    known = ~np.isnan(got.thresholds)
    assert set(got.thresholds[known]) <= set(curves.thresholds)
    assert_close(got.thresholds, wanted["thresholds"])
    for name in NUMBERS:
        # Where the difference of the means is rounding alone, its sign is as well.
        if name != "relative" or not abs(wanted["separation"]) < 1e-9:
            np.testing.assert_allclose(getattr(got, name), wanted[name], rtol=1e-11, atol=1e-12, err_msg=name)
    for name in COUNTS[:3]:
        assert getattr(got, name) == wanted[name], name
    assert (got.target, got.rate, got.confidence) == (target, rate, 0.95)


def test_the_error_rates_met_are_those_that_the_threshold_for_the_worst_class_meets() -> None:
    curves = four_classes().curves
    for target in ({"far": 0.2}, {"frr": 0.3}):
        own = threshold_spread(curves, **target, draws=0).thresholds
        worst = choose_threshold(curves, **target, over="worst", draws=0).threshold
        assert worst == (own.max() if "far" in target else own.min())
        assert len(set(own)) > 1


def test_an_example_by_hand() -> None:
    """c never meets 1/4, d has no other-class pair; over all pairs 15 of 95 are accepted at 0.25."""
    got = threshold_spread(by_hand(), far=0.25, draws=0)
    np.testing.assert_array_equal(got.thresholds, [0.25, 0.5, np.nan, np.nan])
    assert (got.mean, got.deviation, got.interquartile_range) == (0.375, 0.125, 0.125)
    assert got.threshold == 0.25
    same, other = (12 * 0.875 + 4 * 0.625) / 16, (80 * 0.125 + 5 * 0.375 + 10 * 1.0) / 95
    assert got.separation == pytest.approx(same - other, abs=1e-15)
    assert got.relative == pytest.approx(0.125 / (same - other), abs=1e-15)
    logarithms = [math.log10(errors + 0.5) for errors in (0, 5, 10)]  # over 11, each of them
    assert got.decades == pytest.approx(deviation(logarithms), abs=1e-15)
    assert tuple(getattr(got, name) for name in COUNTS) == (2, 1, 1, 0)
    assert all(getattr(got, name) is None for name in INTERVALS)
    assert threshold_spread(by_hand(), far=0.09, draws=0).classes_short == 3  # with ten pairs: 1 / 0.09 > 11


def test_a_rate_that_is_exactly_the_target_meets_it() -> None:
    """5 of 10 are at least 0.25: at 1/2 that edge is b's own, at anything less the next one is."""
    assert threshold_spread(by_hand(), far=0.5, draws=0).thresholds[:2].tolist() == [0.25, 0.25]
    assert threshold_spread(by_hand(), far=0.4999, draws=0).thresholds[:2].tolist() == [0.25, 0.5]
    turned = dataclasses.replace(by_hand(), positives=by_hand().negatives[:, ::-1].copy())
    assert threshold_spread(turned, frr=0.5, draws=0).thresholds[:2].tolist() == [0.75, 0.75]
    assert threshold_spread(turned, frr=0.4999, draws=0).thresholds[:2].tolist() == [0.75, 0.5]


def test_where_all_pairs_together_never_meet_the_target_there_are_no_decades() -> None:
    curves = by_hand()
    curves.pooled[1] = [0, 10, 5, 0, 0, 10]
    got = threshold_spread(curves, far=0.25)
    assert math.isnan(got.threshold)
    assert math.isnan(got.decades)
    assert got.decades_interval is None
    assert got.deviation == 0.125
    assert got.deviation_interval == (0.0, 0.125)


@pytest.mark.parametrize("same", [[0] * 6, [0, 0, 1, 0, 0, 0]], ids=["no pairs", "not more similar"])
def test_without_a_positive_separation_nothing_is_relative_to_it(same: list[int]) -> None:
    curves = by_hand()
    curves.pooled[1] = [0, 0, 60, 0, 5, 0]
    curves.pooled[0] = same
    got = threshold_spread(curves, far=0.25)
    assert math.isnan(got.relative)
    assert got.relative_interval is None
    assert got.deviation == 0.125


@given(layout=layouts(relations=("self", "rectangular")), factor=st.sampled_from([0.25, 0.5, 3.0]))
@settings(max_examples=20)
def test_relative_and_decades_do_not_depend_on_the_scale(layout: Layout, factor: float) -> None:
    curves = layout.curves
    other = dataclasses.replace(curves, lo=factor * curves.lo + 0.1, hi=factor * curves.hi + 0.1)
    try:
        mine, theirs = (threshold_spread(x, far=0.3, draws=20) for x in (curves, other))
    except TooFewPairsError:
        return
    for name in ("relative", "decades"):
        if abs(mine.separation) > 1e-9:
            np.testing.assert_allclose(getattr(theirs, name), getattr(mine, name), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(theirs.deviation, factor * mine.deviation, rtol=1e-12)


def test_few_pairs_are_distinct_ones() -> None:
    """Of ten rows in two classes each has 25 distinct other-class pairs, counted twice."""
    emb, labels = signs(np.random.default_rng(0), [5, 5], [0.1, 0.3])
    curves = class_curves(emb, labels, bins=20)
    assert threshold_spread(curves, far=1 / 25, draws=0).classes_short == 0
    assert threshold_spread(curves, far=1 / 26, draws=0).classes_short == 2
    both = dataclasses.replace(curves, symmetric=False)
    assert threshold_spread(both, far=1 / 50, draws=0).classes_short == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"far": 0.0}, r"^far: got 0.0, expected a number in \(0, 1\)"),
        ({"far": math.nan}, "^far: got nan"),
        ({"frr": 1.0}, "^frr: got 1.0"),
        ({"frr": "low"}, "^frr: got 'low'"),
        ({"far": 0.1, "frr": 0.1}, "^far, frr: got far=0.1, frr=0.1, expected one of them at most"),
        ({"draws": -1}, "^draws: got -1"),
        ({"confidence": 1.0}, "^confidence: got 1.0"),
    ],
)
def test_errors_name_the_argument(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as told:
        threshold_spread(four_classes().curves, **arguments)
    assert not isinstance(told.value, TooFewPairsError)


@pytest.mark.parametrize(
    ("curves", "arguments", "message"),
    [
        (
            class_curves(torch.eye(4), [0, 0, 0, 0], bins=4),
            {},
            "got 0 of 1 classes .* 1 have no other-class pair, 0",
        ),
        (
            class_curves(torch.eye(4), [0, 0, 0, 0], bins=4),
            {"frr": 0.5},
            "got 1 of 1 classes .* false-reject",
        ),
        (
            class_curves(torch.eye(4), [0, 1, 2, 3], bins=4),
            {"frr": 0.5},
            "got 0 of 4 .* 4 have no same-class pair",
        ),
        (class_curves(torch.eye(0), [], bins=4), {}, "got 0 of 0 classes"),
        (
            class_curves(torch.ones(4, 1), [0, 0, 1, 1], bins=4),
            {"far": 0.2},
            "2 are above that rate at every edge from -1 to 1, which takes a larger far or .* end of `range`",
        ),
        (
            dataclasses.replace(by_hand(), grouped=True, negatives=by_hand().negatives[[0, 2, 2, 3]]),
            {"far": 0.04},
            "got 1 of 4 groups with .* rate of 0.04, expected at least two: 1 have no .* pair, 2 are above",
        ),
    ],
)
def test_fewer_than_two_thresholds_are_refused_and_why_is_said(
    curves: ClassCurves, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(TooFewPairsError, match=rf"^curves: .*{message}"):
        threshold_spread(curves, **arguments)


def test_the_function_hides_no_module() -> None:
    assert callable(tcm_kernels.evaluation.threshold_spread)
    assert isinstance(tcm_kernels.evaluation.own_thresholds, types.ModuleType)
