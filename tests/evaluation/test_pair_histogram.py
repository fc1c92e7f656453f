"""Counts of similarities, over every backend that counts, against explicit pairs in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from cases import FLOAT_DTYPES, RELATIONS, Case
from engines import Engine
from histogram_problems import (
    BINS,
    COUNTERS,
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
    truth_of,
)
from torch import Tensor

from tcm_kernels import ops
from tcm_kernels.backends.contract import MOST_BINS, HistogramProblem

pytestmark = pytest.mark.usefixtures("poisoned_memory")


@pytest.fixture(params=COUNTERS)
def counter(request: pytest.FixtureRequest) -> Engine:
    """Each backend that counts, on each device it runs on here."""
    return request.param


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
@pytest.mark.parametrize("relation", RELATIONS)
def test_opcheck_of_counting(counter: Engine, relation: str, dtype: torch.dtype) -> None:
    counter.skip_unless_it_takes(dtype)
    inputs = Case(relation=relation, n=10, d=7, dtype=dtype, extra=5).build(counter.device)
    problem = problem_of(inputs, "few", bins=5)
    torch.library.opcheck(torch.ops.tcm_kernels.pair_histogram.default, (*problem, counter.backend))


def _id(layout: dict[str, Any]) -> str:
    words = [f"{name[0]}{value}" if isinstance(value, int) else str(value) for name, value in layout.items()]
    return "-".join(words).replace("torch.", "").replace(" ", "")


@pytest.mark.parametrize("layout", LAYOUTS, ids=_id)
def test_representable_similarities_are_counted_exactly(counter: Engine, layout: dict[str, Any]) -> None:
    counter.skip_unless_it_takes(layout.get("dtype", torch.float32))
    assert_exact(counter, exact_problem(**layout, device=counter.device))


@pytest.mark.parametrize("bins", BINS)
@pytest.mark.parametrize("range", RANGES)
def test_similarities_on_an_edge_fall_into_the_bin_above_it(
    counter: Engine, range: tuple[float, float], bins: int
) -> None:
    problem = exact_problem("self", 40, 16, torch.float32, "of_labels", bins, range, counter.device)
    truth = truth_of(problem)
    edges = range[0] + np.arange(bins + 1) * (range[1] - range[0]) / bins
    assert np.isin(truth.similarity, edges).any() or range not in RANGES[:3]
    assert_exact(counter, problem)


@pytest.mark.parametrize("bins", [1, 3, 2000, MOST_BINS])
@pytest.mark.parametrize(
    "range",
    [(-1.0, 0.25), (-1.0, math.nextafter(0.25, 0.0)), (0.25, 1.0), (math.nextafter(0.25, 1.0), 1.0)],
    ids=["up_to_it", "up_to_just_below", "from_it", "from_just_above"],
)
def test_a_similarity_at_an_end_of_the_range_is_on_its_right_side(
    counter: Engine, range: tuple[float, float], bins: int
) -> None:
    problem = exact_problem("self", 40, 16, torch.float32, "few", bins, range, counter.device)
    assert (truth_of(problem).similarity == 0.25).any()
    assert_exact(counter, problem)


@pytest.mark.parametrize(("range", "bins"), [((-0.7, 1.1), 1008), ((-1.0, 0.1), 440), ((-0.9, 0.9), 432)])
def test_the_bin_is_computed_from_left_to_right(
    counter: Engine, range: tuple[float, float], bins: int
) -> None:
    """(s - lo) * B / (hi - lo), and not times a factor made beforehand, which rounds to another bin here."""
    problem = exact_problem("self", 90, 64, torch.float32, "few", bins, range, counter.device)
    truth = truth_of(problem)
    x, width = truth.similarity - problem.lo, problem.hi - problem.lo
    for other in (x * (bins / width), x / (width / bins), x / width * bins):
        assert (np.floor(other).clip(-1, bins) + 1 != truth.column).any()
    assert_exact(counter, problem)


def test_the_first_and_last_columns_count_what_is_outside(counter: Engine) -> None:
    """By hand: similarities 1, 0 and -1, of which 0 lies inside, and hi itself does not."""
    emb = torch.tensor([[2.0, 0.0], [0.5, 0.0], [0.0, 1.0], [-1.0, 0.0]], device=counter.device)
    labels = torch.tensor([7, 7, 7, 9], device=counter.device)
    groups = torch.tensor([0, 0, 0, 1], device=counter.device)
    problem = HistogramProblem(
        emb, labels, groups, None, None, None, None, 2, 2, -0.5, 1.0, "highest"
    )  # edges -0.5, 0.25, 1
    positives, negatives, pooled = count(counter, problem)
    assert positives.tolist() == [[0, 4, 0, 2], [0, 0, 0, 0]]
    assert negatives.tolist() == [[4, 2, 0, 0], [4, 2, 0, 0]]
    assert pooled.tolist() == [[0, 4, 0, 2], [4, 2, 0, 0]]


def test_a_pair_counts_for_the_groups_of_both_its_ends(counter: Engine) -> None:
    """By hand, groups across labels: rows 0 and 1 match though their groups differ."""
    emb = torch.ones(3, 1, device=counter.device)
    labels = torch.tensor([5, 5, 6], device=counter.device)
    groups = torch.tensor([0, 1, 1], device=counter.device)
    problem = HistogramProblem(emb, labels, groups, None, None, None, None, 2, 1, -1.0, 2.0, "highest")
    positives, negatives, pooled = count(counter, problem)
    assert positives[:, 1].tolist() == [2, 2]  # (0, 1) in both orders, in either group
    assert negatives[:, 1].tolist() == [2, 4]  # (1, 2) is of group 1 at both ends and counts once there
    assert pooled[:, 1].tolist() == [2, 4]


@pytest.mark.parametrize("case", RANDOM, ids=lambda case: case.id)
def test_any_similarities_are_counted_up_to_the_rounding_of_an_edge(counter: Engine, case: Case) -> None:
    counter.skip_unless_it_takes(case.dtype)
    problem = problem_of(case.build(counter.device), GROUPINGS[case.seed % 5], 300, RANGES[case.seed % 6])
    assert_within_rounding(count(counter, problem), problem)


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
@pytest.mark.parametrize("relation", RELATIONS)
def test_far_from_every_edge_random_similarities_are_counted_exactly(
    counter: Engine, relation: str, dtype: torch.dtype
) -> None:
    counter.skip_unless_it_takes(dtype)
    case = Case(relation=relation, n=90, d=48, dtype=dtype, look="clustered")
    problem = problem_of(case.build(counter.device), "few", bins=3)
    lo, hi = range_clear_of(truth_of(problem).similarity, 3, by=1e-5)
    assert_exact(counter, problem._replace(lo=lo, hi=hi))


def test_rows_of_zeros_have_similarity_zero_with_every_row(counter: Engine) -> None:
    emb = torch.cat((torch.zeros(3, 5), torch.randn(6, 5))).to(counter.device)
    labels = torch.arange(9, device=counter.device)
    problem = HistogramProblem(emb, labels, labels, None, None, None, None, 9, 2, -1.0, 1.0, "highest")
    _, negatives, _ = count(counter, problem)
    assert negatives[:3].tolist() == [[0, 0, 16, 0]] * 3  # 0 is the edge, and lies in the bin above it


@pytest.mark.parametrize("memory", ["transposed", "every_second_row", "unaligned", "expanded_rows"])
@pytest.mark.parametrize("relation", RELATIONS[:2])
def test_strides_do_not_matter(counter: Engine, relation: str, memory: str) -> None:
    strided = problem_of(
        Case(relation=relation, n=130, d=33, memory=memory).build(counter.device), "few", 100
    )
    dense = HistogramProblem(*(x.contiguous() if isinstance(x, Tensor) else x for x in strided))
    assert not strided.emb.is_contiguous() or counter.device != "cpu"
    assert_equal(count(counter, strided), count(counter, dense))


def test_strided_groups_are_read_as_they_are(counter: Engine) -> None:
    problem = exact_problem("rectangular", 60, 16, torch.float32, "few", device=counter.device)
    assert problem.ref_groups is not None
    spread = [torch.stack((x, 1 - x), dim=1)[:, 0] for x in (problem.groups, problem.ref_groups)]
    strided = problem._replace(groups=spread[0], ref_groups=spread[1])
    assert_equal(count(counter, strided), count(counter, problem))


def test_within_one_set_every_pair_counts_in_both_orders(counter: Engine) -> None:
    """As often as between the set and a copy of it, of which every row is the same sample as its twin."""
    problem = problem_of(Case(n=600, d=20).build(counter.device), "few", 50)
    copy = problem._replace(
        ref=problem.emb.clone(), ref_labels=problem.labels, ref_groups=problem.groups, self_offset=0
    )
    counted, expected = count(counter, problem), count(counter, copy)
    assert all(bool((x % 2 == 0).all()) for x in counted)
    for x, y in zip(counted, expected, strict=True):
        torch.testing.assert_close(x.sum(1), y.sum(1), rtol=0, atol=0)
    exact = exact_problem("self", 600, 20, torch.float32, device=counter.device)
    copy = exact._replace(
        ref=exact.emb.clone(), ref_labels=exact.labels, ref_groups=exact.groups, self_offset=0
    )
    assert_equal(count(counter, exact), count(counter, copy))


@pytest.mark.parametrize("relation", RELATIONS)
def test_counting_again_gives_the_same_counts(counter: Engine, relation: str) -> None:
    problem = problem_of(Case(relation=relation, n=513, d=100).build(counter.device), "few", MOST_BINS)
    assert_equal(count(counter, problem), count(counter, problem))


@pytest.mark.usefixtures("restored_threads")
@pytest.mark.parametrize("relation", RELATIONS)
def test_the_number_of_threads_does_not_matter(counter: Engine, relation: str) -> None:
    problem = exact_problem(relation, 700, 64, torch.float32, "singletons", 16, device=counter.device)
    counted = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        counted.append(count(counter, problem))
    assert_equal(counted[1], counted[0])
    assert_equal(counted[2], counted[0])


def test_autocast_does_not_change_the_counts(counter: Engine) -> None:
    problem = problem_of(Case(n=300, d=100).build(counter.device), "few", MOST_BINS)
    expected = count(counter, problem)
    with torch.autocast(counter.device, dtype=torch.bfloat16):
        assert_equal(count(counter, problem), expected)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 3e38])
def test_rows_that_are_not_finite_are_refused_and_named(counter: Engine, value: float) -> None:
    """3e38 is finite, but the norm of a row that has it twice is not."""
    problem = exact_problem("rectangular", 40, 16, torch.float32, device=counter.device)
    emb, ref = problem.emb.clone(), problem.ref.clone()  # type: ignore[union-attr]
    emb[17, -2:] = value
    with pytest.raises(ValueError, match=r"^emb: 1 of 40 rows .*\b17\b"):
        ops.pair_histogram(problem._replace(emb=emb), counter.backend)
    ref[70, -2:] = value
    with pytest.raises(ValueError, match=r"^ref_emb: 1 of 77 rows .*\b70\b"):
        ops.pair_histogram(problem._replace(ref=ref), counter.backend)


@pytest.mark.parametrize(
    ("argument", "change"),
    [
        ("groups", {"groups": torch.full((40,), 6)}),
        ("groups", {"groups": torch.arange(40) - 1}),
        ("ref_groups", {"ref_groups": torch.full((77,), 2**40)}),
        ("ref_groups", {"ref_groups": torch.full((77,), -1)}),
        ("bins", {"bins": 0}),
        ("bins", {"bins": -3}),
        ("bins", {"bins": MOST_BINS + 1}),
        ("lo", {"lo": 1.0}),
        ("lo", {"lo": 2.0}),
        ("lo", {"lo": math.nan}),
        ("hi", {"hi": math.inf}),
        ("hi", {"hi": math.nan}),
    ],
    ids=lambda x: x if isinstance(x, str) else next(iter(map(str, x.values())))[:12],
)
def test_what_would_be_counted_in_a_wrong_place_is_refused(
    counter: Engine, argument: str, change: dict[str, Any]
) -> None:
    problem = exact_problem("rectangular", 40, 16, torch.float32, "few", device=counter.device)
    assert problem.group_count == 6
    change = {k: x.to(counter.device) if isinstance(x, Tensor) else x for k, x in change.items()}
    with pytest.raises(ValueError, match=rf"\b{argument}\b"):
        ops.pair_histogram(problem._replace(**change), counter.backend)
