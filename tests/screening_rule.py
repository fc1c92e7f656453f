"""The GPU's screening rule in a few lines of PyTorch, and the best that codes of 8 bits could leave.

Written from csrc/certificate.h and by nothing of the kernels. Rows are in label order. Products of codes, and
their sums with offsets, are whole numbers under 2^24, and so exact in float32, where rows have at most 1,000
elements.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

SLACK = 2e-6  # kSlack
SMALLEST_SCALE = 1e-6  # kSmallestTileScale


class Coded:
    """Rows as they are coded, and the products of all pairs of their codes."""

    def __init__(self, emb: Tensor, labels: Tensor, tile: int) -> None:
        assert emb.shape[1] <= 1000
        self.tile = tile
        unit = normalize(emb.double())
        self.largest = unit.abs().amax(dim=1)
        self.scale = self.scales()
        codes = (unit / self.scale.clamp_min(1e-300)[:, None] + 0.5).floor().clamp(-127, 127)
        codes[self.scale == 0] = 0
        self.error = (unit - self.scale[:, None] * codes).norm(dim=1)
        self.products = codes.float() @ codes.float().T
        self.of_two_classes = labels[:, None] != labels[None, :]
        self.dim = emb.shape[1]

    def scales(self) -> Tensor:
        """(N,) float64, what a step of each row's code stands for."""
        raise NotImplementedError

    def candidates(self, margin_minus: float) -> Tensor:
        """(N, N) the pairs of two classes that are not proven harmless."""
        raise NotImplementedError


class BestCodes(Coded):
    """Every row has the scale that is best for it, and every pair is held against its own bound."""

    def scales(self) -> Tensor:
        return self.largest / 127

    def candidates(self, margin_minus: float) -> Tensor:
        scale, reach = self.scale.float(), (1 + self.error).float()
        similarity = (self.products * scale).mul_(scale[:, None])
        bound = reach * reach[:, None]  # (1 + e) (1 + e') = 1 + e + e' + e e'
        return (similarity.add_(bound) >= margin_minus + 1 - SLACK).logical_and_(self.of_two_classes)


class TileCodes(Coded):
    """The kernels' rule: a scale a tile, and of each tile an offset a column and a threshold a row."""

    def scales(self) -> Tensor:
        of_tile = [part.max().expand(len(part)) for part in self.largest.split(self.tile)]
        scale = (torch.cat(of_tile) / 127).float().double()
        return torch.where(scale < SMALLEST_SCALE, 0.0, scale)

    def candidates(self, margin_minus: float) -> Tensor:
        first = torch.arange(0, len(self.scale), self.tile)
        of_tile = self.scale[first]
        scales = self.scale[:, None] * of_tile  # of a row and a tile of columns
        inverse = torch.where(scales > 0, 1 / scales.clamp_min(1e-300), 2.0**20)
        most = self.dim**0.5 * torch.clamp(0.51 * of_tile, min=128 * SMALLEST_SCALE)
        x = (margin_minus - SLACK - self.error[:, None] * (1 + most)) * inverse
        threshold = (x - x.abs() * 2e-6 - 1).floor().clamp(-(2.0**30), 2.0**30)
        offset = (self.error[:, None] * inverse * (1 + 1e-6)).ceil() + 1  # of a column and a tile of rows
        left = torch.zeros_like(self.of_two_classes)
        for t, begin in enumerate(first.tolist()):
            columns = slice(begin, begin + self.tile)
            number = torch.arange(len(self.scale)) // self.tile  # of each row's tile
            with_offset = self.products[:, columns] + offset[columns].T[number].float()
            left[:, columns] = with_offset >= threshold[:, t, None].float()
        return left.logical_and_(self.of_two_classes)
