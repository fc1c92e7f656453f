"""One rank's step, in which a rank is lost: `python tests/support/lost_rank.py MODE WHO WHEN`.

RANK, WORLD_SIZE and where to meet come from the environment. Rank WHO is lost at WHEN: "before" it calls the
loss, "while" rows are sent, or not at all but "waits" there: it says so, and goes on when it is told to. All
others are to raise before the group's time-out is over.

`python tests/support/lost_rank.py FOLDER` makes all ranks of many such steps at once, forks that need not
import torch each. What a rank prints is in FOLDER/MODE-WHEN-RANK, and its exit status in the last line.
"""

from __future__ import annotations

import importlib
import os
import signal
import socket
import sys
import time
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.distributed as dist

from tcm_kernels.distributed import distributed_tcm_loss, gather, ring
from tcm_kernels.distributed.ranks import Ranks

TIME_OUT = 5.0  # seconds, of the group
WORLD, LOST = 3, 2
STEPS = [(mode, when) for mode in ("gather", "ring") for when in ("before", "while")]


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
        os._exit(3)  # what the group still has under way is not waited for
    print("nothing was raised", flush=True)


def free_port() -> str:
    """For the ranks of a step to meet at."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return str(taken.getsockname()[1])


def all_steps(folder: Path) -> None:
    """The ranks of all STEPS, in processes of their own."""
    importlib.import_module("torch._dynamo")  # as the first call does: a second of each fork's
    reports = {}
    for mode, when in STEPS:
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": str(WORLD)}
        for rank in range(WORLD):
            report = folder / f"{mode}-{when}-{rank}"
            child = os.fork()
            if child == 0:
                _as_rank(report, where | {"RANK": str(rank)}, (mode, str(LOST), when))
            reports[child] = report
    while reports:
        child, status = os.wait()
        with reports.pop(child).open("a") as report:
            print(f"left with {os.waitstatus_to_exitcode(status)}", file=report)


def _as_rank(report: Path, where: dict[str, str], arguments: tuple[str, str, str]) -> NoReturn:
    """What a fork does; a hang ends by a signal."""
    signal.alarm(90)
    try:
        with report.open("w") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        os.environ.update(where)
        main(*arguments)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(0)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        all_steps(Path(sys.argv[1]))
    else:
        main(*sys.argv[1:])
