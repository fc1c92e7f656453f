"""A pure-Python installation: no C++ extension, everything else as ever, and the doctor says what to do."""

import subprocess
import sys

import pytest
import torch

from tcm_kernels import dispatch, functional
from tcm_kernels.backends import torch_tiled

WITHOUT_EXTENSION = """
import os, sys
os.environ.pop("TRITON_INTERPRET", None)  # which makes a backend of the tests' own
sys.modules["tcm_kernels._cpu"] = None  # importing it now raises ImportError
import torch, tcm_kernels
from tcm_kernels import doctor
assert tcm_kernels.available_backends() == ["torch"], tcm_kernels.available_backends()
emb = torch.eye(4).repeat(2, 1).requires_grad_()
loss = tcm_kernels.fused_tcm_loss(emb, torch.arange(8) // 2, margin_plus=0.5, margin_minus=0.5)
loss.backward()
assert loss.item() == 1.0, loss  # positives at 0 under 0.5, negatives at 1 over 0.5
try:
    tcm_kernels.fused_tcm_loss(emb, torch.arange(8), backend="cpu")
except RuntimeError as error:
    print(error)
print(doctor.report())
"""


@pytest.fixture(scope="module")
def printed() -> str:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTENSION], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_asking_for_the_cpp_backend_says_what_is_missing_and_how_to_get_it(printed):
    refusal, _, report = printed.partition("\n")
    assert refusal.startswith("backend 'cpu' cannot run torch.float32 embeddings on cpu")
    assert "C++ extension" in refusal
    assert "pip install" in refusal
    assert "cannot run: its C++ extension" in report


def test_no_backend_for_a_device_lists_every_reason():
    with pytest.raises(RuntimeError, match="no backend runs") as refusal:
        dispatch.choose("auto", "mps", torch.float32)
    for name in dispatch.BACKENDS:
        assert f"{name}: " in str(refusal.value)


def test_the_torch_backend_says_which_dtypes_it_takes():
    assert "not torch.float8_e4m3fn" in str(torch_tiled.why_not("cpu", torch.float8_e4m3fn))


def test_the_cpp_backend_says_which_dtypes_and_devices_it_takes():
    cpu = dispatch.module("cpu")
    assert "not torch.int32" in str(cpu.why_not("cpu", torch.int32))
    assert "not on cuda" in str(cpu.why_not("cuda", torch.float32))


class OnCuda:
    """Enough of an embedding tensor to ask for its precision."""

    device = torch.device("cuda")
    dtype = torch.float32


@pytest.mark.parametrize(("switch", "expected"), [("none", "highest"), ("ieee", "highest"), ("tf32", "high")])
def test_float32_products_on_a_gpu_follow_torchs_own_switch(switch, expected):
    before = torch.backends.cuda.matmul.fp32_precision
    try:
        torch.backends.cuda.matmul.fp32_precision = switch
        assert functional.fp32_precision(OnCuda()) == expected
    finally:
        torch.backends.cuda.matmul.fp32_precision = before


def test_products_on_a_cpu_are_always_in_full_precision():
    assert functional.fp32_precision(torch.zeros(1, 1)) == "highest"
