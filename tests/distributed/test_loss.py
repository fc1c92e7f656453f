"""The distributed loss on real processes, run by on_ranks.py, against the reference of the whole batch."""

from __future__ import annotations

import dataclasses
from typing import Any

import on_ranks
import pytest
import torch
from agreement import Result, assert_agrees, upstream_for
from cases import Inputs
from on_ranks import OTHERWISE, WAYS, WITH_REFERENCE, Scenario, WithReference
from torchrun import found_on_ranks

import tcm_kernels
from tcm_kernels import dispatch
from tcm_kernels.stats import PairStats

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.distributed.is_available(), reason="torch has no torch.distributed"),
    pytest.mark.skipif(dispatch.why_not_here("cpu") is not None, reason="the cpu backend is not here"),
]
SCENARIOS = on_ranks.scenarios()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """What each rank has found, by the name of the job."""
    report = tmp_path_factory.mktemp("ranks") / "report"
    return found_on_ranks("on_ranks.py", on_ranks.PROCESSES, report)


def result_of(ranks: list[dict[str, Any]], inputs: Inputs, weight: int) -> Result:
    """Of the whole batch, from what its ranks have found; gradients are `weight` times those of the loss."""
    loss = ranks[0]["loss"]
    stats: PairStats = ranks[0]["stats"]
    for rank in ranks[1:]:
        assert torch.equal(rank["loss"], loss), "ranks disagree about the loss"
        assert stats_of(rank["stats"]) == stats_of(stats)
    grad = torch.cat([rank["grad"] for rank in ranks])
    return Result(loss, stats, grad, None, weight * upstream_for(inputs.emb.dtype))


def stats_of(stats: PairStats) -> list[float]:
    names = (
        "positive_sum",
        "positive_count",
        "positive_pairs",
        "negative_sum",
        "negative_count",
        "negative_pairs",
    )
    return [float(getattr(stats, name)) for name in names]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.id)
def test_the_loss_and_all_gradients_are_those_of_the_whole_batch(
    scenario: Scenario, found: dict[str, list[Any]]
) -> None:
    inputs = scenario.build()
    weight = scenario.world if scenario.reduction == "mean" else 1
    result = result_of(found[scenario.id], inputs, weight)
    assert_agrees(result, inputs)
    alone = tcm_kernels.fused_tcm_loss(inputs.emb, inputs.labels, return_stats=True)[1]
    assert int(result.stats.positive_pairs) == int(alone.positive_pairs)
    assert int(result.stats.negative_pairs) == int(alone.negative_pairs)


def test_every_run_gives_the_same_bits(found: dict[str, list[Any]]) -> None:
    for scenario in SCENARIOS:
        assert all(rank["repeats"] for rank in found[scenario.id]), scenario.id


@pytest.mark.parametrize("scenario", on_ranks.with_faults(), ids=lambda scenario: scenario.fault)
def test_a_planted_fault_is_found(scenario: Scenario, found: dict[str, list[Any]]) -> None:
    inputs = scenario.build()
    weight = scenario.world if scenario.reduction == "mean" else 1
    result = result_of(found[scenario.id], inputs, weight)
    with pytest.raises(AssertionError, match=r"the gradient of emb|hard (positive|negative) pairs"):
        assert_agrees(result, inputs)


@pytest.mark.parametrize("what", WITH_REFERENCE, ids=lambda what: what.id)
def test_with_a_reference_set_it_is_the_loss_of_all_rows_and_all_reference_rows(
    what: WithReference, found: dict[str, list[Any]]
) -> None:
    inputs = what.build()
    assert inputs.ref_emb is not None
    result = result_of(found[what.id], inputs, 1)
    whole = tcm_kernels.fused_tcm_loss(
        *inputs.tensors, **on_ranks.settings_of(inputs), backend="torch", return_stats=True
    )
    (grad_ref,) = torch.autograd.grad(whole[0], inputs.ref_emb)
    assert_agrees(dataclasses.replace(result, grad_ref=grad_ref), inputs)
    assert int(result.stats.positive_pairs) == int(whole[1].positive_pairs)
    assert int(result.stats.negative_pairs) == int(whole[1].negative_pairs)


@pytest.mark.parametrize("way", WAYS)
def test_a_number_that_is_not_finite_on_one_rank_makes_all_gradients_nan(
    way: str, found: dict[str, list[Any]]
) -> None:
    for rank in found[f"not finite, {way}"]:
        assert rank == {"loss": True, "grad": True}


@pytest.mark.parametrize("name", OTHERWISE)
def test_what_is_wrong_on_some_ranks_is_the_same_exception_on_all_and_names_them(
    name: str, found: dict[str, list[Any]]
) -> None:
    said = found[name]
    assert len(set(said)) == 1, said
    assert said[0] != "nothing"
    _, on = OTHERWISE[name]
    if "expected the same on every rank" in said[0]:
        assert f" on rank{'s' if len(on) > 1 else ''} {' and '.join(map(str, on))}" in said[0]
    else:
        named = [str(rank) for rank in on]
        expected = f"rank {named[0]}" if len(on) == 1 else f"ranks {', '.join(named[:-1])} and {named[-1]}"
        assert f"on {expected}: " in said[0]


def test_messages_say_what_came_from_whom_and_what_is_accepted(found: dict[str, list[Any]]) -> None:
    assert found["a margin out of range"][0] == (
        "ValueError: on rank 2: margin_plus: got 3.0, expected a similarity in [-1, 1]"
    )
    assert found["another margin"][0] == (
        "ValueError: margin_minus: got 0.5 on ranks 0, 1 and 2 and 0.25 on rank 3; "
        "expected the same on every rank"
    )
    assert found["another dtype"][0].startswith(
        "ValueError: dtype of emb: got torch.float32 on ranks 0 and 1"
    )
    assert found["an unknown mode"][0] == (
        "ValueError: on rank 2: mode: got 'star', expected one of 'auto', 'gather', 'ring', 'rows'"
    )
    assert "rows of ref_emb" in found["whole sets of other sizes"][0]
    assert "6 on ranks 0 and 2 and 7 on ranks 1 and 3" in found["whole sets of other sizes"][3]


def test_all_ranks_send_labels_where_one_wants_statistics(found: dict[str, list[Any]]) -> None:
    inputs = on_ranks.Scenario(on_ranks.PLAIN, 4, "ring", "mean", "uneven").build()
    expected = tcm_kernels.fused_tcm_loss(inputs.emb, inputs.labels, return_stats=True)[1].positive_pairs
    assert found["statistics on one rank"] == [-1, int(expected), -1, -1]


@pytest.mark.parametrize(("way", "most"), [("ring", 8), ("rows", 4)])
def test_memory_of_a_ring_is_the_same_for_any_number_of_ranks(
    way: str, most: float, found: dict[str, list[Any]]
) -> None:
    """P and Q of the own rows, or the gradient; and two guests of three arrays, or of one."""
    few, many = (max(found[f"arrays, {way}, {world} ranks"]) for world in (2, 4))
    assert 2 < few <= most + 0.2, "beside arrays of n x D there are labels and a few numbers a row"
    assert many <= few + 0.1


def test_memory_of_gathering_grows_by_the_rows_of_each_rank(found: dict[str, list[Any]]) -> None:
    few, many = (max(found[f"arrays, gather, {world} ranks"]) for world in (2, 4))
    assert many - few == pytest.approx(2, abs=0.3)
