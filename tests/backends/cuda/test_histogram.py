"""The CUDA kernels that count similarities, on the emulator, and the plain arithmetic of their host.

As for the loss (test_kernels.py): the emulator finds missing barriers, the truth finds wrong counts, and
where there is a GPU the shared tests run the backend like any other.
"""

from __future__ import annotations

import ctypes
import itertools
import math
from typing import Any

import cuda_emulator
import numpy as np
import pytest
import torch
from cases import RELATIONS, Case
from engines import Engine
from histogram_problems import (
    GROUPINGS,
    LAYOUTS,
    RANDOM,
    RANGES,
    assert_equal,
    assert_exact,
    assert_within_rounding,
    count,
    exact_problem,
    problem_of,
    range_clear_of,
    tables_of,
    truth_of,
)

from tcm_kernels import dispatch
from tcm_kernels.backends import cuda
from tcm_kernels.backends.contract import MOST_BINS, HistogramProblem

cuda_emulator.skip_module_unless_here()

ENGINE = Engine("cuda", "cpu")
pytestmark = pytest.mark.usefixtures("cuda_on_cpu", "poisoned_memory")

# KiB of a multiprocessor: with four buffers and most counters in place; with two buffers, and counters of 16
# bits for a group or two of 2,000 bins; with nearly no room for counters.
SHARED = {"an H200's": 228, "a consumer GPU's": 100, "hardly any": 82}


@pytest.fixture(params=SHARED, ids=lambda name: f"{name} shared memory")
def shared_memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    kib = SHARED[request.param]
    monkeypatch.setenv("TCM_EMULATOR_SHARED_BYTES", str(kib * 1024))
    return kib


def _is_quick(n: int, d: int, dtype: torch.dtype) -> bool:
    return dtype != torch.float64 and n * n * d <= 300 * 300 * 100


QUICK_LAYOUTS = [
    layout for layout in LAYOUTS if _is_quick(layout["n"], layout["d"], layout.get("dtype", torch.float32))
]
QUICK_RANDOM = [case for case in RANDOM if _is_quick(case.n, case.d, case.dtype)]


def _in_turn(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each case in one of the settings, all of them in turn."""
    kib = list(SHARED.values())[number % len(SHARED)]
    monkeypatch.setenv("TCM_EMULATOR_SHARED_BYTES", str(kib * 1024))


@pytest.mark.parametrize("number", range(len(QUICK_LAYOUTS)))
def test_representable_similarities_are_counted_exactly(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    _in_turn(number, monkeypatch)
    assert_exact(ENGINE, exact_problem(**QUICK_LAYOUTS[number]))


@pytest.mark.parametrize("case", QUICK_RANDOM, ids=lambda case: case.id)
def test_any_similarities_are_counted_up_to_the_rounding_of_an_edge(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    _in_turn(case.seed, monkeypatch)
    problem = problem_of(case.build(), GROUPINGS[case.seed % 5], 300, RANGES[case.seed % 6])
    assert_within_rounding(count(ENGINE, problem), problem)


@pytest.mark.parametrize("grouping", GROUPINGS)
@pytest.mark.parametrize("relation", RELATIONS)
def test_counters_that_do_not_fit_are_counted_all_the_same(
    shared_memory: int, relation: str, grouping: str
) -> None:
    """More tiles than one in either direction, with pairs of one group in all, some and none of a tile."""
    assert_exact(ENGINE, exact_problem(relation, 290, 24, torch.float32, grouping, 2000))


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_groups_of_several_tiles(relation: str, dtype: torch.dtype) -> None:
    """Whole tiles are of one group, and counters change their meaning along the columns."""
    assert_exact(ENGINE, exact_problem(relation, 800, 16, dtype, "few", 100))


@pytest.mark.parametrize("relation", RELATIONS)
def test_labels_across_groups(shared_memory: int, relation: str) -> None:
    """Pairs of one class and two groups, and of one group and two classes, in every tile."""
    problem = exact_problem(relation, 290, 24, torch.float32, "few", 2000)
    labels = torch.arange(len(problem.labels)) % 3
    ref_labels = None if problem.ref is None else torch.arange(len(problem.ref)) % 3
    if problem.self_offset is not None:
        assert ref_labels is not None
        ref_labels = (ref_labels - problem.self_offset) % 3
    assert_exact(ENGINE, problem._replace(labels=labels, ref_labels=ref_labels))


@pytest.mark.parametrize("columns", [1200, 2000])
def test_counters_of_16_bits_do_not_overflow(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """128 rows of one group and so many columns, all of one similarity: 153,600 pairs and more in one bin."""
    monkeypatch.setenv("TCM_EMULATOR_SHARED_BYTES", str(SHARED["a consumer GPU's"] * 1024))
    emb, ref = torch.ones(128, 4), torch.ones(columns, 4)
    for lo, hi in ((-1.0, 1.5), (-3.0, 1.5)):  # in the lower half of a word, and in the upper
        problem = HistogramProblem(
            emb, torch.zeros(128), torch.zeros(128, dtype=torch.int64),
            ref, torch.ones(columns), torch.ones(columns, dtype=torch.int64),
            None, 2, 2000, lo, hi, "highest",
        )  # fmt: skip
        problem = problem._replace(labels=problem.labels.long(), ref_labels=problem.ref_labels.long())
        positives, negatives, pooled = count(ENGINE, problem)
        column = 1 + math.floor((1.0 - lo) * 2000 / (hi - lo))
        assert negatives[:, column].tolist() == [128 * columns] * 2
        assert int(negatives.sum()) == 2 * 128 * columns
        assert pooled.sum(dim=1).tolist() == [0, 128 * columns]
        assert not positives.any()


def test_tf32_is_taken_where_it_is_enough() -> None:
    """Similarities are then off by up to 1e-3: counts of bins differ, and those of wide ones nearly agree."""
    problem = problem_of(Case(n=200, d=96, look="clustered").build(), "few", 2000)
    exact, rough = count(ENGINE, problem), count(ENGINE, problem._replace(precision="high"))
    assert not torch.equal(exact[2], rough[2])
    assert torch.equal(exact[2].sum(dim=1), rough[2].sum(dim=1))
    off = (exact[2].cumsum(dim=1) - rough[2].cumsum(dim=1)).abs().max()
    assert int(off) < 0.02 * int(exact[2].sum())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("relation", RELATIONS)
def test_far_from_every_edge_random_similarities_are_counted_exactly(
    relation: str, dtype: torch.dtype
) -> None:
    case = Case(relation=relation, n=150, d=47, dtype=dtype, look="clustered")
    problem = problem_of(case.build(), "few", bins=3)
    lo, hi = range_clear_of(truth_of(problem).similarity, 3, by=2e-6)
    assert_exact(ENGINE, problem._replace(lo=lo, hi=hi))


@pytest.mark.parametrize("d", [0, 1])
@pytest.mark.parametrize(("n", "m"), [(0, None), (5, None), (0, 7), (7, 0), (0, 0), (130, 3)])
def test_empty_sides_and_rows_without_columns(n: int, m: int | None, d: int) -> None:
    labels, ref_labels = torch.arange(n), None if m is None else torch.arange(m)
    ref = None if m is None else torch.ones(m, d)
    problem = HistogramProblem(
        torch.ones(n, d), labels, labels, ref, ref_labels, ref_labels, None, 130, 5, -1.0, 1.0, "highest"
    )
    assert_equal(count(ENGINE, problem), tables_of(truth_of(problem)))


def test_a_sample_is_not_paired_with_itself_whatever_its_labels_say() -> None:
    """Tiles without another special pair: no class and no group is on both sides."""
    problem = exact_problem("rectangular_with_self_offset", 256, 16, grouping="one", extra=90)
    assert problem.ref is not None
    groups, ref_groups = torch.arange(256) // 30, 9 + torch.arange(len(problem.ref)) // 30
    count = int(ref_groups.max()) + 1
    apart = problem._replace(groups=groups, ref_groups=ref_groups, group_count=count)
    assert_exact(ENGINE, apart._replace(labels=groups, ref_labels=ref_groups))


@pytest.mark.parametrize("relation", RELATIONS)
def test_counting_again_gives_the_same_counts(relation: str) -> None:
    problem = problem_of(Case(relation=relation, n=200, d=40).build(), "few", MOST_BINS)
    assert_equal(count(ENGINE, problem), count(ENGINE, problem))


@pytest.mark.parametrize("relation", RELATIONS)
def test_opcheck_of_counting(relation: str) -> None:
    problem = problem_of(Case(relation=relation, n=10, d=7, extra=5).build(), "few", bins=5)
    torch.library.opcheck(torch.ops.tcm_kernels.pair_histogram.default, (*problem, "cuda"))


ROWS, COLUMNS, MOST_GROUPS, BIN_COUNT, HI, EDGES, POSITIVES, NEGATIVES = 0, 1, 2, 4, 6, 8, 10, 11
# Of an argument, or of one of a side's tensors.
WRONG = {
    "a transposed matrix": (ROWS, 0, lambda x: x.T.contiguous().T),
    "float64 embeddings": (ROWS, 0, lambda x: x.double()),
    "too short an order": (ROWS, 1, lambda x: x[:-1]),
    "groups of 64 bits": (ROWS, 2, lambda x: x.long()),
    "no facts of tiles": (ROWS, 5, lambda x: x[:0]),
    "more groups than a tile has rows": (MOST_GROUPS, None, lambda x: 129),
    "a reference set of other width": (COLUMNS, 0, lambda x: x[:, :-1].contiguous()),
    "a reference set of other dtype": (COLUMNS, 0, lambda x: x.half()),
    "too few tensors of the reference set": (COLUMNS, None, lambda side: side[:-1]),
    "no bins": (BIN_COUNT, None, lambda x: 0),
    "too many bins": (BIN_COUNT, None, lambda x: MOST_BINS + 1),
    "an empty range": (HI, None, lambda x: -1.0),
    "no room for edges": (EDGES, None, lambda x: x[:-1]),
    "too small a table": (NEGATIVES, None, lambda x: x[:-1]),
    "a table of 32 bits": (POSITIVES, None, lambda x: x.int()),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_the_private_op_refuses(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever Python hands it: bad input must not crash the process."""
    seen: list[Any] = []
    right = torch.ops.tcm_kernels_on_cpu._cuda_pair_histogram
    monkeypatch.setattr(torch.ops.tcm_kernels_on_cpu, "_cuda_pair_histogram", lambda *args: seen.extend(args))
    dispatch.histogram_module("cuda").pair_histogram(exact_problem("rectangular", 20, 16, bins=5))
    right(*seen)
    place, of_side, change = WRONG[wrong]
    if of_side is None:
        seen[place] = change(seen[place])
    else:
        seen[place] = [change(x) if i == of_side else x for i, x in enumerate(seen[place])]
    with pytest.raises(RuntimeError):
        right(*seen)


def test_facts_of_tiles_are_those_of_their_rows() -> None:
    problem = exact_problem("self", 300, 16, grouping="few")
    order = cuda.group_orders(problem)[0]
    facts = cuda._tile_facts(order)
    for tile, of_tile in enumerate(facts.tolist()):
        rows = slice(128 * tile, 128 * (tile + 1))
        group, label = order.group[rows], order.label[rows]
        assert of_tile == [int(group[0]), int(group[-1]), int(label.min()), int(label.max())]
    assert facts.dtype == torch.int32


BINNINGS = [
    *((*ends, bins) for ends in RANGES for bins in (1, 3, 2000, MOST_BINS)),
    (0.25, math.nextafter(0.25, 1.0), 2000),
    (0.25, 0.25 + 1e-7, 30000),
    (0.5, 0.5 + 1e-5, 2000),
    (-1e-30, 1e-30, 7),
    (-5e-324, 5e-324, 3),
    (-1e300, 1e308, 30000),
    (-1e300, 1e300, 4),
    (0.999, 1.0, 1000),
    (1e-3, 1e6, 29999),
]


@pytest.mark.parametrize(("lo", "hi", "bins"), BINNINGS, ids=str)
def test_the_quick_way_to_a_bin_is_the_rule(lo: float, hi: float, bins: int) -> None:
    """For similarities around every edge, and anywhere; and float32 alone is right for all but a few."""
    draw = np.random.default_rng(0)
    some = draw.integers(0, bins + 1, 4000)
    edges = (lo + some / bins * hi - some / bins * lo).clip(-1.0001, 1.0001).astype(np.float32)
    around = [np.nextafter(edges, np.float32(side), dtype=np.float32) for side in (-2, 2)]
    uniform = draw.uniform(-1.0001, 1.0001, 40000).astype(np.float32)
    tiny = np.array([0.0, -0.0, 1e-38, -1e-38, 1e-45, -1e-45, 1.0, -1.0], np.float32)
    s = np.concatenate((uniform, edges, *around, tiny))
    assert len(s) % 8 == 0
    found, by_rule = (np.zeros(len(s), np.int32) for _ in range(2))
    edge_memory = np.zeros(bins + 3, np.float32)

    def address(x: np.ndarray) -> ctypes.c_void_p:
        return ctypes.c_void_p(x.ctypes.data)

    c64, double = ctypes.c_int64, ctypes.c_double
    cuda_emulator.probes().probe_columns(
        double(lo), double(hi), c64(bins), address(s), c64(len(s)), address(edge_memory), address(found),
        address(by_rule),
    )  # fmt: skip
    np.testing.assert_array_equal(found, by_rule)
    wide = s.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = np.floor((wide - lo) * bins / (hi - lo)).clip(-1, bins) + 1
    np.testing.assert_array_equal(by_rule, expected)


def test_edges_are_seldom_asked() -> None:
    """Where float32 is certain of eight similarities, which are in bins' middles here, it is alone."""
    s = ((np.arange(2000) + 0.5) / 1000 - 1).astype(np.float32)
    found, by_rule = (np.zeros(len(s), np.int32) for _ in range(2))
    edges = np.zeros(2003, np.float32)
    pointers = [ctypes.c_void_p(x.ctypes.data) for x in (s, edges, found, by_rule)]
    asked = cuda_emulator.probes().probe_columns(
        ctypes.c_double(-1.0), ctypes.c_double(1.0), ctypes.c_int64(2000),
        pointers[0], ctypes.c_int64(2000), *pointers[1:],
    )  # fmt: skip
    assert asked == 0
    np.testing.assert_array_equal(found, 1 + np.arange(2000))


def sweep(
    rows: int, columns: int, groups: int, *, width: int = 2002, shared: int = 228, stages: int = 4
) -> dict[str, int]:
    """How a matrix is gone through on a GPU of 132 multiprocessors with so many KiB of shared memory each."""
    out = (ctypes.c_int64 * 8)()
    cuda_emulator.probes().probe_sweep(rows, columns, groups, width, 132, stages, shared * 1024, out)
    names = (
        "row_tiles", "column_tiles", "chunk_tiles", "tasks", "programs", "stages", "counters", "head",
    )  # fmt: skip
    return dict(zip(names, out, strict=True))


@pytest.mark.parametrize(
    ("rows", "columns"),
    [*itertools.product((0, 1, 128, 129, 200_000, 2**31 - 1000), (0, 1, 300, 60_000, 2**31 - 1000))],
)
def test_tasks_meet_every_tile_once(rows: int, columns: int) -> None:
    plan = sweep(rows, columns, 8)
    assert (plan["row_tiles"], plan["column_tiles"]) == (-(-rows // 128), -(-columns // 128))
    if rows == 0 or columns == 0:
        assert plan["tasks"] == plan["programs"] == 0
        return
    chunks = plan["tasks"] // plan["row_tiles"]
    assert plan["tasks"] == chunks * plan["row_tiles"] < 2**31
    assert (chunks - 1) * plan["chunk_tiles"] < plan["column_tiles"] <= chunks * plan["chunk_tiles"]
    assert 1 <= plan["programs"] <= min(plan["tasks"], 264)


def test_tasks_are_many_and_long() -> None:
    """200,000 rows: at most one part in sixteen of the blocks' time is lost at the end."""
    plan = sweep(200_000, 200_000, 12)
    assert plan["programs"] == 264
    assert plan["tasks"] >= 16 * 264
    assert plan["chunk_tiles"] >= 16


@pytest.mark.parametrize("shared", [48, 100, 164, 228])
@pytest.mark.parametrize("groups", [1, 8, 12, 128])
@pytest.mark.parametrize("width", [3, 2002, MOST_BINS + 2])
def test_two_blocks_fit_into_a_multiprocessor(shared: int, groups: int, width: int) -> None:
    """Wherever two do of the loss's, that is from 75 KiB on."""
    plan = sweep(10_000, 10_000, groups, width=width, shared=shared, stages=4 if shared > 150 else 2)
    bytes_of_block = -(-plan["head"] // 128) * 128 + plan["stages"] * 16384 + 4 * plan["counters"]
    assert plan["counters"] >= 0
    if shared >= 100:
        assert 2 * (bytes_of_block + 1024) <= shared * 1024
    else:
        assert plan["counters"] == 0


def test_classes_of_eighteen_have_their_counters_in_shared_memory() -> None:
    """The design's case, on an H200: 2,000 bins, of 16 bits; four buffers for up to 10 groups in a tile."""
    table = 1001
    few, many = sweep(200_000, 200_000, 10), sweep(200_000, 200_000, 18)
    assert few["stages"] == 4
    assert few["counters"] >= 10 * table
    assert many["stages"] == 2
    assert many["counters"] >= 18 * table
    assert sweep(200_000, 200_000, 1)["counters"] >= 2 * 2002, "one group has counters of 32 bits"
