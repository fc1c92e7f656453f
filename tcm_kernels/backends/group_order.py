"""The rows of a histogram in the order of their groups, so that neighbours count in the same place."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .contract import HistogramProblem


class GroupOrder(NamedTuple):
    """One side of the pairs, sorted by group and then by label.

    Attributes:
        order: (N,) int64, the original row at each place.
        group: (N,) int32, its group.
        rank: (N,) int32, that group among those of this side: 0, 0, 1, 1, 1, 2, ...
        label: (N,) int32, its class, numbered for both sides alike.
    """

    order: Tensor
    group: Tensor
    rank: Tensor
    label: Tensor


def group_orders(problem: HistogramProblem) -> tuple[GroupOrder, GroupOrder]:
    """Rows and columns; one object where both sides are one."""
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
    """The most groups that `edge` rows in a row, from a multiple of `edge` on, have; waits for a GPU."""
    n = len(order.rank)
    if n == 0:
        return 0
    first = torch.arange(0, n, edge, device=order.rank.device)
    last = (first + edge - 1).clamp_max(n - 1)
    return int((order.rank[last] - order.rank[first]).max()) + 1
