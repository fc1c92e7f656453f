"""The CUDA backend's screening, on the emulator: the rule to the bit, and no pair lost where its bound bites.

The rule is that of screening_rule.py: codes with one scale a tile, and a comparison of integers that is the
bound of each pair.
"""

from __future__ import annotations

import ctypes

import cuda_emulator
import pytest
import torch
from coded_rows import generator
from cuda_screened import (
    ROWS,
    assert_kept_at_the_margin,
    assert_kept_where_errors_lie_along_each_other,
    overshooting,
    pointer,
    screened,
)
from screening_rule import TILE, coded, left_by_the_rule

from benchmarks.harness import workload

cuda_emulator.skip_module_unless_here(beside_a_gpu=True)

# A kind of rows, D, the density of hard pairs.
BENCHMARKED = [
    ("clusters", 512, 1e-5),
    ("clusters", 128, 1e-4),
    ("clusters", 512, 1e-2),
    ("correlated", 512, 1e-3),
    ("correlated", 128, 1e-5),
    ("spectrum", 512, 1e-4),
    ("spectrum", 128, 1e-2),
    ("spectrum", 512, 1e-3),
]


@pytest.mark.parametrize(("kind", "d", "density"), BENCHMARKED)
def test_the_kernels_leave_the_pairs_that_the_rule_leaves(kind: str, d: int, density: float) -> None:
    """In that tile of a row of tiles, other than its own, in which it leaves most."""
    case = workload.make(workload.Case(8192, d, kind=kind, dtype="bfloat16", density=density))
    emb = case.emb[case.labels.argsort(stable=True)]
    own = slice(11 * TILE, 12 * TILE)
    left = left_by_the_rule(coded(emb[own]), coded(emb), d, case.margin_minus)
    in_tile = left.view(TILE, -1, TILE).sum(dim=(0, 2))
    in_tile[11] = -1
    tile = int(in_tile.argmax())
    columns = emb[tile * TILE : (tile + 1) * TILE]
    found = screened(emb[own].contiguous(), columns.contiguous(), case.margin_minus)
    for side, rows in ((found.rows, emb[own]), (found.columns, columns)):
        expected = coded(rows)
        for name, value in vars(expected).items():
            assert torch.equal(getattr(side, name), value), name
    assert torch.equal(found.candidates, left[:, tile * TILE : (tile + 1) * TILE])
    assert 0 < int(found.candidates.sum()) < TILE * TILE


@pytest.mark.parametrize("margin", [-1.0, 0.0, 0.5, 1.0])
@pytest.mark.parametrize("d", [1, 37, 131])
@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_the_rule_holds_for_rows_of_every_size_and_number(rows, d: int, margin: float) -> None:
    """Tiles that are not whole, of scales that have nothing to do with each other."""
    emb = rows(150, d)
    x, y = emb[:140], emb[70:].flip(0).contiguous()
    found = screened(x, y, margin)
    expected = left_by_the_rule(coded(x), coded(y), d, margin)[: len(x), : len(y)]
    assert torch.equal(found.candidates, expected)


@pytest.mark.parametrize("d", [96, 532])
def test_no_pair_is_lost_whose_errors_lie_along_each_other(d: int) -> None:
    assert_kept_where_errors_lie_along_each_other(d)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("d", [1, 96, 301])
@pytest.mark.parametrize("rows", [*ROWS.values(), overshooting], ids=[*ROWS, "overshooting"])
def test_no_pair_at_the_margin_is_lost(rows, d: int, dtype: torch.dtype) -> None:
    assert_kept_at_the_margin(rows, d, dtype)


def test_a_row_that_is_not_finite_costs_its_neighbours_nothing() -> None:
    emb = torch.randn(128, 40, generator=generator(1))
    clean = emb.clone()
    clean[5] = 0.0
    emb[5, 3] = torch.nan
    found, expected = screened(emb, emb, 0.5), screened(clean, clean, 0.5)
    assert torch.equal(found.rows.scale, expected.rows.scale)
    assert torch.equal(found.candidates, expected.candidates)


RULE_DIMS = (1, 64, 512, 32768)


@pytest.mark.parametrize("margin", [-1.0, 0.0, 0.5, 1.0])
@pytest.mark.parametrize("d", RULE_DIMS)
def test_integers_are_rounded_to_the_safe_side_and_keep_within_30_bits(d: int, margin: float) -> None:
    """Scales from the smallest to the largest, errors up to what their scale allows; in float64 beside."""
    scales = [0.0, 1e-6, 1.0000001e-6, 3e-5, 1e-3, 1 / 127]
    n = 200
    for scale_a in scales:
        for scale_b in scales:
            limits = [d**0.5 * (0.505 * scale or 127.01e-6) for scale in (scale_a, scale_b)]
            e_a, e_b = (
                (torch.rand(n, generator=generator(k)) ** 3 * limit).float() for k, limit in enumerate(limits)
            )
            e_a[-1], e_b[-1] = limits
            least, offset = torch.empty(n, dtype=torch.int32), torch.empty(n, dtype=torch.int32)
            at_most = ctypes.c_float()
            cuda_emulator.probes().probe_rule(
                ctypes.c_float(scale_a), ctypes.c_float(scale_b), d, ctypes.c_float(margin),
                pointer(e_a), pointer(e_b), n, pointer(least), pointer(offset), ctypes.byref(at_most),
            )  # fmt: skip
            assert at_most.value >= float(e_b.max())
            product = float(torch.tensor(scale_a)) * float(torch.tensor(scale_b))
            inverse = 1.0 / product if product > 0 else 2.0**20
            assert (offset.double() >= e_b.double() * inverse).all()
            bound = margin - 2e-6 - e_a.double() * (1 + at_most.value)
            exact = bound * inverse
            within = exact.abs() < 2.0**30
            assert (least.double() <= exact + 1e-7 * exact.abs() * 0)[within].all()
            assert (exact - least.double() <= 4e-6 * exact.abs() + 3)[within].all(), "needlessly cautious"
            largest_product = 127**2 * d
            assert int(offset.max()) + largest_product < 2**30
            assert int(least.abs().max()) <= 2**30
