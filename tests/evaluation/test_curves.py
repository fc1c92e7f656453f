"""`class_curves` and what it returns: every kind of input, rates, errors that name the cause."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from brute_force import all_pairs
from cases import FLOAT_DTYPES, LABEL_DTYPES
from small_curves import D, N, assert_is, assert_same, some_labels, some_rows
from torch import Tensor

from tcm_kernels.evaluation import class_curves


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
def test_curves_of_one_set_are_those_of_all_its_pairs(dtype: torch.dtype) -> None:
    emb, labels = some_rows(dtype=dtype), some_labels()
    got = class_curves(emb, labels, bins=20)
    assert_is(got, all_pairs(emb, labels, bins=20))
    assert got.symmetric
    assert not got.grouped
    assert got.positives.dtype == got.negatives.dtype == got.pooled.dtype == np.int64


def test_curves_between_two_sets_are_those_of_the_pairs_between_them() -> None:
    emb, labels = some_rows(), some_labels()
    ref, ref_labels = some_rows(40, seed=1), some_labels(40, classes=12, seed=1)
    got = class_curves(emb, labels, ref, ref_labels, bins=20)
    assert_is(got, all_pairs(emb, labels, ref, ref_labels, bins=20))
    assert not got.symmetric


def test_a_class_that_only_the_reference_set_has_is_a_class() -> None:
    got = class_curves(some_rows(4), [1, 1, 2, 2], some_rows(3, seed=1), [2, 3, 3], bins=4)
    assert got.classes.tolist() == [1, 2, 3]
    assert got.positive_pairs.tolist() == [0, 2, 0]
    assert got.negative_pairs.tolist() == [6, 6, 8]
    assert got.usable.tolist() == [False, True, False]


def test_a_class_with_pairs_of_one_kind_only_is_not_usable() -> None:
    assert class_curves(some_rows(4), [3, 3, 3, 3], bins=4).usable.tolist() == [False]
    assert class_curves(some_rows(4), [3, 3, 3, 5], bins=4).usable.tolist() == [True, False]


def test_a_reference_set_that_holds_the_queries_leaves_each_of_them_out_once() -> None:
    ref, ref_labels = some_rows(), some_labels()
    for offset in (0, 7, 40):
        rows = slice(offset, offset + 20)
        got = class_curves(ref[rows].clone(), ref_labels[rows], ref, ref_labels, bins=20, self_offset=offset)
        wanted = all_pairs(ref[rows], ref_labels[rows], ref, ref_labels, bins=20, self_offset=offset)
        assert_is(got, wanted)
        assert int(got.pooled.sum()) == 20 * 59


@pytest.mark.parametrize("with_labels", [True, False])
def test_a_set_against_itself_is_one_set(with_labels: bool) -> None:
    emb, labels = some_rows(), some_labels()
    assert_same(
        class_curves(emb, labels, emb, labels if with_labels else None, bins=8),
        class_curves(emb, labels, bins=8),
    )


def test_groups_count_a_pair_for_both_its_ends() -> None:
    emb, labels, groups = some_rows(), some_labels(), some_labels(classes=3, seed=5)
    got = class_curves(emb, labels, groups=groups, bins=20)
    assert_is(got, all_pairs(emb, labels, groups=groups, bins=20))
    assert got.grouped
    np.testing.assert_array_equal(got.pooled, class_curves(emb, labels, bins=20).pooled)


def test_groups_between_two_sets_may_be_text() -> None:
    emb, labels, groups = (
        some_rows(),
        some_labels(),
        np.array(["day", "night", "dusk"])[some_labels(classes=3, seed=5)],
    )
    ref, ref_labels = some_rows(30, seed=2), some_labels(30, seed=2)
    ref_groups = np.array(["night", "indoors, at night"])[some_labels(30, classes=2, seed=6)]
    got = class_curves(emb, labels, ref, ref_labels, groups=groups, ref_groups=ref_groups, bins=20)
    wanted = all_pairs(emb, labels, ref, ref_labels, groups=groups, ref_groups=ref_groups, bins=20)
    assert_is(got, wanted)
    assert got.classes.tolist() == ["day", "dusk", "indoors, at night", "night"]


@pytest.mark.parametrize("dtype", LABEL_DTYPES, ids=str)
def test_labels_of_every_integer_type_in_a_tensor_or_an_array(dtype: torch.dtype) -> None:
    emb, labels = some_rows(), some_labels().to(dtype)
    wanted = class_curves(emb, some_labels(), bins=8)
    assert_same(class_curves(emb, labels, bins=8), wanted)
    assert_same(class_curves(emb, labels.numpy(), bins=8), wanted)
    rectangular = class_curves(emb, labels, emb.clone(), labels.clone(), bins=8, self_offset=0)
    assert_same(rectangular, wanted, ignoring=("symmetric",))


def test_labels_may_be_a_list_of_numbers_or_of_text() -> None:
    emb, labels = some_rows(), some_labels()
    assert_same(class_curves(emb, labels.tolist(), bins=8), class_curves(emb, labels, bins=8))
    names = [f"c{i}" for i in labels.tolist()]
    got = class_curves(emb, names, bins=8)
    assert_same(got, class_curves(emb, labels, bins=8), ignoring=("classes",))
    assert got.classes.tolist() == sorted(set(names))


def test_labels_far_apart_stay_apart() -> None:
    huge = np.array([-(2**63), 2**63 - 1, 2**53, 2**53 + 1, 0, 2**32], np.int64)
    emb, labels = some_rows(), some_labels(classes=6)
    got = class_curves(emb, huge[labels], bins=8)
    assert got.classes.tolist() == sorted(huge.tolist())
    assert_is(got, all_pairs(emb, huge[labels], bins=8))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_embeddings_may_be_an_array(dtype: Any) -> None:
    emb = some_rows().numpy().astype(dtype)
    assert_same(class_curves(emb, some_labels(), bins=8), class_curves(some_rows(), some_labels(), bins=8))


def test_embeddings_may_be_mapped_from_a_file_that_is_only_read(tmp_path: Path) -> None:
    np.save(tmp_path / "emb.npy", some_rows().numpy())
    before = (tmp_path / "emb.npy").read_bytes()
    mapped = np.load(tmp_path / "emb.npy", mmap_mode="r")
    assert not mapped.flags.writeable
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = class_curves(mapped, some_labels(), bins=8)
        between = class_curves(mapped[:20], some_labels()[:20], mapped, some_labels(), bins=8, self_offset=0)
    assert_same(got, class_curves(some_rows(), some_labels(), bins=8))
    assert_is(
        between,
        all_pairs(some_rows()[:20], some_labels()[:20], some_rows(), some_labels(), bins=8, self_offset=0),
    )
    assert (tmp_path / "emb.npy").read_bytes() == before


def test_embeddings_that_require_grad_are_only_counted() -> None:
    emb = some_rows().requires_grad_()
    assert_same(class_curves(emb, some_labels(), bins=8), class_curves(some_rows(), some_labels(), bins=8))
    assert emb.grad is None


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_rows_have_few_pairs(n: int) -> None:
    got = class_curves(some_rows(n), torch.zeros(n, dtype=torch.int64), bins=5)
    assert got.classes.tolist() == [0] * (n > 0)
    assert got.positives.shape == (int(n > 0), 7)
    assert int(got.pooled.sum()) == n * (n - 1)
    assert np.isnan(got.pooled_specificity).all()


def test_thresholds_are_the_edges_of_the_bins() -> None:
    assert class_curves(some_rows(3), [0, 0, 1], bins=4).thresholds.tolist() == [-1.0, -0.5, 0.0, 0.5, 1.0]
    part = class_curves(some_rows(3), [0, 0, 1], bins=2, range=(0.25, 0.75))
    assert part.thresholds.tolist() == [0.25, 0.5, 0.75]
    whole = class_curves(some_rows(3), [0, 0, 1])
    assert (whole.bins, len(whole.thresholds)) == (2000, 2001)
    assert whole.thresholds[[0, -1]].tolist() == [-1.0, 1.0]


@pytest.mark.parametrize("range", [(-1.0, 1.0), (0.0, 1.0), (-0.5, 0.5)])
def test_rates_at_every_edge_are_shares_of_pairs_compared_with_it(range: tuple[float, float]) -> None:
    """Compared as they are and not by their bins: these similarities, and these edges, are exact."""
    emb, labels = some_rows(), torch.cat((some_labels(N - 1), torch.tensor([99])))
    got = class_curves(emb, labels, bins=16, range=range)
    pairs = all_pairs(emb, labels, range=range)
    assert np.isin(pairs.similarity, got.thresholds).any()
    for k, t in enumerate(got.thresholds):
        accepted = pairs.similarity >= t
        for i, c in enumerate(got.classes):
            positive, negative = (pairs.of_class(c) & (pairs.same == sign) for sign in (True, False))
            if positive.any():
                assert got.sensitivity[i, k] == accepted[positive].mean()
            else:
                assert c == 99
                assert np.isnan(got.sensitivity[i, k])
            assert got.specificity[i, k] == pytest.approx((~accepted)[negative].mean(), abs=1e-15)
        assert got.pooled_sensitivity[k] == accepted[pairs.same].mean()
        assert got.false_accept_rate[k] == accepted[~pairs.same].mean()
        assert got.pooled_specificity[k] == pytest.approx((~accepted)[~pairs.same].mean(), abs=1e-15)
        assert got.false_reject_rate[k] == pytest.approx((~accepted)[pairs.same].mean(), abs=1e-15)
    assert got.usable.tolist() == (got.classes != 99).tolist()


def test_the_edge_of_a_threshold_is_the_nearest() -> None:
    got = class_curves(some_rows(3), [0, 0, 1], bins=4)
    assert [got.edge(t) for t in (-1.0, -0.8, -0.7, 0.0, 0.26, 1.0)] == [0, 0, 1, 2, 3, 4]
    for outside in (-1.01, 1.01, float("nan")):
        with pytest.raises(ValueError, match=r"^threshold: got"):
            got.edge(outside)


# Errors name the argument


def _not_finite() -> Tensor:
    emb = some_rows()
    emb[3, 1] = torch.nan
    emb[41, 2] = torch.inf
    return emb


@pytest.mark.parametrize(
    ("error", "name", "arguments"),
    [
        (TypeError, "emb", {"emb": [[1.0, 2.0]]}),
        (TypeError, "emb", {"emb": torch.zeros(N, D, dtype=torch.int64)}),
        (TypeError, "emb", {"emb": np.array([["a"] * D] * N)}),
        (ValueError, "emb", {"emb": torch.zeros(N)}),
        (ValueError, "emb", {"emb": _not_finite()}),
        (ValueError, "labels", {"labels": some_labels(N - 1)}),
        (ValueError, "labels", {"labels": some_labels().reshape(-1, 1)}),
        (TypeError, "labels", {"labels": some_labels().float()}),
        (TypeError, "labels", {"labels": some_labels() > 3}),
        (TypeError, "labels", {"labels": np.array([None] * N)}),
        (ValueError, "labels", {"labels": np.full(N, 2**63, np.uint64)}),
        (ValueError, "labels", {"labels": None}),
        (ValueError, "ref_labels", {"ref_emb": some_rows(9)}),
        (ValueError, "ref_emb", {"ref_labels": some_labels(9)}),
        (ValueError, "ref_labels", {"ref_emb": some_rows(9), "ref_labels": some_labels(8)}),
        (TypeError, "ref_labels", {"ref_emb": some_rows(9), "ref_labels": ["a"] * 9}),
        (ValueError, "ref_emb", {"ref_emb": some_rows(9)[:, :5], "ref_labels": some_labels(9)}),
        (TypeError, "ref_emb", {"ref_emb": some_rows(9).double(), "ref_labels": some_labels(9)}),
        (ValueError, "ref_emb", {"ref_emb": _not_finite()[:9], "ref_labels": some_labels(9)}),
        (ValueError, "bins", {"bins": 0}),
        (ValueError, "bins", {"bins": 30_001}),
        (ValueError, "bins", {"bins": 10.0}),
        (ValueError, "bins", {"bins": True}),
        (ValueError, "range", {"range": (1.0, -1.0)}),
        (ValueError, "range", {"range": (0.5, 0.5)}),
        (ValueError, "range", {"range": (0.0, float("nan"))}),
        (ValueError, "range", {"range": (0.0, float("inf"))}),
        (TypeError, "range", {"range": 0.5}),
        (TypeError, "range", {"range": (0.0, "b")}),
        (TypeError, "range", {"range": (0.0, 0.5, 1.0)}),
        (ValueError, "groups", {"groups": some_labels(N - 1)}),
        (TypeError, "groups", {"groups": some_labels().float()}),
        (ValueError, "groups", {"ref_groups": some_labels(9)}),
        (
            ValueError,
            "ref_groups",
            {"groups": some_labels(), "ref_emb": some_rows(9), "ref_labels": some_labels(9)},
        ),
        (ValueError, "ref_groups", {"groups": some_labels(), "ref_groups": some_labels()}),
        (
            ValueError,
            "ref_groups",
            {
                "groups": some_labels(),
                "ref_emb": some_rows(9),
                "ref_labels": some_labels(9),
                "ref_groups": some_labels(8),
            },
        ),
        (ValueError, "self_offset", {"self_offset": 0}),
        (
            ValueError,
            "self_offset",
            {"ref_emb": some_rows(70), "ref_labels": some_labels(70), "self_offset": 11},
        ),
        (
            ValueError,
            "self_offset",
            {"ref_emb": some_rows(70), "ref_labels": some_labels(70), "self_offset": -1},
        ),
        (
            TypeError,
            "self_offset",
            {"ref_emb": some_rows(70), "ref_labels": some_labels(70), "self_offset": 1.0},
        ),
        (ValueError, "backend", {"backend": "fastest"}),
    ],
)
def test_errors_name_the_argument(error: type[Exception], name: str, arguments: dict[str, Any]) -> None:
    call: dict[str, Any] = {"emb": some_rows(), "labels": some_labels(), "bins": 8} | arguments
    with pytest.raises(error, match=rf"^{name}: "):
        class_curves(call.pop("emb"), call.pop("labels"), **call)


def test_rows_that_are_not_finite_are_counted_and_named() -> None:
    with pytest.raises(ValueError, match=r"^emb: 2 of 60 rows .*\b3, 41\b"):
        class_curves(_not_finite(), some_labels(), bins=8)
