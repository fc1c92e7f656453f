"""Numbers that stand in more than one language: the CUDA headers', Python's beside them, and Triton's."""

from __future__ import annotations

import re

import pytest
from checkout import ROOT

from tcm_kernels.backends import cuda

HEADERS = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "csrc/cuda").rglob("*.h")))


@pytest.mark.parametrize(("ours", "theirs"), [("SAMPLES", "kSamples"), ("TILE", "kTile")])
def test_python_and_the_cuda_headers_have_the_same_number(ours: str, theirs: str) -> None:
    (found,) = re.findall(rf"constexpr int {theirs} = (\d+);", HEADERS)
    assert int(found) == getattr(cuda, ours)


def test_ways_of_screening_are_numbered_as_in_the_cuda_headers() -> None:
    (found,) = re.findall(r"enum \{ ([\w, ]+) \} screening;", HEADERS)
    assert found.split(", ") == ["automatic", *cuda.SCREENINGS[1:]]


def test_triton_and_cuda_decide_by_the_same_numbers() -> None:
    pytest.importorskip("triton", reason="triton is not installed: pip install triton")
    from tcm_kernels.backends.triton import screen, tiles  # noqa: PLC0415  # which import triton

    assert (cuda.SAMPLES, cuda.USELESS_FROM) == (screen.SAMPLES, screen.USELESS_FROM)
    assert (cuda.TILE, cuda.LIST_MOST) == (tiles.TILE, tiles.LIST_MOST)
