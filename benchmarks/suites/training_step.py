"""What the loss costs where it is used: its share of a training step on digits, ours against dense.

    python -m benchmarks.suites.training_step      -> results/training-step-<device>.json, and a table
    python -m benchmarks.suites.training_step --device cuda

A step is that of `tcm-kernels demo --data digits`: draw a batch, move the images, embed them, base loss,
backward, optimiser. It is timed without the TCM loss, with ours and with the dense one, whole steps in
turns; the share of the loss is (with - without) / with, formed within each round, so it holds the loss's
forward and its part of the backward and nothing else. The backward of the network is in all three.

The learning rate is 0: every step does the optimiser's work and leaves the network as it is, so that all
steps meet the same share of hard pairs, however many there are. Measured are the untrained network and that
of the last epoch.

On a GPU the step begins with images that have been moved and lie there: moving them is the CPU's work,
which would run ahead while the GPU computes and hide what the loss takes. The network is trained on the CPU
before. Where pytorch-metric-learning is missing, as on a bare machine, the base loss is a plain softmax
over proxies; the file says which one it was. Records are known by batch size and epoch, are written one by
one, and those of other batch sizes stay.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import importlib.util
import itertools
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from benchmarks.harness import digits, environment, interleave, opponents, result_files, table
from benchmarks.harness.interleave import Summary
from tcm_kernels.demo.digits import student as student_module
from tcm_kernels.demo.digits import training
from tcm_kernels.demo.digits.student import BASE_LOSS, Loss, Student, moved
from tcm_kernels.modules import ThresholdConsistentMarginLoss

SCHEMA = 1
BATCH_SIZES = (1024, 4096)
EPOCHS = (0, digits.LAST_EPOCH)
WITHOUT = "without"
READY_BATCHES = 4  # that lie on a GPU


def measure(
    batch_size: int, epoch: int, *, budget_s: float, backend: str = "auto", device: str = "cpu"
) -> dict[str, Any]:
    """The record of one batch size with the network after `epoch` epochs."""
    student = digits.student(epoch, seed=0) if device == "cpu" else _on(device, digits.student(epoch, seed=0))
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
    make = _step if device == "cpu" else _step_on_gpu
    steps = {name: make(student, batch_size, loss) for name, loss in added.items()}
    for step in steps.values():
        step()
    timings = interleave.interleave(steps, unit=WITHOUT, budget_s=budget_s, device=device)
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


def _on(device: str, student: Student) -> Student:
    """A copy of the student there, its optimiser's state included."""
    there = copy.deepcopy(student)
    there.device = device
    there.network.to(device)
    there.base_loss.to(device)
    old = there.optimizer.state_dict()
    parts = (there.network, there.base_loss)
    there.optimizer = type(there.optimizer)([{"params": part.parameters()} for part in parts])
    there.optimizer.load_state_dict(old)  # which goes to where the parameters are
    return there


def _step_on_gpu(student: Student, batch_size: int, added: Loss | None) -> Callable[[], None]:
    """One step of the student on batches that are ready and take turns; without the CPU's part."""
    images, labels = digits.load().train_images, digits.load().train_labels
    generator = torch.Generator().manual_seed(0)
    batches = []
    for _ in range(READY_BATCHES):
        batch = torch.randint(len(labels), (batch_size,), generator=generator)
        ready = moved(images[batch], generator), labels[batch]
        batches.append([x.to(student.device) for x in ready])
    turns = itertools.cycle(batches)

    def step() -> None:
        student.learn(*next(turns), added)

    return step


class ProxySoftmax(torch.nn.Module):
    """Cross-entropy of the cosines to a proxy for each class: a base loss that needs no other package."""

    def __init__(self, classes: int, size: int = digits.D):
        super().__init__()
        self.proxies = torch.nn.Parameter(torch.randn(classes, size))

    def forward(self, emb: Tensor, labels: Tensor) -> Tensor:
        """Of embeddings (N, size) and labels (N,)."""
        return F.cross_entropy(16 * F.normalize(emb) @ F.normalize(self.proxies).T, labels)


@contextlib.contextmanager
def _base_loss() -> Iterator[str]:
    """The demo's base loss or, for as long as this lasts, ProxySoftmax in its place; gives its name."""
    if importlib.util.find_spec("pytorch_metric_learning") is not None:
        yield BASE_LOSS
        return
    with mock.patch.object(student_module, "_base_loss", ProxySoftmax):
        yield ProxySoftmax.__name__


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


def key(batch_size: int, epoch: int) -> str:
    """By which a record is known."""
    return f"batch of {batch_size}, after epoch {epoch}"


def path(folder: Path, slug: str) -> Path:
    """Where the results of a device lie."""
    return folder / f"training-step-{slug}.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.suites.training_step", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--budget", type=float, default=30.0, metavar="S", help="seconds a row (default 30)")
    parser.add_argument("--batch-size", type=int, action="append", metavar="N", help="default: 1024, 4096")
    parser.add_argument("--threads", type=int, metavar="N", help="as torch.set_num_threads")
    parser.add_argument("--missing", action="store_true", help="only what the file has no record of")
    parser.add_argument("--out", type=Path, default=result_files.FOLDER, metavar="FOLDER")
    options = parser.parse_args(arguments)
    if importlib.util.find_spec("sklearn") is None:
        print("needs scikit-learn: pip install 'tcm-kernels[demo]'")
        return 2
    if options.threads:
        torch.set_num_threads(options.threads)
    there = path(options.out, environment.slug(options.device))
    rows = [(epoch, batch_size) for epoch in EPOCHS for batch_size in options.batch_size or BATCH_SIZES]
    if options.missing:
        known = keys(result_files.load_if_there(there))
        rows = [(epoch, batch_size) for epoch, batch_size in rows if key(batch_size, epoch) not in known]
    failures = 0
    with _base_loss() as base_loss:
        for epoch, batch_size in rows:
            print(key(batch_size, epoch), file=sys.stderr, flush=True)
            try:
                record = measure(batch_size, epoch, budget_s=options.budget, device=options.device)
            except Exception:  # the other rows may well work
                traceback.print_exc()
                failures += 1
                continue
            _add(there, record, options, base_loss)
    if (content := result_files.load_if_there(there)) is not None:
        print(text(content))
        print(f"{there} has them", file=sys.stderr)
    return int(failures > 0)


def keys(content: result_files.Results | None) -> list[str]:
    """Of the records that there are."""
    return [key(record["batch_size"], record["epoch"]) for record in (content or {"records": ()})["records"]]


def _add(there: Path, record: dict[str, Any], options: argparse.Namespace, base_loss: str) -> None:
    """Write the file with this record in its place."""
    known = {(old["epoch"], old["batch_size"]): old for old in _records(there)}
    known[record["epoch"], record["batch_size"]] = record
    content = result_files.stamped(there.stem, SCHEMA, [known[place] for place in sorted(known)]) | {
        "environment": environment.describe(options.device),
        "settings": {
            "budget_s": options.budget,
            "base_loss": base_loss,
            "images": "moved in the step" if options.device == "cpu" else "moved before, on the GPU",
            "tcm_weight": training.TCM_WEIGHT,
            "margin_plus": training.MARGIN_PLUS,
            "margin_minus": training.MARGIN_MINUS,
        },
    }
    result_files.write_json(there, content)


def _records(there: Path) -> list[dict[str, Any]]:
    return (result_files.load_if_there(there) or {"records": []})["records"]


if __name__ == "__main__":
    sys.exit(main())
