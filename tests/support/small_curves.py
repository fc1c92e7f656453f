"""Small sets whose similarities are exact, and when two curves are the same."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from brute_force import Truth, exact_rows
from torch import Tensor

from tcm_kernels.evaluation import ClassCurves

N, D = 60, 16


def some_rows(n: int = N, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """(n, D) rows whose similarities are multiples of 1/16, the same in any order of counting."""
    return exact_rows(n, D, seed, dtype=dtype)


def some_labels(n: int = N, classes: int = 9, seed: int = 0) -> Tensor:
    """(n,) int64 in [0, classes)."""
    return torch.randint(0, classes, (n,), generator=torch.Generator().manual_seed(seed))


def assert_is(got: ClassCurves, truth: Truth) -> None:
    """The counts are those of the truth, pair for pair."""
    assert got.classes.tolist() == truth.classes.tolist()
    np.testing.assert_array_equal(got.positives, truth.table(True))
    np.testing.assert_array_equal(got.negatives, truth.table(False))
    np.testing.assert_array_equal(got.pooled, truth.pooled_table())
    assert (got.bins, got.lo, got.hi) == (truth.bins, truth.lo, truth.hi)


def assert_same(got: ClassCurves, wanted: ClassCurves, *, ignoring: tuple[str, ...] = ()) -> None:
    """Every field is equal, to the bit and in its type."""
    for field in dataclasses.fields(ClassCurves):
        if field.name in ignoring:
            continue
        one, other = getattr(got, field.name), getattr(wanted, field.name)
        if isinstance(other, np.ndarray):
            assert one.dtype.kind == other.dtype.kind, field.name
            np.testing.assert_array_equal(one, other, err_msg=field.name)
        else:
            assert (type(one), one) == (type(other), other), field.name


def by_hand() -> ClassCurves:
    """Four bins of [0, 1]. Other-class pairs: a has 10 below 0.25, b 5 and 5 in the next bin, c 10 at 1."""
    negatives = np.array([[0, 10, 0, 0, 0, 0], [0, 5, 5, 0, 0, 0], [0, 0, 0, 0, 0, 10], [0] * 6])
    positives = np.array([[0, 0, 0, 0, 4, 0]] * 3 + [[0, 0, 0, 4, 0, 0]])
    pooled = np.stack([positives.sum(axis=0), np.array([0, 80, 5, 0, 0, 10])])
    return ClassCurves(np.array(list("abcd")), positives, negatives, pooled, 0.0, 1.0, symmetric=False)
