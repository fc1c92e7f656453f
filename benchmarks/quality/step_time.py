"""What the TCM loss costs in the study's training: a step with it over a step of the base loss alone.

    python -m benchmarks.quality.step_time     -> results/quality/step-time.json, and a table

Whole steps in turns, at a batch of 1,024: 256 classes of four. A step is the learner's: embed, base loss,
backward, optimiser, moving average. The student has learnt from the base loss for some steps, so that as many
pairs are hard as in training; then the learning rates are 0 and every step meets the same network.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import math
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.harness import environment, interleave, opponents, result_files, table
from tcm_kernels import fused_tcm_loss
from tcm_kernels.demo.glyphs.training import (
    EMBEDDING_SIZE,
    PER_CLASS,
    GlyphStudent,
    Optimisation,
    batches,
    learn,
)

from . import data
from .losses import BASES
from .plan import DEFAULT_MARGINS, FULL, TUNING_SEED, Size
from .summary import Figure

SCHEMA = 1
BATCH_SIZE = 1024
LEARNT = 300  # steps
WITHOUT = "without"
MOST = 1.05  # of the time of a step without
MEASURED = ("arcface", "normalized_softmax", "multi_similarity", "supcon")  # base losses
MARGINS = {"margin_plus": DEFAULT_MARGINS[0], "margin_minus": DEFAULT_MARGINS[1]}


def measure(base: str, size: Size, *, learnt: int, batch_size: int, budget_s: float) -> dict[str, object]:
    """The record of one base loss."""
    samples = data.load("random-0", size).train
    classes = int(samples.labels.max()) + 1
    student = GlyphStudent(
        lambda: BASES[base].make(classes, EMBEDDING_SIZE), Optimisation(4e-3, 1e-2), TUNING_SEED
    )
    list(learn(student, samples, TUNING_SEED, (learnt,)))
    for group in student.optimizer.param_groups:
        group["lr"] = 0.0
    source = batches(samples.labels, TUNING_SEED, batch_size // PER_CLASS)
    ready = [(samples.images[rows], samples.labels[rows]) for rows in itertools.islice(source, 4)]

    def step(added: Callable[[Tensor, Tensor], Tensor] | None) -> Callable[[], None]:
        turns = itertools.cycle(ready)
        return lambda: student.learn(*next(turns), added)

    steps = {
        WITHOUT: step(None),
        opponents.OURS: step(lambda emb, labels: fused_tcm_loss(emb, labels, **MARGINS)),
        opponents.DENSE: step(lambda emb, labels: opponents.dense_tcm_loss(emb, labels, **MARGINS)),
    }
    for each in steps.values():
        each()
    timings = interleave.interleave(steps, unit=WITHOUT, budget_s=budget_s, device="cpu")
    with torch.no_grad():
        images, labels = ready[0]
        _, stats = fused_tcm_loss(student.embed_in_training(images), labels, **MARGINS, return_stats=True)
    return {
        "base": base,
        "batch_size": batch_size,
        "learnt_steps": learnt,
        "hard_density": (int(stats.positive_count) + int(stats.negative_count))
        / (batch_size * (batch_size - 1)),
        "seconds": {name: dataclasses.asdict(timing.seconds) for name, timing in timings.items()},
        "ratio_to_base_alone": {
            name: dataclasses.asdict(timing.ratio)
            for name, timing in timings.items()
            if timing.ratio is not None
        },
    }


def figures_to_reach(folder: Path) -> list[Figure]:
    """What was hoped for of the time, against what has been measured; nothing where that is not there."""
    content = result_files.load_if_there(_path(folder))
    if content is None:
        return []
    ratios = [_ratio(record) for record in content["records"]]
    shown = ", ".join(
        f"{BASES[record['base']].title} {middle:.3f} ± {half:.3f}"
        for record, (middle, half) in zip(content["records"], ratios, strict=True)
    )
    return [
        Figure(
            f"a step with the loss takes at most {MOST:g} times one without, at a batch of {BATCH_SIZE:,}, "
            "surely, beside each of four losses",
            f"{shown} (median ± 95 %)",
            all(middle + half <= MOST for middle, half in ratios),
        )
    ]


def _ratio(record: dict) -> tuple[float, float]:
    """The median of a step's ratio, and half of its 95 % interval: as if ratios were normal.

    The median of n normal values has the deviation 1.253 σ / √n, and quartiles lie 1.349 σ apart.
    """
    ratio = record["ratio_to_base_alone"][opponents.OURS]
    deviation = 1.253 * (ratio["q3"] - ratio["q1"]) / 1.349 / math.sqrt(ratio["count"])
    return ratio["median"], 1.96 * deviation


def _path(folder: Path) -> Path:
    return folder / "step-time.json"


def text(records: list[dict]) -> str:
    """The results for people."""
    heading = ("base loss", "hard pairs", "step", "with ours", "ratio", "written densely", "ratio")
    rows = [
        (
            BASES[record["base"]].title,
            f"{record['hard_density']:.2g}",
            table.seconds(record["seconds"][WITHOUT]["median"]),
            *(
                cell
                for name in (opponents.OURS, opponents.DENSE)
                for cell in (table.seconds(record["seconds"][name]["median"]), _quartiles(record, name))
            ),
        )
        for record in records
    ]
    return table.grid(heading, rows)


def _quartiles(record: dict, name: str) -> str:
    ratio = record["ratio_to_base_alone"][name]
    return f"{ratio['median']:.3f} [{ratio['q1']:.3f}, {ratio['q3']:.3f}]"


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality.step_time", description=__doc__)
    parser.add_argument("--budget", type=float, default=30.0, metavar="S", help="seconds a row (default 30)")
    parser.add_argument("--out", type=Path, default=result_files.FOLDER / "quality", metavar="FOLDER")
    options = parser.parse_args(arguments)
    records = []
    for base in MEASURED:
        print(base, file=sys.stderr, flush=True)
        records.append(measure(base, FULL, learnt=LEARNT, batch_size=BATCH_SIZE, budget_s=options.budget))
    path = _path(options.out)
    content = result_files.stamped(path.stem, SCHEMA, records) | {
        "environment": environment.describe("cpu"),
        "settings": {"budget_s": options.budget, **MARGINS},
    }
    result_files.write_json(path, content)
    print(text(records))
    print(f"{path} has them", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
