"""The emulated kernels beside the real module in one process, as on a GPU machine the tests have them.

Both register ops, in the same process-wide table of torch's: each has to answer for itself.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cuda_emulator
import pytest
from checkout import ROOT

import tcm_kernels

cuda_emulator.skip_module_unless_here(beside_a_gpu=True)

if not (Path(tcm_kernels.__file__).parent / "_cuda.abi3.so").exists():
    pytest.skip("the CUDA module was not built", allow_module_level=True)

BOTH = """
import importlib, os, sys
import torch
load = {
    "real": lambda: importlib.import_module("tcm_kernels._cuda"),
    "emulated": lambda: torch.ops.load_library(os.environ["TCM_KERNELS_CUDA_EMULATOR"]),
}
for name in sys.argv[1].split("-then-"):
    load[name]()
assert torch.ops.tcm_kernels_on_cpu._cuda_multiprocessors() == 2
try:
    assert torch.ops.tcm_kernels._cuda_multiprocessors() > 2, "the emulator has answered"
except RuntimeError as error:
    assert "CUDA kernel preparation: cudaError" in str(error), error
sums = torch.zeros(2, dtype=torch.float64)
x = torch.randn(3, 2)
backward = (sums, torch.zeros(1, dtype=torch.float64), x, x.clone(), x.clone(), 2, torch.empty(3, 2))
torch.ops.tcm_kernels_on_cpu._cuda_pair_sums_backward(*backward)
try:
    torch.ops.tcm_kernels._cuda_pair_sums_backward(*backward)
    raise AssertionError("the real module has taken tensors in main memory")
except NotImplementedError:
    pass
sys.path.insert(0, "tests/support")
from agreement import assert_agrees, run
from cases import Case
from engines import Engine
inputs = Case(n=40, d=20).build()
assert_agrees(run(Engine("cuda", "cpu"), inputs), inputs)
"""


@pytest.mark.parametrize("order", ["real-then-emulated", "emulated-then-real"])
def test_each_answers_for_itself(order: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BOTH, order],
        env={**os.environ, "TCM_KERNELS_CUDA_EMULATOR": str(cuda_emulator.library())},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
