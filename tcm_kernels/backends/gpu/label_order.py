"""Label order: rows of one class stand together, so that pairs of one class fill a narrow band of tiles.

Nothing is copied: kernels read embeddings where they lie, through `order`. A position is a place in label
order. One sort is all that is done here: `prepare` finds each row's range of positions with its label in the
sorted labels, in the pass that it makes anyway.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..contract import Problem
from ..shared import self_indices


class LabelOrder(NamedTuple):
    """The order of one side, of N rows.

    Attributes:
        order: (N,) int64, the row at each position.
        label: (N,) int64, its label; ascending.
        self_index: (N,) int32, the position of the same sample on the other side, or -1; None in the self
            case, where it is the position itself.
    """

    order: Tensor
    label: Tensor
    self_index: Tensor | None


def label_orders(problem: Problem) -> tuple[LabelOrder, LabelOrder]:
    """Rows and columns; one and the same in the self case."""
    label, order = by_label(problem.labels)
    if problem.ref_labels is None:
        own = LabelOrder(order, label, None)
        return own, own
    column_label, column_order = by_label(problem.ref_labels)
    offset = problem.self_offset
    row_self_index = self_indices(order, column_order, offset)
    column_self_index = self_indices(column_order, order, None if offset is None else -offset)
    return LabelOrder(order, label, row_self_index), LabelOrder(column_order, column_label, column_self_index)


def by_label(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Labels (N,) int64 in order, and the row at each position; rows of one label stay in their order."""
    label, order = torch.sort(labels.to(torch.int64), stable=True)
    return label, order
