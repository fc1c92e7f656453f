"""The plan of both GPU backends, at any size: super-tiles, screening, programs."""

from __future__ import annotations

import re

import pytest
import torch
from checkout import ROOT

from tcm_kernels.backends.gpu import plan

MILLION = 2**20


def plan_of(
    rows: int, columns: int | None, dim: int, *, need_columns: bool = True, tile: int = 128
) -> plan.Plan:
    return plan.plan_of(
        rows, rows if columns is None else columns, dim,
        is_self=columns is None, need_columns=need_columns, tile=tile, multiprocessors=132,
    )  # fmt: skip


@pytest.mark.parametrize("tile", [32, 128])
@pytest.mark.parametrize(("mib", "rows"), [(64, 16384), (16, 8192), (1e9, None), (1e-9, None)])
def test_the_pool_decides_how_large_a_super_tile_is(
    mib: float, rows: int | None, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TCM_KERNELS_GPU_POOL_MIB", str(mib))
    fewest, most = plan.SUPER_TILES
    expected = (most if mib > 1 else fewest) if rows is None else rows // tile
    assert plan.super_tile_edge(tile) == expected


@pytest.mark.parametrize("is_self", [True, False])
def test_super_tiles_hold_every_tile_once(is_self: bool) -> None:
    seen = torch.zeros(11, 11, dtype=torch.int32)
    for part in plan.super_tiles(11, 11, 4, is_self=is_self):
        seen[part.row : part.row + part.rows, part.column : part.column + part.columns] += 1
    expected = torch.ones_like(seen)
    if is_self:  # whole super-tiles above the diagonal, of which those on it are halved later
        block = torch.arange(11) // 4
        expected = (block[:, None] <= block[None, :]).to(torch.int32)
    assert torch.equal(seen, expected)


def test_a_million_rows_take_the_upper_half_of_their_super_tiles() -> None:
    of_a_million = plan_of(MILLION, None, 128)
    assert len(of_a_million.parts) == 64 * 65 // 2
    assert sum(part.diagonal for part in of_a_million.parts) == 64


def test_columns_are_read_where_a_super_tile_has_both_sides_and_they_are_wanted() -> None:
    assert plan_of(MILLION, None, 128).by_column
    assert not plan_of(MILLION, None, 128, need_columns=False).by_column
    assert not plan_of(16384, None, 128).by_column, "one super-tile, on the diagonal"
    assert plan_of(64, 64, 16).by_column


def test_small_matrices_and_endless_rows_are_not_screened(monkeypatch: pytest.MonkeyPatch) -> None:
    assert plan_of(2048, None, 64).screened
    assert not plan_of(2047, None, 64).screened
    assert plan_of(4096, None, 32768).screened
    assert not plan_of(4096, None, 32769).screened, "products of such codes may not fit into 30 bits"
    monkeypatch.setenv("TCM_KERNELS_GPU_SCREENING", "int8")
    assert plan_of(100, None, 64).screened
    assert not plan_of(4096, None, 0).screened, "there are no codes"
    assert not plan_of(0, None, 64).screened
    assert not plan_of(5, 0, 64).screened
    monkeypatch.setenv("TCM_KERNELS_GPU_SCREENING", "full")
    assert not plan_of(100000, None, 64).screened


def test_there_are_two_programs_for_each_multiprocessor_but_no_more_than_tiles() -> None:
    assert plan_of(32768, None, 64).programs == 264
    assert plan_of(300, None, 64).programs == 9
    assert plan_of(0, None, 64).programs == 1


def test_the_sweep_runs_with_as_many_candidates_as_lists_hold() -> None:
    assert plan_of(4096, None, 64).max_candidates == plan.SAMPLES * plan.LIST_MOST


def test_the_largest_screened_dimension_is_that_of_the_certificate() -> None:
    certificate = (ROOT / "csrc/common/certificate.h").read_text(encoding="utf-8")
    found = re.search(r"constexpr \w+ kLargestScreenedDim = (\d+);", certificate)
    assert found is not None
    assert int(found[1]) == plan.LARGEST_SCREENED_DIM
