"""Losses in pytorch-metric-learning's DistributedLossWrapper, on the ranks of a group: ours and theirs.

Run as `torchrun --nproc-per-node 2 tests/support/wrapped_on_ranks.py REPORT`: by name, the value and the
gradient of each rank's rows with our loss and with theirs.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torchrun import of_all_ranks, write_and_leave

WAYS = ("as it is", "efficient", "a bank", "a miner's pairs")


def step(way: str, library: Any) -> tuple[Tensor, Tensor]:
    """Value and gradient."""
    from metric_learning_features import COLUMNS, contrastive, rows  # noqa: PLC0415
    from pytorch_metric_learning import miners  # noqa: PLC0415
    from pytorch_metric_learning.utils import distributed  # noqa: PLC0415

    x, labels = rows(30 + dist.get_rank())
    loss = contrastive(library)
    if way == "a bank":
        loss = library.CrossBatchMemory(loss, COLUMNS, memory_size=120)
    wrapped = distributed.DistributedLossWrapper(loss, efficient=way == "efficient")
    pairs = None
    if way == "a miner's pairs":
        pairs = distributed.DistributedMinerWrapper(miners.MultiSimilarityMiner())(x, labels)
    value = wrapped(x, labels, pairs)
    return value.detach(), torch.autograd.grad(value, x)[0]


def main(report: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from metric_learning_features import OURS, THEIRS  # noqa: PLC0415

        found = {way: of_all_ranks([step(way, library) for library in (OURS, THEIRS)]) for way in WAYS}
    write_and_leave(found, report)


if __name__ == "__main__":
    main(*sys.argv[1:])
