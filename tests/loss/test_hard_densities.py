"""From nothing hard to everything hard: kernels add up sparse, patterned and full tiles in different ways.

Margins are put where the wanted share of pairs is hard, in the middle of a gap between two similarities
that is wider than the rounding band: so counts are exact at every density.
"""

from __future__ import annotations

import dataclasses
import functools

import pytest
import torch
from agreement import Truth, assert_agrees, rounding_band, run, truth_of
from cases import Case, Inputs
from engines import ENGINES, Engine
from torch import Tensor

import tcm_kernels
from tcm_kernels import reference

pytestmark = pytest.mark.usefixtures("poisoned_memory")

# Positive and negative density: alone on the diagonal, then one sign sparse while the other is not.
DENSITIES = (
    (0.0, 0.0),
    (1e-3, 1e-3),
    (1e-2, 1e-2),
    (0.1, 0.1),
    (0.5, 0.5),
    (0.9, 0.9),
    (0.999, 0.999),
    (1.0, 1.0),
    (1.0, 1e-3),
    (1e-2, 0.5),
    (0.5, 1.0),
)


def _margin(similarities: Tensor, share: float, band: float) -> float:
    """Below it lie `share` of the similarities, and none within the band."""
    if share <= 0.0:
        return -1.0
    if share >= 1.0:
        return 1.0
    ordered = similarities.sort().values
    middle = min(max(int(share * len(ordered)), 2), len(ordered) - 2)
    # at least two, because in the self case every similarity is there twice
    reach = max(min(middle, len(ordered) - middle) // 4, 2)
    nearby = ordered[middle - reach : middle + reach]
    gaps = nearby[1:] - nearby[:-1]
    widest = int(gaps.argmax())
    assert gaps[widest] > 4 * band, "no gap to put a margin into: take fewer rows or fewer dimensions"
    return float(nearby[widest] + nearby[widest + 1]) / 2


@functools.lru_cache(maxsize=1)
def _at_density(case: Case, of_positives: float, of_negatives: float) -> tuple[Inputs, Truth]:
    inputs = case.build()
    rows = reference.unit_rows(inputs.emb.detach())
    columns = rows if inputs.ref_emb is None else reference.unit_rows(inputs.ref_emb.detach())
    labels = inputs.labels if inputs.ref_labels is None else inputs.ref_labels
    s = rows @ columns.T
    same = inputs.labels[:, None] == labels[None, :]
    another = ~torch.eye(*s.shape, dtype=torch.bool) if inputs.ref_emb is None else torch.ones_like(same)
    band = rounding_band(case.dtype, case.d)
    inputs = dataclasses.replace(
        inputs,
        margin_plus=_margin(s[same & another], of_positives, band),
        margin_minus=-_margin(-s[~same & another], of_negatives, band),
    )
    return inputs, truth_of(inputs)


def _shares(inputs: Inputs, positive_count: int, negative_count: int) -> tuple[float, float]:
    labels = inputs.labels if inputs.ref_labels is None else inputs.ref_labels
    same = int((inputs.labels[:, None] == labels[None, :]).sum())
    pairs = inputs.emb.shape[0] * len(labels)
    if inputs.ref_emb is None:
        same, pairs = same - len(labels), pairs - len(labels)
    return positive_count / same, negative_count / (pairs - same)


# The engines vary fastest, so that the dense truth is computed once for all of them.
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("densities", DENSITIES, ids=lambda pair: f"positives_{pair[0]}_negatives_{pair[1]}")
@pytest.mark.parametrize(
    "case",
    [
        Case(n=1030, d=16, labels="sorted", look="random"),
        Case(n=600, d=24, labels="unbalanced", look="clustered", dtype=torch.bfloat16),
        Case(relation="rectangular", n=500, d=16, labels="shuffled", look="random", extra=140),
    ],
    ids=lambda case: case.id,
)
def test_every_hard_density(case: Case, densities: tuple[float, float], engine: Engine) -> None:
    engine.skip_unless_it_takes(case.dtype)
    inputs, truth = _at_density(case, *densities)
    result = run(engine, inputs.to(engine.device))
    assert_agrees(result, inputs, truth)
    counts = int(result.stats.positive_count), int(result.stats.negative_count)
    for share, wanted in zip(_shares(inputs, *counts), densities, strict=True):
        assert share == pytest.approx(wanted, rel=0.5), "the case does not have the density it is named for"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_empty_and_full_tiles_in_one_batch(engine: Engine, dtype: torch.dtype) -> None:
    """Blocks of rows that collapsed stand beside blocks that are orthogonal to everything."""
    engine.skip_unless_it_takes(dtype)
    generator = torch.Generator().manual_seed(5)
    noise = torch.randn(1100, 64, generator=generator, dtype=torch.float64)
    collapsed = (torch.arange(1100) // 137 % 2 == 0)[:, None]
    rows = torch.where(collapsed, 1.0 + 0.3 * noise, noise).to(dtype)
    labels = torch.arange(1100) // 4
    inputs = Inputs(rows.to(engine.device).requires_grad_(), labels.to(engine.device), margin_minus=0.5)
    assert_agrees(run(engine, inputs), inputs)


def test_counts_beyond_the_integers_of_float32(engine: Engine) -> None:
    """4099 x 4101 hard pairs, an odd number above 2^24: kept in a float32 it would be off by one."""
    emb, ref = (torch.randn(n, 4, device=engine.device) for n in (4099, 4101))
    labels = [torch.full((len(x),), k, device=engine.device) for k, x in enumerate((emb, ref))]
    _, stats = tcm_kernels.fused_tcm_loss(
        emb, labels[0], ref, labels[1], margin_minus=-1.0, backend=engine.backend, return_stats=True
    )
    # A row and its opposite would be on the margin; random rows are nowhere near that.
    assert int(stats.negative_count) == 4099 * 4101
    assert int(stats.positive_count) == 0
    mean = reference.unit_rows(emb.cpu()).mean(dim=0) @ reference.unit_rows(ref.cpu()).mean(dim=0)
    assert float(stats.negative_term) == pytest.approx(1.0 + float(mean), abs=1e-6)
