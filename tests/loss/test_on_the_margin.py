"""Margins are inclusive: pairs exactly on one, with similarities that have no rounding error at all.

Rows of ±1 with D a power of 4 have a norm that is a power of 2, so unit rows and every product and sum of
them are exact in any order of summation; nothing excuses a count that is off by one.
"""

from __future__ import annotations

import functools
import itertools

import pytest
import torch
from agreement import Truth, assert_agrees, run, truth_of
from cases import FLOAT_DTYPES, RELATIONS, Inputs
from engines import ENGINES, Engine
from torch import Tensor

import tcm_kernels

pytestmark = pytest.mark.usefixtures("poisoned_memory")


def _all_corners(dtype: torch.dtype) -> Tensor:
    """(16, 4): every row of ±1, with similarities -1, -1/2, 0, 1/2 and 1."""
    return torch.tensor(list(itertools.product((-1.0, 1.0), repeat=4)), dtype=dtype)


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
@pytest.mark.parametrize("margin", [-1.0, -0.5, 0.0, 0.5, 1.0])
def test_a_pair_on_the_margin_is_hard_for_both_signs(
    engine: Engine, margin: float, dtype: torch.dtype
) -> None:
    engine.skip_unless_it_takes(dtype)
    inputs = Inputs(
        _all_corners(dtype).to(engine.device).requires_grad_(),
        (torch.arange(16) // 4).to(engine.device),
        margin_plus=margin,
        margin_minus=margin,
        similarities_are_exact=True,
    )
    assert_agrees(run(engine, inputs), inputs)


@functools.lru_cache(maxsize=1)
def _many_on_the_margin(n: int, d: int, margin: float, relation: str) -> tuple[Inputs, Truth]:
    """Lengths differ by powers of two: the unit rows, and with them the counts, may not notice."""
    generator = torch.Generator().manual_seed(n + d)
    signs = torch.randint(0, 2, (n + 50, d), generator=generator) * 2.0 - 1.0
    lengths = 2.0 ** torch.randint(-20, 20, (n + 50, 1), generator=generator)
    labels = torch.randint(0, n // 5, (n + 50,), generator=generator)
    everything = signs * lengths
    emb = everything[20 : 20 + n].clone()
    unit = (emb / emb.norm(dim=1, keepdim=True)).double()
    assert int((unit @ unit.T == margin).sum()) > n, "no pair lies on the margin: the test shows nothing"
    within = relation == "self"
    inputs = Inputs(
        emb.requires_grad_(),
        labels[20 : 20 + n],
        None if within else everything.requires_grad_(),
        None if within else labels,
        margin_plus=margin,
        margin_minus=margin,
        self_offset=20 if relation.endswith("offset") else None,
        similarities_are_exact=True,
    )
    return inputs, truth_of(inputs)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize(("d", "margin"), [(4, 0.5), (16, 0.25), (64, 0.125), (256, 0.0625)])
@pytest.mark.parametrize("n", [130, 600])
def test_many_pairs_on_the_margin_are_all_counted(
    n: int, d: int, margin: float, relation: str, engine: Engine
) -> None:
    inputs, truth = _many_on_the_margin(n, d, margin, relation)
    assert_agrees(run(engine, inputs.to(engine.device)), inputs, truth)


def test_identical_rows_of_two_classes_are_hard_at_margin_minus_one(engine: Engine) -> None:
    """A hard pair with penalty 0: counted, though it adds nothing to the loss."""
    emb = torch.tensor([[1.0, 1.0, 1.0, 1.0]] * 6, device=engine.device)
    labels = torch.arange(6, device=engine.device)
    loss, stats = tcm_kernels.fused_tcm_loss(
        emb, labels, margin_minus=1.0, backend=engine.backend, return_stats=True
    )
    assert int(stats.negative_count) == 30
    assert float(loss) == 0.0


def test_the_next_float_above_and_below_the_margin_is_told_apart(engine: Engine) -> None:
    """In float64 a margin one step to either side of the similarity decides the other way."""
    emb = torch.tensor([[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, -1.0]], dtype=torch.float64)
    engine.skip_unless_it_takes(torch.float64)
    above, below = 0.5 + 2.0**-53, 0.5 - 2.0**-54
    counts = {}
    for margin in (below, 0.5, above):
        for name, labels in (("positive", [0, 0]), ("negative", [0, 1])):
            _, stats = tcm_kernels.fused_tcm_loss(
                emb.to(engine.device),
                torch.tensor(labels, device=engine.device),
                margin_plus=margin,
                margin_minus=margin,
                backend=engine.backend,
                return_stats=True,
            )
            counts[name, margin] = int(getattr(stats, f"{name}_count"))
    assert counts == {
        ("positive", below): 0,
        ("positive", 0.5): 2,
        ("positive", above): 2,
        ("negative", below): 2,
        ("negative", 0.5): 2,
        ("negative", above): 0,
    }
