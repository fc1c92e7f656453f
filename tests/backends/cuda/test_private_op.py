"""What the CUDA backend refuses: its private op must not crash, whatever it is handed."""

from __future__ import annotations

from typing import Any

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
def arguments_of_the_op(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the Python side hands to the private op."""
    seen: list[Any] = []
    ops = torch.ops.tcm_kernels_on_cpu
    right = ops._cuda_pair_sums
    dispatch.why_not_here("cuda")
    monkeypatch.setattr(ops, "_cuda_pair_sums", lambda *args: seen.extend(args))
    inputs = Case(n=9, d=4, relation="rectangular").build()
    with torch.no_grad():
        tcm_kernels.fused_tcm_loss(*inputs.tensors, backend="cuda")
    monkeypatch.setattr(ops, "_cuda_pair_sums", right)
    return seen


ROWS, COLUMNS, MARGINS, EDGE, PROGRAMS, PARTS, WORKSPACE = 0, 1, 2, 6, 7, 10, 14
# Of an argument, or of one of a side's tensors.
WRONG = {
    "a transposed matrix": (ROWS, 0, lambda x: x.T.contiguous().T),
    "float64 embeddings": (ROWS, 0, lambda x: x.double()),
    "too short an order": (ROWS, 1, lambda x: x[:-1]),
    "an order of 32 bits": (ROWS, 1, lambda x: x.to(torch.int32)),
    "too few labels": (ROWS, 2, lambda x: x[:-1]),
    "self_index of 64 bits": (ROWS, 3, lambda x: x.long()),
    "a reference set of other width": (COLUMNS, 0, lambda x: x[:, :-1].contiguous()),
    "a reference set of other dtype": (COLUMNS, 0, lambda x: x.half()),
    "too few tensors of a side": (ROWS, None, lambda side: side[:3]),
    "no rows": (ROWS, None, lambda side: []),
    "an order, but no labels of the reference set": (COLUMNS, None, lambda side: side[:2]),
    "float32 margins": (MARGINS, None, lambda x: x.float()),
    "super-tiles without tiles": (EDGE, None, lambda _: 0),
    "more programs than tiles": (PROGRAMS, None, lambda _: 2**40),
    "half a super-tile": (PARTS, None, lambda parts: parts[:-1]),
    "a super-tile outside of the matrix": (PARTS, None, lambda parts: [1, *parts[1:]]),
    "a number of 64 bits": (PARTS, None, lambda parts: [2**40, *parts[1:]]),
    "too small a workspace": (WORKSPACE, None, lambda x: x[:-1]),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_the_private_op_refuses(wrong: str, arguments_of_the_op: list[Any]) -> None:
    """Whatever Python hands it: bad input must not crash the process."""
    place, of_side, change = WRONG[wrong]
    torch.ops.tcm_kernels_on_cpu._cuda_pair_sums(*arguments_of_the_op)
    argument = arguments_of_the_op[place]
    if of_side is None:
        arguments_of_the_op[place] = change(argument)
    else:
        arguments_of_the_op[place] = [change(x) if i == of_side else x for i, x in enumerate(argument)]
    with pytest.raises(RuntimeError):
        torch.ops.tcm_kernels_on_cpu._cuda_pair_sums(*arguments_of_the_op)


def test_it_says_which_inputs_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cuda.why_not("cpu", torch.float32) is None
    assert "not torch.float64" in str(cuda.why_not("cpu", torch.float64))
    assert "not on cuda" in str(cuda.why_not("cuda", torch.float32))
    monkeypatch.delenv("TCM_KERNELS_CUDA_EMULATOR")
    assert "torch sees none" in str(cuda.why_not_here())
    assert "not on cpu" in str(cuda.why_not("cpu", torch.float32))
