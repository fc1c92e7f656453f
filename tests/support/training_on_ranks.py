"""Three steps of a small network on the ranks of a group, in the ways in which people train, and on one.

Run as `torchrun --nproc-per-node 3 tests/support/training_on_ranks.py REPORT`: for each way in WAYS the first
process writes the parameters that each rank ends with.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint
from torchrun import of_all_ranks, write_and_leave

from tcm_kernels import ThresholdConsistentMarginLoss, fused_tcm_loss
from tcm_kernels.distributed import distributed_tcm_loss

RANKS = 3
ROWS = (20, 10, 15)  # of each rank
STEPS = 3
MARGINS = {"margin_plus": 0.9, "margin_minus": 0.2}
Loss = Callable[[Tensor, Tensor], Tensor]


class Network(nn.Module):
    """Two layers, of which the first can be computed again in the backward."""

    def __init__(self, *, recomputes: bool = False) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first = nn.Sequential(nn.Linear(12, 16), nn.Tanh())
        self.second = nn.Linear(16, 8)
        self.recomputes = recomputes

    def forward(self, x: Tensor) -> Tensor:
        hidden = checkpoint(self.first, x, use_reentrant=False) if self.recomputes else self.first(x)
        embeddings: Tensor = self.second(hidden)
        return embeddings


def batch() -> tuple[Tensor, Tensor]:
    """Of all ranks, rank by rank."""
    generator = torch.Generator().manual_seed(5)
    return torch.randn(sum(ROWS), 12, generator=generator), torch.randint(
        6, (sum(ROWS),), generator=generator
    )


def share(x: Tensor, rank: int) -> Tensor:
    return x.split(ROWS)[rank]


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)


def whole_parameters(model: nn.Module) -> list[Tensor]:
    """Of a rank, with what others hold of them."""
    return [getattr(x, "full_tensor", lambda x=x: x)().detach().clone() for x in model.parameters()]


def alone(*, parts: int = 1) -> list[Tensor]:
    """The parameters of one process with the whole batch, or in turn with a part of each rank's share."""
    model = Network()
    optimizer = optimizer_of(model)
    x, labels = batch()
    for _ in range(STEPS):
        for part in range(parts):
            rows = torch.cat([share(torch.arange(len(x)), rank).chunk(parts)[part] for rank in range(RANKS)])
            loss = fused_tcm_loss(model(x[rows]), labels[rows], **MARGINS) / parts
            loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
    return whole_parameters(model)


def plain_steps(model: nn.Module, loss_of: Loss, rank: int) -> list[Tensor]:
    optimizer = optimizer_of(model)
    x, labels = batch()
    for _ in range(STEPS):
        loss_of(model(share(x, rank)), share(labels, rank)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
    return whole_parameters(model)


def in_ddp(mode: str, rank: int, *, recomputes: bool = False) -> list[Tensor]:
    model = DistributedDataParallel(Network(recomputes=recomputes))
    return plain_steps(model, functools.partial(distributed_tcm_loss, mode=mode, **MARGINS), rank)


def as_a_module(rank: int) -> list[Tensor]:
    loss = ThresholdConsistentMarginLoss(gather_across_devices=True, **MARGINS)
    found = plain_steps(DistributedDataParallel(Network()), loss, rank)
    assert loss.last_stats is not None
    labels = batch()[1]
    same = labels[:, None] == labels[None, :]
    assert int(loss.last_stats.positive_pairs) == int(same.sum()) - len(labels)
    return found


def in_fsdp(mode: str, rank: int) -> list[Tensor]:
    from torch.distributed.device_mesh import init_device_mesh  # noqa: PLC0415
    from torch.distributed.fsdp import fully_shard  # noqa: PLC0415

    model = Network()
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    fully_shard(model.first, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return plain_steps(model, functools.partial(distributed_tcm_loss, mode=mode, **MARGINS), rank)


def with_parameters_added_up(rank: int) -> list[Tensor]:
    """No wrapper: parameters' gradients are summed by hand."""
    model = Network()
    optimizer = optimizer_of(model)
    x, labels = batch()
    for _ in range(STEPS):
        embeddings = model(share(x, rank))
        loss = distributed_tcm_loss(embeddings, share(labels, rank), gradient_reduction="sum", **MARGINS)
        loss.backward()  # type: ignore[no-untyped-call]
        for parameter in model.parameters():
            assert parameter.grad is not None
            dist.all_reduce(parameter.grad)
        optimizer.step()
        optimizer.zero_grad()
    return whole_parameters(model)


def accumulated(rank: int) -> list[Tensor]:
    model = DistributedDataParallel(Network())
    optimizer = optimizer_of(model)
    x, labels = batch()
    for _ in range(STEPS):
        for part in range(2):
            with model.no_sync() if part == 0 else contextlib.nullcontext():
                rows = share(torch.arange(len(x)), rank).chunk(2)[part]
                loss = distributed_tcm_loss(model(x[rows]), labels[rows], **MARGINS) / 2
                loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return whole_parameters(model)


def with_a_scaler(rank: int) -> list[Tensor]:
    """In bfloat16, with the loss scaled; the first step overflows on one rank, and is left out on all."""
    model = DistributedDataParallel(Network())
    optimizer = optimizer_of(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    x, labels = batch()
    for step in range(STEPS + 1):
        own = share(x, rank).clone()
        if step == 0 and rank == 1:
            own[0, 0] = torch.nan
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = distributed_tcm_loss(model(own), share(labels, rank), **MARGINS)
        assert bool(loss.isnan()) == (step == 0)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    assert scaler.get_scale() < 1024.0
    return whole_parameters(model)


def compiled(rank: int) -> list[Tensor]:
    """The model around the loss in one compiled function; the loss is the one break of its graph."""
    model = DistributedDataParallel(Network())

    def loss_of_inputs(x: Tensor, labels: Tensor) -> Tensor:
        return distributed_tcm_loss(model.module(x), labels, **MARGINS) * 1.0

    # Once for each rank's own module: DDP's own compiler would break the graph at its buckets.
    step = torch.compile(loss_of_inputs, backend="aot_eager")
    optimizer = optimizer_of(model)
    x, labels = batch()
    torch._dynamo.utils.counters.clear()
    for _ in range(STEPS):
        step(share(x, rank), share(labels, rank)).backward()
        for parameter in model.parameters():
            assert parameter.grad is not None
            dist.all_reduce(parameter.grad)
            parameter.grad /= dist.get_world_size()
        optimizer.step()
        optimizer.zero_grad()
    breaks = sum(torch._dynamo.utils.counters["graph_break"].values())
    assert breaks == 1, dict(torch._dynamo.utils.counters["graph_break"])
    return whole_parameters(model)


WAYS: dict[str, Callable[[int], Sequence[Tensor]]] = {
    "DDP, gather": functools.partial(in_ddp, "gather"),
    "DDP, ring": functools.partial(in_ddp, "ring"),
    "DDP, rows": functools.partial(in_ddp, "rows"),
    "DDP, the module": as_a_module,
    "DDP, activations computed again": functools.partial(in_ddp, "ring", recomputes=True),
    "DDP, accumulated": accumulated,
    "DDP, bfloat16 and a scaler": with_a_scaler,
    "FSDP2, gather": functools.partial(in_fsdp, "gather"),
    "FSDP2, ring": functools.partial(in_fsdp, "ring"),
    "gradients added up": with_parameters_added_up,
    "compiled": compiled,
}


def main(report: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    found: dict[str, Any] = {}
    for name, train in WAYS.items():
        found[name] = of_all_ranks(train(rank))
    write_and_leave(found, report)


if __name__ == "__main__":
    main(*sys.argv[1:])
