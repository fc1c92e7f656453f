"""The ways "ring" and "rows": shards travel, and no rank ever holds more than two of other ranks.

"ring", the self case with half of the products. Shards travel half way round, each with the sums P and Q of
its rows, so that any two shards meet once; what a meeting adds to the guest's P and Q travels on with the
guest, and from the last rank goes home. With an even number of ranks the two shards that face each other meet
at both of their ranks, which take half of the pairs each.

    step k of rank r: own rows with those of rank r - k    k = 1 ... ⌊W / 2⌋

"rows": shards travel all the way round without sums, and every pair is computed at either end. For a
reference set, whose rows want no gradient, it is the only ring.

While pairs are computed the next shard is on its way. Its P and Q cannot be: they are what the neighbour
computes meanwhile. Memory beside the kernels' own, in arrays of n x D elements: P and Q of the own rows, and
two guests, of three arrays each, or in "rows" of one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..backends.contract import Backend, PartnerSums, Problem
from ..backends.numerics import compute_dtype
from .ranks import Ranks
from .way import Outcome

_ALIGNMENT = 4  # elements at whose multiples Q begins, so that kernels are compiled once for all sizes


class Guest:
    """Room for the shard of another rank: its rows, labels, and P and Q where these travel, too."""

    def __init__(self, emb: Tensor, labels: Tensor, most_rows: int, *, with_sums: bool) -> None:
        self._emb = emb.new_empty((most_rows, emb.shape[1]))
        self._labels = labels.new_empty(most_rows)
        self._sums: Tensor | None = None
        if with_sums:
            elements = -(-most_rows * emb.shape[1] // _ALIGNMENT) * _ALIGNMENT
            self._sums = emb.new_empty((2, elements), dtype=compute_dtype(emb.dtype))
        self.rank = -1

    def hold(self, rank: int, rows: int) -> Guest:
        """From now on for the shard of this rank."""
        self.rank, self.rows = rank, rows
        return self

    @property
    def emb(self) -> Tensor:
        """(rows, D)."""
        return self._emb[: self.rows]

    @property
    def labels(self) -> Tensor:
        """(rows,) int64."""
        return self._labels[: self.rows]

    @property
    def partners(self) -> PartnerSums:
        """P and Q of its rows."""
        assert self._sums is not None
        columns = self._emb.shape[1]
        p, q = (x[: self.rows * columns].view(self.rows, columns) for x in self._sums)
        return PartnerSums(p, q)

    def clear_sums(self) -> None:
        """P and Q begin as zeros."""
        if self._sums is not None:
            self._sums.zero_()


@dataclasses.dataclass(frozen=True)
class _Shards:
    """The shards that travel: this rank's, and how many rows each rank has."""

    emb: Tensor
    labels: Tensor
    rows: Sequence[int]

    @classmethod
    def of(cls, emb: Tensor, labels: Tensor, rows: Sequence[int]) -> _Shards:
        return cls(emb.contiguous(), labels.to(torch.int64).contiguous(), rows)


def _rooms(shards: _Shards, *, with_sums: bool) -> list[Guest]:
    """For the guest that is here and the one that is on its way."""
    return [Guest(shards.emb, shards.labels, max(shards.rows), with_sums=with_sums) for _ in range(2)]


def _visits(
    shards: _Shards, rooms: Sequence[Guest], steps: int, ranks: Ranks, *, with_sums: bool
) -> Iterator[Guest | None]:
    """First None, for the own rows; then the shards of the ranks at distance 1 to `steps` to the left.

    While the caller is at work on one, the next is on its way. With sums, a guest arrives with its P and Q,
    and travels on with what the caller has added when the caller asks for the next one. From the last step
    the caller sends them home (`_send_home`).
    """
    left, right = ranks.after(-1), ranks.after(1)
    guest: Guest | None = None
    for step in range(steps):
        rank = ranks.after(-step - 1)
        following = rooms[(step + 1) % 2].hold(rank, shards.rows[rank])
        here: _Shards | Guest = shards if guest is None else guest
        under_way = ranks.exchange(
            [(here.emb, right), (here.labels, right)], [(following.emb, left), (following.labels, left)]
        )
        yield guest
        under_way.wait()
        if guest is None:
            following.clear_sums()
        elif with_sums:
            ranks.exchange(
                [(x, right) for x in guest.partners], [(x, left) for x in following.partners]
            ).wait()
        guest = following
    yield guest


def pair_sums(backend: Backend, problem: Problem, rows: Sequence[int], ranks: Ranks) -> Outcome:
    """The way "ring": sums and counts of this rank's share of the pairs, and all of P and Q of its rows.

    Args:
        backend: runs the pairs.
        problem: this rank's shard of the batch; no reference set.
        rows: by rank, of the batch.
        ranks: the process group.
    """
    shards = _Shards.of(problem.emb, problem.labels, rows)
    own = problem._replace(emb=shards.emb, labels=shards.labels)
    needs_grad = problem.need_grad_emb
    half_way = ranks.size // 2
    rooms = _rooms(shards, with_sums=needs_grad)
    visits = _visits(shards, rooms, half_way, ranks, with_sums=needs_grad)
    next(visits)
    sums, counts, residual = backend.pair_sums(own, backend.residual_bytes(own.gradient_rows))
    partners, _ = backend.partner_sums(own.gradient_rows, residual)
    for step, guest in enumerate(visits, start=1):
        assert guest is not None
        both_meet = 2 * step == ranks.size
        here, there = _shares(len(own.emb), guest, ranks) if both_meet else (slice(None), slice(None))
        meeting = own._replace(
            emb=own.emb[here],
            labels=own.labels[here],
            ref=guest.emb[there],
            ref_labels=guest.labels[there],
            need_grad_ref=needs_grad,
        )
        of_own = None if partners is None else PartnerSums(*(x[here] for x in partners))
        of_guest = PartnerSums(*(x[there] for x in guest.partners)) if needs_grad else None
        of_meeting, counts_of_meeting = backend.add_pair_sums(meeting, of_own, of_guest)
        sums, counts = sums + 2 * of_meeting, counts + 2 * counts_of_meeting  # either may be the anchor
    if partners is not None:
        last, other = rooms[half_way % 2], rooms[(half_way + 1) % 2]
        _send_home(last, other.hold(ranks.own, len(shards.emb)).partners, half_way, ranks)
        for own_sums, found in zip(partners, other.partners, strict=True):
            own_sums.add_(found)
    return Outcome(sums, counts, own.gradient_rows, residual, 1)


def _shares(own_rows: int, guest: Guest, ranks: Ranks) -> tuple[slice, slice]:
    """Which own rows and which of the guest this rank takes, where the guest's rank takes the others.

    The rows of the higher of the two ranks are halved.
    """
    if ranks.own < guest.rank:
        return slice(None), slice(None, guest.rows // 2)
    return slice(own_rows // 2, None), slice(None)


def _send_home(guest: Guest, found: PartnerSums, distance: int, ranks: Ranks) -> None:
    """Return a guest's P and Q to its rank, and receive what other ranks have found for the own rows."""
    ranks.exchange(
        [(x, guest.rank) for x in guest.partners], [(x, ranks.after(distance)) for x in found]
    ).wait()


def pair_sums_of_rows(backend: Backend, problem: Problem, rows: Sequence[int], ranks: Ranks) -> Outcome:
    """The way "rows": this rank's rows with all rows that come by, as in `gather.pair_sums`.

    Args:
        backend: runs the pairs.
        problem: this rank's shard of the batch, and of the reference set if there is one.
        rows: by rank, of the side that travels: the reference set where there is one, else the batch.
        ranks: the process group.
    """
    if problem.ref is None or problem.ref_labels is None:
        shards = _Shards.of(problem.emb, problem.labels, rows)
        own = problem._replace(emb=shards.emb, labels=shards.labels)
    else:
        shards = _Shards.of(problem.ref, problem.ref_labels, rows)
        own = problem._replace(ref=shards.emb, ref_labels=shards.labels, need_grad_ref=False)
    visits = _visits(shards, _rooms(shards, with_sums=False), ranks.size - 1, ranks, with_sums=False)
    next(visits)
    sums, counts, residual = backend.pair_sums(own, backend.residual_bytes(own.gradient_rows))
    partners, _ = backend.partner_sums(own.gradient_rows, residual)
    for guest in visits:
        assert guest is not None
        meeting = own._replace(ref=guest.emb, ref_labels=guest.labels, need_grad_ref=False)
        of_meeting, counts_of_meeting = backend.add_pair_sums(meeting, partners, None)
        sums, counts = sums + of_meeting, counts + counts_of_meeting
    return Outcome(sums, counts, own.gradient_rows, residual, 1)
