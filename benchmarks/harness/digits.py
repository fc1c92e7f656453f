"""Embeddings from a real training: what the demo's network makes of its digits after some epochs.

The network is trained as in `tcm-kernels demo --data digits`, with the TCM loss added, by the package's
`torch` backend on one thread: kernels that are measured have no say in what they are measured on, and
neither has the number of cores. Images come shuffled and moved as in training, epoch after epoch until
there are enough, and the normalising layers use the batch's own statistics: these are the embeddings that a
training step of this batch size would hand to the loss. Five classes, so nearly a fifth of all pairs are
positives.

Rounding may differ from processor to processor, and grow over the epochs; on one machine the data of a
case are the same on every run.
"""

from __future__ import annotations

import functools
import importlib.util

import torch
from torch import Tensor

from tcm_kernels.demo.digits import training
from tcm_kernels.demo.digits.student import EMBEDDING_SIZE, Student, moved
from tcm_kernels.demo.repeatable import one_thread
from tcm_kernels.modules import ThresholdConsistentMarginLoss

D = EMBEDDING_SIZE
CLASSES = 10 - len(training.UNSEEN)
MARGINS = (training.MARGIN_PLUS, training.MARGIN_MINUS)
LAST_EPOCH = 20  # the demo's default

_NEEDS = {"sklearn": "scikit-learn", "pytorch_metric_learning": "pytorch-metric-learning"}


def why_not_here() -> str | None:
    """None where the demo's packages are installed, else which are missing and the cure."""
    missing = [package for module, package in _NEEDS.items() if importlib.util.find_spec(module) is None]
    return f"needs {', '.join(missing)}: pip install 'tcm-kernels[demo]'" if missing else None


@functools.lru_cache(maxsize=1)
def load() -> training.Digits:
    """The demo's images and labels."""
    return training.load_digits()


@functools.lru_cache(maxsize=1)  # a case is made more than once; training takes longer than embedding
def student(epochs: int, seed: int) -> Student:
    """The demo's network after `epochs` epochs, 0 for the untrained one; on the CPU."""
    tcm_loss = ThresholdConsistentMarginLoss(
        margin_plus=training.MARGIN_PLUS, margin_minus=training.MARGIN_MINUS, backend="torch"
    )

    def added(emb: Tensor, labels: Tensor) -> Tensor:
        return training.TCM_WEIGHT * tcm_loss(emb, labels)

    with one_thread():
        *_, learnt = training.learn(load(), epochs, seed, "cpu", added)
    return learnt


def embeddings(n: int, epochs: int, seed: int) -> tuple[Tensor, Tensor]:
    """(n, D) embeddings after `epochs` epochs and their (n,) labels, in random order."""
    images, labels = load().train_images, load().train_labels
    generator = torch.Generator().manual_seed(seed)
    rounds = -(-n // len(labels))
    order = torch.cat([torch.randperm(len(labels), generator=generator) for _ in range(rounds)])[:n]
    with one_thread():
        emb = student(epochs, seed).embed_as_in_training(moved(images[order], generator))
    return emb, labels[order]
