"""Numbers that stand in the CUDA headers and in Python beside them."""

from __future__ import annotations

import re

import pytest
from checkout import ROOT

from tcm_kernels.backends import cuda
from tcm_kernels.backends.gpu import plan

SOURCES = "".join(
    path.read_text(encoding="utf-8") for path in sorted((ROOT / "csrc/cuda/loss").glob("plan.*"))
)
HEADERS = SOURCES + "".join(
    path.read_text(encoding="utf-8") for path in sorted((ROOT / "csrc/cuda").rglob("*.h"))
)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(plan.SAMPLES, "kSamples"), (cuda.TILE, "kTile"), (plan.SUPER_TILES[1], "kMostTiles")],
    ids=["SAMPLES", "TILE", "SUPER_TILES"],
)
def test_python_and_the_cuda_sources_have_the_same_number(ours: int, theirs: str) -> None:
    found = set(re.findall(rf"constexpr int {theirs} = (\d+);", HEADERS))
    assert found == {str(ours)}
