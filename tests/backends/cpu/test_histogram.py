"""What only the C++ histogram can get wrong: instruction sets, threads, super-tiles, its private op.

Its counts are held against the truth in test_pair_histogram.py, as those of any other backend.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from forks import forks
from torch import Tensor

from tcm_kernels import dispatch, ops
from tcm_kernels.backends import order as orders
from tcm_kernels.backends.contract import HistogramProblem

REASON = dispatch.why_not_here("cpu")
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"cpu backend: {REASON}")

RANGES = [(-1.0, 1.0), (-0.5, 0.5), (-0.3, 0.9)]  # of the last the width is no power of two: a division
INSTRUCTION_SETS = ("baseline", "avx2", "avx512", "avx512_vnni")

_PRINT_COUNTS = """
import torch
from test_histogram import RANGES, counted, problem
from tcm_kernels.backends import cpu
print(cpu.simd_name())
for dtype in torch.float32, torch.float64:
    for lo, hi in RANGES:
        given = problem(n=601, d=24, dtype=dtype, lo=lo, hi=hi)
        print([hash(tuple(x.flatten().tolist())) for x in counted(given)])
"""


def problem(
    n: int, d: int, *, groups: int | None = None, dtype: torch.dtype = torch.float32, **settings: float
) -> HistogramProblem:
    """Shuffled rows of 50 classes, counted by class or by `groups` others."""
    generator = torch.Generator().manual_seed(n + d)
    emb = torch.randn(n, d, generator=generator, dtype=dtype)
    labels = torch.randint(50, (n,), generator=generator)
    of = labels if groups is None else torch.randint(groups, (n,), generator=generator)
    count = 50 if groups is None else groups
    lo, hi, bins = settings.get("lo", -1.0), settings.get("hi", 1.0), 101
    return HistogramProblem(emb, labels, of, None, None, None, None, count, bins, lo, hi, "highest")


def counted(given: HistogramProblem, backend: str = "cpu") -> tuple[Tensor, ...]:
    return ops.pair_histogram(given, backend)


def assert_nearly_equal(got: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    """The same but for pairs within the rounding of an edge, of which there is one in 10,000 at most."""
    for ours, theirs in zip(got, expected, strict=True):
        assert torch.equal(ours.sum(dim=1), theirs.sum(dim=1))
        assert int((ours - theirs).abs().sum()) <= 2e-4 * int(theirs.sum())


def test_every_instruction_set_counts_the_same() -> None:
    with forks("test_histogram", folder="backends/cpu") as processes:
        printed = [processes.output_of(_PRINT_COUNTS, TCM_KERNELS_CPU_ISA=isa) for isa in INSTRUCTION_SETS]
    found = [lines.splitlines() for lines in printed]
    assert {name for name, *_ in found} <= set(INSTRUCTION_SETS)
    assert len({tuple(counts) for _, *counts in found}) == 1


@pytest.mark.parametrize("groups", [None, 7, 1300])
def test_rows_of_many_super_tiles(groups: int | None) -> None:
    # At D = 5000 a super-tile has one tile along its edge, so 1,400 rows make six of them.
    given = problem(1400, 5000, groups=groups)
    assert_nearly_equal(counted(given), counted(given, "torch"))


def test_a_rectangle_of_many_super_tiles_with_an_offset() -> None:
    gallery = problem(1400, 5000, groups=30)
    queries = gallery._replace(
        emb=gallery.emb[300:900],
        labels=gallery.labels[300:900],
        groups=gallery.groups[300:900],
        ref=gallery.emb,
        ref_labels=gallery.labels,
        ref_groups=gallery.groups,
        self_offset=300,
    )
    assert_nearly_equal(counted(queries), counted(queries, "torch"))


def test_the_number_of_threads_changes_nothing(restored_threads: None) -> None:
    given = problem(3000, 16, groups=11)
    found = []
    for threads in 1, 2, 5:
        torch.set_num_threads(threads)
        found.append(counted(given))
    for other in found[1:]:
        assert all(torch.equal(x, y) for x, y in zip(found[0], other, strict=True))


def test_autocast_and_torchs_precision_change_nothing() -> None:
    given = problem(700, 64)
    expected = counted(given)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = counted(given)
    finally:
        torch.set_float32_matmul_precision(before)
    assert all(torch.equal(x, y) for x, y in zip(got, expected, strict=True))


class TestPrivateOp:
    @pytest.fixture
    def arguments(self) -> dict[str, Any]:
        given = problem(600, 8)
        order, _ = orders.group_orders(given)
        edge = torch.ops.tcm_kernels._cpu_histogram_edge(given.emb, None, 1)
        groups = orders.most_groups(order, edge)
        size = torch.ops.tcm_kernels._cpu_histogram_workspace_bytes(given.emb, None, 1, given.bins, groups)
        table = (given.group_count, given.bins + 2)
        return {
            "rows": [given.emb, *order],
            "columns": [],
            "self_index": None,
            "bins": given.bins,
            "lo": given.lo,
            "hi": given.hi,
            "threads": 1,
            "most_groups": groups,
            "positives": torch.zeros(table, dtype=torch.int64),
            "negatives": torch.zeros(table, dtype=torch.int64),
            "pooled": torch.zeros(2, given.bins + 2, dtype=torch.int64),
            "workspace": torch.empty(size, dtype=torch.uint8),
        }

    @pytest.mark.parametrize(
        ("name", "wrong", "message"),
        [
            ("rows", [torch.zeros(600, 8)], "rows and columns: expected 5 tensors each, got 1"),
            (("rows", 0), torch.zeros(8, 600).T, "embeddings: expected a contiguous CPU matrix"),
            (("rows", 1), torch.zeros(599, dtype=torch.int64), "order: expected 600"),
            (
                ("rows", 2),
                torch.arange(600, dtype=torch.int32).flip(0),
                "group: expected sorted numbers below 50",
            ),
            (
                ("rows", 2),
                torch.full((600,), 50, dtype=torch.int32),
                "group: expected sorted numbers below 50",
            ),
            (("rows", 3), torch.arange(600, dtype=torch.int32), "rank: expected at most"),
            ("bins", 0, "bins, lo, hi: out of range"),
            ("bins", 30001, "bins, lo, hi: out of range"),
            ("hi", -1.0, "bins, lo, hi: out of range"),
            ("threads", 0, "threads: expected at least 1"),
            ("positives", torch.zeros(50, 103), "positives: expected 5150"),
            ("workspace", torch.empty(64, dtype=torch.uint8), "workspace: expected"),
        ],
    )
    def test_what_does_not_fit_is_refused(
        self, name: str | tuple[str, int], wrong: Any, message: str, arguments: dict[str, Any]
    ) -> None:
        torch.ops.tcm_kernels._cpu_pair_histogram(**arguments)
        if isinstance(name, tuple):  # one tensor of a side
            name, at = name
            wrong = [*arguments[name][:at], wrong, *arguments[name][at + 1 :]]
        with pytest.raises(RuntimeError, match=message):
            torch.ops.tcm_kernels._cpu_pair_histogram(**arguments | {name: wrong})

    def test_a_reference_set_of_another_width_or_dtype_is_refused(self, arguments: dict[str, Any]) -> None:
        emb, *order = arguments["rows"]
        for other in (torch.zeros(600, 9), emb.double()):
            with pytest.raises(RuntimeError, match="ref: expected the columns and dtype of emb"):
                torch.ops.tcm_kernels._cpu_pair_histogram(**arguments | {"columns": [other, *order]})
