"""OPIS and ε-OPIS against the same numbers from explicit pairs, on layouts from hypothesis."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from brute_force import (
    epsilon_opis,
    opis,
    ranking_is_clear,
    resamples,
    tail,
)
from evaluation_layouts import Layout, assert_close, both_kinds, four_classes, layouts, signs
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tcm_kernels.evaluation import ClassCurves, class_curves, consistency

WIDE = layouts(ranges=((-1.0, 1.0),))  # every similarity on one side of the range or within
SETS = layouts(relations=("self",), ranges=((-1.0, 1.0),), fewest_classes=3, smallest_class=2)


@given(layout=WIDE, far=st.sampled_from([(0.01, 0.1), (0.05, 0.5), (0.02, 0.9), (0.3, 0.4)]))
def test_the_calibration_range_runs_from_one_false_accept_rate_to_the_other(
    layout: Layout, far: tuple[float, float]
) -> None:
    truth = layout.truth
    assume(both_kinds(truth))
    first, last = truth.first_edge_with_far(far[1]), truth.first_edge_with_far(far[0])
    if first is None or last is None or last == first:
        with pytest.raises(ValueError, match=r"far|range"):
            consistency.calibration_range(layout.curves, far=far)
        return
    assert consistency.calibration_range(layout.curves, far=far) == (first, last + 1)
    assert consistency.calibration_range(layout.curves, far=far[::-1]) == (first, last + 1)


@given(layout=WIDE, ends=st.tuples(st.integers(0, 40), st.integers(0, 40)))
def test_a_calibration_range_that_is_given_includes_both_its_ends(
    layout: Layout, ends: tuple[int, int]
) -> None:
    curves = layout.curves
    first, last = min(ends), max(ends)
    assume(last <= curves.bins)
    given_range = (float(curves.thresholds[first]), float(curves.thresholds[last]))
    if first == last:
        with pytest.raises(ValueError, match="range"):
            consistency.calibration_range(curves, range=given_range)
        return
    assert consistency.calibration_range(curves, range=given_range) == (first, last + 1)


def _some_range(curves: ClassCurves) -> tuple[int, int, tuple[float, float]]:
    """Edges in the upper half, where curves differ, as numbers and as thresholds."""
    first, stop = curves.bins // 4, curves.bins + 1
    return first, stop, (float(curves.thresholds[first]), float(curves.thresholds[stop - 1]))


K = st.sampled_from([0.5, 1.0, 2.0])


@given(layout=layouts(), k=K)
def test_utilities(layout: Layout, k: float) -> None:
    curves, truth = layout.curves, layout.truth
    first, stop, _ = _some_range(curves)
    assert_close(consistency.utilities(curves, first, stop, k), truth.utilities(first, stop, k))


@given(layout=layouts(), k=K)
def test_opis(layout: Layout, k: float) -> None:
    curves, truth = layout.curves, layout.truth
    first, stop, ends = _some_range(curves)
    if len(truth.usable()) < 2:
        with pytest.raises(ValueError, match="class"):
            consistency.opis(curves, range=ends, k=k, draws=10)
        return
    got = consistency.opis(curves, range=ends, k=k, draws=10)
    assert_close(got.value, opis(truth.utilities(first, stop, k)))
    assert got.range == ends
    assert got.classes_used == len(truth.usable())
    assert got.classes_left_out == len(truth.classes) - len(truth.usable())


@given(layout=layouts(fewest_classes=3), epsilon=st.sampled_from([1.0, 10.0, 34.0, 50.0]), k=K)
def test_epsilon_opis(layout: Layout, epsilon: float, k: float) -> None:
    curves, truth = layout.curves, layout.truth
    first, stop, ends = _some_range(curves)
    u = truth.utilities(first, stop, k)
    if 2 * tail(len(u), epsilon) > len(u):
        with pytest.raises(ValueError, match=r"epsilon|class"):
            consistency.epsilon_opis(curves, epsilon, range=ends, k=k, draws=10)
        return
    assume(ranking_is_clear(u, epsilon))
    got = consistency.epsilon_opis(curves, epsilon, range=ends, k=k, draws=10)
    assert_close(got.value, epsilon_opis(u, epsilon))
    assert got.range == ends
    assert got.classes_used == len(u)
    assert got.classes_left_out == len(truth.classes) - len(u)


@given(layout=SETS)
@settings(max_examples=30)
def test_opis_takes_its_range_from_the_false_accept_rates(layout: Layout) -> None:
    curves, truth = layout.curves, layout.truth
    far = (0.02, 0.6)
    first, last = truth.first_edge_with_far(far[1]), truth.first_edge_with_far(far[0])
    assume(first is not None and last is not None and first < last)
    assert first is not None
    assert last is not None
    u = truth.utilities(first, last + 1)
    for got, wanted in (
        (consistency.opis(curves, far=far, draws=10), opis(u)),
        (consistency.epsilon_opis(curves, 20.0, far=far, draws=10), epsilon_opis(u, 20.0)),
    ):
        if ranking_is_clear(u, 20.0) or wanted is opis(u):
            assert_close(got.value, wanted)
        assert got.range == (curves.thresholds[first], curves.thresholds[last])


def _of_resamples(u: np.ndarray, measure: Any, *shares: float) -> np.ndarray:
    """Percentiles of a measure over all ways in which the bootstrap can draw the classes."""
    return np.quantile([measure(x) for x in resamples(u)], shares, method="inverted_cdf")


@pytest.mark.parametrize("epsilon", [None, 25.0], ids=["opis", "epsilon_opis"])
@pytest.mark.parametrize("confidence", [0.95, 0.6])
def test_the_interval_is_that_of_all_resamples_of_the_classes(
    epsilon: float | None, confidence: float
) -> None:
    """4,000 draws hit a percentile of all 4^4 resamples to within 0.03 (four standard deviations)."""
    layout = four_classes()
    first, stop, ends = _some_range(layout.curves)
    u = layout.truth.utilities(first, stop)
    if epsilon is None:
        got = consistency.opis(layout.curves, range=ends, draws=4000, confidence=confidence)
        measure: Any = opis
    else:
        got = consistency.epsilon_opis(layout.curves, epsilon, range=ends, draws=4000, confidence=confidence)
        measure = lambda x: epsilon_opis(x, epsilon)  # noqa: E731
    assert got.confidence == confidence
    for end, share in zip(got.interval, ((1 - confidence) / 2, (1 + confidence) / 2), strict=True):
        below, above = _of_resamples(u, measure, max(share - 0.03, 0.0), min(share + 0.03, 1.0))
        assert below - 1e-12 <= end <= above + 1e-12
    assert got.interval[0] < got.interval[1]


def test_the_interval_follows_the_seed_and_nothing_else() -> None:
    curves = Layout(*signs(np.random.default_rng(0), [4] * 20, [0.02, 0.2] * 10), 16, (-1.0, 1.0)).curves
    np.random.seed(1)  # noqa: NPY002
    one = consistency.opis(curves, range=(0.0, 1.0), seed=3)
    np.random.seed(2)  # noqa: NPY002
    assert consistency.opis(curves, range=(0.0, 1.0), seed=3) == one
    other = consistency.opis(curves, range=(0.0, 1.0), seed=4)
    assert other.value == one.value
    assert other.interval != one.interval


@given(layout=SETS, seed=st.integers(0, 2**16), epsilon=st.sampled_from([10.0, 34.0, 50.0]))
@settings(max_examples=30)
def test_neither_order_nor_names_of_classes_change_a_bit(layout: Layout, seed: int, epsilon: float) -> None:
    """Nor do those whose curves are equal, or whose mean utilities are."""
    random = np.random.default_rng(seed)
    order = random.permutation(len(layout.labels))
    names = random.permutation([f"class {i}" for i in range(10)])
    renamed = names[(layout.labels.numpy()[order] + 20) // 10]
    curves = layout.curves
    others = class_curves(layout.emb[torch.from_numpy(order)], renamed, bins=layout.bins)
    _, _, ends = _some_range(curves)
    for measure, arguments in ((consistency.opis, ()), (consistency.epsilon_opis, (epsilon,))):
        if 2 * tail(len(curves.classes), epsilon) > len(curves.classes):
            continue
        mine, theirs = (measure(x, *arguments, range=ends, draws=50) for x in (curves, others))
        assert mine == theirs


@given(layout=SETS, seed=st.integers(0, 2**16))
@settings(max_examples=20)
def test_classes_without_a_pair_change_nothing_but_their_number(layout: Layout, seed: int) -> None:
    """A class of one row adds pairs to the others, so it is added to the table with no pairs at all."""
    curves = layout.curves
    nothing = dataclasses.replace(
        curves,
        classes=np.array([5, 10**6, 10**9]),
        positives=np.zeros((3, curves.bins + 2), np.int64),
        negatives=np.zeros((3, curves.bins + 2), np.int64),
        pooled=np.zeros_like(curves.pooled),
    )
    _, _, ends = _some_range(curves)
    mine = consistency.opis(curves, range=ends, draws=50, seed=seed)
    theirs = consistency.opis(curves + nothing, range=ends, draws=50, seed=seed)
    assert dataclasses.replace(theirs, classes_left_out=mine.classes_left_out) == mine
    assert theirs.classes_left_out == mine.classes_left_out + 3


def test_the_settings_that_nobody_gives_are_those_of_the_definition() -> None:
    curves = Layout(*signs(np.random.default_rng(0), [3] * 100, [0.05, 0.2] * 50), 40, (-1.0, 1.0)).curves
    settings = {"far": (1e-2, 1e-1), "k": 1.0, "draws": 1000, "confidence": 0.95, "seed": 0}
    assert consistency.opis(curves) == consistency.opis(curves, **settings)
    assert consistency.epsilon_opis(curves) == consistency.epsilon_opis(curves, 10.0, **settings)
    assert consistency.epsilon_opis(curves) != consistency.epsilon_opis(curves, 11.0, **settings)


def test_alike_classes_are_perfectly_consistent() -> None:
    """Two pairs of opposite rows: by symmetry both classes have the same curves."""
    emb = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]])
    curves = class_curves(emb, [0, 0, 1, 1], bins=8)
    for got in (consistency.opis(curves, range=(-1, 1)), consistency.epsilon_opis(curves, range=(-1, 1))):
        assert (got.value, got.interval) == (0.0, (0.0, 0.0))


def test_opis_of_two_classes_by_hand() -> None:
    """Class 0 accepts all its pairs at 0.5, class 1 none; nothing else is accepted, so U is 1 and 0."""
    emb = torch.tensor([[1.0, 0, 0, 0], [1.0, 0, 0, 0], [0, 0, 1.0, 0], [0, 0, 0, 1.0]])
    curves = class_curves(emb, [0, 0, 1, 1], bins=4)
    got = consistency.opis(curves, range=(0.5, 1.0))
    assert got.value == 0.25  # (1 - 1/2)² and (0 - 1/2)², at both edges
    assert consistency.epsilon_opis(curves, range=(0.5, 1.0)).value == 1.0
    assert (got.classes_used, got.classes_left_out, got.range) == (2, 0, (0.5, 1.0))


def _made(utilities: list[tuple[int, int]], names: list[str]) -> ClassCurves:
    """Classes that accept so many of six same-class pairs at 0 and at 0.5, and no other pair."""
    classes = sorted(names)
    positives = {
        name: [0, 6 - at_0, at_0 - at_half, at_half, 0]
        for name, (at_0, at_half) in zip(names, utilities, strict=True)
    }
    table = np.array([positives[name] for name in classes])
    negatives = np.tile([4, 0, 0, 0, 0], (len(names), 1))
    pooled = np.array([table.sum(axis=0), negatives.sum(axis=0) // 2])
    return ClassCurves(np.array(classes), table, negatives, pooled, -0.5, 1.0)


@pytest.mark.parametrize("names", list(itertools.permutations("abcd")), ids="".join)
def test_of_classes_with_equal_means_the_one_that_is_lower_first_is_worse(names: tuple[str, ...]) -> None:
    """Utilities (1, 0) and (1/2, 1/2) have one mean: the first is better, whatever the classes are called."""
    curves = _made([(6, 0), (2, 2), (0, 0), (0, 0)], list(names))
    assert curves.thresholds.tolist() == [-0.5, 0.0, 0.5, 1.0]
    _, stop = consistency.calibration_range(curves, range=(0.0, 0.5))
    np.testing.assert_allclose(
        sorted(consistency.utilities(curves, stop - 2, stop).tolist()), [[0, 0], [0, 0], [0.5, 0.5], [1, 0]]
    )
    assert consistency.epsilon_opis(curves, 25.0, range=(0.0, 0.5)).value == 0.5


BAD_FAR = [(0.0, 0.1), (0.01, 1.0), (-0.1, 0.5), (0.01, math.nan)]


@pytest.mark.parametrize("measure", [consistency.opis, consistency.epsilon_opis])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        *[("far", {"far": far}) for far in BAD_FAR],
        ("range", {"range": (0.5, 0.4)}),
        ("range", {"range": (0.01, 0.02)}),
        ("range", {"range": (0.0, math.nan)}),
        ("k", {"k": 0.0}),
        ("k", {"k": -1.0}),
        ("k", {"k": math.nan}),
        ("draws", {"draws": -1}),
        ("confidence", {"confidence": 1.0}),
        ("confidence", {"confidence": 0.0}),
    ],
)
def test_errors_of_consistency_name_the_argument(measure: Any, name: str, arguments: dict[str, Any]) -> None:
    curves = four_classes().curves
    with pytest.raises(ValueError, match=rf"^{name}\b"):
        measure(curves, **{"range": None if name == "far" else (0.0, 1.0)} | arguments)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, 51.0, math.nan])
def test_an_epsilon_that_cannot_be_is_refused(epsilon: float) -> None:
    emb, labels = signs(np.random.default_rng(0), [3] * 100, [0.1] * 100)
    with pytest.raises(ValueError, match=r"^epsilon\b"):
        consistency.epsilon_opis(class_curves(emb, labels, bins=16), epsilon, range=(0.0, 1.0))


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 1, 2, 3]], ids=["one_class", "all_singletons"])
def test_without_a_class_that_has_both_kinds_of_pairs_there_is_no_consistency(labels: list[int]) -> None:
    curves = class_curves(torch.eye(4), labels, bins=4)
    for measure in (consistency.opis, consistency.epsilon_opis):
        with pytest.raises(ValueError, match="class"):
            measure(curves, range=(0.0, 1.0))
