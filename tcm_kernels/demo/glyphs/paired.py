"""The demo's trainings: every seed twice, with a base loss alone and with the TCM loss added.

Both start from the same weights and see the same batches. Settings are those of a row of the study in
`benchmarks/quality`, which chose them on other classes than those that are judged here: learning rate and
weight decay for the base loss alone, then weight and margins of TCM beside it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from ...modules import ThresholdConsistentMarginLoss
from ..repeatable import one_thread, seeded
from . import measures
from .alphabet import Alphabet, load_alphabet
from .samples import Samples, Split, draw_samples, split_at_random
from .training import GlyphStudent, Look, Loss, Optimisation, learn, look

BASE_LOSS = "SupConLoss"
HOW = Optimisation(learning_rate=4e-3, weight_decay=1e-2)
TCM_WEIGHT = 10.0
MARGIN_PLUS, MARGIN_MINUS = 0.9, 0.6
STEPS = 600

_TRAIN_VIEWS, _VIEWS = 6, 2  # of each drawing
_TRAIN_SEED, _TEST_SEED = 0, 2  # of their distortions
_LOOK_EVERY = 50  # steps


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the user can choose about a training.

    Attributes:
        steps: of every training.
        backend: what computes the TCM loss.
        device: of torch.
        processes: trainings at a time.
    """

    steps: int
    backend: str
    device: str
    processes: int


@dataclasses.dataclass(frozen=True)
class Task:
    """One training."""

    seed: int
    with_tcm: bool


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a training has come: after so many steps, and how both losses stand."""

    task: Task
    step: int
    look: Look


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """One training: what was seen on the way, and what the unseen classes say of it.

    Attributes:
        looks: by step, ascending.
        measures: by the name in `measures.MEANINGS`.
        reasons: why others are missing.
        unseen_emb: (N, D) embeddings of the samples of `unseen`; no tensor, which would not outlive the
            process that sends it.
    """

    task: Task
    looks: dict[int, Look]
    measures: dict[str, float]
    reasons: dict[str, str]
    unseen_emb: npt.NDArray[np.float32]


def tasks(seeds: Sequence[int]) -> list[Task]:
    """Both trainings of each seed, beside each other."""
    return [Task(seed, with_tcm) for seed in seeds for with_tcm in (False, True)]


@functools.cache
def alphabet() -> Alphabet:
    """All characters."""
    return load_alphabet()


@functools.cache
def split() -> Split:
    """Which classes are learnt and which are judged; those between are the study's, to choose settings by."""
    return split_at_random(alphabet(), seed=0)


@functools.cache
def seen() -> Samples:
    """What is learnt from."""
    return draw_samples(alphabet(), split().train, views=_TRAIN_VIEWS, seed=_TRAIN_SEED)


@functools.cache
def unseen() -> Samples:
    """What is judged on."""
    return draw_samples(alphabet(), split().test, views=_VIEWS, seed=_TEST_SEED)


def student(seed: int, device: str = "cpu") -> GlyphStudent:
    """The untrained student of a seed."""
    return GlyphStudent(_base_loss, HOW, seed, device)


def train(settings: Settings, task: Task, tell: Callable[[Progress], None]) -> Trained:
    """Train and measure; `tell` hears of it every 50 steps and at last."""
    with one_thread(), seeded(task.seed):  # the same whatever was computed before
        learner, looks = student(task.seed, settings.device), {}
        added = _tcm(settings.backend) if task.with_tcm else None
        for step in learn(learner, seen(), task.seed, _stops(settings.steps), added):
            looks[step] = look(
                learner,
                seen(),
                weight=TCM_WEIGHT,
                margin_plus=MARGIN_PLUS,
                margin_minus=MARGIN_MINUS,
                backend=settings.backend,
            )
            tell(Progress(task, step, looks[step]))
        emb = learner.embed(unseen().images)
        found, reasons = measures.measure(emb, unseen().labels)
    return Trained(task, looks, found, reasons, emb.numpy())


def _tcm(backend: str) -> Loss:
    """What a user's own loop adds to the loss that is already there."""
    tcm_loss = ThresholdConsistentMarginLoss(
        margin_plus=MARGIN_PLUS, margin_minus=MARGIN_MINUS, backend=backend
    )

    def added(emb: Tensor, labels: Tensor) -> Tensor:
        return TCM_WEIGHT * tcm_loss(emb, labels)

    return added


def _base_loss() -> nn.Module:
    from pytorch_metric_learning import losses  # noqa: PLC0415  # an extra

    made: nn.Module = getattr(losses, BASE_LOSS)()
    return made


def _stops(steps: int) -> Iterator[int]:
    yield from range(_LOOK_EVERY, steps, _LOOK_EVERY)
    yield steps


def describe(settings: Settings, seeds: Sequence[int]) -> str:
    """What is about to happen, for people."""
    return (
        f"{len(alphabet().characters):,} printed characters in up to 16 type faces: "
        f"{len(split().train):,} are learnt, {len(split().test):,} others are judged.\n"
        f"Base loss: {BASE_LOSS}. TCM: weight {TCM_WEIGHT:g}, margin_plus {MARGIN_PLUS:g}, "
        f"margin_minus {MARGIN_MINUS:g}, backend {settings.backend}.\n"
        f"{len(seeds)} x 2 trainings of {settings.steps:,} steps on {settings.device}, "
        f"{settings.processes} at a time."
    )


def as_dict(settings: Settings) -> dict[str, object]:
    """What was set, by the user and here, for results.json."""
    return {
        "data": "glyphs",
        **dataclasses.asdict(settings),
        "base_loss": BASE_LOSS,
        **dataclasses.asdict(HOW),
        "tcm_weight": TCM_WEIGHT,
        "margin_plus": MARGIN_PLUS,
        "margin_minus": MARGIN_MINUS,
        "classes_learnt": len(split().train),
        "classes_judged": len(split().test),
        "images_judged": len(unseen().labels),
    }
