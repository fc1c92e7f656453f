"""The order of rows: by label for the loss on a GPU, by group for the histograms of `cpu` and `cuda`.

Sorted by label, pairs of one class fill a narrow band of tiles; sorted by group, neighbours count in the same
rows of the tables. No embedding is moved: kernels read rows through `order`. A position is an index in this
order. The loss of `cpu` sorts in C++ (csrc/cpu/loss/prepare.cpp); `torch` and triton/small.py do not sort.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .contract import HistogramProblem, Problem


def self_indices(order: Tensor, other_order: Tensor, offset: int | None) -> Tensor:
    """(N,) int32 by position: the position of row + `offset` on the other side, -1 where there is none."""
    none = order.new_full(order.shape, -1, dtype=torch.int32)
    if offset is None or not len(other_order):
        return none
    position = other_order.new_empty(len(other_order))
    position.scatter_(0, other_order, torch.arange(len(other_order), device=order.device))
    row = order + offset
    there = (row >= 0) & (row < len(other_order))
    return torch.where(there, position[row.clamp(0, len(other_order) - 1)].to(torch.int32), none)


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
    """The orders of rows and columns; the same object in the self case."""
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
    """Sorted labels (N,) int64 and the row at each position; the sort is stable."""
    label, order = torch.sort(labels.to(torch.int64), stable=True)
    return label, order


class GroupOrder(NamedTuple):
    """One side of the pairs, sorted by group and then by label.

    Attributes:
        order: (N,) int64, the original row at each position.
        group: (N,) int32, its group.
        rank: (N,) int32, the group's index among the groups of this side: 0, 0, 1, 1, 1, 2, ...
        label: (N,) int32, its class, with one numbering for both sides.
    """

    order: Tensor
    group: Tensor
    rank: Tensor
    label: Tensor


def group_orders(problem: HistogramProblem) -> tuple[GroupOrder, GroupOrder]:
    """The orders of rows and columns; the same object in the self case."""
    labels = problem.labels.to(torch.int64)
    if problem.ref_labels is None or problem.ref_groups is None:
        numbers = torch.unique(labels, return_inverse=True)[1]
        rows = _order(problem.groups, numbers)
        return rows, rows
    both = torch.cat((labels, problem.ref_labels.to(torch.int64)))
    numbers = torch.unique(both, return_inverse=True)[1]
    n = len(labels)
    return _order(problem.groups, numbers[:n]), _order(problem.ref_groups, numbers[n:])


def _order(groups: Tensor, labels: Tensor) -> GroupOrder:
    order = torch.argsort(labels, stable=True)
    order = order[torch.argsort(groups[order], stable=True)]
    group = groups[order]
    rank = torch.zeros_like(group)
    torch.cumsum(group[1:] != group[:-1], dim=0, out=rank[1:])
    return GroupOrder(order, group.int(), rank.int(), labels[order].int())


def most_groups(order: GroupOrder, edge: int) -> int:
    """The most groups in any block of `edge` positions, cut at multiples of `edge`; waits for a GPU."""
    n = len(order.rank)
    if n == 0:
        return 0
    first = torch.arange(0, n, edge, device=order.rank.device)
    last = (first + edge - 1).clamp_max(n - 1)
    return int((order.rank[last] - order.rank[first]).max()) + 1
