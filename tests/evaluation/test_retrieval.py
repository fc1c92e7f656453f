"""Recall@1: every row's nearest neighbour, whatever the blocks in which similarities are formed."""

from __future__ import annotations

import pytest
import torch

from tcm_kernels.evaluation import retrieval


def some(n: int, classes: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    centres = torch.randn(classes, 8, generator=torch.Generator().manual_seed(99))
    return centres[labels] + torch.randn(n, 8, generator=generator), labels


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (7, 5), (16, 64), (1024, 8192)])
@pytest.mark.parametrize("with_gallery", [False, True])
def test_each_row_is_compared_with_all_others_whatever_the_blocks(
    rows: int, columns: int, with_gallery: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrieval, "_ROWS", rows)
    monkeypatch.setattr(retrieval, "_COLUMNS", columns)
    emb, labels = some(50, 7)
    gallery = some(31, 9, seed=1) if with_gallery else None
    others, other_labels = gallery or (emb, labels)
    expected = []
    for i in range(50):
        similarity = torch.nn.functional.cosine_similarity(emb[i][None], others)
        if not with_gallery:
            similarity[i] = -2
        expected.append(bool(other_labels[similarity.argmax()] == labels[i]))
    assert 5 < sum(expected) < 45
    assert retrieval.nearest_is_same_class(emb, labels, gallery).tolist() == expected


def test_a_row_is_not_its_own_neighbour_and_a_lonely_one_is_a_miss() -> None:
    emb = torch.eye(3)[[0, 0, 1, 2]]
    labels = torch.tensor([0, 0, 1, 2])
    assert retrieval.nearest_is_same_class(emb, labels).tolist() == [True, True, False, False]
    gallery = (emb[:1], torch.tensor([4]))
    assert not retrieval.nearest_is_same_class(emb, labels, gallery).any()


def test_of_equally_near_neighbours_the_first_counts() -> None:
    emb = torch.eye(2)[[0, 0, 0, 1]]
    labels = torch.tensor([0, 1, 0, 2])
    assert retrieval.nearest_is_same_class(emb, labels).tolist() == [False, False, True, False]


@pytest.mark.parametrize(
    ("n", "gallery"),
    [
        pytest.param(0, None, id="no row"),
        pytest.param(1, None, id="no other row"),
        pytest.param(2, (torch.empty(0, 8), torch.empty(0, dtype=torch.int64)), id="an empty gallery"),
    ],
)
def test_a_row_without_anything_to_compare_with_is_refused(
    n: int, gallery: tuple[torch.Tensor, torch.Tensor] | None
) -> None:
    emb, labels = some(2, 2)
    with pytest.raises(ValueError, match=f"got {n} rows"):
        retrieval.nearest_is_same_class(emb[:n], labels[:n], gallery)


def test_the_same_is_found_where_products_are_of_double_precision() -> None:
    emb, labels = some(200, 20)
    single = retrieval.nearest_is_same_class(emb, labels)
    assert torch.equal(single, retrieval.nearest_is_same_class(emb.double(), labels))


@pytest.mark.parametrize("in_gallery", [False, True])
def test_a_row_that_is_not_finite_is_refused(in_gallery: bool) -> None:
    emb, labels = some(6, 2)
    gallery = some(6, 2, seed=1)
    (gallery[0] if in_gallery else emb)[3, 2] = torch.nan
    with pytest.raises(
        ValueError, match=f"{'gallery' if in_gallery else 'emb'}: got 1 rows that are not finite"
    ):
        retrieval.nearest_is_same_class(emb, labels, gallery)
