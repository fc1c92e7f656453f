"""Rows that are hard to screen in tiles of one scale, and what the CUDA kernels leave of their pairs.

The kernels run on the emulator. That no pair is lost is checked here, because faults that are planted in the
kernels must be found by the same checks.
"""

from __future__ import annotations

import ctypes
import dataclasses

import cuda_emulator
import torch
from coded_rows import ADVERSARIES, generator, random
from screening_rule import TILE, Coded, coded
from torch import Tensor
from torch.nn.functional import normalize

WORD = 32


def pointer(x: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(x.data_ptr())


@dataclasses.dataclass
class Screened:
    """What the kernels leave of rows (n, D) against columns (m, D)."""

    rows: Coded
    columns: Coded
    candidates: Tensor  # (n, m) bool


def screened(x: Tensor, y: Tensor, margin_minus: float) -> Screened:
    (n, d), m = x.shape, len(y)
    row_tiles, column_tiles = -(-n // TILE), -(-m // TILE)
    out = Screened(Coded.empty(n, d), Coded.empty(m, d), torch.empty(0))
    row_bits = torch.zeros(row_tiles * TILE, column_tiles * 4, dtype=torch.int32)
    column_bits = torch.zeros(column_tiles * TILE, row_tiles * 4, dtype=torch.int32)
    directory = torch.full((row_tiles, column_tiles), -1, dtype=torch.int32)
    margins = torch.tensor([1.0, margin_minus], dtype=torch.float64)
    kind = [torch.float32, torch.float16, torch.bfloat16].index(x.dtype)
    arrays = [pointer(part) for side in (out.rows, out.columns) for part in vars(side).values()]
    found = cuda_emulator.probes().probe_screen(
        kind, pointer(x), n, pointer(y), m, d, out.rows.code.shape[1], pointer(margins), *arrays,
        pointer(row_bits), pointer(column_bits), pointer(directory),
    )  # fmt: skip
    assert found.decode() == ""
    by_row = bits(row_bits)
    assert torch.equal(by_row, bits(column_bits).T), "by column stands something else"
    in_tile = by_row.view(row_tiles, TILE, column_tiles, TILE).sum(dim=(1, 3))
    assert torch.equal(directory.long(), in_tile), "the directory has not what was counted"
    assert not by_row[n:].any()
    assert not by_row[:, m:].any()
    return dataclasses.replace(out, candidates=by_row[:n, :m])


def bits(words: Tensor) -> Tensor:
    """(rows, words) int32 as (rows, 32 · words) bool."""
    return (words[:, :, None] >> torch.arange(WORD) & 1).bool().flatten(1)


def overshooting(n: int, d: int) -> Tensor:
    """Flat rows of either sign whose codes are all half a step too large, beside the row that sets the step.

    Two of opposite sign have errors along each other: their products are off by e_i + e_j + e_i e_j.
    """
    steps = 127 / d**0.5
    largest = steps / (int(steps) + 0.6 if steps % 1 < 0.6 else int(steps) + 1.6)
    sign = torch.where(torch.arange(n) % 2 == 0, 1.0, -1.0)[:, None]
    rows = sign * (1.0 + 0.003 * torch.randn(n, d, generator=generator(3)))
    rows[::TILE] = ((1 - largest**2) / max(d - 1, 1)) ** 0.5
    rows[::TILE, 0] = largest
    return rows


def of_many_scales(n: int, d: int) -> torch.Tensor:
    """One-hot rows, flat ones, rows of zeros, and some that normalisation leaves short, in one tile."""
    rows = torch.ones(n, d)
    one_hot = torch.arange(0, n, 5)
    rows[one_hot] = 0.0
    rows[one_hot, one_hot % d] = 1.0
    rows[1::5] = 0.0
    rows[2::5] = random(len(rows[2::5]), d) * 1e-14
    rows[3::5] = random(len(rows[3::5]), d) * torch.rand(len(rows[3::5]), 1, generator=generator(8)) ** 9
    return rows


def short(n: int, d: int) -> torch.Tensor:
    """Norms of 1e-22 to 1e-12: nothing that a code could tell, then a little."""
    return random(n, d) * 10.0 ** -torch.linspace(22, 12, n)[:, None]


ROWS = {**ADVERSARIES, "of_many_scales": of_many_scales, "short": short}


def assert_kept_where_errors_lie_along_each_other(d: int) -> None:
    """Margins just under the similarity of opposite rows; e_i e_j is part of their bound."""
    emb = overshooting(140, d)
    unit = normalize(emb.double())
    s = unit @ unit.T
    errors = coded(emb).error[1:128]
    assert errors.min() ** 2 > 5e-4, "these rows should be coded badly"
    assert s.min() > -1.0 + 3e-6
    for margin in (-1.0, -1.0 + 2e-6):
        assert screened(emb, emb, margin).candidates.all()


def assert_kept_at_the_margin(rows, d: int, dtype: torch.dtype) -> None:
    """Margins at the similarity of some pair, where only its bound can keep it."""
    emb = rows(140, d).to(dtype)
    inverse = (1.0 / emb.double().norm(dim=1).clamp_min(1e-12)).float().double()
    unit = emb.double() * inverse[:, None]
    s = unit @ unit.T
    ordered = s.flatten().sort().values
    for share in (0.02, 0.6, 0.999):
        margin = float(ordered[int(share * len(ordered))].clamp(-1, 1))
        assert screened(emb, emb, margin).candidates[s >= margin].all()
