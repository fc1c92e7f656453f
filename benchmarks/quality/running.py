"""One run: train as the trial says, stop a few times, measure.

A tuning run is measured at its end, on validation classes alone: test classes cannot have a say in what is
chosen. A run that is judged is measured at every stop, on test classes; on validation classes only for its
Recall@1, to see whether it still gains.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from benchmarks.harness.environment import cpu_model
from tcm_kernels import fused_tcm_loss
from tcm_kernels.demo.glyphs import Samples
from tcm_kernels.demo.glyphs.training import (
    EMBEDDING_SIZE,
    GlyphStudent,
    Loss,
    Optimisation,
    learn,
    look,
)
from tcm_kernels.demo.repeatable import one_thread, seeded
from tcm_kernels.evaluation.retrieval import recall_at_1

from . import data
from .losses import BASES
from .measures import Measured, measure
from .plan import ALONE, Size, Trial

Row = dict[str, Any]
"""A line of runs.csv."""


def run(trial: Trial, size: Size) -> tuple[list[Row], Measured]:
    """Make a run.

    Returns:
        Its rows, stop by stop; and the measures of the last one, on the classes that it is for.
    """
    # The same on any number of cores, two runs at a time, and whatever was run before: Triplet draws.
    with one_thread(), seeded(trial.seed):
        stops = list(_stops(trial, size))
    return [row for rows, _ in stops for row in rows], stops[-1][1]


def _stops(trial: Trial, size: Size) -> Iterator[tuple[list[Row], Measured]]:
    samples = data.load(trial.split, size)
    student = start(trial, int(samples.train.labels.max()) + 1)
    judged = trial.purpose == "judge"
    added = tcm_term(trial) if trial.weight else None
    seconds, begin = 0.0, time.perf_counter()
    for step in learn(student, samples.train, trial.seed, size.stops if judged else size.stops[-1:], added):
        seconds += time.perf_counter() - begin
        common = {
            "key": trial.key,
            **dataclasses.asdict(trial),
            "step": step,
            **_look(student, trial, samples.train),
            "training_seconds": seconds,
            "processor": cpu_model(),
        }
        embedded = student.embed(samples.validation.images)
        if judged:
            gain = recall_at_1(embedded, samples.validation.labels)
            measured = measure(student.embed(samples.test.images), samples.test.labels)
            rows = [
                {**common, "classes": "validation", "recall_at_1": gain},
                {**common, "classes": "test", **measured.value},
            ]
        else:
            measured = measure(embedded, samples.validation.labels)
            rows = [{**common, "classes": "validation", **measured.value}]
        yield rows, measured
        begin = time.perf_counter()


def start(trial: Trial, classes: int) -> GlyphStudent:
    """The untrained student of a trial."""
    make = None if trial.base == ALONE else BASES[trial.base].make
    how = Optimisation(trial.learning_rate, trial.weight_decay)
    return GlyphStudent(None if make is None else lambda: make(classes, EMBEDDING_SIZE), how, trial.seed)


def tcm_term(trial: Trial) -> Loss:
    """What a trial adds to its base loss."""

    def term(emb: Tensor, labels: Tensor) -> Tensor:
        margins = {"margin_plus": trial.margin_plus, "margin_minus": trial.margin_minus}
        return trial.weight * fused_tcm_loss(emb, labels, **margins)

    return term


def _look(student: GlyphStudent, trial: Trial, train: Samples) -> Row:
    """What both losses come to; a base without TCM is looked at as if that had weight 1."""
    found = look(
        student,
        train,
        weight=trial.weight or 1.0,
        margin_plus=trial.margin_plus,
        margin_minus=trial.margin_minus,
    )
    names = ("tcm_loss", "hard_positive_share", "hard_negative_share", "base_loss", "gradient_ratio")
    return {name: getattr(found, name) for name in names}
