"""The model that `mode="auto"` chooses by: what it says at its ends, and that it depends on nothing else."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from tcm_kernels.distributed.cost import (
    MACHINES,
    Shape,
    choose,
    choose_for_reference_set,
    memory_for_rows,
    seconds,
)

PLENTY = 1 << 50
SHAPE = Shape(ranks=8, rows=4096, columns=512, dtype=torch.float32)


@pytest.mark.parametrize("device", MACHINES)
def test_small_batches_are_gathered(device: str) -> None:
    assert choose(dataclasses.replace(SHAPE, rows=128), PLENTY, device) == "gather"


@pytest.mark.parametrize("device", MACHINES)
def test_where_products_take_longest_the_ring_that_computes_half_is_taken(device: str) -> None:
    assert choose(dataclasses.replace(SHAPE, rows=1 << 20), PLENTY, device) == "ring"


@pytest.mark.parametrize("device", MACHINES)
def test_where_messages_take_longest_and_memory_is_short_only_rows_travel(device: str) -> None:
    shape = dataclasses.replace(SHAPE, rows=1024, columns=4096, dtype=torch.bfloat16)
    assert choose(shape, 1, device) == "rows"


def test_what_does_not_fit_is_not_gathered() -> None:
    small = dataclasses.replace(SHAPE, rows=128)
    assert choose(small, small.ranks * small.shard_bytes, "cuda") == "gather"
    assert choose(small, small.ranks * small.shard_bytes - 1, "cuda") != "gather"
    assert choose_for_reference_set(small, small.ranks * small.shard_bytes) == "gather"
    assert choose_for_reference_set(small, small.ranks * small.shard_bytes - 1) == "rows"


@pytest.mark.parametrize(
    ("dtype", "times"), [(torch.float32, 1.5), (torch.bfloat16, 2.5), (torch.float64, 1.5)]
)
def test_a_ring_sends_so_many_times_what_gather_sends(dtype: torch.dtype, times: float) -> None:
    """For many ranks; the header of cost.py says so."""
    shape = dataclasses.replace(SHAPE, ranks=1000, dtype=dtype)
    ring = shape.ranks // 2 * (shape.shard_bytes + shape.sums_bytes)
    assert ring / ((shape.ranks - 1) * shape.shard_bytes) == pytest.approx(times, rel=0.01)


def test_without_a_gradient_no_sums_travel() -> None:
    machine = MACHINES["cuda"]
    alone = dataclasses.replace(SHAPE, needs_grad=False)
    assert seconds("ring", alone, machine) < seconds("ring", SHAPE, machine)
    assert seconds("rows", alone, machine) == seconds("rows", SHAPE, machine)


def test_main_memory_is_shared_by_ranks() -> None:
    assert memory_for_rows(torch.device("cpu")) == 1 << 30
