"""Calibration and reliability against scikit-learn on explicit pairs, and on data that breaks solvers."""

from __future__ import annotations

import math
import sys
from typing import get_args

import numpy as np
import pytest
from brute_force import Truth, all_pairs
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV, calibration_curve
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss
from small_curves import some_labels, some_rows

from tcm_kernels.evaluation import ClassCurves, class_curves
from tcm_kernels.evaluation.calibration import Calibration, Method, fit_calibration, reliability

METHODS = get_args(Method)
PRIORS = [None, 0.5, 0.01, 0.97]


def _pairs(n: int = 30, bins: int = 25, classes: int = 4, noise: float = 0.9) -> Truth:
    """Pairs of classes that overlap; some similarities are outside the range."""
    draw = np.random.default_rng(5)
    labels = draw.integers(0, classes, n)
    emb = draw.normal(size=(classes, 6))[labels] + noise * draw.normal(size=(n, 6))
    return all_pairs(emb, labels, bins=bins, range=(-0.6, 0.9))


def _curves(truth: Truth, times: int = 1, *, symmetric: bool = False) -> ClassCurves:
    tables = truth.table(True), truth.table(False), truth.pooled_table()
    return ClassCurves(
        truth.classes, *(times * x for x in tables), truth.lo, truth.hi, symmetric=symmetric
    )  # fmt: skip


def _counted(
    same: dict[int, int], other: dict[int, int], bins: int = 40, *, symmetric: bool = False
) -> ClassCurves:
    """Curves with so many pairs in some columns."""
    pooled = np.zeros((2, bins + 2), np.int64)
    for row, counts in zip(pooled, (same, other), strict=True):
        row[list(counts)] = list(counts.values())
    return ClassCurves(np.arange(1), pooled[:1].copy(), pooled[1:].copy(), pooled, symmetric=symmetric)


def _weights(truth: Truth, prior: float | None) -> np.ndarray:
    """(P,) so that same-class pairs have `prior` of all weight."""
    share = truth.same.mean()
    if prior is None:
        return np.ones(len(truth.same))
    return np.where(truth.same, prior / share, (1 - prior) / (1 - share))


def _fitted_to_platts_targets(x: np.ndarray, truth: Truth, prior: float | None, *, intercept: bool) -> object:
    """scikit-learn's logistic regression on explicit pairs, each of them once as either kind."""
    kept = {
        kind: (np.sum(truth.same == kind) + 1) / (np.sum(truth.same == kind) + 2) for kind in (True, False)
    }
    own = np.where(truth.same, kept[True], kept[False])
    labels = np.concatenate((truth.same, ~truth.same))
    wanted = {True: 1.0, False: 1.0}
    if prior is not None:
        wanted = {True: prior / truth.same.mean(), False: (1 - prior) / (1 - truth.same.mean())}
    weights = np.concatenate((own, 1 - own)) * np.where(labels, wanted[True], wanted[False])
    model = LogisticRegression(C=np.inf, fit_intercept=intercept, tol=1e-10, max_iter=1000)
    return model.fit(np.concatenate((x, x))[:, None], labels, sample_weight=weights / weights.mean())


def _grid(truth: Truth) -> np.ndarray:
    return np.linspace(truth.lo - 0.2, truth.hi + 0.2, 301)


@pytest.mark.parametrize("prior", PRIORS)
def test_platt_is_logistic_regression_on_explicit_pairs(prior: float | None) -> None:
    truth = _pairs()
    got = fit_calibration(_curves(truth), "platt", prior=prior)
    wanted = _fitted_to_platts_targets(truth.values(), truth, prior, intercept=True)
    np.testing.assert_allclose(
        got(_grid(truth)), wanted.predict_proba(_grid(truth)[:, None])[:, 1], atol=1e-6
    )
    assert got.slope == pytest.approx(wanted.coef_[0, 0], rel=1e-5)


class _Similarity(ClassifierMixin, BaseEstimator):
    """A classifier whose decision is the similarity, for scikit-learn to calibrate."""

    def fit(self, x: np.ndarray, y: np.ndarray) -> _Similarity:
        self.classes_ = np.unique(y)
        return self

    def decision_function(self, x: np.ndarray) -> np.ndarray:
        return x[:, 0]

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.classes_[(x[:, 0] > 0).astype(int)]


@pytest.mark.parametrize(("method", "theirs"), [("platt", "sigmoid"), ("isotonic", "isotonic")])
def test_methods_agree_with_calibrated_classifiers_of_sklearn(method: Method, theirs: str) -> None:
    frozen = pytest.importorskip("sklearn.frozen", reason="this scikit-learn has no FrozenEstimator")
    truth = _pairs()
    x, y = truth.values()[:, None], truth.same.astype(int)
    model = CalibratedClassifierCV(frozen.FrozenEstimator(_Similarity().fit(x, y)), method=theirs).fit(x, y)
    got = fit_calibration(_curves(truth), method)(_grid(truth))
    np.testing.assert_allclose(got, model.predict_proba(_grid(truth)[:, None])[:, 1], atol=1e-4)


def test_with_many_pairs_platt_is_plain_maximum_likelihood() -> None:
    truth = _pairs()
    got = fit_calibration(_curves(truth, times=10**7), "platt")
    model = LogisticRegression(C=np.inf, tol=1e-10).fit(truth.values()[:, None], truth.same)
    assert got.slope == pytest.approx(model.coef_[0, 0], rel=1e-5)
    assert got.intercept == pytest.approx(model.intercept_[0], rel=1e-5)


@pytest.mark.parametrize("prior", PRIORS)
def test_isotonic_is_isotonic_regression_on_explicit_pairs(prior: float | None) -> None:
    truth = _pairs()
    got = fit_calibration(_curves(truth), "isotonic", prior=prior)
    model = IsotonicRegression(out_of_bounds="clip")
    model.fit(truth.values(), truth.same, sample_weight=_weights(truth, prior))
    np.testing.assert_allclose(got(_grid(truth)), model.predict(_grid(truth)), atol=1e-12)


@pytest.mark.parametrize("prior", PRIORS)
def test_temperature_is_one_parameter_around_the_equal_error_rate(prior: float | None) -> None:
    truth = _pairs()
    got = fit_calibration(_curves(truth), "temperature", prior=prior)
    centre = truth.equal_error()[1]
    wanted = _fitted_to_platts_targets(truth.values() - centre, truth, prior, intercept=False)
    assert got.centre == pytest.approx(centre, abs=1e-12)
    assert got.slope == pytest.approx(wanted.coef_[0, 0], rel=1e-5)
    assert got(got.centre) == 0.5


@pytest.mark.parametrize("method", METHODS)
def test_the_share_in_the_data_is_the_prior_where_none_is_given(method: Method) -> None:
    truth = _pairs()
    got = fit_calibration(_curves(truth), method)
    assert got.prior == truth.same.mean()
    named = fit_calibration(_curves(truth), method, prior=got.prior)
    np.testing.assert_allclose(named(_grid(truth)), got(_grid(truth)), atol=1e-9)


def test_a_prior_shifts_the_log_odds_of_isotonic() -> None:
    truth = _pairs()
    before, after = (fit_calibration(_curves(truth), "isotonic", prior=p) for p in (0.5, 0.001))
    p, q = before(truth.values()), after(truth.values())
    np.testing.assert_allclose(q * (1 - p) * 0.999, p * (1 - q) * 0.001, rtol=1e-9, atol=1e-15)
    assert after.prior == 0.001


def test_platt_for_a_prior_predicts_that_prior_on_average() -> None:
    truth = _pairs()
    for prior in (1e-6, 0.3):
        got = fit_calibration(_curves(truth, times=10**7), "platt", prior=prior)
        mean = np.average(got(truth.values()), weights=_weights(truth, prior))
        assert mean == pytest.approx(prior, rel=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_two_orders_of_a_pair_are_one_pair(method: Method) -> None:
    truth = _pairs()
    one = fit_calibration(_curves(truth), method)
    both = fit_calibration(_curves(truth, times=2, symmetric=True), method)
    np.testing.assert_allclose(both(_grid(truth)), one(_grid(truth)), rtol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_curves_of_embeddings_give_what_their_pairs_give(method: Method) -> None:
    emb, labels = some_rows(), some_labels()
    truth = all_pairs(emb, labels, bins=20)
    got = fit_calibration(class_curves(emb, labels, bins=20), method)
    assert got == fit_calibration(_curves(truth, symmetric=True), method)


@pytest.mark.parametrize("same", [1, 3, 10**5, 10**10])
@pytest.mark.parametrize("other", [1, 7, 10**10])
@pytest.mark.parametrize("columns", [(20, 21), (0, 41)], ids=["neighbours", "at both ends"])
def test_separated_kinds_are_as_sure_as_their_numbers_allow(
    same: int, other: int, columns: tuple[int, int]
) -> None:
    """Two places and two parameters: the likelihood's maximum is Platt's target in each, exactly."""
    curves = _counted({columns[1]: same}, {columns[0]: other})
    edges = curves.thresholds
    low, high = np.concatenate(([-1.0], (edges[:-1] + edges[1:]) / 2, [1.0]))[list(columns)]
    got = fit_calibration(curves, "platt")
    assert got(low) == pytest.approx(1 / (other + 2), rel=1e-4)
    logit = got.slope * high + got.intercept
    assert logit == pytest.approx(math.log(same + 1), abs=1e-4)
    assert fit_calibration(curves, "isotonic")(np.array([low, high])).tolist() == [0.0, 1.0]
    rising = fit_calibration(curves, "temperature")
    assert 0 < rising.slope < math.inf
    assert rising(high) > 0.5


@pytest.mark.parametrize(
    ("same", "other", "prior"),
    [
        ({2: 9_571_728_332, 10: 110, 12: 4_692_553}, {0: 194}, None),
        ({0: 12}, {4: 6_293_422_792, 11: 899, 41: 21_012_476}, 1e-9),
    ],
)
def test_weights_that_make_newtons_equations_singular_are_fitted_all_the_same(
    same: dict[int, int], other: dict[int, int], prior: float | None
) -> None:
    """At the maximum the mean probability is the share of what the targets call same-class."""
    curves = _counted(same, other)
    got = fit_calibration(curves, "platt", prior=prior)
    p, q = (curves.pooled[k] / curves.pooled[k].sum() for k in (0, 1))
    n, m = sum(same.values()), sum(other.values())
    prior = n / (n + m) if prior is None else prior
    one = prior * (p * (n + 1) / (n + 2) + q * m / n / (m + 2))
    zero = (1 - prior) * (q * (m + 1) / (m + 2) + p * n / m / (n + 2))
    edges = curves.thresholds
    s = np.concatenate(([-1.0], (edges[:-1] + edges[1:]) / 2, [1.0]))
    opposite = Calibration("platt", 0.5, slope=got.slope, intercept=-got.intercept)
    assert one @ opposite(-s) == pytest.approx(zero @ got(s), rel=1e-4)


@pytest.mark.parametrize(("same", "other"), [(1, 1), (5, 1), (3, 10**10)])
def test_pairs_of_one_bin_get_one_probability(same: int, other: int) -> None:
    curves = _counted({30: same}, {30: other})
    s = np.array([-1.0, 0.0, 0.475, 1.0])
    kept, lost = (same + 1) / (same + 2), 1 / (other + 2)
    mean = (same * kept + other * lost) / (same + other)
    np.testing.assert_allclose(fit_calibration(curves, "platt")(s), mean, rtol=1e-12)
    np.testing.assert_allclose(fit_calibration(curves, "isotonic")(s), same / (same + other), rtol=1e-12)
    np.testing.assert_array_equal(fit_calibration(curves, "temperature")(s), 0.5)


def test_where_similarity_misleads_the_probability_is_level() -> None:
    curves = _counted({10: 10**6}, {30: 3 * 10**6})
    s = np.linspace(-1, 1, 21)
    np.testing.assert_allclose(fit_calibration(curves, "platt")(s), 0.25, rtol=1e-5)
    np.testing.assert_allclose(fit_calibration(curves, "isotonic")(s), 0.25, rtol=1e-12)
    np.testing.assert_array_equal(fit_calibration(curves, "temperature")(s), 0.5)


_COUNTS = st.dictionaries(
    st.integers(0, 41), st.one_of(st.integers(1, 5), st.integers(1, 10**10)), min_size=1, max_size=6
)


@given(_COUNTS, _COUNTS, st.one_of(st.none(), st.floats(1e-9, 1 - 1e-9)), st.sampled_from(METHODS))
def test_any_counts_give_a_finite_function_that_never_falls(
    same: dict[int, int], other: dict[int, int], prior: float | None, method: Method
) -> None:
    curves = _counted(same, other)
    got = fit_calibration(curves, method, prior=prior)
    p = got(np.linspace(-1.1, 1.1, 200))
    assert (p >= 0).all()
    assert (p <= 1).all()
    assert (np.diff(p) >= -1e-15).all()  # one rounding of the sigmoid


@given(_COUNTS, _COUNTS, st.one_of(st.none(), st.floats(1e-6, 1 - 1e-6)))
def test_no_other_calibration_has_a_smaller_brier_score_than_isotonic(
    same: dict[int, int], other: dict[int, int], prior: float | None
) -> None:
    curves = _counted(same, other)
    found = {m: reliability(curves, fit_calibration(curves, m, prior=prior), prior=prior) for m in METHODS}
    best = found["isotonic"].brier
    assert found["isotonic"].ece < 1e-12
    assert best <= min(reliability(curves, prior=prior).brier, *(x.brier for x in found.values())) + 1e-15


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("same", "other", "remedy"),
    [
        ({}, {3: 1}, "no same-class pairs.*two samples of one class"),
        ({3: 1}, {}, "no other-class.*two classes"),
    ],
)
def test_pairs_of_one_kind_alone_are_refused(
    method: Method, same: dict[int, int], other: dict[int, int], remedy: str
) -> None:
    curves = _counted(same, other)
    with pytest.raises(ValueError, match=remedy):
        fit_calibration(curves, method)
    with pytest.raises(ValueError, match=remedy):
        reliability(curves)


@pytest.mark.parametrize("prior", [0.0, 1.0, -0.5, math.nan, math.inf, True, "0.5"])
def test_a_prior_that_is_no_share_is_refused(prior: object) -> None:
    curves = _curves(_pairs())
    for call in (fit_calibration, reliability):
        with pytest.raises(ValueError, match=r"prior: got .*, expected a number in \(0, 1\)"):
            call(curves, prior=prior)


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match="method: got 'beta', expected one of platt, isotonic, temperature"):
        fit_calibration(_curves(_pairs()), "beta")


@pytest.mark.parametrize("method", ["platt", "temperature"])
def test_a_fit_that_stops_early_is_an_error(method: Method, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(self: LogisticRegression, *_: object, **__: object) -> LogisticRegression:
        return self

    monkeypatch.setattr(LogisticRegression, "fit", stopped)
    with pytest.raises(RuntimeError, match=r"did not converge: a relative gradient of .*isotonic"):
        fit_calibration(_curves(_pairs()), method)


def test_without_sklearn_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r"needs scikit-learn: pip install 'tcm-kernels\[evaluation\]'"):
        fit_calibration(_curves(_pairs()))


def _read_as_probability(s: np.ndarray) -> np.ndarray:
    return np.clip((1 + s) / 2, 0, 1)


@pytest.mark.parametrize("bins", [1, 4, 15])
@pytest.mark.parametrize("method", [None, *METHODS])
def test_reliability_is_that_of_explicit_pairs(method: Method | None, bins: int) -> None:
    truth = _pairs()
    calibration = None if method is None else fit_calibration(_curves(truth), method)
    p = (calibration or _read_as_probability)(truth.values())
    got = reliability(_curves(truth), calibration, bins=bins)
    observed, predicted = calibration_curve(truth.same, p, n_bins=bins)
    np.testing.assert_allclose(got.observed, observed, atol=1e-12)
    np.testing.assert_allclose(got.predicted, predicted, atol=1e-12)
    assert got.brier == pytest.approx(brier_score_loss(truth.same, p), rel=1e-12)
    inside = [(p > k / bins) & (p <= (k + 1) / bins) | ((p == 0) & (k == 0)) for k in range(bins)]
    ece = sum(abs(truth.same[x].mean() - p[x].mean()) * x.mean() for x in inside if x.any())
    assert got.ece == pytest.approx(ece, abs=1e-12)
    np.testing.assert_allclose(got.weight, [x.mean() for x in inside if x.any()], rtol=1e-12)


@pytest.mark.parametrize("prior", PRIORS[1:])
def test_reliability_for_a_prior_weights_the_kinds(prior: float) -> None:
    truth = _pairs()
    got = reliability(_curves(truth), prior=prior)
    p, weights = _read_as_probability(truth.values()), _weights(truth, prior)
    assert got.brier == pytest.approx(brier_score_loss(truth.same, p, sample_weight=weights), rel=1e-12)
    assert got.observed @ got.weight == pytest.approx(prior, rel=1e-12)
    assert got.predicted @ got.weight == pytest.approx(np.average(p, weights=weights), rel=1e-12)
    assert got.weight.sum() == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("prior", [0.5, 0.1])
def test_calibration_improves_what_the_similarity_says_itself(method: Method, prior: float) -> None:
    curves = _curves(_pairs())
    before = reliability(curves, prior=prior)
    after = reliability(curves, fit_calibration(curves, method, prior=prior), prior=prior)
    assert after.brier < before.brier
    assert after.ece < before.ece


def test_a_probability_between_two_bins_is_in_the_lower_one() -> None:
    step = Calibration("isotonic", 0.5, similarities=(-1.0, 1.0), probabilities=(0.5, 0.5))
    got = reliability(_counted({20: 1, 41: 2}, {3: 3}), step, bins=2)
    assert (got.predicted.tolist(), got.observed.tolist(), got.weight.tolist()) == ([0.5], [0.5], [1.0])
    assert (got.ece, got.brier) == (0.0, 0.25)
    both = Calibration("isotonic", 0.5, similarities=(-0.9, 0.0), probabilities=(0.5, 0.75))
    assert reliability(_counted({41: 1}, {1: 1}), both, bins=2).predicted.tolist() == [0.5, 0.75]


def test_a_similarity_above_one_is_read_as_certain() -> None:
    pooled = np.array([[0, 0, 0, 2], [1, 0, 0, 0]])
    curves = ClassCurves(np.arange(1), pooled[:1], pooled[1:], pooled, lo=-3.0, hi=3.0)
    got = reliability(curves)
    assert (got.predicted.tolist(), got.observed.tolist()) == ([0.0, 1.0], [0.0, 1.0])
    assert (got.ece, got.brier) == (0.0, 0.0)


@pytest.mark.parametrize("bins", [0, -1, 2.0, True, None])
def test_bins_that_are_no_count_are_refused(bins: object) -> None:
    with pytest.raises(ValueError, match=r"bins: got .*, expected an integer of at least 1"):
        reliability(_curves(_pairs()), bins=bins)
