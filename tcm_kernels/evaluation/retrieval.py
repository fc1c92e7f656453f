"""Recall@1, the accuracy that consistency is weighed against, without the similarity matrix."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

_ROWS, _COLUMNS = 1024, 8192  # of a block of similarities: 32 MiB of float32


@torch.no_grad()
def nearest_is_same_class(
    emb: Tensor, labels: Tensor, gallery: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """Whether the nearest neighbour of each row, by cosine similarity, has the row's label.

    Of equally near neighbours the first counts. A row whose class has no other (in the gallery) is a miss.

    Args:
        emb: (N, D) floating point, of any length; products are of its dtype.
        labels: (N,) integers, on the same device.
        gallery: (M, D) embeddings and (M,) labels that rows are compared with; None for the other rows of
            `emb`.

    Returns:
        (N,) bool, on the same device.

    Raises:
        ValueError: there is no row, or nothing to compare it with, or a row is not finite.
    """
    for name, given in (("emb", emb), ("gallery", None if gallery is None else gallery[0])):
        if given is not None and not bool(given.isfinite().all()):
            count = int((~given.isfinite()).any(dim=1).sum())
            raise ValueError(f"{name}: got {count:,} rows that are not finite, expected none")
    unit = normalize(emb)
    others, other_labels = (unit, labels) if gallery is None else (normalize(gallery[0]), gallery[1])
    if len(unit) == 0 or len(others) < (2 if gallery is None else 1):
        raise ValueError(
            f"got {len(unit)} rows and {len(others)} to compare them with, each needs a neighbour"
        )
    found = torch.empty(len(unit), dtype=torch.bool, device=emb.device)
    for first in range(0, len(unit), _ROWS):
        rows = slice(first, first + _ROWS)
        best = torch.full_like(unit[rows, 0], -torch.inf)
        nearest = torch.zeros(len(best), dtype=torch.int64, device=emb.device)
        for column in range(0, len(others), _COLUMNS):
            similarity = unit[rows] @ others[column : column + _COLUMNS].T
            if gallery is None:
                _leave_out_self(similarity, first, column)
            value, at = similarity.max(dim=1)
            better = value > best
            best = torch.where(better, value, best)
            nearest = torch.where(better, at + column, nearest)
        found[rows] = other_labels[nearest] == labels[rows]
    return found


def recall_at_1(emb: Tensor, labels: Tensor, gallery: tuple[Tensor, Tensor] | None = None) -> float:
    """Share of rows whose nearest neighbour has their label; everything as for `nearest_is_same_class`."""
    return float(nearest_is_same_class(emb, labels, gallery).double().mean())


def _leave_out_self(similarity: Tensor, first_row: int, first_column: int) -> None:
    """Set the pairs of a row with itself, in a block that begins there, to minus infinity."""
    rows = torch.arange(similarity.shape[0], device=similarity.device)
    columns = rows + first_row - first_column
    inside = (columns >= 0) & (columns < similarity.shape[1])
    similarity[rows[inside], columns[inside]] = -torch.inf
