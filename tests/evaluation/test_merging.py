"""Curves of parts are those of the whole; order, names and reports of progress change nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from brute_force import all_pairs
from hypothesis import given, settings
from hypothesis import strategies as st
from small_curves import N, assert_is, assert_same, some_labels, some_rows

from tcm_kernels.evaluation import class_curves, counting


@given(cut=st.integers(0, N), seed=st.integers(0, 2**16))
@settings(max_examples=15)
def test_two_halves_and_the_pairs_between_them_are_the_whole(cut: int, seed: int) -> None:
    emb, labels = some_rows(seed=seed), some_labels(seed=seed)
    a, b = (emb[:cut], labels[:cut]), (emb[cut:], labels[cut:])
    parts = [class_curves(*x, bins=20) for x in (a, b, (*a, *b), (*b, *a))]
    merged = parts[0] + parts[1] + parts[2] + parts[3]
    assert_same(merged, class_curves(emb, labels, bins=20), ignoring=("symmetric",))
    assert_same(parts[3] + parts[2] + parts[1] + parts[0], merged)


@given(blocks=st.lists(st.integers(0, 20), min_size=1, max_size=4), seed=st.integers(0, 2**16))
@settings(max_examples=15)
def test_a_stream_of_queries_against_a_gallery_that_holds_them_adds_up(blocks: list[int], seed: int) -> None:
    n = sum(blocks)
    gallery, labels = some_rows(n + 5, seed=seed), some_labels(n + 5, seed=seed)
    total = None
    first = 3  # rows of the gallery before the queries
    for size in blocks:
        rows = slice(first, first + size)
        part = class_curves(gallery[rows].clone(), labels[rows], gallery, labels, bins=20, self_offset=first)
        total = part if total is None else total + part
        first += size
    assert total is not None
    rows = slice(3, 3 + n)
    assert_is(total, all_pairs(gallery[rows], labels[rows], gallery, labels, bins=20, self_offset=3))


def test_a_gallery_in_blocks_adds_up() -> None:
    emb, labels, ref, ref_labels = (
        some_rows(),
        some_labels(),
        some_rows(50, seed=3),
        some_labels(50, 14, seed=3),
    )
    parts = [class_curves(emb, labels, ref[b], ref_labels[b], bins=9) for b in (slice(0, 13), slice(13, 50))]
    assert_same(parts[0] + parts[1], class_curves(emb, labels, ref, ref_labels, bins=9))


def test_adding_curves_of_other_classes_keeps_both() -> None:
    a = class_curves(some_rows(8), ["b", "b", "d", "d"] * 2, bins=4)
    b = class_curves(some_rows(8, seed=1), ["a long name", "a long name", "b", "b"] * 2, bins=4)
    total = a + b
    assert total.classes.tolist() == ["a long name", "b", "d"]
    np.testing.assert_array_equal(
        total.positives, [b.positives[0], a.positives[0] + b.positives[1], a.positives[1]]
    )
    np.testing.assert_array_equal(total.pooled, a.pooled + b.pooled)
    assert total.symmetric


def test_adding_leaves_both_summands_as_they_were() -> None:
    a, b = (class_curves(some_rows(seed=s), some_labels(seed=s), bins=4) for s in (0, 1))
    before = [x.copy() for c in (a, b) for x in (c.positives, c.negatives, c.pooled)]
    _ = a + b
    for x, y in zip(before, [x for c in (a, b) for x in (c.positives, c.negatives, c.pooled)], strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: class_curves(some_rows(), some_labels(), bins=9), "bins"),
        (lambda: class_curves(some_rows(), some_labels(), bins=8, range=(0.0, 1.0)), "lo"),
        (lambda: class_curves(some_rows(), some_labels(), bins=8, groups=some_labels()), "groups"),
        (
            lambda: class_curves(some_rows(), [str(x) for x in some_labels().tolist()], bins=8),
            "classes of dtype",
        ),
    ],
    ids=["other_bins", "other_range", "groups", "text"],
)
def test_curves_that_do_not_fit_are_not_added(other: Any, message: str) -> None:
    mine = class_curves(some_rows(), some_labels(), bins=8)
    with pytest.raises(ValueError, match=message):
        mine + other()
    with pytest.raises(ValueError, match=message):
        other() + mine


def test_curves_and_other_things_are_not_added() -> None:
    with pytest.raises(TypeError):
        class_curves(some_rows(), some_labels(), bins=8) + 1  # type: ignore[operator]


@given(seed=st.integers(0, 2**16), relation=st.sampled_from(["self", "rectangular"]))
@settings(max_examples=15)
def test_the_order_of_the_rows_does_not_matter(seed: int, relation: str) -> None:
    emb, labels, groups = some_rows(seed=seed), some_labels(seed=seed), some_labels(classes=4, seed=seed + 1)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(seed))
    ref: dict[str, Any] = {}
    if relation == "rectangular":
        ref = {"ref_emb": some_rows(20, seed + 2), "ref_labels": some_labels(20, seed=seed + 2)}
    assert_same(
        class_curves(emb[order], labels[order], **ref, bins=20), class_curves(emb, labels, **ref, bins=20)
    )
    if relation == "rectangular":
        ref["ref_groups"] = some_labels(20, 4, seed=seed + 3)
    assert_same(
        class_curves(emb[order], labels[order], **ref, groups=groups[order], bins=20),
        class_curves(emb, labels, **ref, groups=groups, bins=20),
    )


@given(seed=st.integers(0, 2**16))
@settings(max_examples=15)
def test_other_names_of_classes_only_move_the_rows_of_the_table(seed: int) -> None:
    emb, labels = some_rows(seed=seed), some_labels(seed=seed)
    names = np.random.default_rng(seed).permutation([f"name {i}" for i in range(9)])
    mine, theirs = class_curves(emb, labels, bins=20), class_curves(emb, names[labels], bins=20)
    np.testing.assert_array_equal(mine.pooled, theirs.pooled)
    at = np.searchsorted(theirs.classes, names[mine.classes])
    np.testing.assert_array_equal(mine.positives, theirs.positives[at])
    np.testing.assert_array_equal(mine.negatives, theirs.negatives[at])


# Progress


@pytest.mark.parametrize("stripe", [1, 7, 30, N, 1000])
@pytest.mark.parametrize("relation", ["self", "rectangular", "with_self_offset", "groups"])
def test_reporting_progress_does_not_change_the_counts(
    monkeypatch: pytest.MonkeyPatch, relation: str, stripe: int
) -> None:
    monkeypatch.setattr(counting, "_STRIPE", stripe)
    emb, labels = some_rows(), some_labels()
    arguments: dict[str, Any] = {"bins": 20}
    if relation == "groups":
        arguments["groups"] = some_labels(classes=4, seed=2)
    elif relation != "self":
        arguments |= {"ref_emb": some_rows(77, 1), "ref_labels": some_labels(77, seed=1)}
    if relation == "with_self_offset":
        arguments["ref_emb"][9 : 9 + N], arguments["ref_labels"][9 : 9 + N] = emb, labels
        arguments["self_offset"] = 9
    told: list[float] = []
    assert_same(
        class_curves(emb, labels, **arguments, progress=told.append), class_curves(emb, labels, **arguments)
    )
    assert told[-1] == 1.0
    assert told == sorted(set(told))
    assert told[0] > 0.0
    assert len(told) == -(-N // stripe)


def test_progress_of_one_set_follows_the_pairs_and_not_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only pairs to the right of the diagonal are computed: the first of two stripes is three quarters."""
    monkeypatch.setattr(counting, "_STRIPE", N // 2)
    told: list[float] = []
    class_curves(some_rows(), some_labels(), bins=20, progress=told.append)
    assert told == [0.75, 1.0]


@pytest.mark.parametrize("n", [0, 1])
def test_progress_of_nothing_ends_as_well(n: int) -> None:
    told: list[float] = []
    got = class_curves(some_rows(n), some_labels(n), bins=3, progress=told.append)
    assert told == [1.0]
    assert int(got.pooled.sum()) == 0
