"""What the `triton` backend would launch, and the compiler's report of it for a chip that need not be here.

Run as `python tests/triton_launches.py REPORT`: for every chip, dtype and dimension below it records a
forward and a backward on tensors in main memory without running a kernel, compiles what was recorded, and
writes one JSON object a kernel. With `settings` as another argument, it does so for the settings and inputs
of gpu_settings.py on an H100. A process of its own, because the other tests may have told triton to
interpret.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import multiprocessing
import re
import subprocess
import sys
import tempfile
import unittest.mock
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import gpu_settings
import pytest
import torch

CHIP_OF_SETTINGS = 90
DTYPES = (torch.bfloat16, torch.float16, torch.float32)
# Dimensions, multiples of 128, of 16, of 8 and of nothing, by chip: what differs between them is seen on one.
DIMS = {80: (3, 512), 90: (80, 512, 513, 1000, 4096), 100: (3, 512)}
# Rows, and columns where they are other ones: one launch where D allows, screened; then with a side that gets
# a gradient of its own, in one launch and screened, and in several super-tiles.
SHAPES = ((1024, None), (4096, None))
MORE_SHAPES = ((1024, 700), (4096, 2500), (20000, None))  # of one D on one chip
POINTERS = {
    torch.float32: "*fp32",
    torch.float64: "*fp64",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.int8: "*i8",
    torch.int32: "*i32",
    torch.int64: "*i64",
}


@dataclasses.dataclass(frozen=True)
class Launch:
    """A kernel, and what it would be compiled for."""

    kernel: Any  # triton.JITFunction
    signature: dict[str, str]
    constants: dict[tuple[int], Any]
    attributes: dict[tuple[int], list[list[Any]]]
    options: dict[str, int]

    @property
    def name(self) -> str:
        return self.kernel.__name__

    @property
    def key(self) -> str:
        """Equal for two launches exactly where one compiled kernel serves both."""
        return repr((self.name, self.signature, self.constants, self.attributes, self.options))


def _launch(kernel: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Launch:
    """As triton specialises: pointers and integers by divisibility by 16, integers also by being 1."""
    names = [parameter.name for parameter in kernel.params]
    options = {name: value for name, value in kwargs.items() if name not in names}
    values = dict(zip(names, args, strict=False)) | {k: v for k, v in kwargs.items() if k in names}
    signature: dict[str, str] = {}
    constants: dict[tuple[int], Any] = {}
    attributes: dict[tuple[int], list[list[Any]]] = {}
    for index, parameter in enumerate(kernel.params):
        value = values[parameter.name]
        specialised = not parameter.do_not_specialize
        if (
            parameter.is_constexpr
            or (value is None)
            or (specialised and isinstance(value, int) and value == 1)
        ):
            signature[parameter.name], constants[(index,)] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            signature[parameter.name] = POINTERS[value.dtype]
            aligned = value.data_ptr() % 16 == 0 and not parameter.do_not_specialize_on_alignment
            if specialised and aligned:
                attributes[(index,)] = [["tt.divisibility", 16]]
        else:
            assert isinstance(value, int), f"{kernel.__name__}: {parameter.name} is {value!r}"
            signature[parameter.name] = "i32" if -(2**31) <= value < 2**31 else "i64"
            if specialised and value % 16 == 0:
                attributes[(index,)] = [["tt.divisibility", 16]]
    return Launch(kernel, signature, constants, attributes, options)


def recorded(call: Callable[[], object]) -> list[Launch]:
    """The launches that `call` would make."""
    import triton  # noqa: PLC0415

    launches: list[Launch] = []

    def run(kernel: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        launches.append(_launch(kernel, args, kwargs))

    with unittest.mock.patch.object(triton.JITFunction, "run", run):
        call()
    return launches


def forward_and_backward(
    n: int, d: int, dtype: torch.dtype, m: int | None = None, precision: str = "highest"
) -> Callable[[], object]:
    """A call of the backend with gradients; labels and embeddings are of no interest."""
    from tcm_kernels.backends.contract import Problem  # noqa: PLC0415
    from tcm_kernels.backends.triton import backward, forward, residual_bytes  # noqa: PLC0415

    def labels(rows: int) -> torch.Tensor:
        return torch.arange(rows) // 4

    emb = torch.zeros(n, d, dtype=dtype)
    ref = None if m is None else torch.zeros(m, d, dtype=dtype)
    margins = torch.tensor([0.9, 0.5], dtype=torch.float64)
    problem = Problem(
        emb, labels(n), ref, None if m is None else labels(m), margins, None, True, m is not None, precision
    )

    def call() -> None:
        _, _, residual = forward.pair_sums(problem, residual_bytes(problem))
        backward.pair_sums_backward(problem, torch.ones(2, dtype=torch.float64), residual)

    return call


def _report(launch: Launch, chip: int) -> dict[str, Any]:
    """What the compiler says of a launch."""
    import triton  # noqa: PLC0415
    from triton.backends.compiler import GPUTarget  # noqa: PLC0415
    from triton.compiler import ASTSource  # noqa: PLC0415

    source = ASTSource(
        fn=launch.kernel, signature=launch.signature, constexprs=launch.constants, attrs=launch.attributes
    )
    compiled = triton.compile(source, target=GPUTarget("cuda", chip, 32), options=launch.options)
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        cubin.write(compiled.asm["cubin"])
        cubin.flush()
        command = [tool, "--dump-resource-usage", "--dump-sass", cubin.name]
        says = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    usage = {name: int(number) for name, number in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", says)}
    matrix = sorted(set(re.findall(r"\b(IMMA|IGMMA|HMMA|HGMMA|UTC[A-Z]*MMA)\b", says)))
    return {
        "kernel": launch.name,
        "chip": chip,
        "constants": {launch.kernel.params[i].name: value for (i,), value in launch.constants.items()},
        "options": launch.options,
        "registers": usage["REG"],
        "stack": usage["STACK"],
        "local": usage["LOCAL"],
        "shared": compiled.metadata.shared,
        "matrix": matrix,
    }


def _configs_of(chip: int) -> contextlib.AbstractContextManager[object]:
    """Launches are then those of this chip."""
    from tcm_kernels.backends.triton import configs, forward  # noqa: PLC0415

    def configs_of_chip(x: torch.Tensor, _: str) -> configs.Configs:
        return configs.configs_for(chip // 10, x.element_size(), x.shape[1])

    return unittest.mock.patch.object(forward, "_configs", configs_of_chip)


def _every_launch(chip: int) -> Iterator[tuple[str, Launch]]:
    seen = set()
    with _configs_of(chip):
        for dtype, d, precision in itertools.product(DTYPES, DIMS[chip], ("highest", "high")):
            if precision == "high" and dtype != torch.float32:
                continue
            for n, m in SHAPES + (MORE_SHAPES if (d, chip) == (80, 90) else ()):
                for launch in recorded(forward_and_backward(n, d, dtype, m, precision)):
                    if launch.key not in seen:
                        seen.add(launch.key)
                        yield f"{dtype}, D={d}, {precision}".removeprefix("torch."), launch


def _launches_of_setting(name: str) -> Iterator[tuple[str, Launch]]:
    """What the tests of this setting launch on a GPU."""
    setting = gpu_settings.TRITON[name]
    seen = set()
    with pytest.MonkeyPatch.context() as patch, _configs_of(CHIP_OF_SETTINGS):
        setting.apply(patch)
        for case in gpu_settings.inputs_of(setting):
            m = None if case.relation == "self" else case.m
            for launch in recorded(forward_and_backward(case.n, case.d, case.dtype, m)):
                if launch.key not in seen:
                    seen.add(launch.key)
                    yield f"{name}, {case.id}", launch


def _reports(of: int | str) -> list[dict[str, Any]]:
    """Of a chip, or of a setting."""
    chip = of if isinstance(of, int) else CHIP_OF_SETTINGS
    launches = _every_launch(of) if isinstance(of, int) else _launches_of_setting(of)
    return [{"case": case} | _report(launch, chip) for case, launch in launches]


def main(report: str, what: str = "chips") -> None:
    """Write the reports of all kernels, one JSON object a line."""
    processes = ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))
    with processes as pool, open(report, "w") as out:
        for reports in pool.map(_reports, DIMS if what == "chips" else gpu_settings.TRITON):
            out.writelines(json.dumps(of_kernel) + "\n" for of_kernel in reports)


if __name__ == "__main__":
    main(*sys.argv[1:])
