"""What the CUDA backend refuses: its private op must not crash, whatever it is handed."""

from __future__ import annotations

import cuda_emulator
import pytest
import torch
from cases import Case

import tcm_kernels
from tcm_kernels import dispatch
from tcm_kernels.backends import cuda

cuda_emulator.skip_module_unless_here()

pytestmark = pytest.mark.usefixtures("cuda_on_cpu")


@pytest.fixture
def arguments_of_the_op(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What the Python side hands to the private op."""
    seen: list[object] = []
    ops = torch.ops.tcm_kernels_on_cpu
    right = ops._cuda_pair_sums
    dispatch.why_not_here("cuda")
    monkeypatch.setattr(ops, "_cuda_pair_sums", lambda *args: seen.extend(args))
    inputs = Case(n=9, d=4, relation="rectangular").build()
    with torch.no_grad():
        tcm_kernels.fused_tcm_loss(*inputs.tensors, backend="cuda")
    monkeypatch.setattr(ops, "_cuda_pair_sums", right)
    return seen


WRONG = {
    "a transposed matrix": (0, lambda x: x.T.contiguous().T),
    "float64 embeddings": (0, lambda x: x.double()),
    "too short an order": (1, lambda x: x[:-1]),
    "an order of 32 bits": (1, lambda x: x.to(torch.int32)),
    "too few labels": (2, lambda x: x[:-1]),
    "no self_index beside a reference set": (3, lambda x: None),
    "self_index of 64 bits": (3, lambda x: x.long()),
    "a reference set of other width": (6, lambda x: x[:, :-1].contiguous()),
    "a reference set of other dtype": (6, lambda x: x.half()),
    "no order of the reference set": (7, lambda x: None),
    "no labels of the reference set": (8, lambda x: None),
    "no self_index of the reference set": (9, lambda x: None),
    "float32 margins": (12, lambda x: x.float()),
    "a negative pool": (14, lambda x: -1),
    "an unknown screening": (17, lambda x: 3),
    "too small a workspace": (21, lambda x: x[:-1]),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_the_private_op_refuses(wrong: str, arguments_of_the_op: list[object]) -> None:
    """Whatever Python hands it: bad input must not crash the process."""
    place, change = WRONG[wrong]
    torch.ops.tcm_kernels_on_cpu._cuda_pair_sums(*arguments_of_the_op)
    arguments_of_the_op[place] = change(arguments_of_the_op[place])
    with pytest.raises(RuntimeError):
        torch.ops.tcm_kernels_on_cpu._cuda_pair_sums(*arguments_of_the_op)


def test_it_says_which_inputs_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cuda.why_not("cpu", torch.float32) is None
    assert "not torch.float64" in str(cuda.why_not("cpu", torch.float64))
    assert "not on cuda" in str(cuda.why_not("cuda", torch.float32))
    monkeypatch.delenv("TCM_KERNELS_CUDA_EMULATOR")
    assert "torch sees none" in str(cuda.why_not_here())
    assert "not on cpu" in str(cuda.why_not("cpu", torch.float32))
