"""The nn.Module around the loss, and the statistics it leaves behind."""

from __future__ import annotations

import copy
import dataclasses
import io
import pickle

import pytest
import torch
from cases import LABEL_DTYPES, RELATIONS, Case
from engines import Engine

import tcm_kernels
from tcm_kernels import reference


@pytest.mark.parametrize("labels", ["shuffled", "unbalanced", "huge", "all_equal", "all_different"])
@pytest.mark.parametrize("relation", RELATIONS)
def test_statistics_are_those_of_the_reference(engine: Engine, relation: str, labels: str) -> None:
    engine.skip_unless_it_takes(torch.float64)
    inputs = Case(relation=relation, n=70, d=9, labels=labels, look="random", dtype=torch.float64).build()
    settings = {name: inputs.settings[name] for name in ("margin_plus", "margin_minus", "self_offset")}
    expected = reference.tcm_sums(*inputs.tensors, **settings)
    moved = [None if x is None else x.to(engine.device) for x in inputs.tensors]
    loss, stats = tcm_kernels.fused_tcm_loss(
        *moved, **inputs.settings, backend=engine.backend, return_stats=True
    )
    for name in ("positive", "negative"):
        total, count = getattr(stats, f"{name}_sum").cpu(), getattr(stats, f"{name}_count").cpu()
        true_total, true_count = getattr(expected, f"{name}_sum"), getattr(expected, f"{name}_count")
        assert (total.dtype, count.dtype, total.shape, count.shape) == (torch.float64, torch.int64, (), ())
        assert torch.equal(count, true_count)
        torch.testing.assert_close(total, true_total, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(
            getattr(stats, f"{name}_term").cpu(), true_total / true_count.clamp_min(1), rtol=1e-12, atol=0
        )
    terms = inputs.lambda_plus * stats.positive_term + inputs.lambda_minus * stats.negative_term
    torch.testing.assert_close(loss, terms, rtol=1e-15, atol=0)

    own = inputs.labels.tolist()
    other = own if inputs.ref_labels is None else inputs.ref_labels.tolist()
    offset = 0 if inputs.ref_emb is None else inputs.self_offset
    pairs = [
        a == b for i, a in enumerate(own) for j, b in enumerate(other) if offset is None or i + offset != j
    ]
    assert int(stats.positive_pairs) == sum(pairs)
    assert int(stats.negative_pairs) == len(pairs) - sum(pairs)
    for name, present in (("positive", sum(pairs)), ("negative", len(pairs) - sum(pairs))):
        share = float(getattr(stats, f"hard_{name}_share"))
        assert share == pytest.approx(int(getattr(expected, f"{name}_count")) / max(present, 1), rel=1e-6)
        assert 0.0 <= share <= 1.0


@pytest.mark.parametrize("dtype", LABEL_DTYPES, ids=str)
def test_pairs_are_counted_for_every_label_type(dtype: torch.dtype) -> None:
    """Small unsigned numbers, and the largest ones, which are negative to a reader that is not careful."""
    top = torch.iinfo(dtype).max
    labels = torch.tensor([0, top, top, 1, top - 1, 0], dtype=dtype)
    emb = torch.randn(6, 3)
    _, stats = tcm_kernels.fused_tcm_loss(emb, labels, return_stats=True)
    assert int(stats.positive_pairs) == 4
    assert int(stats.negative_pairs) == 26
    _, stats = tcm_kernels.fused_tcm_loss(emb[:2], labels[:2], emb, labels, return_stats=True)
    assert int(stats.positive_pairs) == 4
    assert int(stats.negative_pairs) == 8


def test_statistics_survive_a_reused_label_buffer() -> None:
    """A data loader writes the next batch's labels into the same tensor."""
    labels = torch.tensor([0, 0, 1, 1])
    _, stats = tcm_kernels.fused_tcm_loss(torch.randn(4, 3), labels, return_stats=True)
    labels.fill_(0)
    assert int(stats.positive_pairs) == 4


def test_statistics_are_frozen_and_detachable() -> None:
    emb = torch.randn(4, 3, requires_grad=True)
    _, stats = tcm_kernels.fused_tcm_loss(emb, torch.tensor([0, 0, 1, 1]), return_stats=True)
    assert stats.positive_sum.requires_grad
    assert not stats.positive_count.requires_grad
    kept = stats.detach()
    assert not kept.positive_sum.requires_grad
    assert not kept.negative_term.requires_grad
    assert torch.equal(kept.positive_sum, stats.positive_sum.detach())
    with pytest.raises(dataclasses.FrozenInstanceError):
        stats.positive_sum = stats.negative_sum  # type: ignore[misc]


def _module(engine: Engine, **settings: float) -> tcm_kernels.ThresholdConsistentMarginLoss:
    return tcm_kernels.ThresholdConsistentMarginLoss(backend=engine.backend, **settings)


@pytest.mark.parametrize("relation", ["self", "rectangular"])
def test_the_module_is_the_function(engine: Engine, relation: str) -> None:
    inputs = Case(relation=relation, n=60, d=7).build(engine.device)
    emb, labels, ref, ref_labels = inputs.tensors
    settings = {"margin_plus": 0.8, "margin_minus": 0.3, "lambda_plus": 0.5, "lambda_minus": 2.0}
    criterion = _module(engine, **settings)
    expected = tcm_kernels.fused_tcm_loss(emb, labels, ref, ref_labels, **settings, backend=engine.backend)
    assert torch.equal(criterion(emb, labels, None, ref, ref_labels), expected)
    assert torch.equal(criterion(emb, labels, ref_emb=ref, ref_labels=ref_labels), expected)


def test_the_module_keeps_statistics_of_the_last_batch_without_its_graph(engine: Engine) -> None:
    criterion = _module(engine)
    assert criterion.last_stats is None
    inputs = Case(n=60, d=7).build(engine.device)
    criterion(inputs.emb, inputs.labels).backward()
    kept = criterion.last_stats
    assert kept is not None
    assert int(kept.positive_count) > 0
    for field in dataclasses.fields(kept):
        value = getattr(kept, field.name)
        assert not (isinstance(value, torch.Tensor) and value.requires_grad), field.name
    criterion(inputs.emb[:1], inputs.labels[:1])
    assert criterion.last_stats is not kept
    assert int(criterion.last_stats.positive_count) == 0


@pytest.mark.parametrize("used", [False, True], ids=["fresh", "after_a_batch"])
@pytest.mark.parametrize("through", ["pickle", "deepcopy", "torch.save"])
def test_the_module_can_be_copied_and_stored(engine: Engine, through: str, used: bool) -> None:
    criterion = _module(engine, margin_plus=0.7)
    inputs = Case(n=30, d=7).build(engine.device)
    if used:
        criterion(inputs.emb, inputs.labels).backward()
    if through == "deepcopy":
        twin = copy.deepcopy(criterion)
    elif through == "pickle":
        twin = pickle.loads(pickle.dumps(criterion))
    else:
        buffer = io.BytesIO()
        torch.save(criterion, buffer)
        buffer.seek(0)
        twin = torch.load(buffer, weights_only=False)
    assert repr(twin) == repr(criterion)
    assert torch.equal(twin(inputs.emb, inputs.labels), criterion(inputs.emb, inputs.labels))


def test_the_module_has_nothing_to_train_and_nothing_to_load() -> None:
    criterion = tcm_kernels.ThresholdConsistentMarginLoss()
    assert criterion.state_dict() == {}
    assert list(criterion.parameters()) == []
    criterion.load_state_dict({})


def test_the_module_shows_its_settings() -> None:
    criterion = tcm_kernels.ThresholdConsistentMarginLoss(margin_plus=0.8, lambda_minus=2.0, backend="torch")
    assert repr(criterion) == (
        "ThresholdConsistentMarginLoss(margin_plus=0.8, margin_minus=0.5, lambda_plus=1.0, "
        "lambda_minus=2.0, backend='torch')"
    )


def test_the_module_takes_a_schedule_of_margins(engine: Engine) -> None:
    """By assigning, and by writing into a tensor."""
    inputs = Case(n=60, d=7).build(engine.device)
    margin = torch.tensor(0.9, dtype=torch.float64, device=engine.device)
    by_tensor = tcm_kernels.ThresholdConsistentMarginLoss(margin_plus=margin, backend=engine.backend)
    by_value = _module(engine)
    for value in (0.9, 0.6, 0.3):
        margin.fill_(value)
        by_value.margin_plus = value
        assert torch.equal(by_tensor(inputs.emb, inputs.labels), by_value(inputs.emb, inputs.labels))
    assert "margin_plus=<" in repr(by_tensor), "showing the module may not read a tensor on a busy device"


def test_the_module_follows_its_embeddings_not_itself() -> None:
    """Casting the module, as model.half() does, changes nothing: it has no tensors of its own."""
    emb, labels = torch.randn(8, 3), torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    criterion = tcm_kernels.ThresholdConsistentMarginLoss()
    expected = criterion(emb, labels)
    assert torch.equal(criterion.half()(emb, labels), expected)
    assert criterion(emb.double(), labels).dtype == torch.float64
    assert criterion(emb.bfloat16(), labels).dtype == torch.float32
