"""Training with the distributed loss, as people train, ends where one process with the whole batch ends."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import training_on_ranks
from torchrun import found_on_ranks
from training_on_ranks import RANKS, WAYS

from tcm_kernels import dispatch

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.distributed.is_available(), reason="torch has no torch.distributed"),
    pytest.mark.skipif(dispatch.why_not_here("cpu") is not None, reason="the cpu backend is not here"),
]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """The parameters that each rank ends with, by the way of training."""
    report = tmp_path_factory.mktemp("training") / "report"
    return found_on_ranks("training_on_ranks.py", RANKS, report)


@pytest.mark.parametrize("way", WAYS)
def test_parameters_after_three_steps_are_those_of_one_process(way: str, found: dict[str, list[Any]]) -> None:
    expected = training_on_ranks.alone(parts=2 if way == "DDP, accumulated" else 1)
    start = list(training_on_ranks.Network().parameters())
    in_bfloat16 = "bfloat16" in way
    for parameters in found[way]:
        for ours, theirs, first in zip(parameters, expected, start, strict=True):
            moved = (theirs - first).abs().max()
            assert moved > 0.01, "three steps have to be seen"
            difference = (ours - theirs).abs().max()
            assert difference <= (0.05 * moved if in_bfloat16 else 1e-5)
            assert difference <= 1e-3 * moved or in_bfloat16


@pytest.mark.parametrize("way", WAYS)
def test_all_ranks_end_with_the_same_parameters(way: str, found: dict[str, list[Any]]) -> None:
    for parameters in found[way][1:]:
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(parameters, found[way][0], strict=True))
