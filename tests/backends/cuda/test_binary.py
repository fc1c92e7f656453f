"""The CUDA module as it was built: what it needs, which GPUs it is for, and what the assembler made of it.

No GPU is needed to read a binary: registers and stack are the assembler's own report, and instructions are
there or are not. It may have been built for one GPU only, so that it is asked itself for which ones. That it
was built where nvcc is installed, test_build.py says.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checkout import ROOT

import tcm_kernels
from benchmarks.sass.compiled import tool

LIBRARY = Path(tcm_kernels.__file__).parent / "_cuda.abi3.so"


if not LIBRARY.exists():
    pytest.skip("the CUDA module was not built", allow_module_level=True)

CUOBJDUMP = tool("cuobjdump")
needs_cuobjdump = pytest.mark.skipif(CUOBJDUMP is None, reason="cuobjdump (CUDA toolkit) is not installed")


def _printed(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_it_needs_only_the_stable_abi() -> None:
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("nm (binutils) is not installed")
    lines = _printed(nm, "-D", "--undefined-only", str(LIBRARY)).splitlines()
    names = {line.split()[-1].split("@")[0] for line in lines}
    of_torch = {name for name in names if re.search(r"torch|c10|at[0-9]", name)}
    assert "aoti_torch_get_current_cuda_stream" in of_torch
    assert {name for name in of_torch if not re.match(r"(aoti_torch|torch)_\w+$", name)} == set()
    assert not [name for name in names if name.startswith("cuda")], "CUDA's runtime is linked in"
    assert not [name for name in names if name.startswith("Py") and name != "PyModule_Create2"]
    weak = [line.split()[-1] for line in lines if line.split()[0] == "w"]
    assert "aoti_torch_get_current_cuda_stream" in weak, "a torch without CUDA lacks it"


def test_it_keeps_torch_among_what_it_needs() -> None:
    """The symbols of CUDA come with libtorch, which the linker drops unless told otherwise."""
    readelf = shutil.which("readelf")
    if readelf is None:
        pytest.skip("readelf (binutils) is not installed")
    needed = re.findall(r"NEEDED.*\[(.+)\]", _printed(readelf, "-d", str(LIBRARY)))
    assert "libtorch.so" in needed
    assert not [name for name in needed if "cuda" in name or "python" in name]


# What an import beside this torch says, and a call where there is no GPU: an exception with a name, no crash.
WITHOUT_GPU = """
import importlib, torch
importlib.import_module("tcm_kernels._cuda")
try:
    torch.ops.tcm_kernels._cuda_multiprocessors()
except RuntimeError as error:
    print(error)
try:
    x = torch.zeros(2, 2)
    torch.ops.tcm_kernels._cuda_pair_sums_backward(x, x, x, x, x, 1, x)
except NotImplementedError as error:
    print("refused")
"""


def test_it_loads_beside_any_torch_and_says_what_cuda_says() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    done = subprocess.run([sys.executable, "-c", WITHOUT_GPU], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"tcm_kernels: CUDA kernel preparation: cudaError\w+, ", done.stdout)
    assert "refused" in done.stdout


@functools.cache
def chips() -> tuple[str, ...]:
    """For which it holds machine code, such as sm_90a, the oldest first."""
    assert CUOBJDUMP is not None
    found = set(re.findall(r"\.(sm_\w+)\.cubin", _printed(CUOBJDUMP, "--list-elf", str(LIBRARY))))
    return tuple(sorted(found, key=lambda chip: int(re.sub(r"\D", "", chip))))


@functools.cache
def resources() -> dict[tuple[str, str], dict[str, int]]:
    """Registers, stack and shared memory by chip and kernel."""
    assert CUOBJDUMP is not None
    found: dict[tuple[str, str], dict[str, int]] = {}
    chip = kernel = ""
    for line in _printed(CUOBJDUMP, "--dump-resource-usage", str(LIBRARY)).splitlines():
        if match := re.search(r"(?:arch = |for )(sm_\w+)", line):
            chip = match[1]
        if match := re.search(r"Function (\S+?):?$", line.strip()):
            kernel = match[1]
        if match := re.search(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", line):
            values = map(int, match.groups())
            found[chip, kernel] = dict(zip(("registers", "stack", "shared", "local"), values, strict=True))
    return found


KERNELS = (
    *("norms", "codes", "probe", "sweep", "dense_tiles"),
    *("block_sums", "patterns", "lists", "finalize", "normalize_backward"),
    *("bin_edges", "histogram"),
)
# Two blocks of 128 threads share the 65,536 registers of a multiprocessor, which leaves 255 to a thread; what
# streams has more threads and fewer registers each.
REGISTERS = {
    "norms": 64,
    "codes": 64,
    "block_sums": 64,
    "normalize_backward": 64,
    "finalize": 128,
    "bin_edges": 64,
}
# Bytes, with Float32Product; an entry is a known spill, once a tile or once a row of them, not in its loop.
# Not to be added to.
STACK = {"dense_tiles": 8, "histogram": 8}


def kernel_of(name: str) -> str:
    """The kernel's own name, out of its mangled one."""
    return next(kernel for kernel in KERNELS if f"{kernel}_kernel" in name)


@needs_cuobjdump
def test_it_is_for_every_gpu_or_for_the_one_that_was_asked_for() -> None:
    if os.environ.get("TORCH_CUDA_ARCH_LIST") or len(chips()) == 1:
        assert chips()
    else:
        assert {"sm_80", "sm_86", "sm_90a", "sm_100", "sm_120"} <= set(chips())


@pytest.mark.gpu
@needs_cuobjdump
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_it_is_for_the_gpu_that_is_here() -> None:
    """Code for 8.6 runs on 8.9 as well, and code for 9.0a on 9.0 only."""
    major, minor = torch.cuda.get_device_capability()
    numbers = [re.fullmatch(r"sm_(\d+)(\d)([af]?)", chip) for chip in chips()]
    runs = [
        chip[0]
        for chip in numbers
        if chip is not None
        and int(chip[1]) == major
        and (int(chip[2]) == minor if chip[3] else int(chip[2]) <= minor)
    ]
    assert runs, f"built for {', '.join(chips())}, and this GPU has {major}.{minor}"


@needs_cuobjdump
def test_every_kernel_is_there_for_every_gpu() -> None:
    assert {chip for chip, _ in resources()} == set(chips())
    for chip in chips():
        assert {kernel_of(name) for on, name in resources() if on == chip} == set(KERNELS)


@needs_cuobjdump
def test_kernels_fit_into_registers() -> None:
    for (chip, name), used in resources().items():
        kernel = kernel_of(name)
        allowed = STACK[kernel] if "Float32Product" in name else 0
        assert used["stack"] <= allowed, f"{kernel} on {chip} spills: {name} {used}"
        assert used["local"] == 0
        assert used["registers"] <= REGISTERS.get(kernel, 255), f"{kernel} on {chip}: {used}"


def chips_to_read() -> tuple[str, ...]:
    """Of which the instructions are looked at: the oldest and Hopper, or the only one; all take minutes."""
    return tuple(dict.fromkeys((chips()[0], *(chip for chip in chips() if chip == "sm_90a"))))


@functools.cache
def instructions(chip: str) -> dict[str, str]:
    """The machine code of each kernel, as text."""
    assert CUOBJDUMP is not None
    text = _printed(CUOBJDUMP, "-sass", "-arch", chip, str(LIBRARY))
    parts = re.split(r"\s+Function : (\S+)\n", text)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@needs_cuobjdump
@pytest.mark.parametrize(
    ("kernel", "variant", "instruction"),
    [
        ("sweep", "", r"IMMA\.16832\.S8\.S8"),
        ("sweep", "", r"LDSM\.16\.M88\.4"),
        ("sweep", "", r"LDGSTS\.E\.BYPASS\.128"),
        ("probe", "", r"IMMA\.16832\.S8\.S8"),
        ("dense_tiles", "BFloat16", r"HMMA\.16816\.F32\.BF16"),
        ("dense_tiles", "Half", r"HMMA\.16816\.F32 "),
        ("dense_tiles", "Tf32Product", r"HMMA\.1688\.F32\.TF32"),
        ("dense_tiles", "Float32Product", r"HMMA\.1688\.F32\.TF32"),
        ("histogram", "BFloat16", r"HMMA\.16816\.F32\.BF16"),
        ("histogram", "Half", r"HMMA\.16816\.F32 "),
        ("histogram", "Tf32Product", r"HMMA\.1688\.F32\.TF32"),
        ("histogram", "Float32Product", r"HMMA\.1688\.F32\.TF32"),
        ("histogram", "", r"LDGSTS\.E\.BYPASS\.128"),
        ("histogram", "", r"ATOMS\.ADD RZ,"),
        ("histogram", "", r"RED[G]?\.E\.ADD\.64"),
        ("patterns", "", r"LDSM\.16\.MT88\.4"),
        ("patterns", "BFloat16Weights", r"HMMA\.16816\.F32\.BF16"),
        ("patterns", "HalfScaled", r"HMMA\.16816\.F32 "),
        ("patterns", "Float32Parts", r"HMMA\.16816\.F32\.BF16"),
    ],
)
def test_matrix_units_and_asynchronous_copies_are_used(kernel: str, variant: str, instruction: str) -> None:
    for chip in chips_to_read():
        code = {
            name: text
            for name, text in instructions(chip).items()
            if f"{kernel}_kernel" in name and variant in name
        }
        assert code
        for name, text in code.items():
            assert re.search(instruction, text), f"{name} for {chip} has no {instruction}"


LAUNCH = """
#include "csrc/cuda/device/gpu.h"
#include <cstdio>
__global__ void nothing() {}
int main() {
  using namespace tcm::cuda;
  for (int shared_bytes : {0, 64 * 1024}) {
    try {
      launch("a_kernel", nothing, Device{nullptr, 1, 2}, {1}, 32, shared_bytes);
    } catch (const std::runtime_error& error) {
      std::puts(error.what());
    }
  }
  launch("none", nothing, Device{nullptr, 1, 2}, {0}, 32, 0);
}
"""


def test_a_launch_that_fails_is_an_exception_with_the_name_of_the_kernel(tmp_path: Path) -> None:
    """Where there is no GPU, every launch fails."""
    nvcc = shutil.which("nvcc")
    if nvcc is None or torch.cuda.is_available():
        pytest.skip("there is no nvcc here, or a GPU")
    cpp_extension = pytest.importorskip("torch.utils.cpp_extension", reason="setuptools is not installed")
    source, program = tmp_path / "launch.cu", tmp_path / "launch"
    source.write_text(LAUNCH)
    includes = [f"-I{path}" for path in [*cpp_extension.include_paths(), ROOT]]
    command = [nvcc, "-std=c++20", *includes, "-arch=sm_80", "-o", str(program), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    lines = _printed(str(program)).splitlines()
    assert len(lines) == 2
    assert all(re.match(r"tcm_kernels: CUDA kernel a_kernel: cudaError\w+, \w+", line) for line in lines)
