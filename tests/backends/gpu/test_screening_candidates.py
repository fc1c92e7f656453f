"""What the GPU's screening leaves: hardly more than the pair's own bound, and by the kernels just that."""

from __future__ import annotations

import importlib

import pytest
import torch
from engines import interprets_triton
from screening_rule import TILE, coded, left_by_the_pairs_own_bound, left_by_the_rule, products_of
from torch import Tensor

from benchmarks.harness import workload
from benchmarks.harness.workload import Case
from tcm_kernels.backends.contract import Problem
from tcm_kernels.backends.gpu import plan

N = 4096
KINDS = ("clusters", "correlated", "spectrum")
DENSITIES = (1e-5, 1e-4, 1e-3, 1e-2)


def rows(kind: str, d: int, density: float) -> tuple[Tensor, Tensor, float]:
    """The benchmark's embeddings in label order, their labels, and its m- at this density."""
    work = workload.make(Case(N, d, kind=kind, dtype="bfloat16", density=density))
    labels, order = work.labels.sort(stable=True)
    return work.emb[order], labels, work.margin_minus


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_at_most_2_1_times_the_candidates_of_the_pairs_own_bound(kind: str) -> None:
    d = 512
    emb, labels, _ = rows(kind, d, DENSITIES[0])
    margins = [rows(kind, d, density)[2] for density in DENSITIES]
    of_two_classes = labels[:, None] != labels[None, :]
    side = coded(emb)
    products = products_of(side.code, side.code)
    for density, margin, best in zip(
        DENSITIES, margins, left_by_the_pairs_own_bound(emb, margins), strict=True
    ):
        least = int((best & of_two_classes).sum())
        found = int((left_by_the_rule(side, side, d, margin, products) & of_two_classes).sum())
        assert least > 0
        assert found <= 2.1 * least, f"{density:g}: {found / least:.2f} times as many"


# Four tiles of rows: ten of pairs on and above the diagonal. With 8 classes a group and 4 samples a class,
# rows that are alike are multiples of 8 tiles apart.
ROW_TILES = (3, 11, 19, 27)


def left_by_triton(emb: Tensor, labels: Tensor, margin_minus: float, patch: pytest.MonkeyPatch) -> Tensor:
    """(N, N) candidates of the interpreted kernels, in whole tiles on and above the diagonal."""
    forward = importlib.import_module("tcm_kernels.backends.triton.forward")
    residual = importlib.import_module("tcm_kernels.backends.gpu.residual")
    patch.setenv("TCM_KERNELS_GPU_SCREENING", "int8")
    patch.setattr(plan, "LIST_MOST", TILE**2)  # no tile is dense, so that all bits are written both ways
    margins = torch.tensor([0.9, margin_minus], dtype=torch.float64)
    problem = Problem(emb, labels, None, None, margins, None, False, False, "highest")
    call = forward.Forward(problem, residual.outputs_beside(emb, None, None))
    (part,) = call.plan.parts
    call._sweep(part, call.state_of(0))
    filled = in_pairs(call.directory.view(part.rows, part.rows) != 0)
    words = call.row_bits.view(part.rows * TILE, -1)
    return (words[:, :, None] >> torch.arange(32, dtype=torch.int32) & 1).bool().flatten(1) & filled


def in_pairs(of_tiles: Tensor) -> Tensor:
    """What is known of tiles, for their pairs."""
    return of_tiles.repeat_interleave(TILE, 0).repeat_interleave(TILE, 1)


@pytest.mark.no_cover
@pytest.mark.skipif(not interprets_triton(), reason="triton is not installed, or runs on a GPU here")
@pytest.mark.parametrize(("kind", "density"), [*zip(KINDS, (1e-3, 1e-2, 1e-4), strict=True)])
def test_the_triton_kernels_leave_what_the_rule_leaves(
    kind: str, density: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    d = 128
    emb, labels, margin_minus = rows(kind, d, density)
    chosen = torch.cat([torch.arange(TILE * t, TILE * (t + 1)) for t in ROW_TILES])
    emb, labels = emb[chosen], labels[chosen]
    above = in_pairs(torch.ones(len(ROW_TILES), len(ROW_TILES)).triu().bool())
    looked_at = (labels[:, None] != labels[None, :]) & above  # pairs of one class all stay
    expected = left_by_the_rule(coded(emb), coded(emb), d, margin_minus) & looked_at
    assert expected.any()
    assert torch.equal(left_by_triton(emb, labels, margin_minus, monkeypatch) & looked_at, expected)
