"""Several processes, as `torchrun` starts them: who this one is, and what all of them agree on.

Each rank draws batches of its own and computes both losses over them; what is averaged is the gradient. So a
batch of R ranks is R small batches, not a large one: pairs across ranks are not looked at. The only places
where ranks wait for each other are the gradients and `agreed`. A rank that fails ends, and torchrun then ends
the others.
"""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import distributed

# The others wait while the first one evaluates; a rank that died is torchrun's to notice.
_PATIENCE = datetime.timedelta(hours=12)


class Ranks(NamedTuple):
    """A process among all.

    Attributes:
        rank: from 0.
        world_size: how many there are.
        device: what this one computes on.
    """

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this is the one that evaluates, writes and talks."""
        return self.rank == 0


@contextlib.contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """The process group while this lasts, where torchrun has started this process; alone otherwise.

    Args:
        device: "cpu", or "cuda" for this rank's own GPU.
    """
    if "WORLD_SIZE" not in os.environ or "RANK" not in os.environ:
        yield Ranks(0, 1, torch.device(device))
        return
    where = torch.device(device)
    if device == "cuda":
        where = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(where)
    distributed.init_process_group("nccl" if device == "cuda" else "gloo", timeout=_PATIENCE)
    yield Ranks(distributed.get_rank(), distributed.get_world_size(), where)
    # After an error this is not reached: leaving a group whose other members are stuck may wait for them.
    distributed.destroy_process_group()


def agreed(ranks: Ranks, value: Any) -> Any:
    """What the first rank says; `value` of the others does not matter."""
    if ranks.world_size == 1:
        return value
    values = [value if ranks.is_first else None]
    distributed.broadcast_object_list(values, src=0)
    return values[0]
