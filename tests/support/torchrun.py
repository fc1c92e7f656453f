"""A script on the ranks of a process group, as people start one; and what its ranks have found."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from compiling_python import python


def found_on_ranks(script: str, processes: int, report: Path) -> dict[str, list[Any]]:
    """Run `tests/support/SCRIPT REPORT` by torchrun; by name, what each rank has found."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # else torchrun has something to say
        patch.setenv("PYTHONPATH", os.pathsep.join(("tests/support", os.environ.get("PYTHONPATH", ""))))
        python(
            *("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)),
            *(f"tests/support/{script}", str(report)),
        )
    found: dict[str, list[Any]] = torch.load(report, weights_only=False)
    return found


def of_all_ranks(mine: Any, group: Any = None) -> list[Any] | None:
    """On the group's first rank what all of them have found, elsewhere None."""
    everybodys = [None] * dist.get_world_size(group) if dist.get_rank(group) == 0 else None
    dist.gather_object(mine, everybodys, group=group)
    return everybodys


def write_and_leave(found: dict[str, Any], report: str) -> None:
    """The first rank writes the report; nobody leaves while another still talks.

    At once: while Python shuts down, a thread of Gloo that frees a tensor may abort it (PyTorch 179291).
    """
    if dist.get_rank() == 0:
        torch.save(found, report)
    dist.barrier()
    dist.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
