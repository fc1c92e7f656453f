"""What a machine offers: the GPU, compilers, profiler and sanitizers, as values that a plan is made from."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import shutil
import sys
from collections.abc import Collection
from pathlib import Path

import torch

from benchmarks.harness import environment

MODULES = ("triton", "xdist", "tcm_kernels._cuda", "sklearn")
PROGRAMS = ("c++", "nvcc", "ncu", "compute-sanitizer")
CUDA = Path("/usr/local/cuda/bin")  # where programs are that are not on the PATH


@dataclasses.dataclass(frozen=True)
class Machine:
    """Facts.

    Attributes:
        python: the interpreter that has torch.
        slug: the device as the name of its files.
        chip: its architecture as nvcc calls it, or None.
        tools: names of MODULES and PROGRAMS that are there.
        folders: the same as paths, of programs that are not on the PATH.
    """

    python: str
    slug: str
    chip: str | None
    tools: frozenset[str]
    folders: tuple[tuple[str, str], ...] = ()

    def program(self, name: str) -> str:
        """How to call it."""
        return dict(self.folders).get(name, name)

    @property
    def backends(self) -> tuple[str, ...]:
        """Those of our own kernels that can be expected to run here once they are built."""
        compiled = "tcm_kernels._cuda" in self.tools or {"c++", "nvcc"} <= self.tools
        return (*(("triton",) if "triton" in self.tools else ()), *(("cuda",) if compiled else ()))


# A machine for a plan without one.
COMPLETE = Machine("python3", "cuda", None, frozenset({*MODULES, *PROGRAMS}))


def here() -> Machine | None:
    """What there is on this machine, or None if torch sees no GPU."""
    if not torch.cuda.is_available():
        return None
    chip = None
    if torch.version.cuda is not None:
        chip = ".".join(map(str, torch.cuda.get_device_capability()))
        chip = {"9.0": "9.0a"}.get(chip, chip)
    paths = {name: _path(name) for name in PROGRAMS}
    tools = {name for name, path in paths.items() if path} | _modules(MODULES)
    folders = tuple((name, path) for name, path in paths.items() if path and shutil.which(name) is None)
    return Machine(sys.executable, environment.slug("cuda"), chip, frozenset(tools), folders)


def _path(name: str) -> str | None:
    if name == "nvcc" and "CUDA_HOME" in os.environ:  # as setup.py looks for it
        return shutil.which(str(Path(os.environ["CUDA_HOME"], "bin", name)))
    return shutil.which(name) or shutil.which(str(CUDA / name))


def _modules(names: Collection[str]) -> set[str]:
    return {name for name in names if importlib.util.find_spec(name) is not None}
