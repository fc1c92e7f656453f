"""The way "gather": every rank receives all rows, and takes the pairs of its own rows with all of them.

S is symmetric: in the self case twice the gradient of the own rows' pairs is the whole gradient of these
rows, and nothing is sent back. A rank holds N x D elements and computes n · N similarities.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..backends.contract import Backend, Problem
from .ranks import Ranks, begin_of
from .way import Outcome


def pair_sums(backend: Backend, problem: Problem, rows: Sequence[int], ranks: Ranks) -> Outcome:
    """Sums and counts of this rank's share of the pairs, and what its backward needs.

    Args:
        backend: runs the pairs.
        problem: this rank's shard of the batch, and of the reference set if there is one.
        rows: by rank, of the side that is gathered: the reference set where there is one, else the batch.
        ranks: the process group.
    """
    is_self = problem.ref is None
    shard = problem.emb if problem.ref is None else problem.ref
    labels = problem.labels if problem.ref_labels is None else problem.ref_labels
    whole = problem._replace(
        ref=all_rows(shard, rows, ranks),
        ref_labels=all_rows(labels, rows, ranks),
        self_offset=begin_of(rows, ranks.own) if is_self else None,
        need_grad_ref=False,
    )
    sums, counts, residual = backend.pair_sums(whole, backend.residual_bytes(whole.gradient_rows))
    return Outcome(sums, counts, whole.gradient_rows, residual, 2 if is_self else 1)


def all_rows(shard: Tensor, rows: Sequence[int], ranks: Ranks) -> Tensor:
    """The rows (rows, ...) of all ranks, in rank order.

    Where shards differ in size all are sent at the size of the largest one, and padding is closed up in place
    afterwards: an op never sees any of it.
    """
    most = max(rows)
    own = shard.contiguous()
    if len(own) < most:
        own = torch.cat((own, own.new_zeros((most - len(own), *own.shape[1:]))))
    gathered = ranks.all_gather(own).flatten(0, 1)
    end = 0
    for rank, count in enumerate(rows):
        if count and end < rank * most:
            # From and to may overlap, hence the copy, of one shard at a time.
            gathered[end : end + count] = gathered[rank * most : rank * most + count].clone()
        end += count
    return gathered[:end]
