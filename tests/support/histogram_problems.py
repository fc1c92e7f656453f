"""Problems for `pair_histogram`, the truth of them, and what may differ from it."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch
from agreement import UNIT_ROUNDOFF
from brute_force import Truth, all_pairs, exact_rows
from cases import FLOAT_DTYPES, RELATIONS, Case, Inputs, pairwise
from engines import Engine, engines_of
from torch import Tensor

from tcm_kernels import dispatch, ops
from tcm_kernels.backends.contract import MOST_BINS, HistogramProblem
from tcm_kernels.backends.numerics import compute_dtype

GROUPINGS = ("of_labels", "one", "few", "singletons", "unbalanced")
# The whole range; a part of it, so that both outer columns fill; one that holds more than there is; and
# bins whose edges, or whose width, no float64 holds.
RANGES = ((-1.0, 1.0), (0.0, 1.0), (-0.5, 0.5), (-3.0, 2.0), (-0.3, 0.7), (-0.9, 0.1))
BINS = (1, 2, 3, 8, 2000, MOST_BINS)
SIZES = (0, 1, 2, 3, 127, 511, 512, 513)
WIDTHS = (1, 3, 64, 513)

# Arguments of `exact_problem`.
LAYOUTS = pairwise(
    {
        "n": SIZES,
        "d": WIDTHS,
        "relation": RELATIONS,
        "grouping": GROUPINGS,
        "bins": BINS,
        "range": RANGES,
        "dtype": FLOAT_DTYPES,
        "extra": (0, 1, 37),
    }
)
LAYOUTS += [
    {"n": 1025, "d": 64, "relation": relation, "grouping": "of_labels", "bins": 100} for relation in RELATIONS
]

RANDOM = [
    Case(**row, seed=number)
    for number, row in enumerate(
        pairwise(
            {
                "n": (2, 65, 257),
                "labels": ("all_equal", "all_different", "shuffled", "unbalanced", "huge"),
                "look": ("random", "clustered", "collapsed", "wild_norms", "zero_rows"),
                "memory": ("contiguous", "transposed", "every_second_row", "unaligned", "expanded_columns"),
                "d": WIDTHS,
                "dtype": FLOAT_DTYPES,
                "relation": RELATIONS,
            }
        )
    )
]


def groups_of(layout: str, labels: Tensor, seed: int) -> tuple[Tensor, int]:
    """(n,) group of each row, and how many groups there are, empty ones among them."""
    n = len(labels)
    draw = torch.Generator().manual_seed(seed)
    if layout == "of_labels":
        numbers = labels.long().unique(return_inverse=True)[1]
        return numbers, int(numbers.max()) + 1 if n else 0
    if layout == "one":
        return torch.zeros(n, dtype=torch.int64), 1
    if layout == "few":
        return torch.randint(0, 3, (n,), generator=draw) * 2, 6
    if layout == "singletons":
        return torch.randperm(n, generator=draw), n
    if layout == "unbalanced":
        some = torch.rand(n, generator=draw) < 0.9
        return torch.where(some, 1, torch.randint(0, 9, (n,), generator=draw)), 9
    raise ValueError(layout)


def problem_of(
    inputs: Inputs, grouping: str = "of_labels", bins: int = 8, range: tuple[float, float] = (-1.0, 1.0)
) -> HistogramProblem:
    """The inputs as a problem: rows as they lie in memory, groups for both sides."""
    own, other = inputs.labels, inputs.ref_labels
    both = own if other is None else torch.cat((own.long(), other.long()))
    groups, group_count = groups_of(grouping, both.cpu(), seed=len(own))
    groups = groups.to(own.device)
    return HistogramProblem(
        inputs.emb.detach(),
        own,
        groups[: len(own)],
        None if inputs.ref_emb is None else inputs.ref_emb.detach(),
        other,
        None if other is None else groups[len(own) :],
        inputs.self_offset,
        group_count,
        bins,
        *range,
        "highest",
    )


def exact_problem(
    relation: str,
    n: int,
    d: int,
    dtype: torch.dtype = torch.float32,
    grouping: str = "few",
    bins: int = 8,
    range: tuple[float, float] = (-1.0, 1.0),
    device: str = "cpu",
    extra: int = 37,
) -> HistogramProblem:
    """Rows whose similarities are multiples of 1/16: many lie on the edge of a bin."""
    inputs = Case(relation=relation, n=n, d=d, dtype=dtype, extra=extra).build()
    rows = exact_rows(n + (0 if relation == "self" else n + extra), d, seed=n + d, dtype=dtype)
    if grouping in ("of_labels", "singletons") and n > 100:
        bins = min(bins, 2000)  # or the tables of the truth fill the memory
    problem = problem_of(inputs, grouping, bins, range)._replace(emb=rows[:n])
    if relation != "self":
        ref = rows[n:].clone()
        if problem.self_offset is not None:
            ref[problem.self_offset : problem.self_offset + n] = rows[:n]
        problem = problem._replace(ref=ref)
    return HistogramProblem(*(x.to(device) if isinstance(x, Tensor) else x for x in problem))


def truth_of(problem: HistogramProblem) -> Truth:
    """All its pairs, counted by every group from 0 to group_count - 1."""
    return all_pairs(
        problem.emb,
        problem.labels,
        problem.ref,
        problem.ref_labels,
        groups=problem.groups,
        ref_groups=problem.ref_groups,
        self_offset=problem.self_offset,
        bins=problem.bins,
        range=(problem.lo, problem.hi),
        classes=np.arange(problem.group_count),
    )


def tables_of(truth: Truth) -> tuple[Tensor, ...]:
    """What `pair_histogram` returns."""
    tables = (truth.table(True), truth.table(False), truth.pooled_table())
    return tuple(torch.from_numpy(table) for table in tables)


def count(engine: Engine, problem: HistogramProblem) -> tuple[Tensor, ...]:
    """What it does return, on the CPU, after a look at shapes and types."""
    counted = ops.pair_histogram(problem, engine.backend)
    for table, rows in zip(counted, (problem.group_count, problem.group_count, 2), strict=True):
        assert table.dtype == torch.int64
        assert table.shape == (rows, problem.bins + 2)
        assert table.device == problem.emb.device
        assert not table.requires_grad
    return tuple(x.cpu() for x in counted)


def assert_equal(counted: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    for got, wanted in zip(counted, expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=0)


def assert_exact(engine: Engine, problem: HistogramProblem) -> None:
    assert_equal(count(engine, problem), tables_of(truth_of(problem)))


def assert_within_rounding(counted: tuple[Tensor, ...], problem: HistogramProblem) -> None:
    """For every edge: no fewer at or above it than clearly are, and no more than may be."""
    u = UNIT_ROUNDOFF[compute_dtype(problem.emb.dtype)]
    band = u * (4 + 2 * math.sqrt(problem.emb.shape[1]))
    truth = truth_of(problem)
    shifted = [
        tables_of(dataclasses.replace(truth, similarity=truth.similarity + by)) for by in (-band, band)
    ]
    for got, fewest, most in zip(counted, *shifted, strict=True):
        assert torch.equal(got.sum(dim=1), fewest.sum(dim=1))
        accepted, least, largest = (x.flip(1).cumsum(1) for x in (got, fewest, most))
        assert bool(((least <= accepted) & (accepted <= largest)).all())


def range_clear_of(similarity: np.ndarray, bins: int, by: float) -> tuple[float, float]:
    """A range that has no similarity within `by` of the edge of a bin."""
    draw = np.random.default_rng(0)
    for _ in range(1000):
        lo, hi = draw.uniform(-0.7, -0.1), draw.uniform(0.3, 0.9)
        edges = lo + np.arange(bins + 1) * (hi - lo) / bins
        if np.abs(similarity[:, None] - edges).min() > by:
            return lo, hi
    raise AssertionError("no such range: fewer rows, or fewer bins")


COUNTERS = engines_of(dispatch.HISTOGRAM_BACKENDS)
