"""What the `triton` backend would launch, and the compiler's report of it for a chip that need not be here.

Run as `python tests/support/triton_launches.py REPORT`: for every chip, dtype and dimension below it records
a forward and a backward on tensors in main memory without running a kernel, compiles what was recorded, and
writes one JSON object a kernel. With `settings` as another argument, it does so for the settings and inputs
of gpu_settings.py on an H100. A process of its own, because the other tests may have told triton to
interpret.
"""

from __future__ import annotations

import json
import multiprocessing
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import gpu_settings
import pytest
import torch

from benchmarks.harness.launches import Launch, compiled, forward_and_backward, of_chip, problem_of, recorded
from benchmarks.sass.compiled import dump_of, resources

CHIP_OF_SETTINGS = 90
# Dimensions, multiples of 128, of 16 and of nothing, by dtype and chip: what differs between them is seen on
# one chip. Few dimensions are for what runs in one launch.
OTHERS = {torch.bfloat16: (3, 512), torch.float16: (3,), torch.float32: (3, 512)}
DIMS = {
    80: OTHERS,
    90: {torch.bfloat16: (80, 512, 4096), torch.float16: (513,), torch.float32: (80,)},
    100: OTHERS,
}
# Rows, and columns where they are other ones: one launch where D allows, else not screened; screened; then
# with a side that gets a gradient of its own, in one launch and screened, and in several super-tiles.
FEW, MANY = (1024, None), (4096, None)
SHAPES = {3: (FEW,), 80: (FEW, MANY), 512: (FEW, MANY), 513: (MANY,), 4096: (MANY,)}
MORE_SHAPES = ((1024, 700), (4096, 2500), (20000, None))
MULTIPLIES = {"probe_kernel", "sweep_kernel", "dense_tiles_kernel", "patterns_kernel", "small_kernel"}
ALL_SHAPES = (80, 90)  # the dimension, and the chip, with more shapes and with float32 at lower precision


def counted(n: int, d: int) -> tuple[int, list[str], int]:
    """Launches and torch ops of a forward in the self case, views and allocations not among them.

    And the launches of the backward, which are all there is of it.
    """
    from torch_ops import Counted  # noqa: PLC0415

    from tcm_kernels.backends.triton import backward, forward, residual_bytes  # noqa: PLC0415

    problem = problem_of(n, d, torch.bfloat16)
    rows = problem.gradient_rows
    size = residual_bytes(rows)
    residual = torch.zeros(size, dtype=torch.uint8)
    grad_sums = torch.ones(2, dtype=torch.float64)
    with Counted() as of_torch:
        launches = recorded(lambda: forward.pair_sums(problem, size))
    in_forward = list(of_torch.ops)
    with Counted() as of_torch:
        in_backward = recorded(lambda: backward.pair_sums_backward(rows, grad_sums, residual))
    return len(launches), in_forward, len(in_backward) + len(of_torch.ops)


def _report(launch: Launch, chip: int, *, code: bool) -> dict[str, Any]:
    """What the compiler says of a launch; of a kernel that multiplies which instructions do, if `code`."""
    kernel = compiled(launch, chip)
    says = dump_of(kernel.asm["cubin"], code=code and launch.name in MULTIPLIES)
    (usage,) = resources(says).values()
    matrix = sorted(set(re.findall(r"\b(IMMA|IGMMA|HMMA|HGMMA|UTC[A-Z]*MMA)\b", says)))
    return {
        "kernel": launch.name,
        "chip": chip,
        "constants": launch.constants_by_name,
        "options": launch.options,
        "registers": usage["reg"],
        "stack": usage["stack"],
        "local": usage["local"],
        "shared": kernel.metadata.shared,
        "matrix": matrix,
    }


def _every_launch(chip: int, dtype: torch.dtype) -> Iterator[tuple[str, Launch]]:
    """On Blackwell, where spills are not looked for, only what multiplies."""
    seen = set()
    with of_chip(chip):
        for d in DIMS[chip][dtype]:
            more = (d, chip) == ALL_SHAPES
            shapes = (*SHAPES[d], *(MORE_SHAPES if more else ())) if chip == 90 or d == 3 else (MANY,)
            for precision in ("highest", "high") if more and dtype == torch.float32 else ("highest",):
                for n, m in shapes:
                    for launch in recorded(forward_and_backward(n, d, dtype, m, precision)):
                        if launch.key not in seen and (chip != 100 or launch.name in MULTIPLIES):
                            seen.add(launch.key)
                            yield f"{dtype}, D={d}, {precision}".removeprefix("torch."), launch


def _launches_of_setting(name: str) -> Iterator[tuple[str, Launch]]:
    """What the tests of this setting launch on a GPU."""
    setting = gpu_settings.TRITON[name]
    seen = set()
    with pytest.MonkeyPatch.context() as patch, of_chip(CHIP_OF_SETTINGS):
        setting.apply(patch)
        for case in gpu_settings.compiled_inputs_of(name):
            m = None if case.relation == "self" else case.m
            for launch in recorded(forward_and_backward(case.n, case.d, case.dtype, m)):
                if launch.key not in seen:
                    seen.add(launch.key)
                    yield f"{name}, {case.id}", launch


def _reports_of_chip(chip: int, dtype: torch.dtype) -> list[dict[str, Any]]:
    return [{"case": case} | _report(launch, chip, code=True) for case, launch in _every_launch(chip, dtype)]


def _reports_of_setting(name: str) -> list[dict[str, Any]]:
    launches = _launches_of_setting(name)
    return [{"case": case} | _report(launch, CHIP_OF_SETTINGS, code=False) for case, launch in launches]


def main(report: str, what: str = "chips") -> None:
    """Write the reports of all kernels, one JSON object a line."""
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        if what == "chips":
            parts = [(chip, dtype) for chip in (90, 100, 80) for dtype in DIMS[chip]]  # the longest first
            futures = [pool.submit(_reports_of_chip, *part) for part in parts]
        else:
            futures = [pool.submit(_reports_of_setting, name) for name in gpu_settings.COMPILED]
        with open(report, "w") as out:
            for future in futures:
                out.writelines(json.dumps(of_kernel) + "\n" for of_kernel in future.result())


if __name__ == "__main__":
    main(*sys.argv[1:])
