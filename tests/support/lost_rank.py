"""One rank's step, in which a rank is lost: `python tests/support/lost_rank.py MODE WHO WHEN`.

RANK, WORLD_SIZE and where to meet come from the environment. Rank WHO is lost at WHEN: "before" it calls the
loss, "while" rows are sent, or not at all but "waits" there: it says so, and goes on when it is told to. All
others are to raise before the group's time-out is over.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from datetime import timedelta
from typing import Any, NoReturn

import torch
import torch.distributed as dist

from tcm_kernels.distributed import distributed_tcm_loss, gather, ring
from tcm_kernels.distributed.ranks import Ranks

TIME_OUT = 5.0  # seconds, of the group


def _leave(*_: Any, **__: Any) -> NoReturn:
    os._exit(17)


def main(mode: str, who: str, when: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(seconds=TIME_OUT))
    emb = torch.randn(200, 16, requires_grad=True)
    labels = torch.arange(200) // 4
    distributed_tcm_loss(emb, labels, mode=mode).backward()  # all are there
    if dist.get_rank() == int(who):
        if when == "before":
            _leave()
        if when == "while":
            gather.all_rows = _leave  # type: ignore[assignment]
            ring.Guest = _leave  # type: ignore[assignment, misc]
        if when == "waits":
            goes_on = Ranks.all_gather

            def waits(self: Ranks, x: torch.Tensor) -> torch.Tensor:
                found = goes_on(self, x)
                print("waiting", flush=True)
                sys.stdin.readline()
                Ranks.all_gather = goes_on  # type: ignore[method-assign]
                return found

            Ranks.all_gather = waits  # type: ignore[method-assign]
    begin = time.monotonic()
    try:
        distributed_tcm_loss(emb, labels, mode=mode).backward()
    except RuntimeError as error:
        print(f"raised after {time.monotonic() - begin:.1f} s: {type(error).__name__}", flush=True)
        # What the group still has under way is not waited for.
        threading.Timer(0.1, os._exit, (3,)).start()
        return
    print("nothing was raised", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
