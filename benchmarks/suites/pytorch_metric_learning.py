"""Pairs that a miner has chosen: a step of ours, next to the same loss of pytorch-metric-learning.

    python -m benchmarks.suites.pytorch_metric_learning
        -> results/pytorch-metric-learning-<device>.json, and a table

A step is forward and backward on a CPU, to the gradient of the embeddings. Competitors take turns, and a
ratio to ours is formed within each round: to `fused_tcm_loss` with `pairs`, or without them where it takes
part. Pairs are listed once, by the library or its miner, outside of what is timed; where all are meant, its
losses list them in each step, as they do without a miner.

Its TCM loss and its ContrastiveLoss with cosine similarity are the same function as ours: values more than
1e-5 apart end the run. Of triplets it counts a pair as often as triplets have it, we once: there the values
differ, and the work is what is compared. All 9 million pairs of 3,000 rows as a list are for ours alone;
peak memory is that of one step in a fresh process, beyond the embeddings and the list.

Embeddings are clusters, loose enough for the miners to find something; of all pairs less than 1 % are hard.
Steps are short: where another process has one of the cores, threads wait for each other, and a step has taken
fifty times as long. The machine has to be quiet.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import ROOT
from benchmarks.harness import environment, interleave, memory, result_files, table, workload
from benchmarks.harness.workload import Case, Workload
from tcm_kernels import fused_tcm_loss

SCHEMA = 1
PLUS, MINUS = MARGINS = (0.9, 0.5)
TOLERANCE = 1e-5  # between values of one function
OURS, LISTED = "fused_tcm_loss", "fused_tcm_loss, pairs"
TCM, CONTRASTIVE = "their ThresholdConsistentMarginLoss", "their ContrastiveLoss"
ALL_PAIRS, MULTI_SIMILARITY, TRIPLET_MARGIN = "all pairs", "MultiSimilarityMiner", "TripletMarginMiner"
Step = Callable[[], object]


@dataclasses.dataclass(frozen=True)
class Setting:
    """A batch, who lists its pairs, and who takes them; ratios are to the first."""

    batch: Case
    lister: str
    competitors: tuple[str, ...]
    with_peak: bool = False  # of the first

    @property
    def title(self) -> str:
        """The setting as a phrase; unique."""
        return f"N={self.batch.n} D={self.batch.d}, {self.lister}"


SMALL = Case(512, 128, margins=MARGINS, noise=0.9)
CASES = (
    Setting(SMALL, ALL_PAIRS, (OURS, LISTED, TCM, CONTRASTIVE)),
    Setting(SMALL, MULTI_SIMILARITY, (LISTED, TCM, CONTRASTIVE)),
    Setting(SMALL, TRIPLET_MARGIN, (LISTED, TCM)),
    Setting(Case(3000, 256, margins=MARGINS), ALL_PAIRS, (LISTED,), with_peak=True),
)


def library() -> Any:
    """pytorch-metric-learning, without what its import warns of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pytorch_metric_learning as theirs  # noqa: PLC0415
        from pytorch_metric_learning import distances, losses, miners  # noqa: F401, PLC0415
    return theirs


def pairs_of(work: Workload, lister: str) -> tuple[Tensor, ...]:
    """Four vectors (a, p, b, n), or three of triplets (a, p, n)."""
    if lister == ALL_PAIRS:
        return library().utils.loss_and_miner_utils.get_all_pairs_indices(work.labels)
    settings = {"margin": 0.2} if lister == TRIPLET_MARGIN else {}
    return getattr(library().miners, lister)(**settings)(work.emb, work.labels)


def loss_of(competitor: str, work: Workload, pairs: tuple[Tensor, ...], lister: str) -> Callable[..., Tensor]:
    """The competitor's loss, a function of emb (N, D)."""
    if competitor in (OURS, LISTED):
        given = pairs if competitor == LISTED else None
        return lambda emb: fused_tcm_loss(emb, work.labels, pairs=given, margin_plus=PLUS, margin_minus=MINUS)
    losses, cosine = library().losses, library().distances.CosineSimilarity()
    theirs = (
        losses.ThresholdConsistentMarginLoss(margin_plus=PLUS, margin_minus=MINUS)
        if competitor == TCM
        else losses.ContrastiveLoss(pos_margin=PLUS, neg_margin=MINUS, distance=cosine)
    )
    return lambda emb: theirs(emb, work.labels, None if lister == ALL_PAIRS else pairs)


def step_of(loss: Callable[..., Tensor], emb: Tensor) -> Step:
    """Forward and backward."""
    leaf = emb.clone().requires_grad_()
    return lambda: torch.autograd.grad(loss(leaf), leaf)


def measure(setting: Setting, budget_s: float) -> list[dict[str, Any]]:
    """The records of a setting, one for each competitor."""
    work = workload.make(setting.batch)
    pairs = pairs_of(work, setting.lister)
    losses = {name: loss_of(name, work, pairs, setting.lister) for name in setting.competitors}
    values = {name: loss(work.emb).item() for name, loss in losses.items()}
    ours = setting.competitors[0]
    same_function = len(pairs) == 4  # triplets have pairs more than once
    if same_function and not all(abs(value - values[ours]) <= TOLERANCE for value in values.values()):
        raise RuntimeError(f"{setting.title}: the same function, but not the same values: {values}")
    steps = {name: step_of(loss, work.emb) for name, loss in losses.items()}
    for step in steps.values():
        step()
    timings = interleave.interleave(steps, unit=ours, budget_s=budget_s)
    _, stats = fused_tcm_loss(work.emb, work.labels, margin_plus=PLUS, margin_minus=MINUS, return_stats=True)
    hard = int(stats.positive_count) + int(stats.negative_count)
    listing = {"lister": setting.lister, "pairs": len(pairs[0]) + len(pairs[-1])}
    records = []
    for name, timing in timings.items():
        assert timing.ratio is not None  # there is a unit
        record = {
            "case": {"title": f"{setting.title}: {name}", **dataclasses.asdict(setting.batch), **listing},
            "competitor": name,
            "hard_density": hard / setting.batch.pairs,
            "loss": values[name],
            "same_function": same_function,
            "seconds": dataclasses.asdict(timing.seconds),
            "over_ours": dataclasses.asdict(timing.ratio),
            "environment": environment.describe("cpu"),
        }
        if setting.with_peak and name == ours:
            record["peak_bytes"] = _peak_bytes(setting)
        records.append(record)
    return records


def _peak_bytes(setting: Setting) -> int:
    """Of a step of the first competitor, by a process of its own."""
    task = json.dumps(dataclasses.asdict(setting))
    command = [sys.executable, "-m", "benchmarks.suites.pytorch_metric_learning", "--peak-of", task]
    environ = os.environ | memory.FREED_AT_ONCE
    return int(subprocess.check_output(command, cwd=ROOT, env=environ, text=True).splitlines()[-1])


def _peak_here(competitor: str, batch: Case, lister: str) -> int:
    def step(batch: Case) -> Step:
        work = workload.make(batch)
        return step_of(loss_of(competitor, work, pairs_of(work, lister), lister), work.emb)

    step(dataclasses.replace(batch, n=64))()
    return memory.resident_peak(step(batch))[0]


def text(content: result_files.Results) -> str:
    """The results for people."""
    heading = ("N", "D", "pairs by", "pairs", "hard", "competitor", "step", "over ours", "loss", "peak")
    rows = [
        (
            *(f"{case['n']:,}", str(case["d"]), case["lister"], f"{case['pairs']:,}"),
            f"{record['hard_density']:.2%}",
            record["competitor"],
            table.seconds(record["seconds"]["median"]),
            "{median:.2f} [{q1:.2f}, {q3:.2f}]".format(**record["over_ours"]),
            f"{record['loss']:.6f}",
            table.size(record["peak_bytes"]) if "peak_bytes" in record else "",
        )
        for record in content["records"]
        for case in [record["case"]]
    ]
    return table.grid(heading, rows)


def path(folder: Path, slug: str) -> Path:
    """Where the results of a device lie."""
    return folder / f"pytorch-metric-learning-{slug}.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    name, first_line = "python -m benchmarks.suites.pytorch_metric_learning", (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog=name, description=first_line)
    parser.add_argument("--budget", type=float, default=30.0, metavar="S", help="seconds a case (default 30)")
    parser.add_argument("--out", type=Path, default=result_files.FOLDER, metavar="FOLDER")
    parser.add_argument("--peak-of", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if importlib.util.find_spec("pytorch_metric_learning") is None:
        print("needs pytorch-metric-learning: pip install 'tcm-kernels[metric-learning]'")
        return 2
    if (task := options.peak_of) is not None:
        print(_peak_here(task["competitors"][0], Case(**task["batch"]), task["lister"]))
        return 0
    there = path(options.out, environment.slug("cpu"))
    content = result_files.load_if_there(there)
    for setting in CASES:
        print(setting.title, file=sys.stderr, flush=True)
        new = result_files.stamped(there.stem, SCHEMA, measure(setting, options.budget))
        content = result_files.merged(content, new)
        result_files.write_json(there, content)
    print(text(content or {"records": []}))
    print(f"wrote {there}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
