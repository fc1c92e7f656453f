"""What a mechanism brings: the package with it and without it, in turns, each in a process of its own.

    python -m benchmarks.suites.ablation 7-bit-codes                  -> results/ablation-7-bit-codes.json
    python -m benchmarks.suites.ablation prefix --without ../checkout       which is built without it
    python -m benchmarks.suites.ablation any --without ../before --bitwise  the same bits from both?

Either side imports `tcm_kernels` from its own checkout; the cases are made here and given to both. Turns are
forward and backward of one case, first with, then without; a ratio is formed within each round. The file says
which commits were compared, on which processor, and whether results were the same bit for bit.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks import ROOT
from benchmarks.harness import environment, result_files, workload
from benchmarks.harness.interleave import Summary
from benchmarks.harness.workload import Case

SCHEMA = 1
WORTH_IT = 1.10  # time without it over time with it, in the case that favours it most
HEADLINE = Case(8192, 512, density=1e-3, seed=1)


@dataclasses.dataclass(frozen=True)
class Ablation:
    """A mechanism.

    Attributes:
        cases: those that favour it; the headline's case follows.
        both: environment variables of both sides: a processor as narrow as those it is for.
        without: of the side without it, where a variable is enough to switch it off.
    """

    cases: tuple[Case, ...]
    both: Mapping[str, str] = dataclasses.field(default_factory=dict)
    without: Mapping[str, str] = dataclasses.field(default_factory=dict)


_FULL = {"TCM_KERNELS_CPU_SCREENING": "full"}
_AVX2 = {
    "TCM_KERNELS_CPU_ISA": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
}
_FEW_A_CLASS = (Case(8192, 512, per_class=2, density=1e-4), Case(8192, 512, density=1e-5))
ABLATIONS = {
    "prefix": Ablation(
        (
            Case(8192, 2048, per_class=2, kind="sorted", margins=(0.9, 0.7)),
            Case(8192, 1024, per_class=2, margins=(0.9, 0.9)),
            Case(8192, 2048, density=1e-5),
        )
    ),
    "deferred-sums": Ablation(
        (Case(8192, 512, kind="correlated", density=0.2), Case(8192, 512, density=0.5))
    ),
    "huge-pages": Ablation((Case(65536, 128, density=1e-3), Case(16384, 512, density=1e-3))),
    "7-bit-codes": Ablation(_FEW_A_CLASS, both=_AVX2, without=_FULL),
    "bfloat16-codes": Ablation(_FEW_A_CLASS, both={"TCM_KERNELS_CPU_SCREENING": "bfloat16"}, without=_FULL),
}

# Needs nothing of a checkout but the package.
_SIDE = """
import json, sys, time, torch, tcm_kernels
torch.set_num_threads(int(sys.argv[1]))
for line in sys.stdin:
    order, *rest = json.loads(line)
    if order == "case":
        case = torch.load(rest[0])
        emb = case["emb"].requires_grad_()
        def call():
            loss = tcm_kernels.fused_tcm_loss(
                emb, case["labels"], margin_plus=case["plus"], margin_minus=case["minus"], backend="cpu")
            return loss.detach(), torch.autograd.grad(loss, emb)[0]
        call()
        answer = None
    elif order == "turn":
        begin = time.perf_counter()
        for _ in range(rest[0]):
            call()
        answer = (time.perf_counter() - begin) / rest[0]
    else:
        torch.save(call(), rest[0])
        answer = None
    print(json.dumps(answer), flush=True)
"""


class Side:
    """A process that runs one of the two."""

    def __init__(self, root: Path, variables: Mapping[str, str], threads: int):
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SIDE, str(threads)],
            cwd=root,
            env=os.environ | {"PYTHONPATH": str(root)} | dict(variables),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, *order: object) -> Any:
        """Its answer; a RuntimeError where it has died, after it has said why."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(json.dumps(order), file=self._process.stdin, flush=True)
            return json.loads(self._process.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError):
            raise RuntimeError(f"{self._process.args[0]} ended with {self._process.wait()}") from None  # type: ignore[index]

    def end(self) -> None:
        """Wait for its end."""
        self._process.communicate()


@contextlib.contextmanager
def sides(roots: Mapping[str, Path], variables: Mapping[str, Mapping[str, str]]) -> Iterator[dict[str, Side]]:
    """A process for each name."""
    running = {name: Side(root, variables[name], torch.get_num_threads()) for name, root in roots.items()}
    try:
        yield running
    finally:
        for side in running.values():
            side.end()


def measure(case: Case, running: Mapping[str, Side], folder: Path, budget_s: float) -> dict[str, Any]:
    """The record of a case, "with" against "without"."""
    work = workload.make(case)
    given = folder / "case.pt"
    torch.save(
        {"emb": work.emb, "labels": work.labels, "plus": work.margin_plus, "minus": work.margin_minus}, given
    )
    for side in running.values():
        side.ask("case", str(given))
    turn_s = max(side.ask("turn", 1) for side in running.values())
    repeats = max(1, round(0.02 / turn_s))
    seconds: dict[str, list[float]] = {name: [] for name in running}
    begin = time.perf_counter()
    while time.perf_counter() - begin < budget_s or len(seconds["with"]) < 5:
        for name, side in running.items():
            seconds[name].append(side.ask("turn", repeats))
    ratios = [a / b for a, b in zip(seconds["without"], seconds["with"], strict=True)]
    return {
        "case": {"title": case.title, **dataclasses.asdict(case)},
        "seconds": {name: dataclasses.asdict(Summary.of(values)) for name, values in seconds.items()},
        "without_over_with": dataclasses.asdict(Summary.of(ratios)),
        "same_bits": _same_bits(running, folder),
    }


def _same_bits(running: Mapping[str, Side], folder: Path) -> bool:
    results = []
    for name, side in running.items():
        side.ask("result", str(folder / name))
        results.append(torch.load(folder / name))
    return all(torch.equal(x, y) for x, y in zip(*results, strict=True))


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status: 1 where bits were to be the same and are not."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.suites.ablation", description=__doc__)
    parser.add_argument("name", help=f"of {', '.join(ABLATIONS)}, or any word, for the headline's case alone")
    parser.add_argument("--without", type=Path, default=ROOT, metavar="CHECKOUT", help="built in place")
    parser.add_argument("--budget", type=float, default=20.0, metavar="S", help="seconds a case (default 20)")
    parser.add_argument("--bitwise", action="store_true", help="fail unless all results are the same bits")
    parser.add_argument("--out", type=Path, default=result_files.FOLDER, metavar="FOLDER")
    options = parser.parse_args(arguments)
    ablation = ABLATIONS.get(options.name, Ablation(()))
    if options.without.resolve() == ROOT and not ablation.without:
        parser.error(f"{options.name}: --without is needed: no environment variable switches it off")
    roots = {"with": ROOT, "without": options.without.resolve()}
    variables = {"with": dict(ablation.both), "without": dict(ablation.both) | dict(ablation.without)}
    records = []
    with tempfile.TemporaryDirectory() as folder, sides(roots, variables) as running:
        for case in (*ablation.cases, HEADLINE):
            record = measure(case, running, Path(folder), options.budget)
            records.append(record)
            ratio = record["without_over_with"]
            print(
                f"{case.title}: without it {ratio['median']:.3f} [{ratio['q1']:.3f}, {ratio['q3']:.3f}] "
                f"times as long{'' if record['same_bits'] else '; other bits'}",
                flush=True,
            )
    best = max(record["without_over_with"]["median"] for record in records)
    print(f"at best {best:.2f}: {'worth' if best >= WORTH_IT else 'not worth'} its lines")
    path = options.out / f"ablation-{options.name}.json"
    commits = {name: environment.commit(root) for name, root in roots.items()}
    content = result_files.stamped(path.stem, SCHEMA, records) | {
        "environment": environment.describe("cpu"),
        "settings": {"budget_s": options.budget, "variables": variables, "commits": commits},
    }
    result_files.write_json(path, content)
    return int(options.bitwise and not all(record["same_bits"] for record in records))


if __name__ == "__main__":
    sys.exit(main())
