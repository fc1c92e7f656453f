"""The compiled code of the kernels that multiply tiles, of either backend, for a chip that need not be here.

`triton` kernels are compiled ahead of time, as they would be launched; `cuda` kernels are read out of the
extension module as it was built. Either way `cuobjdump` says what the machine code is: it comes with the CUDA
toolkit, and with Triton.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

import tcm_kernels
from benchmarks.harness import launches

from . import parse

DTYPES = {str(t).removeprefix("torch."): t for t in (torch.bfloat16, torch.float16, torch.float32)}
KERNELS = ("sweep", "dense_tiles", "patterns")
CHIPS = {80: "sm_80", 90: "sm_90a"}
TILE, WORD = 128, 32  # edge of a tile, and of the part of it that patterns take at a time, in either backend
ROWS = 4096  # of the forward whose launches are recorded: screened, and one super-tile

# Products that stand for one, by how rows are multiplied in float32.
PARTS = {"weights": 1, "scaled": 1, "two parts": 2, "three parts": 3}
TF32_PRODUCTS = {"tf32x3": 3}

# csrc/cuda: bytes of a row at a time (tile_memory.h), columns of the embeddings that a block of patterns adds
# up (pattern_rows.cuh), and what is in the names of the kernels of a dtype, with the highest precision.
CUDA_STEP_BYTES = 64
CUDA_WIDTHS = {torch.bfloat16: 128, torch.float16: 128, torch.float32: 64}
CUDA_NAMES = {
    "sweep": dict.fromkeys(DTYPES.values(), ""),
    "dense_tiles": {torch.bfloat16: "BFloat16", torch.float16: "4Half", torch.float32: "Float32Product"},
    "patterns": {
        torch.bfloat16: "BFloat16Weights",
        torch.float16: "HalfScaled",
        torch.float32: "Float32PartsILi3",
    },
}


class TileOf(NamedTuple):
    """What a kernel multiplies for a tile, and how it goes about it."""

    depth: int  # D, padded as the kernel pads it
    step: int  # terms of a tile's products, at a time
    visits: int = 1  # how often a tile is gone through: once, or once for each so many columns of D
    products: int = 1  # that stand for one

    @property
    def multiply_adds(self) -> int:
        """Of a tile, all its visits together."""
        return TILE * TILE * self.depth * self.products


@dataclasses.dataclass(frozen=True)
class Kernel:
    """Machine code, and how much of it a tile needs."""

    backend: str
    name: str  # one of KERNELS
    chip: int  # one of CHIPS
    dim: int
    dtype: str
    code: tuple[parse.Instruction, ...]
    registers: int
    stack: int  # bytes: what is spilled, mostly
    warps: int
    tile: TileOf

    @property
    def copied(self) -> int | None:
        """Bytes of rows and columns that a tile needs in shared memory; None where the code has to say."""
        if self.name == "patterns":
            return None
        return 2 * TILE * self.tile.depth * (1 if self.name == "sweep" else DTYPES[self.dtype].itemsize)


class NotHereError(Exception):
    """What is missing for there to be compiled code."""


def tool(name: str) -> str | None:
    """A tool of the CUDA toolkit, or of the triton wheel, which has some of them."""
    found = shutil.which(name)
    triton = importlib.util.find_spec("triton")
    if found is None and triton is not None and triton.origin is not None:
        found = shutil.which(str(Path(triton.origin).parent / "backends/nvidia/bin" / name))
    return found


def dump(path: Path, *options: str) -> str:
    """What `cuobjdump` says of a binary."""
    cuobjdump = tool("cuobjdump")
    if cuobjdump is None:
        raise NotHereError("cuobjdump is not installed: it comes with the CUDA toolkit and with triton")
    return subprocess.run([cuobjdump, *options, str(path)], capture_output=True, text=True, check=True).stdout


def dump_of(cubin: bytes, *, code: bool = True) -> str:
    """Resources of the kernel in a cubin, and its machine code: half a second, most of it a start."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return dump(Path(file.name), "--dump-resource-usage", *(["--dump-sass"] if code else []))


def resources(text: str) -> dict[str, dict[str, int]]:
    """Registers, stack and the rest (in bytes) of each kernel in a dump."""
    found = re.findall(r"Function (\S+?):\s*\n\s*(REG:.*)", text)
    return {
        name: {what.lower(): int(number) for what, number in re.findall(r"\b([A-Z]+):(\d+)", line)}
        for name, line in found
    }


def kernels(backend: str, chip: int, dim: int, dtype: str) -> Iterator[Kernel]:
    """The kernels of KERNELS, for embeddings of D = dim; raises NotHereError."""
    return {"triton": _of_triton, "cuda": _of_cuda}[backend](chip, dim, dtype)


def _of_triton(chip: int, dim: int, dtype: str) -> Iterator[Kernel]:
    if importlib.util.find_spec("triton") is None:
        raise NotHereError("triton is not installed")
    if os.environ.get("TRITON_INTERPRET") == "1":
        raise NotHereError("TRITON_INTERPRET is set: there is no compiled code")
    with launches.of_chip(chip):
        made = launches.recorded(launches.forward_and_backward(ROWS, dim, DTYPES[dtype]))
    by_name = {launch.name.removesuffix("_kernel"): launch for launch in made}
    for name in KERNELS:
        launch = by_name[name]
        kernel = launches.compiled(launch, chip)
        text = dump_of(kernel.asm["cubin"])
        ((function, used),) = resources(text).items()
        yield Kernel(
            "triton", name, chip, dim, dtype, tuple(parse.instructions(parse.functions(text)[function])),
            used["reg"], used["stack"] + used["local"], kernel.metadata.num_warps,
            _triton_tile(name, launch, dim),
        )  # fmt: skip


def _triton_tile(name: str, launch: launches.Launch, dim: int) -> TileOf:
    constants = launch.constants_by_name
    if name == "patterns":
        block = constants["BLOCK_D"]
        return TileOf(_padded(dim, block), WORD, -(-dim // block), PARTS[constants["WAY"]])
    block = constants["BLOCK_K"]
    if name == "sweep":
        return TileOf(constants["CODE_DIM"], block)
    return TileOf(_padded(dim, block), block, products=TF32_PRODUCTS.get(constants["PRECISION"], 1))


def _padded(number: int, to: int) -> int:
    return -(-number // to) * to


def _of_cuda(chip: int, dim: int, dtype: str) -> Iterator[Kernel]:
    library = Path(tcm_kernels.__file__).parent / "_cuda.abi3.so"
    if not library.exists():
        raise NotHereError("the CUDA extension was not built: tcm_kernels/_cuda.abi3.so is not there")
    of_chip = (library, "-arch", CHIPS[chip])
    used = resources(dump(*of_chip, "--dump-resource-usage"))
    if not used:
        raise NotHereError(f"the CUDA extension was built without {CHIPS[chip]}")
    threads = _threads(dump(*of_chip, "--dump-elf"))
    for name in KERNELS:
        of_dtype = CUDA_NAMES[name][DTYPES[dtype]]
        for function in (f for f in used if re.search(rf"\d{name}_kernel", f) and of_dtype in f):
            text = dump(*of_chip, "--dump-sass", "--function", function)
            yield Kernel(
                "cuda", name, chip, dim, dtype, tuple(parse.instructions(parse.functions(text)[function])),
                used[function]["reg"], used[function]["stack"] + used[function]["local"],
                threads[function] // 32, _cuda_tile(name, dim, DTYPES[dtype]),
            )  # fmt: skip


def _threads(elf: str) -> dict[str, int]:
    """Threads of a block of each kernel: the launch bounds that the compiler was told."""
    parts = re.split(r"^\.nv\.info\.(\S+)", elf, flags=re.MULTILINE)
    found = {}
    for function, text in zip(parts[1::2], parts[2::2], strict=True):
        if match := re.search(r"EIATTR_MAX_THREADS\s.*?Value:\s+0x([0-9a-f]+)", text, re.DOTALL):
            found[function] = int(match[1], 16)
    return found


def _cuda_tile(name: str, dim: int, dtype: torch.dtype) -> TileOf:
    exact = 3 if dtype == torch.float32 else 1
    if name == "patterns":
        width = CUDA_WIDTHS[dtype]
        return TileOf(_padded(dim, width), WORD, -(-dim // width), exact)
    if name == "sweep":
        return TileOf(_padded(dim, CUDA_STEP_BYTES), CUDA_STEP_BYTES)
    step = CUDA_STEP_BYTES // dtype.itemsize
    return TileOf(_padded(dim, step), step, products=exact)
