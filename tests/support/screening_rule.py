"""The GPU's screening rule in PyTorch, and the best that codes of 8 bits could leave.

Written from the formulas in csrc/common/certificate.h and by nothing of the kernels; float32 where they
compute in float32, so that both give the same bits. Rows are in label order.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor
from torch.nn.functional import normalize

TILE = 128
SLACK = 2e-6  # kSlack
LARGEST_EXACT_DIM = (
    1000  # 127² · D < 2^24: products of codes, and their sums with offsets, are float32 numbers
)


@dataclasses.dataclass
class Coded:
    """A side in whole tiles: codes (tiles · 128, code_dim), errors of rows, scales of tiles."""

    code: Tensor
    error: Tensor
    scale: Tensor

    @classmethod
    def empty(cls, n: int, d: int) -> Coded:
        tiles = -(-n // TILE)
        code = torch.full((tiles * TILE, -(-d // 64) * 64), 99, dtype=torch.int8)
        return cls(code, torch.full((tiles * TILE,), torch.nan), torch.full((tiles,), torch.nan))

    def tiles(self, first: int, last: int) -> Coded:
        """Tiles [first, last) of the side."""
        rows = slice(first * TILE, last * TILE)
        return Coded(self.code[rows], self.error[rows], self.scale[first:last])


def coded(x: Tensor) -> Coded:
    """The codes by their definition: one scale a tile, errors of the codes that were given, rounded up."""
    n, d = x.shape
    tiles = -(-n // TILE)
    out = Coded.empty(n, d)
    inverse = (1.0 / x.double().norm(dim=1).clamp_min(1e-12)).float()
    unit = torch.zeros(tiles * TILE, out.code.shape[1], dtype=torch.float64)
    unit[:n, :d] = x.double() * inverse.double()[:, None]
    own = (unit.abs().amax(dim=1) / 127).float()
    scale = own.view(tiles, TILE).amax(dim=1)
    out.scale = torch.where(scale >= 1e-6, scale, 0.0)
    of_row = out.scale.repeat_interleave(TILE)
    step = torch.where(of_row > 0, 1.0 / of_row, 0.0)
    out.code = (unit.float() * step[:, None] + 0.5).floor().clamp(-127, 127).to(torch.int8)
    off = (unit - of_row.double()[:, None] * out.code.double()).norm(dim=1)
    out.error = ((off * (1.0 + 4e-6)).float() + 1e-37).masked_fill(torch.arange(tiles * TILE) >= n, 0.0)
    return out


def products_of(code: Tensor, other: Tensor) -> Tensor:
    """All products of two sides' codes, exact: float32 where their size allows, else float64."""
    dtype = torch.float32 if code.shape[1] <= LARGEST_EXACT_DIM else torch.float64
    return code.to(dtype) @ other.to(dtype).T


def left_by_the_rule(
    rows: Coded, columns: Coded, d: int, margin_minus: float, products: Tensor | None = None
) -> Tensor:
    """Pairs that are not harmless, were they of two classes, of all positions of both sides."""
    threshold = torch.tensor(margin_minus, dtype=torch.float64).float()
    if threshold.double() < margin_minus:
        threshold = torch.nextafter(threshold, torch.tensor(2.0))
    products = products_of(rows.code, columns.code) if products is None else products
    left = torch.empty(products.shape, dtype=torch.bool)
    root = torch.tensor(float(d)).sqrt()
    for b, scale in enumerate(columns.scale):  # a tile of columns at a time
        at = slice(b * TILE, (b + 1) * TILE)
        product = rows.scale * scale
        inverse = torch.where(product > 0, 1.0 / product, 2.0**20)  # of each tile of rows
        at_most = root * (torch.tensor(0.51) * scale).clamp_min(128e-6)
        offset = (columns.error[at] * inverse[:, None] * torch.tensor(1.0 + 1e-6)).ceil() + 1
        of_row = inverse.repeat_interleave(TILE)
        x = (threshold - torch.tensor(SLACK) - rows.error * (1.0 + at_most)) * of_row
        least = (x - x.abs() * torch.tensor(2e-6) - 1.0).floor().clamp(-(2.0**30), 2.0**30)
        with_offset = products[:, at].reshape(-1, TILE, TILE) + offset[:, None, :].double()
        left[:, at] = (with_offset >= least.view(-1, TILE, 1)).flatten(0, 1)
    return left


def left_by_the_pairs_own_bound(emb: Tensor, margins: list[float]) -> list[Tensor]:
    """The same where every row has the scale that is best for it, for several m-; D <= LARGEST_EXACT_DIM."""
    unit = normalize(emb.double())
    scale = unit.abs().amax(dim=1) / 127
    code = (unit / scale[:, None] + 0.5).floor().clamp(-127, 127)
    reach = 1 + (unit - scale[:, None] * code).norm(dim=1).float()
    similarity = products_of(code, code).mul_(scale.float()).mul_(scale.float()[:, None])
    at_most = similarity.add_(reach * reach[:, None]).sub_(1 - SLACK)  # (1 + e)(1 + e') = 1 + e + e' + e e'
    return [at_most >= margin for margin in margins]
