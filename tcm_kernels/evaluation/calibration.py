"""From a cosine similarity to the probability that a pair is of one class, and how far to believe it.

A threshold answers yes or no; whoever fuses scores, weighs costs or sorts pairs for review needs a
probability. It is fitted on the pooled counts of `ClassCurves`: every pair stands at the centre of its bin
(at `lo` or `hi` where it lies outside), so 10^10 pairs are a few thousand weighted samples, and
scikit-learn's estimators are done within milliseconds.

Where all same-class pairs are more similar than all others, the likelihood of a logistic curve grows with its
slope for ever. Platt's targets end that: a pair is taken for what it is only as surely as so many pairs allow
(Laplace's rule of succession), so that every bin with a pair holds some weight of both kinds.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import sys
import warnings
from typing import get_args

import numpy as np
import torch

from .calibration_function import Calibration, Method
from .checks import TooFewPairsError, check_rate
from .curves import ClassCurves, Rates
from .roc import equal_error_rate

__all__ = ["Calibration", "Method", "Reliability", "fit_calibration", "reliability"]

_TOLERANCE = 1e-6  # of the gradient of a logistic fit
_ATTEMPTS = 10  # to find coordinates in which it reaches that
_TINY = sys.float_info.min  # where all probabilities are 0 or 1, no 0 / 0


def fit_calibration(
    curves: ClassCurves, method: Method = "platt", *, prior: float | None = None
) -> Calibration:
    """Fit the probability that a pair is of one class, given its similarity, to the pooled counts.

    - "platt": sigmoid(slope · s + intercept) of the largest likelihood, scikit-learn's `LogisticRegression`
      without regularisation, for Platt's targets: each of N same-class pairs counts (N + 1) / (N + 2) as
      same-class and 1 / (N + 2) as other-class, each other-class pair likewise. The two orders of a pair
      are one pair of that N.
    - "isotonic": of all functions that do not fall the one of the smallest Brier score, scikit-learn's
      `IsotonicRegression`, straight between bins. It takes any shape, needs many pairs wherever it is to be
      believed, and says 0 and 1 where it saw one kind only.
    - "temperature": sigmoid((s - centre) / T): the same fit as "platt" with T as the one parameter, the
      centre being the threshold of the equal error rate. Guo et al. divide the logits of a softmax; a
      cosine is none, and the centre gives it the zero that a logit has. So the probability there is one
      half whatever the prior, which suits a prior near one half; T moves no decision.

    Where the best curve would fall, the best one that does not is level, a slope of 0: similarity tells
    nothing. So it is too where all pairs lie in one bin ("temperature": at the centre).

    Args:
        curves: counts of `class_curves`, with at least one pair of either kind.
        method: "platt", "isotonic" or "temperature".
        prior: share of same-class pairs, in (0, 1), where the calibration will be used. Pairs of a kind are
            weighted alike so that they have that share. None: as in the data, where it follows from how
            many samples each class has.

    Raises:
        ValueError: an argument that cannot be used.
        TooFewPairsError: no pair of one kind.
        ImportError: scikit-learn is not installed.
        RuntimeError: the fit did not converge.

    References:
        Platt, "Probabilistic Outputs for Support Vector Machines and Comparisons to Regularized Likelihood
        Methods", 1999. Zadrozny and Elkan, "Transforming Classifier Scores into Accurate Multiclass
        Probability Estimates", KDD 2002, for "isotonic". Guo et al., "On Calibration of Modern Neural
        Networks", ICML 2017, for "temperature".
    """
    if method not in get_args(Method):
        raise ValueError(f"method: got {method!r}, expected one of {', '.join(get_args(Method))}")
    same, other = _pairs(curves)
    factors = _factors(same, other, prior)
    share = float(same.sum() / (same.sum() + other.sum())) if prior is None else float(prior)
    if importlib.util.find_spec("sklearn") is None:
        raise ImportError("fit_calibration needs scikit-learn: pip install 'tcm-kernels[evaluation]'")
    at = curves.similarities
    if method == "isotonic":
        return _isotonic(at, same * factors[0], other * factors[1], share)
    kept, lost = _targets(same), _targets(other)
    as_same = (same * kept[0] + other * lost[1]) * factors[0]
    as_other = (other * lost[0] + same * kept[1]) * factors[1]
    if method == "platt":
        slope, intercept = _logistic(at, as_same, as_other, with_intercept=True)
        return Calibration("platt", share, slope=slope, intercept=intercept)
    centre = equal_error_rate(curves).threshold
    slope, _ = _logistic(at - centre, as_same, as_other, with_intercept=False)
    return Calibration("temperature", share, slope=slope, centre=centre)


def _pairs(curves: ClassCurves) -> tuple[Rates, Rates]:
    """(B + 2,) same-class and (B + 2,) other-class pairs; both orders of one are one pair."""
    pairs = curves.pooled / (2.0 if curves.symmetric else 1.0)
    for row, kind, remedy in (
        (pairs[0], "same-class", "at least two samples of one class"),
        (pairs[1], "other-class", "samples of at least two classes"),
    ):
        if not row.any():
            raise TooFewPairsError(f"curves: got no {kind} pairs, expected both kinds: include {remedy}")
    return pairs[0], pairs[1]


def _factors(same: Rates, other: Rates, prior: float | None) -> tuple[float, float]:
    """What gives the two kinds the shares prior and 1 - prior of all weight."""
    if prior is None:
        return 1.0, 1.0
    share, total = check_rate("prior", prior), same.sum() + other.sum()
    return float(share * (total / same.sum())), float((1.0 - share) * (total / other.sum()))


def _targets(pairs: Rates) -> tuple[float, float]:
    """Platt's weights of each pair as what it is and as what it is not; the second may not round to 0."""
    total = float(pairs.sum())
    return (total + 1.0) / (total + 2.0), 1.0 / (total + 2.0)


def _logistic(x: Rates, same: Rates, other: Rates, *, with_intercept: bool) -> tuple[float, float]:
    """Slope >= 0 and intercept of the largest likelihood; weights of both kinds (B + 2,) at x (B + 2,)."""
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415  # an extra

    filled = same > 0  # and so is other: see the targets
    x, same, other = x[filled], same[filled], other[filled]
    weights = np.concatenate((same, other))
    estimator = LogisticRegression(
        C=np.inf,
        fit_intercept=with_intercept,
        solver="newton-cholesky",  # lbfgs stops early where weights differ by orders of magnitude
        # Where the kinds are separated, all that pulls at the optimum is the little that the targets left.
        tol=1e-16 * min(same.sum(), other.sum()) / weights.sum(),
        max_iter=1000,
        warm_start=True,
    )
    level = (0.0, math.log(same.sum()) - math.log(other.sum()) if with_intercept else 0.0)
    slope = intercept = 0.0
    # Both kinds alike: where one has a millionth of the weight, its place still sets origin and scale.
    matter = same / same.sum() + other / other.sum()
    for _ in range(_ATTEMPTS):
        origin = float(np.average(x, weights=matter)) if with_intercept else 0.0
        scale = math.sqrt(float(np.average((x - origin) ** 2, weights=matter)))
        if scale == 0.0 or (with_intercept and len(x) == 1):
            return level
        z = (x - origin) / scale
        estimator.coef_ = np.array([[slope * scale]])
        estimator.intercept_ = np.array([intercept + slope * origin])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # whether it converged is seen from the result
            estimator.fit(
                np.concatenate((z, z))[:, None],
                np.repeat([1, 0], len(z)),
                sample_weight=weights / weights.mean(),
            )
        slope = float(estimator.coef_[0, 0]) / scale
        intercept = float(np.ravel(estimator.intercept_)[0]) - slope * origin
        logits = torch.from_numpy(slope * x + intercept)
        missed, false = torch.sigmoid(-logits).numpy(), torch.sigmoid(logits).numpy()
        up, down = same * missed, other * false
        # What is left of the gradient, over what it would be if all pairs pulled one way.
        left = max(
            abs(float((up - down) @ lever)) / (float((up + down) @ np.abs(lever)) + _TINY)
            for lever in ((z, np.ones_like(z)) if with_intercept else (z,))
        )
        if left <= _TOLERANCE:
            # The likelihood is concave: where its maximum has a negative slope, the best of others is level.
            return (slope, intercept) if slope > 0.0 else level
        # Weights of very different size made Newton's equations ill-conditioned. With origin and scale of
        # those that count at the optimum they come apart; from here it is not far.
        matter = (same + other) * (missed * false + _TINY)
    raise RuntimeError(
        f"the logistic fit did not converge: a relative gradient of {left:.2g} is left, expected at most "
        f'{_TOLERANCE:g}; use method="isotonic", or a prior nearer to one half'
    )


def _isotonic(x: Rates, same: Rates, other: Rates, prior: float) -> Calibration:
    from sklearn.isotonic import IsotonicRegression  # noqa: PLC0415  # an extra

    filled = same + other > 0
    weights = (same + other)[filled]
    fitted = IsotonicRegression(increasing=True, out_of_bounds="clip", y_min=0.0, y_max=1.0).fit(
        x[filled], same[filled] / weights, sample_weight=weights / weights.mean()
    )
    return Calibration(
        "isotonic",
        prior,
        similarities=tuple(fitted.X_thresholds_.tolist()),
        probabilities=tuple(fitted.y_thresholds_.tolist()),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Reliability:
    """Predicted probabilities against what came true, in K bins of probability that hold a pair.

    Attributes:
        predicted: (K,) mean predicted probability, ascending.
        observed: (K,) share of same-class pairs.
        weight: (K,) share of all pairs, 1 together.
        ece: expected calibration error, the mean of |observed - predicted| by weight.
        brier: mean of (predicted probability - outcome)² over pairs, the outcome being 1 or 0.
    """

    predicted: Rates
    observed: Rates
    weight: Rates
    ece: float
    brier: float


def reliability(
    curves: ClassCurves,
    calibration: Calibration | None = None,
    *,
    bins: int = 15,
    prior: float | None = None,
) -> Reliability:
    """How well predicted probabilities agree with the pooled counts.

    Exact for pairs that lie at the centres of their bins. On the data that a calibration was fitted to it
    flatters: "isotonic" has an ECE of 0 there. Judge on others.

    Args:
        curves: counts of `class_curves`, with at least one pair of either kind.
        calibration: what predicts; None: the similarity read as a probability, (1 + s) / 2 within [0, 1].
        bins: of equal width in [0, 1], each without its lower end, as in Guo et al.; those without a pair
            are left out.
        prior: share of same-class pairs, in (0, 1), to weight the two kinds for, as in `fit_calibration`;
            None: as in the data.

    Raises:
        ValueError: an argument that cannot be used.
        TooFewPairsError: no pair of one kind.

    References:
        Naeini, Cooper and Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI
        2015, for the expected calibration error. Brier, "Verification of Forecasts Expressed in Terms of
        Probability", 1950.
    """
    if isinstance(bins, bool) or not isinstance(bins, int) or bins < 1:
        raise ValueError(f"bins: got {bins!r}, expected an integer of at least 1")
    same, other = _pairs(curves)
    factors = _factors(same, other, prior)
    same, other = same * factors[0], other * factors[1]
    total = float(same.sum() + other.sum())
    at = curves.similarities
    p = np.clip((1.0 + at) / 2.0, 0.0, 1.0) if calibration is None else calibration(at)
    place = np.searchsorted(np.linspace(0.0, 1.0, bins + 1)[1:-1], p)
    weight, positive, expected = (
        np.bincount(place, x, minlength=bins) for x in (same + other, same, (same + other) * p)
    )
    filled = weight > 0
    weight, positive, expected = weight[filled], positive[filled], expected[filled]
    return Reliability(
        predicted=expected / weight,
        observed=positive / weight,
        weight=weight / total,
        ece=float(np.abs(positive - expected).sum() / total),
        brier=float((same @ (1.0 - p) ** 2 + other @ p**2) / total),
    )
