"""From image files to batches: decoding, augmentation, and which images meet in a batch.

What is random about an image (its crop, its flip) is drawn from a number that comes with its index, from the
sampler. So the batches of a seed are the same to the last pixel in both arms of a pair, with any number of
workers. Plain PIL and torch: torchvision is not needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from .data_sets import Images
from .errors import UsageError


class ImageFileError(RuntimeError):
    """An image file cannot be decoded; the message has its path."""


class Draw(NamedTuple):
    """An image to be seen once: its index, and the number that its augmentation is drawn from."""

    index: int
    number: int


class Shape(NamedTuple):
    """How an image becomes a tensor.

    Attributes:
        size: height and width of the result, in pixels.
        resize: the shorter side before the centre crop, at least `size`; for evaluation.
        crop_scale: (least, most) share of an image's area that a training crop covers, in (0, 1].
        mean: of each of red, green and blue, in [0, 1], that is subtracted.
        std: of each, positive, that is divided by.
    """

    size: int
    resize: int
    crop_scale: tuple[float, float]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


Batch: TypeAlias = tuple[Tensor, Tensor]
"""Images (N, 3, size, size) float32 and labels (N,) int64."""


def decode(path: str) -> Image.Image:
    """The image in RGB. Raises ImageFileError."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")  # reads the pixels
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageFileError(
            f"{path}: cannot be read as an image ({type(error).__name__}: {error})"
        ) from None


class ImageFiles(Dataset[tuple[Tensor, int]]):
    """Images as tensors, (3, size, size) float32, with their labels.

    An index gives the image as it is evaluated: shorter side to `resize`, then the centre. A `Draw` gives it
    as it is trained on: a random crop, resized, flipped half of the time.
    """

    def __init__(self, images: Images, shape: Shape) -> None:
        self.images = images
        self.shape = shape

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int | Draw) -> tuple[Tensor, int]:
        chosen = index.index if isinstance(index, Draw) else index
        image = decode(self.images.paths[chosen])
        if isinstance(index, Draw):
            image = augmented(image, self.shape, np.random.default_rng(index.number))
        else:
            image = centred(image, self.shape)
        return as_tensor(image, self.shape), int(self.images.labels[chosen])


def augmented(image: Image.Image, shape: Shape, random: np.random.Generator) -> Image.Image:
    """A crop of random area and aspect ratio (3:4 to 4:3), resized to `size`, flipped half of the time.

    The rule of Szegedy et al., "Going Deeper with Convolutions", CVPR 2015; where ten draws do not fit into
    the image, the largest centred crop with the nearest allowed ratio.
    """
    width, height = image.size
    lowest, highest = 3 / 4, 4 / 3
    for _ in range(10):
        area = width * height * random.uniform(*shape.crop_scale)
        ratio = math.exp(random.uniform(math.log(lowest), math.log(highest)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(random.integers(width - w + 1)), int(random.integers(height - h + 1))
            break
    else:
        w = max(1, min(width, round(height * highest)))
        h = max(1, min(height, round(width / lowest)))
        left, top = (width - w) // 2, (height - h) // 2
    box = (left, top, left + w, top + h)
    crop = image.resize((shape.size, shape.size), Image.Resampling.BILINEAR, box=box)
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < 0.5 else crop


def centred(image: Image.Image, shape: Shape) -> Image.Image:
    """The centre, `size` × `size`, of the image with its shorter side made `resize`."""
    width, height = image.size
    factor = shape.resize / min(width, height)
    width, height = max(shape.resize, round(width * factor)), max(shape.resize, round(height * factor))
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - shape.size) // 2, (height - shape.size) // 2
    return resized.crop((left, top, left + shape.size, top + shape.size))


def as_tensor(image: Image.Image, shape: Shape) -> Tensor:
    """(3, height, width) float32, normalised."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    mean, std = (torch.tensor(x)[:, None, None] for x in (shape.mean, shape.std))
    return (pixels - mean) / std


class ClassBalancedBatches(Sampler[list[Draw]]):
    """Batches of `classes` different classes, drawn with equal chance, and `per_class` images of each.

    A class with fewer images gives some of them again, cropped differently. Everything follows from (seed,
    rank, epoch): the same in both arms of a pair, and another share on every rank. An epoch is as many
    batches as would show every image once, over all ranks.

    Args:
        labels: (N,) int64, from 0 without gaps.
        classes: per batch, at most as many as there are.
        per_class: images of each, at least 1.
        seed: of the run.
        steps: how many batches to give.
        rank: of this process, from 0.
        world_size: how many processes there are.

    Raises:
        UsageError: an argument that cannot be used.
    """

    def __init__(
        self,
        labels: npt.NDArray[np.int64],
        classes: int,
        per_class: int,
        *,
        seed: int,
        steps: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        there = int(labels.max()) + 1 if len(labels) else 0
        if not 1 <= classes <= there:
            raise UsageError(f"classes_per_batch: got {classes}, expected 1 to {there}: there are no more")
        if per_class < 1:
            raise UsageError(f"images_per_class: got {per_class}, expected at least 1")
        if not 0 <= rank < world_size:
            raise UsageError(f"rank: got {rank}, expected 0 to {world_size - 1}")
        order = np.argsort(labels, kind="stable")
        self._members = np.split(order, np.cumsum(np.bincount(labels, minlength=there))[:-1])
        self.classes, self.per_class = classes, per_class
        self.seed, self.steps, self.rank = seed, steps, rank
        self.epoch_length = max(1, len(labels) // (classes * per_class * world_size))

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[Draw]]:
        for step in range(self.steps):
            epoch, place = divmod(step, self.epoch_length)
            if place == 0:
                random = np.random.default_rng([self.seed, self.rank, epoch])
            yield self._batch(random)

    def _batch(self, random: np.random.Generator) -> list[Draw]:
        batch = []
        for label in random.choice(len(self._members), self.classes, replace=False):
            members = self._members[label]
            whole, rest = divmod(self.per_class, len(members))
            chosen = [members] * whole + [random.choice(members, rest, replace=False)]
            numbers = random.integers(2**63, size=self.per_class).tolist()
            batch += [Draw(*both) for both in zip(np.concatenate(chosen).tolist(), numbers, strict=True)]
        return batch


def training_batches(
    images: Images, shape: Shape, sampler: ClassBalancedBatches, *, workers: int, pin: bool
) -> DataLoader[tuple[Tensor, int]]:
    """The sampler's batches, decoded in `workers` processes; 0 decodes here."""
    return DataLoader(ImageFiles(images, shape), batch_sampler=sampler, num_workers=workers, pin_memory=pin)


def batches_in_order(
    images: Images, shape: Shape, batch_size: int, *, workers: int, pin: bool
) -> DataLoader[tuple[Tensor, int]]:
    """All images once, in order."""
    return DataLoader(
        ImageFiles(images, shape), batch_size=batch_size, shuffle=False, num_workers=workers, pin_memory=pin
    )


def last_line(error: ImageFileError) -> str:
    """What the error says, without the traceback that a worker process adds."""
    said: Sequence[str] = str(error).strip().splitlines()
    return said[-1].rpartition(f"{ImageFileError.__name__}: ")[2]
