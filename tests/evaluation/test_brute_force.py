"""Rates and what whole curves tell, against the same from explicit pairs, on layouts from hypothesis."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import numpy as np
import pytest
import torch
from brute_force import gap, gini, ratio
from evaluation_layouts import Layout, assert_close, both_kinds, four_classes, layouts, signs
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tcm_kernels.evaluation import ClassCurves, class_curves, rates, roc, spread

WIDE = layouts(ranges=((-1.0, 1.0),))  # every similarity on one side of the range or within
OVER = ("pooled", "worst")


@given(layout=layouts())
def test_sensitivity_and_specificity(layout: Layout) -> None:
    curves, truth = layout.curves, layout.truth
    classes, edges = truth.classes, truth.edges
    assert_close(curves.sensitivity, [[truth.true_accept(k, c) for k in edges] for c in classes])
    assert_close(curves.specificity, [[truth.true_reject(k, c) for k in edges] for c in classes])
    assert_close(curves.pooled_sensitivity, [truth.true_accept(k) for k in edges])
    assert_close(curves.pooled_specificity, [truth.true_reject(k) for k in edges])
    assert_close(curves.false_accept_rate, [truth.false_accept(k) for k in edges])
    assert_close(curves.false_reject_rate, [truth.false_reject(k) for k in edges])
    assert curves.classes[curves.usable].tolist() == truth.usable()


@given(layout=layouts(), where=st.floats(0.0, 1.0))
def test_error_rates_at_a_threshold(layout: Layout, where: float) -> None:
    curves, truth = layout.curves, layout.truth
    assume(both_kinds(truth))
    threshold = layout.range[0] + where * (layout.range[1] - layout.range[0])
    got = rates.error_rates(curves, threshold)
    k = int(np.abs(curves.thresholds - threshold).argmin())
    assert got.threshold == curves.thresholds[k]
    assert got.classes.tolist() == truth.classes.tolist()
    accepts = [truth.false_accept(k, c) for c in truth.classes]
    rejects = [truth.false_reject(k, c) for c in truth.classes]
    assert_close(got.false_accept, accepts)
    assert_close(got.false_reject, rejects)
    assert_close(got.pooled_false_accept, truth.false_accept(k))
    assert_close(got.pooled_false_reject, truth.false_reject(k))
    assert_close(got.false_accept_gap, gap(accepts))
    for name, measure in (("gap", gap), ("ratio", ratio), ("gini", gini)):
        assert_close(getattr(got, f"false_accept_{name}"), measure(accepts))
        assert_close(getattr(got, f"false_reject_{name}"), measure(rejects))


@given(layout=layouts(), count=st.integers(0, 8), by=st.sampled_from(["false_reject", "false_accept"]))
def test_the_worst_classes(layout: Layout, count: int, by: Literal["false_reject", "false_accept"]) -> None:
    curves, truth = layout.curves, layout.truth
    k = curves.bins * 3 // 4
    rate = truth.false_reject if by == "false_reject" else truth.false_accept
    known = [(-rate(k, c), i) for i, c in enumerate(truth.classes) if not math.isnan(rate(k, c))]
    wanted = [i for _, i in sorted(known)][:count]
    got = rates.error_rates(curves, float(curves.thresholds[k])).worst(count, by)
    assert got.tolist() == wanted


def test_rates_that_are_unequal_by_hand() -> None:
    """Class 0 rejects no pair, class 1 two of six, class 2 all: 0, 1/3 and 1. A fourth has no pair."""
    table = np.array([[0, 0, 6, 0], [0, 2, 4, 0], [0, 6, 0, 0], [0, 0, 0, 0]])
    curves = ClassCurves(np.arange(4), table, np.roll(table, 1, axis=0), np.stack([table.sum(0)] * 2))
    got = rates.error_rates(curves, 0.0)
    assert_close(got.false_reject, [0, 1 / 3, 1, math.nan])
    assert_close(got.false_accept, [math.nan, 1, 2 / 3, 0])
    assert got.worst(2).tolist() == [2, 1]
    assert (got.false_reject_gap, got.false_reject_ratio) == (1.0, math.inf)
    assert_close(got.false_reject_gini, (2 / 3 + 4 / 3 + 2) / 6 / (2 * 4 / 9))


@given(layout=layouts(), far=st.sampled_from([0.001, 0.01, 0.05, 0.1, 0.3, 0.7]))
def test_true_accepts_at_a_false_accept_rate(layout: Layout, far: float) -> None:
    curves, truth = layout.curves, layout.truth
    assume(both_kinds(truth))
    k = truth.first_edge_with_far(far)
    if k is None:
        with pytest.raises(ValueError, match="far"):
            roc.tar_at_far(curves, far)
        return
    got = roc.tar_at_far(curves, far)
    assert got.threshold == curves.thresholds[k]
    assert got.tar == truth.true_accept(k)
    assert got.far == far


def test_a_false_accept_rate_that_is_exactly_reached_is_reached() -> None:
    """Of ten other-class pairs some are at least 0, and at least hi, where no further edge is."""
    for accepted in range(1, 10):
        for table, threshold in (
            ([0, 10 - accepted, accepted, 0], 0.0),
            ([0, 0, 10 - accepted, accepted], 1.0),
        ):
            counts = np.array([table] * 2)
            curves = ClassCurves(np.arange(2), counts, counts, np.stack([counts.sum(0)] * 2))
            got = roc.tar_at_far(curves, accepted / 10)
            assert (got.threshold, got.tar) == (threshold, accepted / 10)


@given(layout=WIDE, far=st.sampled_from([0.01, 0.1, 0.3]))
@settings(max_examples=30)
def test_true_accepts_at_a_false_accept_rate_as_scikit_learn_has_them(layout: Layout, far: float) -> None:
    """Of the thresholds that scikit-learn tries, the lowest that keeps the rate accepts as many."""
    metrics = pytest.importorskip("sklearn.metrics")
    truth = layout.truth
    assume(both_kinds(truth) and truth.first_edge_with_far(far) is not None)
    false, true, _ = metrics.roc_curve(truth.same, truth.column, drop_intermediate=False)
    assert_close(roc.tar_at_far(layout.curves, far).tar, true[false <= far].max())


@given(layout=layouts())
def test_equal_error_rate(layout: Layout) -> None:
    curves, truth = layout.curves, layout.truth
    assume(both_kinds(truth))
    got = roc.equal_error_rate(curves)
    assert_close((got.rate, got.threshold), truth.equal_error())


def test_of_equal_error_rates_at_several_edges_the_lowest_is_taken() -> None:
    """Both rates are one fifth at 0.25 and at 0.5, though 1 - 0.8 is less than 0.2 in float64."""
    positives, negatives = np.array([[0, 1, 0, 4, 0]] * 2), np.array([[0, 4, 0, 1, 0]] * 2)
    pooled = np.stack([positives.sum(0), negatives.sum(0)])
    got = roc.equal_error_rate(ClassCurves(np.arange(2), positives, negatives, pooled, 0.0, 0.75))
    assert_close((got.rate, got.threshold), (0.2, 0.25))


@given(layout=layouts())
def test_area_under_the_curve(layout: Layout) -> None:
    truth = layout.truth
    assume(both_kinds(truth))
    assert_close(roc.roc_auc(layout.curves), truth.area())


@given(layout=layouts())
@settings(max_examples=30)
def test_area_under_the_curve_as_scikit_learn_has_it(layout: Layout) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    truth = layout.truth
    assume(both_kinds(truth))
    assert_close(roc.roc_auc(layout.curves), metrics.roc_auc_score(truth.same, truth.column))


@given(layout=layouts())
def test_spread_of_similarities(layout: Layout) -> None:
    truth = layout.truth
    assume(both_kinds(truth))
    got = spread.similarity_spread(layout.curves)
    assert_close(got.intra, [truth.mean_similarity(True, c) for c in truth.classes])
    assert_close(got.inter, [truth.mean_similarity(False, c) for c in truth.classes])
    for kind in ("intra", "inter"):
        known = [x for x in getattr(got, kind) if not math.isnan(x)]
        assert_close(getattr(got, f"{kind}_mean"), np.mean(known))
        assert_close(getattr(got, f"{kind}_deviation"), np.std(known))


def test_the_difference_in_spread_is_what_the_second_data_set_has_more() -> None:
    one, other = (
        four_classes().curves,
        Layout(*signs(np.random.default_rng(1), [4] * 6, [0.3] * 6), 16, (-1, 1)).curves,
    )
    got, a, b = (
        spread.spread_difference(one, other),
        spread.similarity_spread(one),
        spread.similarity_spread(other),
    )
    for field in dataclasses.fields(got):
        assert getattr(got, field.name) == getattr(b, field.name) - getattr(a, field.name)
        assert getattr(got, field.name) != 0.0


@pytest.mark.parametrize("far", [0.0, 1.0, -0.1, 1.5, math.nan])
def test_a_false_accept_rate_outside_0_and_1_is_refused(far: float) -> None:
    with pytest.raises(ValueError, match=r"^far: got"):
        roc.tar_at_far(four_classes().curves, far)


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 1, 2, 3]], ids=["one_class", "all_singletons"])
def test_without_pairs_of_both_kinds_there_is_nothing_to_tell(labels: list[int]) -> None:
    curves = class_curves(torch.eye(4), labels, bins=4)
    for call in (
        lambda: roc.tar_at_far(curves, 0.1),
        lambda: roc.equal_error_rate(curves),
        lambda: roc.roc_auc(curves),
    ):
        with pytest.raises(ValueError, match=r"pair|class"):
            call()
