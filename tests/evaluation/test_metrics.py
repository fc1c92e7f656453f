"""The torchmetrics metrics: their values, and what they refuse."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from brute_force import all_pairs
from brute_force import epsilon_opis as true_epsilon_opis
from brute_force import opis as true_opis

pytest.importorskip("torchmetrics", reason="needs torchmetrics")
from metric_cases import (
    BINS,
    FAR,
    FRR,
    RANGE,
    M,
    N,
    batches,
    both_ways,
    each_metric,
    expected,
    filled,
    gallery,
    make,
    queries,
)
from torchmetrics import Metric

from tcm_kernels.evaluation import class_curves, threshold_spread
from tcm_kernels.evaluation.metrics import OPIS, EpsilonOPIS, TARAtFAR, ThresholdSpread


@both_ways
@each_metric
def test_batches_together_give_the_number_of_all_rows(which: str, with_reference: bool) -> None:
    emb, labels = queries()
    value = filled(make(which, with_reference), emb, labels).compute()
    assert (value.dtype, value.shape, value.device.type) == (torch.float32, (), "cpu")
    assert torch.equal(value, expected(which, with_reference, emb, labels))
    assert 0.0 < value < 1.0  # not one of the values that everything gives


@both_ways
@each_metric
def test_the_number_is_that_of_explicit_pairs(which: str, with_reference: bool) -> None:
    emb, labels = queries()
    truth = all_pairs(emb, labels, *(gallery() if with_reference else ()), bins=BINS)
    if which == "tar_at_far":
        edge = truth.first_edge_with_far(FAR)
        assert edge is not None
        value = truth.true_accept(edge)
    elif which == "threshold_spread":
        edges = [truth.last_edge_with_frr(FRR, c) for c in truth.classes]
        own = [-1.0 + 2.0 * edge / BINS for edge in edges if edge is not None]
        assert len(own) == (5 if with_reference else 7)
        value = math.sqrt(sum((x - sum(own) / len(own)) ** 2 for x in own) / len(own))
    else:
        first, last = (round((t + 1) * BINS / 2) for t in RANGE)
        utilities = truth.utilities(first, last + 1, k=2.0)
        assert len(utilities) == (5 if with_reference else 7)
        value = true_opis(utilities) if which == "opis" else true_epsilon_opis(utilities, 40.0)
    measured = filled(make(which, with_reference), emb, labels).compute()
    assert measured.item() == pytest.approx(value, rel=1e-6)


@both_ways
@each_metric
def test_the_order_of_batches_does_not_matter(which: str, with_reference: bool) -> None:
    metric, backwards = make(which, with_reference), make(which, with_reference)
    for batch in (parts := list(batches(*queries()))):
        metric.update(*batch)
    for batch in reversed(parts):
        backwards.update(*batch)
    assert torch.equal(metric.compute(), backwards.compute())


@both_ways
@each_metric
def test_reset_forgets_what_was_seen(which: str, with_reference: bool) -> None:
    metric = filled(make(which, with_reference), *queries())
    before = metric.compute()
    metric.reset()
    after = filled(metric, *queries(7)).compute()
    assert torch.equal(after, expected(which, with_reference, *queries(7)))
    assert not torch.equal(after, before)


@both_ways
@each_metric
def test_forward_returns_the_batch_and_keeps_the_rest(which: str, with_reference: bool) -> None:
    emb, labels = queries()
    metric = make(which, with_reference)
    for part in batches(emb, labels, (40, 50)):
        assert torch.equal(metric(*part), expected(which, with_reference, *part))
    assert torch.equal(metric.compute(), expected(which, with_reference, emb, labels))


def test_queries_of_unknown_classes_count_against_the_classes_they_resemble() -> None:
    """They are false accepts of the reference's classes, so leaving them out would change the number."""
    emb, labels = queries()
    known = labels < 5
    alone = filled(make("opis", True), emb, labels)
    without = make("opis", True)
    without.update(emb[known], labels[known])
    assert torch.equal(alone.negatives.sum(dim=0), 2 * alone.pooled[1])  # a pair counts at both its ends
    assert int(alone.negatives[-1].sum()) == int((~known).sum()) * M
    assert int(alone.positives[-1].sum()) == 0
    assert int(alone.pooled.sum()) == N * M
    assert alone.compute() != without.compute()


@each_metric
@pytest.mark.parametrize(
    ("with_reference", "labels"),
    [(False, []), (True, []), (False, [3] * 6), (False, range(6)), (True, range(100, 106))],
    ids=["no_rows", "no_rows_for_the_reference", "one_class", "all_singletons", "none_of_the_reference"],
)
def test_too_few_pairs_give_nan_and_one_warning(
    which: str, with_reference: bool, labels: Sequence[int]
) -> None:
    """Lightning's sanity check looks at two batches before the training: an error there would end it."""
    few = queries()[0][: len(labels)], torch.tensor(labels, dtype=torch.int64)
    metric = make(which, with_reference)
    metric.update(*few)
    with pytest.warns(UserWarning, match=f"{type(metric).__name__} is NaN: ") as told:
        value = metric.compute()
    assert len(told) == 1
    assert (value.shape, value.dtype) == ((), torch.float32)
    assert value.isnan()
    metric.reset()
    assert metric(*few).isnan()  # and a second warning would be an error
    assert metric.compute().isnan()
    metric.reset()
    assert torch.equal(filled(metric, *queries()).compute(), expected(which, with_reference, *queries()))


@each_metric
def test_a_metric_that_saw_nothing_is_nan(which: str) -> None:
    metric = make(which, False)
    with (
        pytest.warns(UserWarning, match="called before the ``update`` method"),  # torchmetrics' own
        pytest.warns(UserWarning, match="is NaN: there are no pairs in what was seen"),
    ):
        assert metric.compute().isnan()


def test_rows_that_are_not_finite_are_an_error_and_no_number() -> None:
    emb, labels = queries()
    emb[3, 0] = math.nan
    with pytest.raises(ValueError, match=r"emb: 1 of 90 rows are not finite \(rows 3\)"):
        make("opis", True).update(emb, labels)
    metric = make("opis", False)
    metric.update(emb, labels)
    with pytest.raises(ValueError, match=r"emb: 1 of 90 rows are not finite \(rows 3\)"):
        metric.compute()


REF = gallery()


@pytest.mark.parametrize(
    ("kind", "arguments", "settings", "error", "message"),
    [
        (OPIS, (), {"bins": 0}, ValueError, "bins: got 0"),
        (OPIS, (), {"bins": 2.5}, ValueError, "bins: got 2.5"),
        (TARAtFAR, (), {"range": (1.0, -1.0)}, ValueError, "range: got"),
        (TARAtFAR, (), {"range": 3}, TypeError, "range: got 3"),
        (OPIS, (), {"backend": "numpy"}, ValueError, "backend: got 'numpy'"),
        (OPIS, (), {"far": (0.0, 0.1)}, ValueError, "far: got"),
        (OPIS, (), {"far": 0.1}, (TypeError, ValueError), "far: got 0.1"),
        (OPIS, (), {"far": (1e-2, 2.0)}, ValueError, "far: got"),
        (OPIS, (), {"calibration_range": (0.5, 0.1)}, ValueError, "^calibration_range: got"),
        (OPIS, (), {"calibration_range": (2.0, 3.0)}, ValueError, "^calibration_range: 2 to 3 covers 0"),
        (OPIS, (), {"k": 0.0}, ValueError, "k: got 0.0"),
        (EpsilonOPIS, (), {"k": -1.0}, ValueError, "k: got -1.0"),
        (EpsilonOPIS, (), {"epsilon": 0.0}, ValueError, "epsilon: got 0.0"),
        (EpsilonOPIS, (), {"epsilon": 51.0}, ValueError, "epsilon: got 51.0"),
        (TARAtFAR, (), {"far": 0.0}, ValueError, "far: got 0.0"),
        (TARAtFAR, (), {"far": 1.0}, ValueError, "far: got 1.0"),
        (TARAtFAR, (), {"far": "low"}, (TypeError, ValueError), "far: got 'low'"),
        (TARAtFAR, (), {"colour": "red"}, ValueError, "colour"),
        (ThresholdSpread, (), {"far": 0.0}, ValueError, "^far: got 0.0"),
        (ThresholdSpread, (), {"frr": 1.0}, ValueError, "^frr: got 1.0"),
        (ThresholdSpread, (), {"far": 0.1, "frr": 0.1}, ValueError, "^far, frr: got far=0.1, frr=0.1"),
        (ThresholdSpread, (), {"scale": "log"}, ValueError, "^scale: got 'log', expected one of relative"),
        (OPIS, (REF[0],), {}, ValueError, "ref_labels: got None"),
        (OPIS, (None, REF[1]), {}, ValueError, "ref_emb: got None"),
        (OPIS, (REF[0], REF[1][:-1]), {}, ValueError, "ref_labels: got shape"),
        (OPIS, (REF[0], REF[1].float()), {}, TypeError, "ref_labels: got dtype"),
        (OPIS, (REF[0][0], REF[1]), {}, ValueError, "ref_emb: got shape"),
        (OPIS, (REF[0].numpy(), REF[1]), {}, TypeError, "ref_emb: got ndarray"),
        (OPIS, (REF[0] / 0, REF[1]), {}, ValueError, "ref_emb: 60 of 60 rows are not finite"),
        (OPIS, (REF[0][:0], REF[1][:0]), {}, ValueError, "ref_emb: got no rows"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_at_construction(
    kind: Callable[..., Metric],
    arguments: tuple[Any, ...],
    settings: dict[str, Any],
    error: Any,
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        kind(*arguments, **settings)


@both_ways
def test_a_batch_that_cannot_be_used_is_refused_by_update(with_reference: bool) -> None:
    metric = make("opis", with_reference)
    emb, labels = queries()
    metric.update(emb, labels)
    with pytest.raises(ValueError, match=r"emb: got shape .* expected 24 columns"):
        metric.update(emb[:, :-1], labels)
    with pytest.raises(ValueError, match="labels: got shape"):
        metric.update(emb, labels[:-1])
    with pytest.raises(TypeError, match=r"labels: got dtype torch\.float32"):
        metric.update(emb, labels.float())
    with pytest.raises(TypeError, match=r"emb: got dtype torch\.int64"):
        metric.update(emb.long(), labels)
    if with_reference:
        with pytest.raises(ValueError, match="emb: got device meta, expected cpu as ref_emb has"):
            metric.update(emb.to("meta"), labels.to("meta"))
    assert torch.equal(metric.compute(), expected("opis", with_reference, emb, labels))


def _clusters() -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(3)
    labels = torch.arange(90) % 6
    noise = torch.linspace(0.2, 0.8, 6)[labels, None] * torch.randn(90, 8, generator=draw)
    return torch.randn(6, 8, generator=draw)[labels] + noise, labels


@pytest.mark.parametrize("target", [{}, {"far": 0.05}, {"frr": 0.2}], ids=str)
@pytest.mark.parametrize("scale", ["relative", "similarity", "decades"])
def test_threshold_spread_has_three_scales_and_two_targets(scale: str, target: dict[str, float]) -> None:
    metric = ThresholdSpread(**target, scale=scale)
    metric.update(*_clusters())
    found = threshold_spread(class_curves(*_clusters()), **target)
    values = {"relative": found.relative, "similarity": found.deviation, "decades": found.decades}
    assert metric.compute().item() == pytest.approx(values[scale], rel=1e-6)
    assert len(set(values.values())) == 3


def test_threshold_spread_is_relative_and_at_one_percent_unless_told_otherwise() -> None:
    metric = ThresholdSpread()
    metric.update(*_clusters())
    value = threshold_spread(class_curves(*_clusters()), far=1e-2).relative
    assert metric.compute().item() == pytest.approx(value, rel=1e-6)
    assert not metric.higher_is_better


@pytest.mark.parametrize(
    ("scale", "settings", "labels", "reason"),
    [
        ("relative", {}, range(90), "no more similar than other-class pairs"),
        (
            "decades",
            {"range": (-1.0, 0.0), "far": 0.2},
            None,
            "far: got 0.2, which all pairs together meet at no",
        ),
    ],
)
def test_a_scale_that_the_data_lack_is_nan_and_said_to_be(
    scale: Any, settings: dict[str, Any], labels: Sequence[int] | None, reason: str
) -> None:
    emb, y = _clusters()
    if labels is None:  # two classes apart from all others, which are alike
        emb = torch.ones(90, 8)
        emb[y < 2] = torch.eye(8)[y[y < 2]] - torch.ones(8)
    else:
        y = torch.tensor(labels)
    metric = ThresholdSpread(scale=scale, **settings)
    metric.update(emb, y)
    with pytest.warns(UserWarning, match=reason):
        assert metric.compute().isnan()
    whole = ThresholdSpread(scale="similarity", **settings)
    whole.update(emb, y)
    assert whole.compute() >= 0
