"""The distributed loss without a process group, and on a single rank: it is the plain loss."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

import tcm_kernels
from tcm_kernels import ThresholdConsistentMarginLoss
from tcm_kernels.distributed import distributed_tcm_loss

if not dist.is_available():
    pytest.skip("torch has no torch.distributed", allow_module_level=True)

EMB = torch.randn(30, 6, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(30) // 3


@pytest.fixture(params=["no group", "one rank"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    if request.param == "no group":
        yield
        return
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("mode", ["auto", "gather", "ring", "rows"])
def test_it_is_the_plain_loss(mode: str) -> None:
    emb, again = EMB.clone().requires_grad_(), EMB.clone().requires_grad_()
    loss, stats = distributed_tcm_loss(emb, LABELS, mode=mode, margin_minus=0.1, return_stats=True)
    expected = tcm_kernels.fused_tcm_loss(again, LABELS, margin_minus=0.1)
    assert torch.equal(loss, expected)
    assert int(stats.positive_pairs) == 60
    loss.backward()
    expected.backward()
    assert emb.grad is not None
    assert again.grad is not None
    assert torch.equal(emb.grad, again.grad)


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "star"}, "mode: got 'star', expected one of 'auto', 'gather', 'ring', 'rows'"),
        ({"gradient_reduction": "max"}, "gradient_reduction: got 'max', expected one of 'mean', 'sum'"),
        ({"margin_plus": 2.0}, "margin_plus: got 2.0"),
        (
            {"ref_emb": EMB.clone().requires_grad_(), "ref_labels": LABELS},
            "ref_emb: got a tensor that requires grad",
        ),
    ],
)
def test_wrong_arguments_are_refused_all_the_same(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        distributed_tcm_loss(EMB, LABELS, **arguments)


def test_a_group_without_an_initialised_torch_distributed_is_refused() -> None:
    with pytest.raises(ValueError, match=r"group: got str, but torch\.distributed has not been initialised"):
        distributed_tcm_loss(EMB, LABELS, group="all of them")


@pytest.mark.usefixtures("world")
def test_the_module_gathers_where_it_is_asked_to() -> None:
    loss = ThresholdConsistentMarginLoss(gather_across_devices=True, mode="ring", margin_minus=0.1)
    assert "gather_across_devices=True, mode='ring', gradient_reduction='mean'" in repr(loss)
    assert torch.equal(loss(EMB, LABELS), tcm_kernels.fused_tcm_loss(EMB, LABELS, margin_minus=0.1))
    assert "gather_across_devices" not in repr(ThresholdConsistentMarginLoss())
