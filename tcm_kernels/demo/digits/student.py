"""The network that learns to embed images: what it consists of, and one step of its training.

A step is what a user's own loop does: move the images a little, embed them, add up the losses, go
backward, let the optimiser step. What is added to the base loss comes from outside.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample

from ..repeatable import seeded

BASE_LOSS = "ProxyAnchorLoss"
EMBEDDING_SIZE = 32
LEARNING_RATE = 1e-3
PROXY_LEARNING_RATE = 1e-2  # proxies start anywhere and have to travel

Loss = Callable[[Tensor, Tensor], Tensor]
"""Of embeddings (N, D) and labels (N,)."""


class Student:
    """A network with its base loss and its optimiser.

    Attributes:
        network: (N, 1, 8, 8) -> (N, EMBEDDING_SIZE).
        base_loss: a `Loss` with a proxy for each class.
        optimizer: of the network's parameters and of the proxies.
    """

    def __init__(self, classes: int, seed: int, device: str):
        """Start anew: the same seed gives the same network and the same proxies."""
        self.device = device
        with seeded(seed):
            self.network = _network().to(device)
            self.base_loss = _base_loss(classes).to(device)
        self.optimizer = torch.optim.Adam(
            [
                {"params": self.network.parameters(), "lr": LEARNING_RATE},
                {"params": self.base_loss.parameters(), "lr": PROXY_LEARNING_RATE},
            ]
        )

    def step(
        self, images: Tensor, labels: Tensor, generator: torch.Generator, added: Loss | None = None
    ) -> None:
        """Learn from images (N, 1, 8, 8), which `generator` moves, and labels (N,), all on the CPU."""
        self.learn(moved(images, generator).to(self.device), labels.to(self.device), added)

    def learn(self, images: Tensor, labels: Tensor, added: Loss | None = None) -> None:
        """Learn from images and labels as they are, on the student's device."""
        self.network.train()
        emb = self.network(images)
        loss = self.base_loss(emb, labels)
        if added is not None:
            loss = loss + added(emb, labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    @torch.no_grad()
    def embed(self, images: Tensor) -> Tensor:
        """Embeddings (N, EMBEDDING_SIZE) of images (N, 1, 8, 8), as after training."""
        self.network.eval()
        emb: Tensor = self.network(images.to(self.device))
        return emb

    @torch.no_grad()
    def embed_as_in_training(self, images: Tensor) -> Tensor:
        """The same with the batch's own statistics in the normalising layers: what the losses see."""
        self.network.train()
        emb: Tensor = self.network(images.to(self.device))
        return emb


def moved(images: Tensor, generator: torch.Generator) -> Tensor:
    """The images, each turned by up to 20°, scaled by up to 20 %, slanted and shifted by up to a pixel."""

    def up_to(most: float) -> Tensor:
        return (torch.rand(len(images), generator=generator) * 2 - 1) * most

    angle, scale, slant = up_to(math.radians(20)), 1 + up_to(0.2), up_to(0.3)
    across, down = up_to(0.25), up_to(0.25)  # the 8 pixels span -1 to 1
    cos, sin = angle.cos() * scale, angle.sin() * scale
    rows = torch.stack((cos, slant - sin, across), 1), torch.stack((sin, cos, down), 1)
    grid = affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return grid_sample(images, grid, align_corners=False)


def _network() -> nn.Module:
    """(N, 1, 8, 8) -> (N, EMBEDDING_SIZE)."""
    return nn.Sequential(
        *_block(1, 16),
        *_block(16, 32, stride=2),
        *_block(32, 32),
        nn.Flatten(),
        nn.Linear(32 * 4 * 4, EMBEDDING_SIZE),
    )


def _block(channels_in: int, channels_out: int, stride: int = 1) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1, stride=stride)
    return convolution, nn.BatchNorm2d(channels_out), nn.ReLU()


def _base_loss(classes: int) -> Any:
    from pytorch_metric_learning import losses  # noqa: PLC0415  # an extra

    return getattr(losses, BASE_LOSS)(classes, EMBEDDING_SIZE)
