"""What the loss costs where it is used: its share of a training step of the demo, ours against dense.

    python -m benchmarks.training_step      -> results/training-step-<device>.json, and a table

A step is the demo's: draw a batch, move the images, embed them, base loss, backward, optimiser. It is timed
without the TCM loss, with ours and with the dense one, whole steps in turns; the share of the loss is
(with - without) / with, formed within each round, so it holds the loss's forward and its part of the
backward and nothing else. The backward of the network is in all three.

The learning rate is 0: every step does the optimiser's work and leaves the network as it is, so that all
steps meet the same share of hard pairs, however many there are. Measured are the untrained network and that
of the last epoch.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import digits, environment, interleave, opponents, result_files, table
from benchmarks.interleave import Summary
from tcm_kernels.demo import training
from tcm_kernels.demo.student import BASE_LOSS, Loss, Student
from tcm_kernels.modules import ThresholdConsistentMarginLoss

SCHEMA = 1
BATCH_SIZES = (1024, 4096)
EPOCHS = (0, digits.LAST_EPOCH)
WITHOUT = "without"


def measure(batch_size: int, epoch: int, *, budget_s: float, backend: str = "auto") -> dict[str, Any]:
    """The record of one batch size with the network after `epoch` epochs."""
    student = digits.student(epoch, seed=0)
    for group in student.optimizer.param_groups:
        group["lr"] = 0.0
    ours = ThresholdConsistentMarginLoss(
        margin_plus=training.MARGIN_PLUS, margin_minus=training.MARGIN_MINUS, backend=backend
    )

    def ours_weighted(emb: Tensor, labels: Tensor) -> Tensor:
        return training.TCM_WEIGHT * ours(emb, labels)

    def dense_weighted(emb: Tensor, labels: Tensor) -> Tensor:
        return training.TCM_WEIGHT * opponents.dense_tcm_loss(
            emb, labels, margin_plus=training.MARGIN_PLUS, margin_minus=training.MARGIN_MINUS
        )

    added = {WITHOUT: None, opponents.OURS: ours_weighted, opponents.DENSE: dense_weighted}
    steps = {name: _step(student, batch_size, loss) for name, loss in added.items()}
    for step in steps.values():
        step()
    timings = interleave.interleave(steps, unit=WITHOUT, budget_s=budget_s)
    stats = ours.last_stats
    assert stats is not None  # of the last step
    hard = int(stats.positive_count) + int(stats.negative_count)
    return {
        "batch_size": batch_size,
        "epoch": epoch,
        "hard_density": hard / (batch_size * (batch_size - 1)),
        "seconds": {name: dataclasses.asdict(timing.seconds) for name, timing in timings.items()},
        "share": {
            name: dataclasses.asdict(_share(timing.ratio))
            for name, timing in timings.items()
            if name != WITHOUT and timing.ratio is not None
        },
    }


def _step(student: Student, batch_size: int, added: Loss | None) -> Callable[[], None]:
    """One step of the student on a batch drawn anew, with replacement: there are fewer images."""
    images, labels = digits.load().train_images, digits.load().train_labels
    generator = torch.Generator().manual_seed(0)

    def step() -> None:
        batch = torch.randint(len(labels), (batch_size,), generator=generator)
        student.step(images[batch], labels[batch], generator, added)

    return step


def _share(ratio: Summary) -> Summary:
    """(with - without) / with of with / without; it grows with the ratio, so quartiles stay quartiles."""
    return Summary(1 - 1 / ratio.median, 1 - 1 / ratio.q1, 1 - 1 / ratio.q3, ratio.count)


def text(content: result_files.Results) -> str:
    """The results for people."""
    heading = ("batch", "epoch", "hard pairs", "step without TCM", "ours", "share", "dense", "share")
    rows = [
        (
            f"{record['batch_size']:,}",
            str(record["epoch"]),
            f"{record['hard_density']:.2g}",
            table.seconds(record["seconds"][WITHOUT]["median"]),
            *_with(record, opponents.OURS),
            *_with(record, opponents.DENSE),
        )
        for record in content["records"]
    ]
    widths = [max(len(row[i]) for row in (heading, *rows)) for i in range(len(heading))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in (heading, *rows)
    )


def _with(record: dict[str, Any], name: str) -> tuple[str, str]:
    share = record["share"][name]
    return (
        table.seconds(record["seconds"][name]["median"]),
        f"{share['median']:.1%} [{share['q1']:.1%}, {share['q3']:.1%}]",
    )


def path(folder: Path, slug: str) -> Path:
    """Where the results of a device lie."""
    return folder / f"training-step-{slug}.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training_step", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--budget", type=float, default=30.0, metavar="S", help="seconds a row (default 30)")
    parser.add_argument("--batch-size", type=int, action="append", metavar="N", help="default: 1024, 4096")
    parser.add_argument("--threads", type=int, metavar="N", help="as torch.set_num_threads")
    parser.add_argument("--out", type=Path, default=result_files.FOLDER, metavar="FOLDER")
    options = parser.parse_args(arguments)
    if (reason := digits.why_not_here()) is not None:
        print(reason)
        return 2
    if options.threads:
        torch.set_num_threads(options.threads)
    records = []
    for epoch in EPOCHS:
        for batch_size in options.batch_size or BATCH_SIZES:
            print(f"batch of {batch_size}, after epoch {epoch}", file=sys.stderr, flush=True)
            records.append(measure(batch_size, epoch, budget_s=options.budget))
    slug = environment.slug("cpu")
    there = path(options.out, slug)
    content = result_files.stamped(there.stem, SCHEMA, records) | {
        "environment": environment.describe("cpu"),
        "settings": {
            "budget_s": options.budget,
            "base_loss": BASE_LOSS,
            "tcm_weight": training.TCM_WEIGHT,
            "margin_plus": training.MARGIN_PLUS,
            "margin_minus": training.MARGIN_MINUS,
        },
    }
    result_files.write_json(there, content)
    print(text(content))
    print(f"wrote {there}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
