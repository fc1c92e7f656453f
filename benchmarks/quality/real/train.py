"""One training: base loss alone, or base loss + TCM, and the embeddings of classes it has not seen.

Both arms of a seed start from the same weights and see the same batches to the last pixel (images.py). The
network runs under autocast where that is asked for; both losses always get float32 embeddings.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tcm_kernels import PairStats, fused_tcm_loss

from . import backbones, losses
from .config import Config, Ours
from .data_sets import Images, OpenWorldData
from .images import ClassBalancedBatches, batches_in_order, training_batches
from .ranks import Ranks

Arm = Literal["base", "tcm"]
ARMS: tuple[Arm, ...] = ("base", "tcm")
LOOK_EVERY = 20  # steps; each look waits for the device


class TrainingError(RuntimeError):
    """A training cannot go on."""


@dataclasses.dataclass(frozen=True)
class Terms:
    """The losses of a batch (on rank 0, of its own), before the weight of the TCM loss.

    The TCM terms are looked at also where they are not trained with, to compare.
    """

    base_loss: float
    tcm_positive_term: float
    tcm_negative_term: float
    hard_positive_share: float
    hard_negative_share: float

    @classmethod
    def of(cls, base: Tensor, stats: PairStats) -> Terms:
        """Those of a step."""
        shares = stats.hard_positive_share, stats.hard_negative_share
        terms = (base, stats.positive_term, stats.negative_term, *shares)
        return cls(*(x.item() for x in terms))


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained network, and how its training ended."""

    network: nn.Module
    terms: Terms
    seconds: float


class Learner(nn.Module):
    """Network and base loss as one module, so that DistributedDataParallel sees all parameters."""

    def __init__(self, network: nn.Module, base_loss: nn.Module, amp: torch.dtype | None) -> None:
        super().__init__()
        self.network, self.base_loss, self.amp = network, base_loss, amp

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings (N, D) float32 and the base loss of images (N, 3, H, W) and labels (N,)."""
        with torch.autocast(images.device.type, self.amp, enabled=self.amp is not None):
            emb = self.network(images)
        emb = emb.float()
        return emb, self.base_loss(emb, labels)


def train(
    config: Config,
    data: OpenWorldData,
    arm: Arm,
    seed: int,
    ranks: Ranks,
    *,
    amp: torch.dtype | None = None,
    workers: int = 0,
    bar: Any = None,
) -> Trained:
    """Train a network on the training classes.

    Args:
        config: its settings.
        data: its data.
        arm: "base", or "tcm" for base loss + TCM.
        seed: of weights, batches and augmentation, at least 0.
        ranks: this process among all; every rank's losses are over its own batch.
        amp: what the network runs in: None for float32, torch.bfloat16, on CUDA also torch.float16.
        workers: processes that decode images; 0 for none.
        bar: of tqdm, moved by one a step; None for none.

    Raises:
        ImageFileError: an image cannot be decoded.
        TrainingError: a loss is not finite.
        UsageError: settings that do not go with the data.
    """
    ours, device = config.ours, ranks.device
    sampler = ClassBalancedBatches(
        data.train.labels,
        ours.classes_per_batch,
        ours.images_per_class,
        seed=seed,
        steps=ours.steps,
        rank=ranks.rank,
        world_size=ranks.world_size,
    )
    batches = training_batches(data.train, ours.shape, sampler, workers=workers, pin=device.type == "cuda")
    begin = time.monotonic()
    with _seeded(seed, device):
        learner = _learner(config, data.train.classes, amp).to(device)
        optimizer = _optimizer(learner, ours)
        stepper: nn.Module = learner
        if ranks.world_size > 1:
            stepper = DistributedDataParallel(learner, [device.index] if device.type == "cuda" else None)
        scaler = torch.amp.GradScaler(device.type, enabled=amp == torch.float16)
        # From here on ranks differ (dropout), arms do not.
        torch.manual_seed(int(np.random.SeedSequence([seed, ranks.rank]).generate_state(1)[0]))
        learner.train()
        terms = None
        for step, (images, on_host) in enumerate(batches, start=1):
            looked_at = step % LOOK_EVERY == 1 or step == ours.steps
            labels = on_host.to(device, non_blocking=True)
            emb, base = stepper(images.to(device, non_blocking=True), labels)
            with contextlib.nullcontext() if arm == "tcm" else torch.no_grad():
                if arm == "tcm" or looked_at:
                    added, stats = _tcm(config, emb, labels)
            loss = base + added if arm == "tcm" else base
            _set_rate(optimizer, ours, step)
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            if looked_at:
                terms = Terms.of(base, stats)
                _check_finite(terms, step)
            if bar is not None:
                if looked_at and terms is not None:
                    tcm = f"{terms.tcm_positive_term:.3f} + {terms.tcm_negative_term:.3f}"
                    bar.set_postfix_str(f"base {terms.base_loss:.3f}, TCM {tcm}")
                bar.update()
    assert terms is not None  # the last step was looked at
    return Trained(learner.network, terms, time.monotonic() - begin)


def _tcm(config: Config, emb: Tensor, labels: Tensor) -> tuple[Tensor, PairStats]:
    paper = config.paper
    return fused_tcm_loss(
        emb,
        labels,
        margin_plus=paper.margin_plus,
        margin_minus=paper.margin_minus,
        lambda_plus=paper.tcm_weight,
        lambda_minus=paper.tcm_weight,
        return_stats=True,
    )


@torch.no_grad()
def embed(
    network: nn.Module, images: Images, ours: Ours, device: torch.device, *, workers: int = 0
) -> tuple[Tensor, Tensor]:
    """Embeddings (N, D) float32 and labels (N,) int64 of all images, on the device, without autocast."""
    network.eval()
    batches = batches_in_order(
        images, ours.shape, ours.batch_size, workers=workers, pin=device.type == "cuda"
    )
    emb = torch.empty(len(images), ours.embedding_size, device=device)
    done = 0
    for shown, _ in batches:
        emb[done : done + len(shown)] = network(shown.to(device, non_blocking=True))
        done += len(shown)
    return emb, torch.from_numpy(images.labels).to(device)


def _learner(config: Config, classes: int, amp: torch.dtype | None) -> Learner:
    ours = config.ours
    network = backbones.make(ours.backbone, ours.embedding_size, ours.image_size, pretrained=ours.pretrained)
    base = losses.make(ours.base_loss, ours.base_loss_arguments, classes, ours.embedding_size)
    return Learner(network, base, amp)


def _optimizer(learner: Learner, ours: Ours) -> torch.optim.Optimizer:
    groups = [
        {"params": list(learner.network.parameters()), "lr": ours.learning_rate},
        {"params": list(learner.base_loss.parameters()), "lr": ours.loss_learning_rate},
    ]
    groups = [group | {"full_lr": group["lr"]} for group in groups if group["params"]]
    return getattr(torch.optim, ours.optimizer)(groups, weight_decay=ours.weight_decay)


def _set_rate(optimizer: torch.optim.Optimizer, ours: Ours, step: int) -> None:
    """The learning rates of a step, from 1: constant, or half a cosine from full to 0."""
    factor = 1.0 if ours.schedule == "constant" else (1 + math.cos(math.pi * (step - 1) / ours.steps)) / 2
    for group in optimizer.param_groups:
        group["lr"] = group["full_lr"] * factor


def _check_finite(terms: Terms, step: int) -> None:
    for name, value in dataclasses.asdict(terms).items():
        if not math.isfinite(value):
            raise TrainingError(
                f"step {step}: {name} is {value}, the training has diverged; try a lower learning_rate"
            )


@contextlib.contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the generators of torch and numpy, which layers and losses draw from, and restore them after."""
    before = np.random.get_state()  # noqa: NPY002  # losses of the library draw from the global one
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(before)  # noqa: NPY002
