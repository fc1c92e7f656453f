"""Our losses in pytorch-metric-learning's wrapper for many processes: what theirs come to."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("pytorch_metric_learning")

from torchrun import found_on_ranks
from wrapped_on_ranks import WAYS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.distributed.is_available(), reason="torch has no torch.distributed"),
]
RANKS = 2


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    return found_on_ranks("wrapped_on_ranks.py", RANKS, tmp_path_factory.mktemp("wrapped") / "report")


@pytest.mark.parametrize("way", WAYS)
def test_value_and_gradient_are_those_with_their_loss(way: str, found: dict[str, list[Any]]) -> None:
    assert len(found[way]) == RANKS
    for (value, grad), (their_value, their_grad) in found[way]:
        torch.testing.assert_close(value, their_value, rtol=0, atol=5e-6)
        torch.testing.assert_close(grad, their_grad, rtol=0, atol=1e-6)
        assert their_grad.abs().max() > 1e-3
