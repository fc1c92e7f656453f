"""Whether `benchmarks/harness/launches.py` specialises arguments as Triton does, named tuples among them.

Run as `python tests/support/triton_specialisation.py REPORT`, it writes a JSON object a launch: the rows of
its case, its kernel, and what Triton and we make of its arguments, that is types, constants, and which are
known to be divisible by 16. A process of its own, because the other tests may have told triton to interpret.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import CUDABackend
from triton.runtime import jit

from benchmarks.harness import launches

CHIP = 90
# An even batch, a reference set, rows and dimensions that 16 does not divide, one launch, super-tiles.
CASES = (
    (9000, 512, torch.bfloat16, None),
    (9000, 512, torch.bfloat16, 10001),
    (9017, 100, torch.float32, None),
    (300, 64, torch.float16, 77),
    (70000, 64, torch.float32, None),
)


def _by_triton(kernel: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    bind = jit.create_function_from_signature(
        kernel.signature, kernel.params, CUDABackend(GPUTarget("cuda", CHIP, 32))
    )
    _, specialisation, _ = bind(*args, **kwargs)
    types, attributes = ([each[i] for each in specialisation] for i in (0, 1))
    constants = jit.find_paths_if(types, lambda _, kind: kind == "constexpr")
    divisible = jit.find_paths_if(attributes, lambda _, attribute: attribute == "D")
    return _comparable(types, constants, divisible)


def _by_us(launch: launches.Launch) -> dict[str, Any]:
    return _comparable(list(launch.signature.values()), list(launch.constants), list(launch.attributes))


def _comparable(types: Any, constants: Any, divisible: Any) -> dict[str, Any]:
    # A constant's attribute is of no consequence.
    without_constants = set(divisible) - set(constants)
    return {"types": repr(types), "constants": sorted(constants), "divisible": sorted(without_constants)}


def main(report: str) -> None:
    """Write the file."""
    ours = launches._launch
    with open(report, "w") as out:

        def compared(kernel: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> launches.Launch:
            launch = ours(kernel, args, kwargs)
            found = {
                "rows": case[0],
                "kernel": launch.name,
                "triton": _by_triton(kernel, args, kwargs),
                "ours": _by_us(launch),
            }
            print(json.dumps(found), file=out)
            return launch

        launches._launch = compared
        with launches.of_chip(CHIP):
            for case in CASES:
                launches.recorded(launches.forward_and_backward(*case))


if __name__ == "__main__":
    main(*sys.argv[1:])
