"""Threshold consistency and TAR at a FAR as `torchmetrics.Metric`s, for training loops and Lightning.

    metric = OPIS()                                  metric = OPIS(gallery, gallery_labels)
    metric.update(emb, labels)   # every batch       metric.update(emb, labels)   # every batch
    metric.compute()             # 0-dim tensor      metric.compute()

Without a reference set the pairs are all pairs of what was seen. A pair of two batches, or of two ranks, can
be counted only where both its ends are, so embeddings and labels are kept, gathered from all ranks, and swept
in `compute`: memory for everything seen, on every rank, and time that grows with its square. Metrics of one
`MetricCollection` share what is kept, and each sweeps it for itself.

With a reference set the pairs are those of what was seen with it. Every batch is counted at once and
forgotten; the states are tables of counts, which ranks add up and metrics of a `MetricCollection` share. The
set must be the same on every rank, and no sample of it may come in a batch: its pair with itself would count
as any other. Queries may be of classes that the set has not: their pairs, all of two classes, count for the
classes of the set and in pooled rates, as in `class_curves` of all queries with the set.
"""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

from torch import Tensor

from .checks import TooFewPairsError, check_positive, check_rate
from .consistency import calibration_range as edges_of_range
from .consistency import epsilon_opis, opis
from .curves import ClassCurves
from .own_thresholds import target_of, threshold_spread
from .pair_metric import PairMetric
from .roc import tar_at_far

__all__ = ["OPIS", "EpsilonOPIS", "TARAtFAR", "ThresholdSpread"]

Scale = Literal["relative", "similarity", "decades"]


class OPIS(PairMetric):
    """Operating-point inconsistency score of what was seen; see `consistency.opis`.

    Args:
        ref_emb: (M, D) reference set; None: all pairs of what was seen, which is kept. The module says what
            either way costs, and what a reference set must be.
        ref_labels: (M,) class of each of its rows, any integer dtype.
        far: pooled false-accept rates in (0, 1) between which thresholds are looked at.
        calibration_range: thresholds (lo, hi) to look at instead, what `opis` calls `range`. Epochs and runs
            can be compared only if it is fixed.
        k: weight of sensitivity in the utility, positive.
        kwargs: `bins`, `range` (the similarities that they cover) and `backend` as in `class_curves`; and
            those of every `torchmetrics.Metric`.

    Raises:
        TypeError, ValueError: an argument that cannot be used; the message names it.
    """

    higher_is_better = False
    plot_lower_bound = 0.0

    def __init__(
        self,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
        *,
        far: tuple[float, float] = (1e-2, 1e-1),
        calibration_range: tuple[float, float] | None = None,
        k: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(ref_emb, ref_labels, **kwargs)
        none = self.no_pairs
        edges_of_range(none, far=far, range=(none.lo, none.hi))
        check_positive("k", k)
        if calibration_range is not None:
            try:
                edges_of_range(none, range=calibration_range)
            except ValueError as error:
                raise ValueError(f"calibration_{error}") from None  # which names its argument, range
        self.far, self.calibration_range, self.k = far, calibration_range, k

    def _value(self, curves: ClassCurves) -> float:
        return opis(curves, far=self.far, range=self.calibration_range, k=self.k, draws=0).value


class EpsilonOPIS(OPIS):
    """ε-OPIS: how far the best and the worst ε percent of classes are apart; see `consistency.epsilon_opis`.

    Args:
        ref_emb: (M, D) reference set or None, as in `OPIS`.
        ref_labels: (M,) class of each of its rows.
        epsilon: ε, percent of classes taken from either end, in (0, 50].
        kwargs: those of `OPIS`.
    """

    def __init__(
        self,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
        *,
        epsilon: float = 10.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(ref_emb, ref_labels, **kwargs)
        self.epsilon = check_positive("epsilon", epsilon)
        if epsilon > 50:
            raise ValueError(f"epsilon: got {epsilon!r}, expected a percentage in (0, 50]")

    def _value(self, curves: ClassCurves) -> float:
        settings: dict[str, Any] = {"far": self.far, "range": self.calibration_range, "k": self.k}
        return epsilon_opis(curves, self.epsilon, **settings, draws=0).value


class TARAtFAR(PairMetric):
    """True-accept rate where at most a share `far` of other-class pairs is accepted; see `rates.tar_at_far`.

    Args:
        ref_emb: (M, D) reference set or None, as in `OPIS`.
        ref_labels: (M,) class of each of its rows.
        far: pooled false-accept rate, in (0, 1).
        kwargs: `bins`, `range` and `backend` as in `class_curves`; and those of every `torchmetrics.Metric`.
    """

    higher_is_better = True
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    def __init__(
        self,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
        *,
        far: float = 1e-3,
        **kwargs: Any,
    ) -> None:
        super().__init__(ref_emb, ref_labels, **kwargs)
        self.far = check_rate("far", far)

    def _value(self, curves: ClassCurves) -> float:
        return tar_at_far(curves, self.far).tar


class ThresholdSpread(PairMetric):
    """How far the classes' own thresholds lie apart; see `own_thresholds.threshold_spread`.

    Args:
        ref_emb: (M, D) reference set or None, as in `OPIS`.
        ref_labels: (M,) class of each of its rows.
        far: false-accept rate in (0, 1) that every class has its own threshold for; 1e-2 where neither far
            nor frr is given.
        frr: false-reject rate in (0, 1), instead of far.
        scale: "relative", the standard deviation of the thresholds as a share of mean same-class minus mean
            other-class similarity, which can be compared between models; "similarity", the deviation itself;
            "decades", the standard deviation of log10 of the classes' error rates at one threshold for all.
        kwargs: `bins`, `range` and `backend` as in `class_curves`; and those of every `torchmetrics.Metric`.
    """

    higher_is_better = False
    plot_lower_bound = 0.0

    def __init__(
        self,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
        *,
        far: float | None = None,
        frr: float | None = None,
        scale: Scale = "relative",
        **kwargs: Any,
    ) -> None:
        super().__init__(ref_emb, ref_labels, **kwargs)
        target_of(far, frr)
        if scale not in get_args(Scale):
            raise ValueError(f"scale: got {scale!r}, expected one of {', '.join(get_args(Scale))}")
        self.far, self.frr, self.scale = far, frr, scale

    def _value(self, curves: ClassCurves) -> float:
        found = threshold_spread(curves, far=self.far, frr=self.frr, draws=0)
        if self.scale == "similarity":
            return found.deviation
        if self.scale == "relative" and not found.separation > 0:
            raise TooFewPairsError(
                "curves: got same-class pairs that are on average no more similar than other-class pairs, or "
                "none of a kind, expected a positive difference"
            )
        if self.scale == "decades" and math.isnan(found.threshold):
            raise TooFewPairsError(
                f"{found.target}: got {found.rate:g}, which all pairs together meet at no edge, expected a "
                f"larger {found.target}, or curves of another `range`"
            )
        return found.relative if self.scale == "relative" else found.decades
