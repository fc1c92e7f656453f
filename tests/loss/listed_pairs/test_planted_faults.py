"""Faults planted in the loss over listed pairs of the `torch` backend: the comparison must find each."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from engines import Engine
from listed_pairs import (
    Listed,
    assert_agrees,
    index_of,
    listed,
    poisoned,
    run,
    truth_of,
)
from torch import Tensor

from tcm_kernels.backends import torch_pairs
from tcm_kernels.backends.contract import PairList


def _given_first(name: str, change: Any) -> Any:
    """A function of the backend called `name`, given the right one first."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        right = getattr(torch_pairs, name)
        patch.setattr(torch_pairs, name, lambda *args, **more: change(right, *args, **more))

    return plant


def _another_problem(change: Any) -> Any:
    return _given_first("pair_list_sums", lambda right, problem, size: right(change(problem), size))


def _results_changed(change: Any) -> Any:
    return _given_first("pair_list_sums", lambda right, *args: change(*right(*args)))


def _one_end_forgotten(which: int) -> Any:
    calls = itertools.count()
    return _given_first(
        "_add_partners", lambda right, *args: None if next(calls) % 2 == which else right(*args)
    )


def _without_rows_and_themselves(problem: PairList) -> PairList:
    a, p, b, n = problem.positives + problem.negatives
    return problem._replace(
        positive_anchors=a[a != p],
        positive_partners=p[a != p],
        negative_anchors=b[b != n],
        negative_partners=n[b != n],
    )


def _turned(pairs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    a, p, b, n = pairs
    return torch.minimum(a, p), torch.maximum(a, p), torch.minimum(b, n), torch.maximum(b, n)


def _on_the_margin() -> Listed:
    rows = torch.tensor([[1.0, 1, 1, 1], [1, 1, 1, -1], [1, 1, -1, -1], [1, -1, -1, -1]])
    pairs = (index_of(0, 1, 0), index_of(1, 2, 2), index_of(0, 1, 0), index_of(1, 2, 3))
    return Listed(rows.requires_grad_(), pairs, margin_plus=0.5, margin_minus=0.5, apart=0.0)


PAIRS = listed()
TRIPLETS = listed("triplets")
WITH_BANK = listed(m=95)
TRIPLETS_WITH_BANK = listed("triplets", m=95)
FLOAT64 = listed(dtype=torch.float64)
FAULTS: dict[str, tuple[Any, Listed]] = {
    "pairs of triplets count as often as they come": (
        _another_problem(lambda problem: problem._replace(deduplicate=False)),
        TRIPLETS,
    ),
    "a repeated pair counts once": (
        _another_problem(lambda problem: problem._replace(deduplicate=True)),
        PAIRS,
    ),
    "a pair and its reverse are one": (
        _another_problem(
            lambda problem: problem._replace(
                **dict(zip(PairList._fields[3:7], _turned(problem[3:7]), strict=True))
            )
        ),
        TRIPLETS,
    ),
    "pairs are told apart by too few columns": (
        _given_first("_first_of_each", lambda right, a, p, columns: right(a, p, columns // 2)),
        TRIPLETS_WITH_BANK,
    ),
    "repeated pairs count in the gradient": (
        _given_first("_add_partners", lambda right, i, o, x, p, hard: right(i, o, x, p, hard | True)),
        TRIPLETS,
    ),
    "anchors get no gradient": (_one_end_forgotten(0), PAIRS),
    "partners get no gradient": (_one_end_forgotten(1), PAIRS),
    "the bank gets no gradient": (_one_end_forgotten(1), WITH_BANK),
    "a row and itself are no pair": (_another_problem(_without_rows_and_themselves), PAIRS),
    "positives and negatives are exchanged": (
        _another_problem(
            lambda problem: problem._replace(
                **dict(zip(PairList._fields[3:7], problem.negatives + problem.positives, strict=True))
            )
        ),
        PAIRS,
    ),
    "positives on the margin are not hard": (
        _given_first("hard_masks", lambda right, s, same, m: (same & (s < m[0]), right(s, same, m)[1])),
        _on_the_margin(),
    ),
    "negatives on the margin are not hard": (
        _given_first("hard_masks", lambda right, s, same, m: (right(s, same, m)[0], ~same & (s > m[1]))),
        _on_the_margin(),
    ),
    "all listed pairs are hard": (
        _given_first("hard_masks", lambda right, s, same, m: (same, ~same)),
        PAIRS,
    ),
    "the last part of the list is left out": (
        _given_first("_chunks", lambda right, pairs, columns: right(pairs, 2**16)[:-1]),
        PAIRS,
    ),
    "unit rows are rounded to float32": (
        _given_first("unit_rows", lambda right, *args: right(*args).float().double()),
        FLOAT64,
    ),
    "unit rows are rounded to bfloat16": (
        _given_first("unit_rows", lambda right, *args: right(*args).bfloat16().float()),
        PAIRS,
    ),
    "sums are off in the sixth digit": (
        _results_changed(lambda sums, *rest: (sums * (1 + 1e-5), *rest)),
        PAIRS,
    ),
    "one pair too many is listed": (
        _results_changed(lambda sums, counts, numbers, residual: (sums, counts, numbers + 1, residual)),
        PAIRS,
    ),
    "signs of the counts are exchanged": (
        _results_changed(lambda sums, counts, *rest: (sums, counts.flip(0), *rest)),
        PAIRS,
    ),
}


@poisoned
@pytest.mark.parametrize("fault", FAULTS)
def test_the_comparison_finds(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant, given = FAULTS[fault]
    truth = truth_of(given)
    engine = Engine("torch", "cpu")
    assert_agrees(run(engine, given), given, truth)
    plant(monkeypatch)
    result = run(engine, given)
    with pytest.raises(AssertionError):
        assert_agrees(result, given, truth)
