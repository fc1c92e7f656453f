"""Label order: rows of one class stand together, so that pairs of one class fill a narrow band of tiles.

Nothing is copied: kernels read embeddings where they lie, through `order`. A position is a place in label
order.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..contract import Problem
from ..shared import twins


class LabelOrder(NamedTuple):
    """The order of one side, of N rows.

    Attributes:
        order: (N,) int64, the row at each position.
        same_begin: (N,) int32: positions [same_begin, same_end) of the other side are of the row's class.
        same_end: (N,) int32.
        twin: (N,) int32, the position of the same sample on the other side, or -1.
    """

    order: Tensor
    same_begin: Tensor
    same_end: Tensor
    twin: Tensor


def label_orders(problem: Problem) -> tuple[LabelOrder, LabelOrder]:
    """Rows and columns; one and the same in the self case."""
    labels, order = by_label(problem.labels.to(torch.int64))
    if problem.ref_labels is None:
        itself = torch.arange(len(order), dtype=torch.int32, device=order.device)
        own = LabelOrder(order, *ranges(labels, labels), itself)
        return own, own
    others, column_order = by_label(problem.ref_labels.to(torch.int64))
    offset = problem.self_offset
    row_twin = twins(order, column_order, offset)
    column_twin = twins(column_order, order, None if offset is None else -offset)
    return (
        LabelOrder(order, *ranges(labels, others), row_twin),
        LabelOrder(column_order, *ranges(others, labels), column_twin),
    )


def by_label(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Labels (N,) int64 in order, and the row at each position; rows of one label stay in their order."""
    ordered, order = torch.sort(labels, stable=True)
    return ordered, order


def ranges(ordered: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """For each of `ordered` (N,), the range of positions in `others` (M,) with its label; both sorted."""
    begin = torch.searchsorted(others, ordered, out_int32=True)
    end = torch.searchsorted(others, ordered, right=True, out_int32=True)
    return begin, end
