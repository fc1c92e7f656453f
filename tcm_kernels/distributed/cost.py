"""Which way `mode="auto"` takes: a model of time and memory, the same on every rank.

With W ranks of at most n rows, D columns of b bytes, sums of c bytes (4, or 8 for float64), per rank:

                products        bytes of rows     bytes of P and Q    rounds    memory
    gather      n · W n         (W - 1) n D b     0                   1         W n D b
    ring        n · W n / 2     W/2 · n D b       W/2 · 2 n D c       W/2       2 n D (b + 2 c)
    rows        n · W n         (W - 1) n D b     0                   W - 1     2 n D b

A product of two rows is 2 D operations of 8 bits. In the rings rows travel while products are computed, so
the longer of the two counts; P and Q travel between products. A ring that sends P and Q sends 1.5 times
(float32) to 2.5 times (16 bits) what gather sends, and computes half: it wins where products take longer than
messages, that is with many rows a rank. "rows" wins where messages take longer but all rows do not fit into
memory.

The rates are round figures for what a rank has to itself, not measurements; they decide the time, never the
result.
"""

from __future__ import annotations

import dataclasses

import torch

from ..backends.numerics import compute_dtype


@dataclasses.dataclass(frozen=True)
class Machine:
    """Rates of one rank."""

    operations: float  # 8-bit operations a second, as the sweep reaches them
    bytes: float  # a second, between neighbours
    seconds_of_round: float  # what another message and another call take, however small


MACHINES = {
    "cpu": Machine(operations=5e11, bytes=1e9, seconds_of_round=1e-3),
    "cuda": Machine(operations=5e14, bytes=4e10, seconds_of_round=3e-4),
}
# Of a device's memory, what gathered rows may take.
SHARE_OF_MEMORY = 1 / 8
BYTES_IN_MAIN_MEMORY = 1 << 30  # several ranks share it


@dataclasses.dataclass(frozen=True)
class Shape:
    """The batch of all ranks, as far as the cost follows from it.

    Attributes:
        ranks: W.
        rows: of the rank that has most of them, n.
        columns: D.
        dtype: of the embeddings.
        needs_grad: whether P and Q are wanted.
    """

    ranks: int
    rows: int
    columns: int
    dtype: torch.dtype
    needs_grad: bool = True

    @property
    def shard_bytes(self) -> int:
        """Of the largest shard's rows."""
        return self.rows * self.columns * self.dtype.itemsize

    @property
    def sums_bytes(self) -> int:
        """Of the largest shard's P and Q."""
        return 2 * self.rows * self.columns * compute_dtype(self.dtype).itemsize if self.needs_grad else 0


def memory_for_rows(device: torch.device) -> int:
    """Bytes that gathered rows may take on a device."""
    if device.type != "cuda":
        return BYTES_IN_MAIN_MEMORY
    return int(torch.cuda.get_device_properties(device).total_memory * SHARE_OF_MEMORY)


def seconds(way: str, shape: Shape, machine: Machine) -> float:
    """What the model says of a way: "gather", "ring" or "rows"."""
    half_way = shape.ranks // 2
    whole = 2.0 * shape.columns * shape.rows**2 * shape.ranks / machine.operations
    travelling = {"gather": shape.ranks - 1, "ring": half_way, "rows": shape.ranks - 1}[way]
    rows = travelling * shape.shard_bytes / machine.bytes
    if way == "gather":
        return machine.seconds_of_round + rows + whole
    rounds = (travelling + 1) * machine.seconds_of_round
    if way == "rows":
        return rounds + max(rows, whole)
    return rounds + max(rows, whole / 2) + half_way * shape.sums_bytes / machine.bytes


def choose(shape: Shape, memory: int, device_type: str) -> str:
    """The quickest way that fits into `memory` bytes, by the model; the first of those that are alike."""
    machine = MACHINES.get(device_type, MACHINES["cpu"])
    ways = ["gather", "ring", "rows"]
    if shape.ranks * shape.shard_bytes > memory:
        ways.remove("gather")
    return min(ways, key=lambda way: seconds(way, shape, machine))


def choose_for_reference_set(shape: Shape, memory: int) -> str:
    """The way "gather" where the reference set of all ranks fits into memory, else "rows"."""
    return "gather" if shape.ranks * shape.shard_bytes <= memory else "rows"
