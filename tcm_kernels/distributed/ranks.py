"""The ranks that share a batch, and the few collectives that they need."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Ranks:
    """A process group, as one of its ranks sees it.

    Attributes:
        group: the process group; None for the default one.
        size: W, the number of its ranks.
        own: this rank within it, from 0.
    """

    group: Any
    size: int
    own: int

    @classmethod
    def of(cls, group: Any) -> Ranks | None:
        """The ranks of a group, of the default one for None; None where none has been initialised.

        Raises:
            ValueError: this process is not in the group.
        """
        if not dist.is_available() or not dist.is_initialized():
            if group is None:
                return None
            raise ValueError(
                f"group: got {type(group).__name__}, but torch.distributed has not been initialised; call "
                "torch.distributed.init_process_group first"
            )
        own = dist.get_rank(group)
        if own < 0:
            raise ValueError("group: this process is not in it; expected a group of which it is a rank")
        return cls(group, dist.get_world_size(group), own)

    def takes_host_memory(self) -> bool:
        """Whether the group also sends tensors in main memory, which no GPU then has to be waited for."""
        devices = {part.split(":")[0] for part in str(dist.get_backend_config(self.group)).split(",")}
        return "cpu" in devices

    def after(self, distance: int) -> int:
        """The rank at this distance to the right, round the ring."""
        return (self.own + distance) % self.size

    def all_gather(self, x: Tensor) -> Tensor:
        """(W, ...): x of every rank, in rank order. Of one shape and dtype on all; x is contiguous."""
        out = x.new_empty((self.size * x.shape[0], *x.shape[1:]))
        _all_gather_single(out, x, group=self.group)
        return out.view(self.size, *x.shape)

    def exchange(
        self, sends: Sequence[tuple[Tensor, int]], receives: Sequence[tuple[Tensor, int]]
    ) -> Pending:
        """Begin to send tensors to ranks, and to receive tensors from ranks. Empty ones are left out.

        Sender and receiver must agree about shapes, and about the order of tensors between them.
        """
        operations = [
            dist.P2POp(operation, x, self._global(peer), self.group)
            for operation, ends in ((dist.isend, sends), (dist.irecv, receives))
            for x, peer in ends
            if x.numel()
        ]
        return Pending(dist.batch_isend_irecv(operations) if operations else [])

    def _global(self, rank: int) -> int:
        return rank if self.group is None else dist.get_global_rank(self.group, rank)


@dataclasses.dataclass(frozen=True)
class Pending:
    """Sends and receives under way."""

    works: Sequence[Any]

    def wait(self) -> None:
        """Until the received tensors can be used, and the sent ones be written to; on a GPU by its stream."""
        for work in self.works:
            work.wait()


def begin_of(sizes: Sequence[int], rank: int) -> int:
    """The place of a rank's first row among the rows of all ranks."""
    return sum(sizes[:rank])


def total_of(x: Tensor) -> Tensor:
    """The sum of x (W, K) over ranks, added in an order that depends on W alone.

    Neighbours first, then pairs of neighbours: the same bits whatever machine adds.
    """
    while len(x) > 1:
        even = len(x) // 2 * 2
        pairs = x[0:even:2] + x[1:even:2]
        x = torch.cat((pairs, x[even:])) if even < len(x) else pairs
    return x[0]


def _all_gather_single(out: Tensor, x: Tensor, group: Any) -> None:
    """By its name of torch 2.13, or the older one, which warns since then."""
    gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
    gather(out, x, group=group)
