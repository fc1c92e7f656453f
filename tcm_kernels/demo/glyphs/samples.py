"""Samples of the characters: which classes are learnt and which are judged, and how a drawing is distorted.

A sample is a character in one face, turned, scaled, slanted, shifted, blurred, faded and covered with noise.
Everything follows from seeds.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, conv2d, grid_sample

from .alphabet import SIDE, Alphabet

_CHUNK = 8192  # samples distorted at a time

Classes = npt.NDArray[np.int64]
"""Numbers of classes, ascending."""


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Classes, none in two of the three: to learn from, to choose settings by, and to judge on.

    Attributes:
        train: (C1,) int64, ascending.
        validation: (C2,).
        test: (C3,).
    """

    train: Classes
    validation: Classes
    test: Classes


@dataclasses.dataclass(frozen=True)
class Samples:
    """Images of some classes.

    Attributes:
        images: (N, 1, SIDE, SIDE) uint8, on the CPU.
        labels: (N,) int64, counting from 0 through the classes asked for.
        faces: (N,) int64, the number of the face in FACES.
    """

    images: Tensor
    labels: Tensor
    faces: Tensor

    def __getitem__(self, rows: Tensor) -> Samples:
        """Those rows, a mask or indices."""
        return Samples(self.images[rows], self.labels[rows], self.faces[rows])


def split_at_random(alphabet: Alphabet, seed: int) -> Split:
    """Half the classes to learn from, a fifth to choose by, the rest to judge on."""
    count = len(alphabet.characters)
    order = np.random.default_rng(seed).permutation(count)
    train, validation, test = np.split(order, [count // 2, count // 2 + count // 5])
    return Split(np.sort(train), np.sort(validation), np.sort(test))


def split_by_script(alphabet: Alphabet) -> Split:
    """Learn from Latin, choose by Cyrillic and Georgian, judge on all others: a real shift."""
    scripts = np.array([alphabet.script(c) for c in range(len(alphabet.characters))])
    latin, chosen = scripts == "LATIN", np.isin(scripts, ["CYRILLIC", "GEORGIAN"])
    return Split(*(np.flatnonzero(rows).astype(np.int64) for rows in (latin, chosen, ~latin & ~chosen)))


def draw_samples(alphabet: Alphabet, classes: Classes, *, views: int, seed: int) -> Samples:
    """Distorted images: of every face of every class so many `views`, different ones for each seed.

    Args:
        alphabet: of `load_alphabet`.
        classes: (K,) numbers of classes; the k-th gets the label k.
        views: of each drawing, at least 1.
        seed: of the distortions.
    """
    if views < 1:
        raise ValueError(f"views: got {views}, expected at least 1")
    label, face = np.nonzero(alphabet.drawn[classes])
    label, face = (np.repeat(each, views) for each in (label, face))
    drawings = torch.from_numpy(alphabet.drawings[np.asarray(classes)[label], face])[:, None]
    generator = torch.Generator().manual_seed(seed)
    images = [distorted(part, generator) for part in torch.split(drawings, _CHUNK)]
    return Samples(torch.cat(images) if images else drawings, torch.from_numpy(label), torch.from_numpy(face))


def long_tailed(samples: Samples, *, seed: int, ratio: float = 8.0) -> Samples:
    """Fewer samples of most classes: the first keeps all it has, the last one `ratio`-th, in between a power.

    Which classes are large is drawn by the seed; at least two samples of a class remain.
    """
    if not ratio >= 1:
        raise ValueError(f"ratio: got {ratio}, expected at least 1")
    generator = np.random.default_rng(seed)
    labels = samples.labels.numpy()
    rank = generator.permutation(labels.max(initial=-1) + 1)
    kept = []
    for label, place in enumerate(rank):
        rows = np.flatnonzero(labels == label)
        share = ratio ** (-place / max(len(rank) - 1, 1))
        kept.append(generator.permutation(rows)[: max(2, round(share * len(rows)))])
    return samples[torch.from_numpy(np.sort(np.concatenate(kept)) if kept else np.empty(0, np.int64))]


def distorted(drawings: Tensor, generator: torch.Generator) -> Tensor:
    """Each drawing as a camera might see it.

    Turned by up to 15°, scaled by 0.75 to 1.15, slanted by up to 0.3, shifted by up to 3 pixels; blurred,
    faded to as little as 0.4 of its contrast on a background of any brightness, with noise.

    Args:
        drawings: (N, 1, SIDE, SIDE) uint8.
        generator: of torch, on the CPU.

    Returns:
        (N, 1, SIDE, SIDE) uint8.
    """
    count = len(drawings)
    if not count:
        return drawings

    def between(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    angle, slant = between(-1, 1) * math.radians(15), between(-0.3, 0.3)
    grow = 1 / between(0.75, 1.15)  # a grid says where each pixel comes from
    across, down = (between(-3, 3) * 2 / SIDE for _ in range(2))  # the pixels span -1 to 1
    cos, sin = angle.cos() * grow, angle.sin() * grow
    rows = torch.stack((cos, slant * grow - sin, across), 1), torch.stack((sin, cos, down), 1)
    grid = affine_grid(torch.stack(rows, 1), [count, 1, SIDE, SIDE], align_corners=False)
    ink = grid_sample(drawings.float() / 255, grid, align_corners=False)
    # Between the image and one whose pixels are mixed with their neighbours', by Pascal's fourth row.
    line = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    soft = conv2d(ink, (line[:, None] * line)[None, None], padding=2)
    blur = between(0, 1)[:, None, None, None]
    contrast = between(0.4, 1)[:, None, None, None]
    ground = between(0, 1)[:, None, None, None] * (1 - contrast)
    noise = between(0, 0.15)[:, None, None, None] * torch.randn(ink.shape, generator=generator)
    seen = ground + contrast * torch.lerp(ink, soft, blur) + noise
    return (255 * seen.clamp(0, 1)).round().to(torch.uint8)
