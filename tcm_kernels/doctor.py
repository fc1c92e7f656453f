"""What runs on this machine and what does not, and why: `tcm-kernels doctor`."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import subprocess

import torch

from . import dispatch
from ._version import __version__

_CPU_FEATURES = ("avx2", "fma3", "avx512_f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")


def report() -> str:
    """The whole report, several lines, ready to print."""
    lines = [f"tcm_kernels {__version__}", "", "Backends, in the order in which backend='auto' tries them"]
    for name in dispatch.BACKENDS:
        reason = dispatch.why_not_here(name)
        note = f"ready{_detail(name)}" if reason is None else f"cannot run: {reason}"
        lines.append(f"  {name:<8}{note}")
    lines += ["", "Environment"]
    lines += [f"  {name:<10}{value}" for name, value in environment().items()]
    return "\n".join(lines)


def environment() -> dict[str, str]:
    """Versions and features that decide which backends run, by name."""
    return {
        "python": f"{platform.python_version()} on {platform.platform()}",
        "torch": f"{torch.__version__}, {torch.get_num_threads()} threads",
        "triton": _distribution("triton"),
        "CUDA": _cuda(),
        "compiler": _compiler(),
        "CPU": f"{_cpu_model()}; {_cpu_features()}",
    }


def _detail(name: str) -> str:
    """What a backend has chosen on this machine, if it has a choice."""
    details = getattr(dispatch.module(name), "details", None)
    return f" ({details()})" if details is not None else ""


def _distribution(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _cuda() -> str:
    built = f"torch built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch built without CUDA"
    if not torch.cuda.is_available():
        return f"{built}; no CUDA device found"
    names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    return f"{built}; {names}"


def _compiler() -> str:
    for name in ("c++", "g++", "clang++"):
        path = shutil.which(name)
        if path is not None:
            answer = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
            return (answer.stdout.splitlines() or [f"{path}, which does not tell its version"])[0]
    return "none found (needed only to build the C++ kernel)"


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            names = [line.split(":", 1)[1].strip() for line in info if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _cpu_features() -> str:
    """Instruction sets that the kernels can use; torch before about 2.12 reports only its own choice."""
    ask = getattr(torch.cpu, "get_capabilities", None)
    found = ask() if ask is not None else {}
    present = [name for name in _CPU_FEATURES if found.get(name)]
    return ", ".join(present) or f"torch uses {torch.backends.cpu.get_cpu_capability()}"
