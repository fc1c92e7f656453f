"""Builds the CUDA sources for the CPU: the kernels, run by the emulator, and the probes that tests call.

`backends/cuda.py` loads the library where TCM_KERNELS_CUDA_EMULATOR names it.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checkout import ROOT

TORCH_TARGET = "0x020a000000000000"


def why_not() -> str | None:
    """None where the emulator can be built, else what is missing."""
    if sys.platform != "linux":
        return "the emulator of a GPU needs Linux"
    if shutil.which("g++") is None:
        return "g++ is not installed"
    for name in ("ninja", "setuptools"):
        if importlib.util.find_spec(name) is None:
            return f"{name} is not installed: pip install {name}"
    return None


def skip_module_unless_here(*, beside_a_gpu: bool = False) -> None:
    """Skip the calling module if the emulator cannot be built or, unless `beside_a_gpu`, a GPU is here."""
    reason = why_not()
    if reason is None and torch.cuda.is_available() and not beside_a_gpu:
        reason = "the kernels run on a GPU here"
    if reason is not None:
        pytest.skip(reason, allow_module_level=True)


def build(root: Path, to: Path, *more_flags: str) -> Path:
    """Build the library of the sources under `root` in the folder `to`; only what has changed is compiled."""
    kernels = [*root.glob("csrc/cuda/*/*.cu"), *root.glob("csrc/cuda/*/*.cpp")]
    sources = [*sorted(kernels), root / "tests/support/cuda_probes.cpp"]
    from torch.utils import cpp_extension  # noqa: PLC0415  # which needs setuptools

    flags = [
        *("-x c++", "-std=c++20", "-O2", "-fPIC", "-DTCM_EMULATED", f"-DTORCH_TARGET_VERSION={TORCH_TARGET}"),
        *("-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-Wno-unused-parameter", "-Wno-clobbered"),
        "-U_FORTIFY_SOURCE",  # which takes a longjmp from one fiber to another for an attack
        *(f"-I{path}" for path in (root / "csrc", root / "tests/support", *cpp_extension.include_paths())),
        *more_flags,
    ]
    libraries = [f"-L{path}" for path in cpp_extension.library_paths()]
    library = to / "libcuda_emulator.so"
    objects = [to / f"{'-'.join(source.relative_to(root).parts)}.o" for source in sources]
    lines = [
        "rule compile",
        f"  command = g++ {' '.join(flags)} -MMD -MF $out.d -c $in -o $out",
        "  depfile = $out.d",
        "  deps = gcc",
        "rule link",
        f"  command = g++ -shared -o $out $in {' '.join(libraries)} -ltorch -ltorch_cpu -lc10",
        *(f"build {to}: compile {source}" for source, to in zip(sources, objects, strict=True)),
        f"build {library}: link {' '.join(map(str, objects))}",
    ]
    to.mkdir(parents=True, exist_ok=True)
    with (to / "lock").open("w") as lock:  # other processes may want it, too
        fcntl.flock(lock, fcntl.LOCK_EX)
        (to / "build.ninja").write_text("\n".join([*lines, ""]))
        command = [sys.executable, "-m", "ninja", "-C", str(to), "--quiet"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"the emulator does not compile:\n{done.stdout}{done.stderr}"
    return library


@functools.cache
def library() -> Path:
    """The library of this checkout's sources, built again if they have changed."""
    return build(ROOT, ROOT / "build" / "cuda-emulator")


@functools.cache
def probes() -> ctypes.CDLL:
    """The functions of cuda_probes.cpp."""
    found = ctypes.CDLL(str(library()))
    for name in ("prepare", "screen", "multiply", "reverse", "reverse_warp", "add", "copy"):
        getattr(found, f"probe_{name}").restype = ctypes.c_char_p
    for name in ("walk", "columns", "launches"):
        getattr(found, f"probe_{name}").restype = ctypes.c_int64
    return found
