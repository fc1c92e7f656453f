"""How many launches and torch ops a call of the CUDA backend takes: for small batches they are what it costs.

Counted on the emulator: kernels and clearings of memory, and torch's own ops, but for views and allocations.
"""

from __future__ import annotations

from typing import Any

import cuda_emulator
import pytest
import torch
from cases import Case
from torch_ops import Counted

from tcm_kernels.backends import cuda
from tcm_kernels.backends.contract import Problem

cuda_emulator.skip_module_unless_here()

pytestmark = pytest.mark.usefixtures("cuda_on_cpu")


def problem_of(n: int, relation: str = "self") -> Problem:
    inputs = Case(n=n, d=16, relation=relation, look="clustered").build()
    emb, labels, ref, ref_labels = (x if x is None else x.detach() for x in inputs.tensors)
    margins = torch.tensor([0.9, 0.5], dtype=torch.float64)
    return Problem(
        emb, labels, ref, ref_labels, margins, inputs.self_offset, True, ref is not None, "highest"
    )


def launches_of(call: Any) -> tuple[int, list[str]]:
    before = cuda_emulator.probes().probe_launches()
    with Counted() as counted:
        call()
    return cuda_emulator.probes().probe_launches() - before, counted.ops


@pytest.mark.parametrize(("super_tiles", "pool_mib", "most"), [(1, 64, 12), (3, 1e-6, 25)])
def test_a_forward_takes_a_dozen_launches_and_thirteen_more_in_three_super_tiles(
    super_tiles: int, pool_mib: float, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As N = 32,768 does with the pool that is the default."""
    monkeypatch.setenv("TCM_KERNELS_GPU_SCREENING", "int8")
    monkeypatch.setenv("TCM_KERNELS_GPU_POOL_MIB", str(pool_mib))
    problem = problem_of(300)
    size = cuda.residual_bytes(problem.gradient_rows)
    launches, ops = launches_of(lambda: cuda.pair_sums(problem, size))
    assert launches >= 5 + 5 * super_tiles, "the emulator has not counted"
    assert launches + len(ops) <= most, f"{launches} launches beside {ops}"


def test_a_backward_is_one_launch_for_each_side() -> None:
    for relation, sides in (("self", 1), ("rectangular", 2)):
        problem = problem_of(40, relation)
        sums, _, residual = cuda.pair_sums(problem, cuda.residual_bytes(problem.gradient_rows))
        launches, ops = launches_of(
            lambda: cuda.pair_sums_backward(problem.gradient_rows, torch.ones_like(sums), residual)  # noqa: B023
        )
        assert launches + len([op for op in ops if op != "aten.ones_like"]) == sides
