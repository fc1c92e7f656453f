"""Learning to embed glyphs: the network, the batches, and a training that can be looked at on the way.

Every base loss and every arm of a comparison goes through `learn`; what differs is the recipe and what is
added to the base loss. The same seed gives the same network, the same proxies and the same batches, whatever
is added. The learning rate rises for the first steps and then stays, and what is measured is a moving average
of the weights, so that every step is as good a place to stop as the last one and two trainings can be
compared anywhere on their way.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ...functional import fused_tcm_loss
from ..repeatable import seeded
from .alphabet import SIDE
from .samples import Samples

EMBEDDING_SIZE = 128
CLASSES_PER_BATCH, PER_CLASS = 64, 4
BATCH_SIZE = CLASSES_PER_BATCH * PER_CLASS
PROXY_FACTOR = 10.0  # proxies start anywhere and have to travel: their learning rate over the network's
AVERAGE = 0.99  # decay of the moving average: it remembers about a hundred steps

_WARM_UP = 50  # steps
_EMBED = 1024  # images at a time
_LOOK_SEED = 10**6  # of the batch that `look` takes

Loss = Callable[[Tensor, Tensor], Tensor]
"""Of embeddings (N, D) and labels (N,)."""


@dataclasses.dataclass(frozen=True)
class Optimisation:
    """How the base loss is minimised, by AdamW.

    Attributes:
        learning_rate: of the network; that of proxies is PROXY_FACTOR times as high.
        weight_decay: decoupled, of the network's weights; proxies have none.
    """

    learning_rate: float
    weight_decay: float


class GlyphStudent:
    """A network that embeds glyphs, the base loss that it learns from, and its optimiser.

    Attributes:
        network: (N, 1, SIDE, SIDE) float32 -> (N, EMBEDDING_SIZE).
        average: the moving average of its weights and of its normalising layers' statistics.
        base_loss: a module of embeddings and labels, perhaps with proxies of its own; or None.
    """

    def __init__(
        self, base_loss: Callable[[], nn.Module] | None, how: Optimisation, seed: int, device: str = "cpu"
    ):
        """Start anew; `base_loss` makes the loss, whose proxies follow from the seed as the network does."""
        with seeded(seed):
            network = _network()
            made = None if base_loss is None else base_loss()
        self.device = device
        self.base_loss = made if made is None else made.to(device)
        # Channels last: nearly twice as fast on CPUs.
        self.network = network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = AveragedModel(self.network, multi_avg_fn=_follow, use_buffers=True)
        proxies = [] if self.base_loss is None else list(self.base_loss.parameters())
        groups = [{"params": list(self.network.parameters()), "weight_decay": how.weight_decay}]
        if proxies:
            rate = PROXY_FACTOR * how.learning_rate
            groups.append({"params": proxies, "lr": rate, "weight_decay": 0.0})
        self.optimizer = torch.optim.AdamW(groups, lr=how.learning_rate)
        self._warm_up = torch.optim.lr_scheduler.LinearLR(
            self.optimizer, start_factor=1 / _WARM_UP, total_iters=_WARM_UP - 1
        )

    def learn(self, images: Tensor, labels: Tensor, added: Loss | None = None) -> None:
        """One step on images (N, 1, SIDE, SIDE) uint8 and labels (N,)."""
        emb = self.embed_in_training(images)
        labels = labels.to(self.device)
        losses = [loss(emb, labels) for loss in (self.base_loss, added) if loss is not None]
        self.optimizer.zero_grad()
        torch.autograd.backward(torch.stack(losses).sum())
        self.optimizer.step()
        self._warm_up.step()
        self.average.update_parameters(self.network)

    def embed_in_training(self, images: Tensor) -> Tensor:
        """Embeddings (N, EMBEDDING_SIZE) as the losses see them, with a graph to go backward through."""
        self.network.train()
        emb: Tensor = self.network(_ready(images, self.device))
        return emb

    @torch.no_grad()
    def embed(self, images: Tensor) -> Tensor:
        """Embeddings (N, EMBEDDING_SIZE), on the CPU, by the averaged network."""
        self.average.eval()
        parts = [self.average(_ready(part, self.device)).cpu() for part in torch.split(images, _EMBED)]
        return torch.cat(parts) if parts else torch.empty(0, EMBEDDING_SIZE)


def _network() -> nn.Module:
    """(N, 1, SIDE, SIDE) -> (N, EMBEDDING_SIZE); small, for two cores."""
    layers: list[nn.Module] = []
    for width_in, width_out in ((1, 16), (16, 32), (32, 64)):
        convolution = nn.Conv2d(width_in, width_out, kernel_size=3, stride=2, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(width_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * (SIDE // 8) ** 2, EMBEDDING_SIZE))


def _ready(images: Tensor, device: str) -> Tensor:
    return (images.to(device).float() / 127.5 - 1).to(memory_format=torch.channels_last)


def _follow(
    average: tuple[Tensor, ...] | list[Tensor],
    current: tuple[Tensor, ...] | list[Tensor],
    steps: Tensor | int,
) -> None:
    """Move the average towards the weights: by a tenth at first, by 1 - AVERAGE later."""
    past = int(steps)
    decay = min(AVERAGE, (1 + past) / (10 + past))
    if average[0].is_floating_point():
        torch._foreach_lerp_(average, current, 1 - decay)
    else:  # the number of batches that a normalising layer has seen
        for mean, now in zip(average, current, strict=True):
            mean.copy_(now)


def batches(labels: Tensor, seed: int, classes_per_batch: int = CLASSES_PER_BATCH) -> Iterator[Tensor]:
    """Indices of batches without end: some classes, of each PER_CLASS samples.

    Where there are fewer classes, or samples of one, than a batch wants, some of them come twice.
    """
    generator = torch.Generator().manual_seed(seed)
    order = labels.argsort(stable=True)
    sizes = torch.bincount(labels)
    starts = sizes.cumsum(0) - sizes
    while True:
        picked = torch.rand(len(sizes), generator=generator).argsort()
        classes = picked[torch.arange(classes_per_batch) % len(sizes)]
        chance = torch.rand(classes_per_batch, int(sizes.max()), generator=generator)
        chance[torch.arange(chance.shape[1]) >= sizes[classes, None]] = 2.0
        places = chance.argsort(dim=1)
        within = places.gather(1, torch.arange(PER_CLASS) % sizes[classes, None])
        yield order[(starts[classes, None] + within).flatten()]


def learn(
    student: GlyphStudent, samples: Samples, seed: int, stops: Iterable[int], added: Loss | None = None
) -> Iterator[int]:
    """Train, and yield at every stop: after so many steps, ascending, 0 for the untrained network."""
    source = batches(samples.labels, seed)
    step = 0
    for stop in stops:
        while step < stop:
            rows = next(source)
            student.learn(samples.images[rows], samples.labels[rows], added)
            step += 1
        yield step


@dataclasses.dataclass(frozen=True)
class Look:
    """Both losses on one batch of the classes that are learnt, the same batch for every student.

    Attributes:
        base_loss: None where there is none.
        tcm_loss: before its weight; the sum of the two terms.
        positive_term, negative_term, hard_positive_share, hard_negative_share: as in `TCMStats`.
        gradient_ratio: how hard the weighted TCM loss pulls: the length of its gradient over that of the base
            loss's, both with respect to the embeddings. None where the base loss does not pull at all.
    """

    base_loss: float | None
    tcm_loss: float
    positive_term: float
    negative_term: float
    hard_positive_share: float
    hard_negative_share: float
    gradient_ratio: float | None


def look(
    student: GlyphStudent,
    samples: Samples,
    *,
    weight: float,
    margin_plus: float,
    margin_minus: float,
    backend: str = "auto",
) -> Look:
    """Look at a student of which nothing changes; whether it learns from TCM or not."""
    looked_at = copy.deepcopy(student)  # a forward in training mode moves the normalising layers' statistics
    rows = next(batches(samples.labels, _LOOK_SEED))
    emb = looked_at.embed_in_training(samples.images[rows]).detach().requires_grad_()
    labels = samples.labels[rows].to(student.device)
    loss, stats = fused_tcm_loss(
        emb, labels, margin_plus=margin_plus, margin_minus=margin_minus, backend=backend, return_stats=True
    )
    (pull,) = torch.autograd.grad(weight * loss, emb)
    base_loss, ratio = None, None
    if looked_at.base_loss is not None:
        base = looked_at.base_loss(emb, labels)
        (own,) = torch.autograd.grad(base, emb)
        base_loss = float(base.detach())
        ratio = float(pull.norm() / own.norm()) if own.any() else None
    return Look(
        base_loss=base_loss,
        tcm_loss=float(loss.detach()),
        positive_term=float(stats.positive_term.detach()),
        negative_term=float(stats.negative_term.detach()),
        hard_positive_share=float(stats.hard_positive_share),
        hard_negative_share=float(stats.hard_negative_share),
        gradient_ratio=ratio,
    )
