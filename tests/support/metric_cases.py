"""Metrics on queries and a gallery, and what they must say.

Inputs are `exact_rows`: similarities are multiples of 1/16 without rounding, so values must agree to the last
bit of the float32 that a metric returns, in whatever batches the rows arrive.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from brute_force import exact_rows
from torch import Tensor

from tcm_kernels.evaluation.consistency import epsilon_opis, opis
from tcm_kernels.evaluation.counting import class_curves
from tcm_kernels.evaluation.curves import ClassCurves
from tcm_kernels.evaluation.own_thresholds import threshold_spread
from tcm_kernels.evaluation.roc import tar_at_far

pytest.importorskip("torchmetrics", reason="needs torchmetrics")
from torchmetrics import Metric

from tcm_kernels.evaluation.metrics import OPIS, EpsilonOPIS, TARAtFAR, ThresholdSpread

NAMES = {
    "opis": "OPIS",
    "epsilon_opis": "EpsilonOPIS",
    "tar_at_far": "TARAtFAR",
    "threshold_spread": "ThresholdSpread",
}
METRICS = tuple(NAMES)
N, M, D = 90, 60, 24
BINS = 32  # edges at multiples of 1/16, where the similarities are: every pair is a tie with an edge
RANGE = (-0.25, 0.25)
FAR = 0.1
FRR = 0.3


def queries(seed: int = 1, n: int = N, classes: int = 7) -> tuple[Tensor, Tensor]:
    """Classes 0 to 6: the last two are not in the reference set."""
    draw = torch.Generator().manual_seed(seed)
    return exact_rows(n, D, seed), torch.randint(classes, (n,), generator=draw)


def gallery() -> tuple[Tensor, Tensor]:
    """Classes 0 to 4, and one that no query has."""
    emb, labels = queries(2, M, 6)
    return emb, torch.where(labels == 5, 90, labels)


def make(which: str, with_reference: bool, **settings: Any) -> Metric:
    reference = gallery() if with_reference else ()
    settings = {"bins": BINS, **settings}
    if which == "tar_at_far":
        return TARAtFAR(*reference, far=FAR, **settings)
    if which == "threshold_spread":
        return ThresholdSpread(*reference, frr=FRR, scale="similarity", **settings)
    settings = {"calibration_range": RANGE, "k": 2.0, **settings}
    if which == "opis":
        return OPIS(*reference, **settings)
    return EpsilonOPIS(*reference, epsilon=40.0, **settings)


def number(which: str, curves: ClassCurves) -> Tensor:
    """What the metric must say, by the functions it is made of."""
    if which == "tar_at_far":
        value = tar_at_far(curves, FAR).tar
    elif which == "threshold_spread":
        value = threshold_spread(curves, frr=FRR, draws=0).deviation
    elif which == "opis":
        value = opis(curves, range=RANGE, k=2.0).value
    else:
        value = epsilon_opis(curves, 40.0, range=RANGE, k=2.0).value
    return torch.tensor(value, dtype=torch.float32)


def expected(which: str, with_reference: bool, emb: Tensor, labels: Tensor) -> Tensor:
    reference = gallery() if with_reference else ()
    return number(which, class_curves(emb, labels, *reference, bins=BINS))


def batches(emb: Tensor, labels: Tensor, sizes: tuple[int, ...] = (40, 0, 1, 30, 19)) -> Iterator[Any]:
    return zip(emb.split(sizes), labels.split(sizes), strict=True)


def filled(metric: Metric, emb: Tensor, labels: Tensor) -> Metric:
    for batch in batches(emb, labels):
        metric.update(*batch)
    return metric


both_ways = pytest.mark.parametrize("with_reference", [False, True], ids=["all_pairs", "reference"])
each_metric = pytest.mark.parametrize("which", METRICS)
