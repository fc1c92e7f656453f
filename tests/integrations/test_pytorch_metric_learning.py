"""pytorch-metric-learning's classes and ours: what people do with theirs, done with both."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

pytest.importorskip("pytorch_metric_learning")

import metric_learning_features
from checkout import ROOT
from metric_learning_features import COLUMNS, FEATURES, OURS, THEIRS, Found, contrastive, outcome, rows, tcm
from pytorch_metric_learning import distances, losses, miners, reducers
from pytorch_metric_learning.utils import loss_and_miner_utils

import tcm_kernels
from tcm_kernels.integrations import pytorch_metric_learning as ours

PAGE = ROOT / "docs/pytorch-metric-learning.md"
# The library's own classes are deprecated nowhere, but torch warns of what they call.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.mark.parametrize("feature", FEATURES.values(), ids=FEATURES)
def test_value_and_gradient_are_those_of_explicit_pairs(feature: Callable[[Any], Found]) -> None:
    assert outcome(feature, OURS) == "yes"


def test_the_page_shows_what_comes_out() -> None:
    page = PAGE.read_text(encoding="utf-8")
    shown = page.partition("<!--table-->\n")[2].partition("\n<!--/table-->")[0]
    assert shown == metric_learning_features.table()


def test_an_outcome_can_be_another_one() -> None:
    def with_another(part: str) -> Callable[[Any], Found]:
        def feature(_: Any) -> Found:
            x = torch.ones(3, requires_grad=True)
            if part == "IndexError":
                raise IndexError
            return Found(x.sum(), lambda x: x.sum() + (1 if "value" in part else (x - 1).sum()), x)

        return feature

    for part in ("another value", "another gradient", "IndexError"):
        assert outcome(with_another(part), None) == part


@pytest.mark.parametrize("make", [tcm, contrastive])
@pytest.mark.parametrize("batches", [1, 2, 3, 6])
@pytest.mark.parametrize("size", [40, 55, 80, 100])
def test_a_bank_without_a_miner_lists_no_pairs_and_has_the_value_of_one_that_does(
    make: Callable[..., Any], batches: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the batch's rows begin at the end of the bank and go on at its beginning."""

    def last_of(bank: Any) -> tuple[torch.Tensor, torch.Tensor]:
        for seed in range(batches):
            x, labels = rows(seed)
            value = bank(x, labels)
        return value, torch.autograd.grad(value, x)[0]

    expected = last_of(losses.CrossBatchMemory(contrastive(THEIRS), COLUMNS, memory_size=size))
    monkeypatch.delattr(loss_and_miner_utils, "get_all_pairs_indices")
    value, grad = last_of(ours.CrossBatchMemory(make(OURS), COLUMNS, memory_size=size))
    torch.testing.assert_close(value, expected[0], rtol=0, atol=2e-6)
    torch.testing.assert_close(grad, expected[1], rtol=0, atol=1e-7)


def test_a_bank_compares_rows_that_are_not_put_into_it_with_all_that_are_there() -> None:
    x, labels = rows(1)
    enqueued = torch.arange(len(x)) % 3 == 0
    values = []
    for library, module in ((OURS, ours), (THEIRS, losses)):
        bank = module.CrossBatchMemory(contrastive(library), COLUMNS, memory_size=30)
        bank(x, labels, enqueue_mask=enqueued)
        values.append(bank(x, labels, enqueue_mask=~enqueued))
    torch.testing.assert_close(values[0], values[1], rtol=0, atol=2e-6)


def test_pairs_exactly_on_a_margin_are_left_out_of_the_mean_as_theirs_are() -> None:
    """Orthogonal negatives at neg_margin = 0, and equal positives at pos_margin = 1."""
    x = torch.eye(4).repeat_interleave(2, dim=0)
    x[0] = torch.tensor([1.0, 1.0, 0.0, 0.0])
    x.requires_grad_()
    labels = torch.arange(8) // 2
    settings: dict[str, Any] = {
        "pos_margin": 1.0,
        "neg_margin": 0.0,
        "distance": distances.CosineSimilarity(),
    }
    value, theirs = (module.ContrastiveLoss(**settings)(x, labels) for module in (ours, losses))
    torch.testing.assert_close(value, theirs, rtol=0, atol=1e-6)
    inclusive = tcm_kernels.fused_tcm_loss(x, labels, margin_plus=1.0, margin_minus=0.0)
    assert inclusive < value - 0.1


def test_statistics_are_recorded_where_they_are_asked_for() -> None:
    x, labels = rows(2)
    recording, other = tcm(OURS, collect_stats=True), tcm(OURS)
    recording(x, labels)
    other(x, labels)
    assert recording.hard_positives == int(other.last_stats.positive_count) > 0
    assert recording.hard_negatives == int(other.last_stats.negative_count) > 0
    assert "hard_positives" in recording._record_these_stats
    assert not hasattr(other, "_record_these_stats")
    assert not other.last_stats.positive_sum.requires_grad


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tcm(OURS, distance=distances.LpDistance()), "distance: got LpDistance, expected CosineSim"),
        (lambda: tcm(OURS, distance=distances.CosineSimilarity(power=2)), r"distance: got .*power=2"),
        (lambda: tcm(OURS, distance=distances.DotProductSimilarity()), "distance: got DotProduct"),
        (lambda: ours.ContrastiveLoss(0.9, 0.5), "distance: got None, .* expected CosineSimilarity"),
        (lambda: contrastive(OURS, reducer=reducers.MeanReducer()), "reducer: got MeanReducer, expected Avg"),
        (lambda: ours.ContrastiveLoss(3, 0, distance=distances.CosineSimilarity()), "pos_margin: got 3"),
        (lambda: ours.ThresholdConsistentMarginLoss(-1.0), "lambda_plus: got -1.0"),
        (lambda: ours.ThresholdConsistentMarginLoss(margin_minus=2.0), "margin_minus: got 2.0"),
        (lambda: tcm(OURS, backend="numpy"), "backend: got 'numpy'"),
    ],
)
def test_what_the_kernels_do_not_take_is_refused_by_name(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_the_default_reducer_may_be_named() -> None:
    x, labels = rows(3)
    named = contrastive(OURS, reducer=reducers.AvgNonZeroReducer())
    assert torch.equal(named(x, labels), contrastive(OURS)(x, labels))


@pytest.mark.parametrize("wrapper", ["CrossBatchMemory", "SelfSupervisedLoss"])
def test_wrappers_take_their_losses_as_before_and_refuse_what_they_refuse(wrapper: str) -> None:
    more = {"embedding_size": COLUMNS} if wrapper == "CrossBatchMemory" else {}
    make = getattr(ours, wrapper)
    make(losses.NTXentLoss(), **more)
    for loss in (losses.ThresholdConsistentMarginLoss(), losses.ArcFaceLoss(3, COLUMNS)):
        with pytest.raises(Exception, match=f"{wrapper} not supported for {type(loss).__name__}"):
            make(loss, **more)


def test_their_losses_in_our_bank_are_those_in_theirs() -> None:
    x, labels = rows(4)
    values = [
        module.CrossBatchMemory(losses.NTXentLoss(), COLUMNS, miner=miners.MultiSimilarityMiner())(x, labels)
        for module in (ours, losses)
    ]
    assert torch.equal(*values)


def test_half_precision_embeddings_and_a_copy_of_the_loss() -> None:
    x, labels = rows(5)
    loss = copy.deepcopy(tcm(OURS))
    assert loss(x.detach().bfloat16(), labels).dtype == torch.float32
    assert "ThresholdConsistentMarginLoss" in repr(loss)


def test_losses_are_those_of_the_library() -> None:
    for loss in (tcm(OURS), contrastive(OURS)):
        assert isinstance(loss, losses.BaseMetricLossFunction)
    assert isinstance(ours.CrossBatchMemory(tcm(OURS), COLUMNS), losses.CrossBatchMemory)
