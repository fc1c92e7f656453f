"""On what a benchmark ran: everything a reader needs to judge a figure or to repeat it.

What is not there is None (no GPU, no triton, not a git checkout), never left out.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import torch

import tcm_kernels
from benchmarks import ROOT

INT8_UNITS = ("avx_vnni", "avx512_vnni", "amx_int8", "i8mm", "asimddp")
"""Flags of /proc/cpuinfo that mean fast int8 products, x86-64 and arm64."""


def describe(device: str) -> dict[str, Any]:
    """The environment as JSON values; `device` is "cpu" or "cuda"."""
    return {
        "device": device,
        "device_name": torch.cuda.get_device_name() if device == "cuda" else cpu_model(),
        "driver": nvidia_driver() if device == "cuda" else None,
        "cuda": torch.version.cuda,
        "torch": torch.__version__,
        "triton": triton_version(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "tcm_kernels": tcm_kernels.__version__,
        "commit": commit(),
        "threads": torch.get_num_threads(),
        "cpu_model": cpu_model(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cpu_int8_units": int8_units(),
        "onednn_isa_limit": os.environ.get("ONEDNN_MAX_CPU_ISA"),
        "fp32_matmul": {
            "cuda": torch.backends.cuda.matmul.fp32_precision,
            "mkldnn": torch.backends.mkldnn.matmul.fp32_precision,
        },
    }


def slug(device: str) -> str:
    """The device as a file name: "cpu-intel-xeon-2-threads", "cuda-nvidia-h200"."""
    name = torch.cuda.get_device_name() if device == "cuda" else cpu_model()
    name = re.sub(r"\((r|tm)\)|\b(cpu|processor)\b|@.*", " ", name.lower())
    words = re.findall(r"[a-z0-9]+", name)
    threads = [str(torch.get_num_threads()), "threads"] if device == "cpu" else []
    return "-".join([device, *words, *threads])


def cpu_model() -> str:
    """What the processor calls itself, or the architecture where it does not say."""
    found = re.search(r"model name\s*:\s*(.+)", _cpuinfo())
    return found[1].strip() if found else platform.processor() or platform.machine()


def int8_units() -> list[str]:
    """Which of INT8_UNITS the processor lists."""
    words = set(_cpuinfo().split())
    return [flag for flag in INT8_UNITS if flag in words]


def commit(root: Path = ROOT) -> dict[str, Any] | None:
    """{"hash": ..., "dirty": ...} of a checkout, by default that of this file, or None if it is not one.

    Dirty: files differ from the commit. Results do not count, since every run writes them.
    """
    git = ("git", "-C", str(root))
    top = _output(*git, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != root.resolve():
        return None
    head = _output(*git, "rev-parse", "HEAD")
    changes = _output(*git, "status", "--porcelain", "--", ".", ":(exclude)benchmarks/results")
    return None if head is None else {"hash": head, "dirty": changes != ""}


def triton_version() -> str | None:
    """The version of the installed triton, which is not imported: that would change nothing but time."""
    if importlib.util.find_spec("triton") is None:
        return None
    return importlib.metadata.version("triton")


def nvidia_driver() -> str | None:
    """The driver's version, from nvidia-smi."""
    answer = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return answer.splitlines()[0] if answer else None


def _output(*command: str) -> str | None:
    """What the command prints, stripped; None where it is missing or fails."""
    environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}  # look at the checkout, write nothing
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ""
