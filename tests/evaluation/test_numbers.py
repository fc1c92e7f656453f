"""What the brute-force tests do not see: bootstraps against draws written out, equal bits, memory.

Each draw is repeated here on tables in which drawn classes really stand as often as they were drawn.
"""

from __future__ import annotations

import dataclasses
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from brute_force import all_pairs
from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score, roc_curve

from tcm_kernels.evaluation import ClassCurves, bootstrap, class_curves
from tcm_kernels.evaluation import blocks as parts
from tcm_kernels.evaluation.consistency import calibration_range, epsilon_opis, opis, utilities
from tcm_kernels.evaluation.inequality import gini, ratio
from tcm_kernels.evaluation.rates import error_rates
from tcm_kernels.evaluation.roc import equal_error_rate, roc_auc, tar_at_far
from tcm_kernels.evaluation.spread import similarity_spread, spread_difference
from tcm_kernels.evaluation.thresholds import choose_threshold


def _set(classes: int = 12, each: int = 6, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(classes).repeat_interleave(each)
    centres = torch.randn(classes, 8, generator=generator)
    spread = torch.linspace(0.2, 1.2, classes)[labels, None]
    return centres[labels] + spread * torch.randn(len(labels), 8, generator=generator), labels


@pytest.fixture(scope="module")
def curves() -> ClassCurves:
    return class_curves(*_set(), bins=100)


def _taken(curves: ClassCurves, rows: Any) -> ClassCurves:
    """The same classes in another order, or some of them more than once, under new names."""
    return dataclasses.replace(
        curves,
        classes=np.arange(len(rows)),
        positives=curves.positives[rows],
        negatives=curves.negatives[rows],
    )


def _draws(curves: ClassCurves, order: Any, draws: int, seed: int) -> list[Any]:
    drawn = np.random.default_rng(seed).integers(0, len(order), size=(draws, len(order)))
    return [order[row] for row in drawn]


def _interval(values: list[float]) -> Any:
    return np.quantile(values, [0.025, 0.975])


CONSISTENCY: dict[str, Callable[..., Any]] = {
    "OPIS": opis,
    "10 %": epsilon_opis,
    "30 %": lambda *args, **kw: epsilon_opis(*args, 30.0, **kw),
    "50 %": lambda *args, **kw: epsilon_opis(*args, 50.0, **kw),
}


@pytest.mark.parametrize("name", CONSISTENCY)
def test_interval_of_opis_is_that_of_draws_evaluated_one_by_one(curves: ClassCurves, name: str) -> None:
    measure = CONSISTENCY[name]
    found = measure(curves, draws=60, seed=3)
    utility = utilities(curves, *calibration_range(curves))
    order = np.array(sorted(range(len(utility)), key=lambda c: (utility[c].mean(), *utility[c])))
    lo, hi = found.range
    each = [measure(_taken(curves, rows), range=(lo, hi), draws=0) for rows in _draws(curves, order, 60, 3)]
    np.testing.assert_allclose(found.interval, _interval([x.value for x in each]), rtol=1e-12)
    assert found.interval[0] < found.interval[1]


@pytest.mark.parametrize("seed", range(3))
def test_permuted_and_renamed_classes_change_no_bit(curves: ClassCurves, seed: int) -> None:
    curves = _taken(curves, [*range(12), 3, 3, 7])  # equal classes among them
    other = _taken(curves, np.random.default_rng(seed).permutation(15))
    other = dataclasses.replace(other, classes=np.array([f"class {c:02}" for c in range(15)]))
    for measure in CONSISTENCY.values():
        assert measure(curves, draws=50) == measure(other, draws=50)
    for target in ({"far": 0.05}, {"frr": 0.2, "over": "worst"}, {"best": "f1"}):
        assert choose_threshold(curves, **target, draws=50) == choose_threshold(other, **target, draws=50)
    for name in ("intra_mean", "intra_deviation", "inter_mean", "inter_deviation"):
        assert getattr(similarity_spread(curves), name) == getattr(similarity_spread(other), name)
    one, two = error_rates(curves, 0.5), error_rates(other, 0.5)
    assert one.false_reject_gini == two.false_reject_gini


def test_parts_change_no_draw(curves: ClassCurves, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [*bootstrap.multiplicities(12, 50, 1, width=3)]
    found = [measure(curves, draws=50) for measure in CONSISTENCY.values()]
    choices = [
        choose_threshold(curves, **t, draws=50) for t in ({"far": 0.1, "over": "worst"}, {"best": "f1"})
    ]
    spread = similarity_spread(curves)
    monkeypatch.setattr(parts, "ENTRIES", 5 * 12)
    split = [*bootstrap.multiplicities(12, 50, 1, width=3)]
    assert (len(whole), len(split)) == (1, 10)
    np.testing.assert_array_equal(np.concatenate(split), whole[0])
    assert (whole[0].sum(axis=1) == 12).all()
    for measure, wanted in zip(CONSISTENCY.values(), found, strict=True):
        again = measure(curves, draws=50)
        assert again.value == wanted.value
        np.testing.assert_allclose(again.interval, wanted.interval, rtol=1e-12)
    assert choices == [
        choose_threshold(curves, **t, draws=50) for t in ({"far": 0.1, "over": "worst"}, {"best": "f1"})
    ]
    np.testing.assert_array_equal(similarity_spread(curves).intra, spread.intra)


@pytest.mark.parametrize("grouped", [False, True])
def test_pooled_draws_count_a_pair_by_both_its_classes(grouped: bool) -> None:
    emb, labels = _set()
    groups = labels % 5 if grouped else labels
    curves = class_curves(emb, labels, groups=groups if grouped else None, bins=100)
    truth = all_pairs(emb, labels, groups=groups if grouped else None, bins=100)
    order = bootstrap.order_of_counts(curves.positives, curves.negatives)
    edges = []
    for rows in _draws(curves, order, 80, 5):
        times = np.bincount(rows, minlength=len(order))
        a, b = times[truth.left], times[truth.right]
        weight = np.where(truth.left == truth.right, a, a + b - 1) * ~truth.same
        if weight.sum() <= 0:
            continue
        accepted = np.array([weight[truth.column > k].sum() for k in range(101)])
        edges.append(int((accepted / weight.sum() <= 0.05).argmax()))
    found = choose_threshold(curves, far=0.05, draws=80, seed=5)
    np.testing.assert_allclose(found.interval, _interval([curves.thresholds[e] for e in edges]), atol=1e-9)
    assert found.interval is not None
    assert found.interval[0] < found.threshold < found.interval[1]


@pytest.mark.parametrize("over", ["pooled", "worst"])
def test_false_reject_draws_are_those_written_out(curves: ClassCurves, over: str) -> None:
    order = bootstrap.order_of_counts(curves.positives, curves.negatives)
    wanted = []
    for rows in _draws(curves, order, 60, 2):
        drawn = _taken(curves, rows)
        drawn = dataclasses.replace(drawn, pooled=np.stack([drawn.positives.sum(axis=0), curves.pooled[1]]))
        wanted.append(choose_threshold(drawn, frr=0.1, over=over, draws=0).threshold)
    found = choose_threshold(curves, frr=0.1, over=over, draws=60, seed=2)
    np.testing.assert_allclose(found.interval, _interval(wanted), atol=1e-12)


def test_numbers_of_all_pairs_are_those_of_scikit_learn(curves: ClassCurves) -> None:
    truth = all_pairs(*_set(), bins=100)
    assert roc_auc(curves) == pytest.approx(roc_auc_score(truth.same, truth.column), abs=1e-12)
    accept, true, _ = roc_curve(truth.same, truth.column, drop_intermediate=False)
    for far in (0.01, 0.1):
        assert tar_at_far(curves, far).tar == pytest.approx(true[accept <= far].max(), abs=1e-12)
    x = np.linspace(0, 1, 200_001)
    gap = 1 - np.interp(x, accept, true) - x
    assert equal_error_rate(curves).rate == pytest.approx(x[np.abs(gap).argmin()], abs=1e-5)
    for best, score in (("f1", f1_score), ("balanced_accuracy", balanced_accuracy_score)):
        scores = [score(truth.same, truth.column > k) for k in range(101)]
        chosen = choose_threshold(curves, best=best, draws=0)
        assert curves.edge(chosen.threshold) == int(np.argmax(scores))


@pytest.mark.parametrize("rate", [0.02, 1 / 15, 0.1, 0.2, 0.5])
def test_target_rates_are_met_at_the_last_edge_possible(curves: ClassCurves, rate: float) -> None:
    truth = all_pairs(*_set(), bins=100)
    for c in (None, *truth.classes):
        met = [truth.false_reject(k, c) <= rate for k in truth.edges]
        one = curves if c is None else dataclasses.replace(_taken(curves, [c]), pooled=curves.pooled)
        over = "pooled" if c is None else "worst"
        chosen = choose_threshold(one, frr=rate, over=over, draws=0)
        assert curves.edge(chosen.threshold) == max(np.flatnonzero(met))
        met = [truth.false_accept(k, c) <= rate for k in truth.edges]
        chosen = choose_threshold(one, far=rate, over=over, draws=0)
        assert curves.edge(chosen.threshold) == min(np.flatnonzero(met))


@pytest.mark.parametrize(
    ("values", "unequal", "most"),
    [
        ([0.0, 0.0], 0.0, 1.0),
        ([0.0, 0.4], 1.0, np.inf),
        ([0.1, 0.1, 0.1], 0.0, 1.0),
        ([0.1, np.nan, 0.3], 0.5, 3.0),
        ([0.3], 0.0, 1.0),
        ([0.0, 0.1, 0.2, 0.3], 5 / 9, np.inf),
    ],
)
def test_gini_and_ratio(values: list[float], unequal: float, most: float) -> None:
    assert gini(np.array(values)) == pytest.approx(unequal, abs=1e-12)
    assert ratio(np.array(values)) == pytest.approx(most)


def test_worst_classes_leave_out_those_without_such_pairs() -> None:
    emb, labels = _set()
    labels[-1] = 99
    at = error_rates(class_curves(emb, labels, bins=100), 0.8)
    assert np.isnan(at.false_reject[-1])
    assert len(at.worst(50)) == 12
    assert at.worst(1)[0] == np.nanargmax(at.false_reject)
    assert len(at.worst(50, by="false_accept")) == 13


def test_targets_beyond_the_data_are_said_to_be_so(curves: ClassCurves) -> None:
    pairs = 72 * 66 // 2
    assert choose_threshold(curves, far=1 / pairs, draws=0).supported
    beyond = choose_threshold(curves, far=1 / (pairs + 1), draws=0)
    assert not beyond.supported
    assert f"{pairs:,} distinct other-class pairs" in beyond.statement
    assert f"at least {pairs + 1:,}" in beyond.statement
    assert beyond.false_accept_rate == 0
    each = choose_threshold(curves, frr=1 / 16, over="worst", draws=0)
    assert "12 of 12 classes have fewer than 16" in each.statement
    assert choose_threshold(curves, frr=1 / 15, over="worst", draws=0).supported
    rectangular = dataclasses.replace(curves, symmetric=False)
    assert choose_threshold(rectangular, frr=1 / 16, over="worst", draws=0).supported


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: opis(c, far=(0, 0.1)), r"far: got 0, expected a number in \(0, 1\)"),
        (lambda c: opis(c, far=(0.1, 0.1)), "expected at least two: count with more bins"),
        (lambda c: opis(c, range=(0.501, 0.502)), "covers 0 of the 101 edges"),
        (lambda c: opis(c, range=(0.5, 0.1)), "range: got"),
        (lambda c: opis(c, k=0), "k: got 0"),
        (lambda c: opis(c, draws=1.5), "draws: got 1.5"),
        (lambda c: opis(c, confidence=1), "confidence: got 1"),
        (lambda c: epsilon_opis(c, 59), "epsilon: got 59, which takes the 7 best and the 7 worst of 12"),
        (lambda c: opis(_taken(c, [0])), "got 1 usable of 1 classes"),
        (lambda c: tar_at_far(dataclasses.replace(c, pooled=c.pooled * [[0], [1]]), 0.1), "no same-class"),
        (choose_threshold, "expected exactly one"),
        (lambda c: choose_threshold(c, far=0.1, frr=0.1), "expected exactly one"),
        (lambda c: choose_threshold(c, best="f2"), "best: got 'f2'"),
        (lambda c: choose_threshold(c, best="f1", over="worst"), "over: got 'worst'"),
        (lambda c: choose_threshold(c, far=0.1, over="mean"), "over: got 'mean'"),
        (lambda c: error_rates(c, 1.5), "threshold: got 1.5"),
    ],
)
def test_what_cannot_be_computed_is_refused(
    curves: ClassCurves, call: Callable[[ClassCurves], Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        call(curves)


def test_a_rate_that_no_edge_reaches_is_refused() -> None:
    narrow = class_curves(*_set(), bins=20, range=(-0.2, 0.2))
    for call in (opis, lambda c: tar_at_far(c, 0.01), lambda c: choose_threshold(c, far=0.01)):
        with pytest.raises(ValueError, match=r"highest edge.*a larger far, or curves with a higher end"):
            call(narrow)
    with pytest.raises(ValueError, match=r"at the lowest edge, -0.2, \d+ of 12 classes have a higher"):
        choose_threshold(class_curves(*_set(), range=(-0.2, 0.2)), frr=0.001, over="worst")


def test_spread_uses_the_middle_of_each_bin() -> None:
    emb, labels = _set()
    wide = class_curves(emb, labels, bins=10, range=(0.0, 0.5))
    truth = all_pairs(emb, labels, bins=10, range=(0.0, 0.5))
    values = np.array([0.0, *(np.arange(10) * 0.05 + 0.025), 0.5])[truth.column]
    intra = np.array([values[truth.same & truth.of_class(c)].mean() for c in truth.classes])
    found = similarity_spread(wide)
    np.testing.assert_allclose(found.intra, intra, rtol=1e-12)
    assert found.intra_deviation == pytest.approx(intra.std())
    assert spread_difference(class_curves(emb, labels), wide).intra_mean < 0


def test_intervals_of_many_classes_fit_into_little_memory() -> None:
    generator = np.random.default_rng(0)
    positives, negatives = generator.integers(0, 9, size=(2, 4000, 1002))
    many = ClassCurves(
        np.arange(4000), positives, negatives, np.stack([positives.sum(axis=0), negatives.sum(axis=0) // 2])
    )
    tracemalloc.start()
    try:
        choose_threshold(many, best="f1", draws=300)
        opis(many, range=(0.4, 0.5), draws=300)
        assert tracemalloc.get_traced_memory()[1] < 80 << 20  # the counts alone are 64 MiB
    finally:
        tracemalloc.stop()
