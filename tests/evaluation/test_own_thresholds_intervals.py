"""Intervals of threshold spread against draws written out, equal bits in every order, memory."""

from __future__ import annotations

import dataclasses
import itertools
import tracemalloc

import numpy as np
import pytest
from brute_force import deviation
from evaluation_layouts import Layout, four_classes, layouts, signs
from hypothesis import given, settings
from hypothesis import strategies as st
from report_pages import many_curves
from small_curves import by_hand

from tcm_kernels.evaluation import ClassCurves, ThresholdSpread, TooFewPairsError, threshold_spread
from tcm_kernels.evaluation import blocks as parts

NUMBERS = ("mean", "deviation", "interquartile_range", "relative", "separation", "threshold", "decades")
INTERVALS = ("deviation_interval", "relative_interval", "decades_interval")
COUNTS = ("classes_used", "never_met", "classes_without", "classes_short")


def _assert_same_bits(one: ThresholdSpread, other: ThresholdSpread) -> None:
    for name in (*NUMBERS, *INTERVALS, *COUNTS):
        np.testing.assert_array_equal(getattr(one, name) or 0, getattr(other, name) or 0, err_msg=name)
    np.testing.assert_array_equal(np.sort(one.thresholds), np.sort(other.thresholds))


@given(layout=layouts(fewest_classes=3), seed=st.integers(0, 2**16))
@settings(max_examples=30)
def test_permuted_and_renamed_classes_change_no_bit(layout: Layout, seed: int) -> None:
    """Classes of equal counts among them, and some with equal thresholds and different rates."""
    curves = layout.curves
    rows = np.array([*range(len(curves.classes)), 0, 0, 1])
    order = np.random.default_rng(seed).permutation(rows)
    both = [
        dataclasses.replace(
            curves, classes=names, positives=curves.positives[taken], negatives=curves.negatives[taken]
        )
        for taken, names in (
            (rows, np.arange(len(rows))),
            (order, np.array([f"c {i:02}" for i in range(len(rows))])),
        )
    ]
    for target in ({"far": 0.2}, {"frr": 0.3}):
        try:
            mine = threshold_spread(both[0], **target, draws=50)
        except TooFewPairsError:
            continue
        _assert_same_bits(mine, threshold_spread(both[1], **target, draws=50))


def _varied() -> ClassCurves:
    flips = [0.02, 0.1, 0.2, 0.3, 0.4] * 4
    return Layout(*signs(np.random.default_rng(0), [6] * 20, flips), 40, (-1.0, 1.0)).curves


@pytest.mark.parametrize("target", [{"far": 0.05}, {"frr": 0.2}], ids=str)
def test_the_interval_is_that_of_draws_evaluated_one_by_one(target: dict[str, float]) -> None:
    curves = _varied()
    table = curves.negatives if "far" in target else curves.positives
    found = threshold_spread(curves, **target, draws=60, seed=3)
    edge = curves.edge(found.threshold)
    errors = (table[:, edge + 1 :] if "far" in target else table[:, : edge + 1]).sum(axis=1)
    logarithms = np.log10((errors + 0.5) / (table.sum(axis=1) + 1))
    order = sorted(range(20), key=lambda c: (found.thresholds[c], logarithms[c]))
    drawn = np.random.default_rng(3).integers(0, 20, size=(60, 20))
    own, log = (
        [deviation([x[order[i]] for i in row]) for row in drawn] for x in (found.thresholds, logarithms)
    )
    for name, values in zip(INTERVALS, (own, np.array(own) / found.separation, log), strict=True):
        wanted = np.quantile(values, [0.025, 0.975])
        np.testing.assert_allclose(getattr(found, name), wanted, rtol=1e-12, err_msg=name)
        assert wanted[0] < wanted[1]


@pytest.mark.parametrize("confidence", [0.95, 0.6])
def test_the_interval_is_that_of_all_resamples_of_the_classes(confidence: float) -> None:
    """4,000 draws hit a percentile of all 4^4 resamples to within 0.03 (four standard deviations)."""
    curves = four_classes().curves
    found = threshold_spread(curves, far=0.2, draws=4000, confidence=confidence)
    all_of_them = [deviation(list(drawn)) for drawn in itertools.product(found.thresholds, repeat=4)]
    ends = ((1 - confidence) / 2, (1 + confidence) / 2)
    for end, share in zip(found.deviation_interval or (), ends, strict=True):
        near = [max(share - 0.03, 0.0), min(share + 0.03, 1.0)]
        below, above = np.quantile(all_of_them, near, method="inverted_cdf")
        assert below - 1e-12 <= end <= above + 1e-12
    assert found.confidence == confidence


def test_classes_that_never_meet_the_target_are_drawn_for_the_decades_only() -> None:
    got = threshold_spread(by_hand(), far=0.25, draws=2000)
    assert got.deviation_interval == (0.0, 0.125)  # of a and b, as often as each is drawn beside c
    assert got.decades_interval is not None
    assert got.decades_interval[0] == 0.0  # where one class is drawn three times
    assert got.decades_interval[1] >= got.decades


def test_the_interval_follows_the_seed_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    curves = _varied()
    one = threshold_spread(curves, far=0.05, draws=300, seed=3)
    other = threshold_spread(curves, far=0.05, draws=300, seed=4)
    assert [getattr(other, name) for name in INTERVALS] != [getattr(one, name) for name in INTERVALS]
    assert other.deviation == one.deviation
    for entries in (5 * 20, 1):  # in more parts, and a draw at a time
        monkeypatch.setattr(parts, "ENTRIES", entries)
        _assert_same_bits(one, threshold_spread(curves, far=0.05, draws=300, seed=3))


def test_alike_classes_are_perfectly_consistent_to_the_last_bit() -> None:
    row = np.array([0, 7, 5, 3, 1, 0, 0, 0, 0, 0, 0, 0])
    table = np.tile(row, (49, 1))
    curves = ClassCurves(np.arange(49), table[:, ::-1].copy(), table, np.stack([row[::-1], row]), 0.1, 0.8)
    got = threshold_spread(curves, far=0.3, draws=50)
    assert (got.deviation, got.relative, got.decades, got.interquartile_range) == (0.0, 0.0, 0.0, 0.0)
    assert all(getattr(got, name) == (0.0, 0.0) for name in INTERVALS)


def test_the_settings_that_nobody_gives_are_those_of_the_definition() -> None:
    curves = _varied()
    said = threshold_spread(curves, far=1e-2, frr=None, draws=1000, confidence=0.95, seed=0)
    _assert_same_bits(threshold_spread(curves), said)
    assert threshold_spread(curves).rate == 0.01


def test_11_000_classes_take_little_memory_beside_their_counts() -> None:
    curves = many_curves(11_000)
    tracemalloc.start()
    try:
        got = threshold_spread(curves, draws=300)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20  # the counts are 350 MiB
    finally:
        tracemalloc.stop()
    assert got.classes_used == 11_000
