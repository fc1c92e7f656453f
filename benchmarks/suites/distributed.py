"""What a batch that is spread over processes costs: each way of ours, and what others offer.

    python -m benchmarks.suites.distributed    -> results/distributed-<device>.json, and a table

Processes have one thread each and talk by Gloo over the loopback. Competitors take turns: in each round every
one of them runs forward and backward once, and a ratio is formed within each round, to a single process with
one thread that has the whole batch. Of a competitor's ranks the slowest counts. CPU time is that of the
process, Gloo's threads included; kernel time is the CPU time spent in the backend.

Peak memory is that of one step in fresh processes, beyond the rank's own rows, of the rank that needs most;
from it the kernel's workspace is taken, which depends on the backend and not on how rows travel.
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
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

import tcm_kernels
from benchmarks import ROOT
from benchmarks.harness import environment, memory, opponents, result_files, table, workload
from benchmarks.harness.interleave import Summary
from benchmarks.harness.workload import Case, Workload
from tcm_kernels import dispatch
from tcm_kernels.distributed import distributed_tcm_loss

SCHEMA = 1
ALONE = "one process"
OURS = ("gather", "ring", "rows")
DENSE = "all-gather, dense PyTorch"
METRIC_LEARNING = "DistributedLossWrapper"
PROCESSES = (2, 4)
# The claim's case; and one that all competitors have memory for.
CASES = (Case(16384, 512, density=1e-3), Case(1024, 128, density=1e-3))
MOST_ROWS = {DENSE: 1024, METRIC_LEARNING: 1024}
Step = Callable[[], object]


@dataclasses.dataclass(frozen=True)
class Entry:
    """A competitor on a number of ranks."""

    name: str
    ranks: int

    @property
    def title(self) -> str:
        """The competitor as a phrase."""
        return self.name if self.ranks == 1 else f"{self.name}, {self.ranks} processes"


def entries(case: Case, names: Sequence[str] = (), processes: Sequence[int] = PROCESSES) -> list[Entry]:
    """Those with enough memory for the case: a single process, and of the others `names`, or all."""
    others = [Entry(name, ranks) for ranks in processes for name in OURS]
    others += [Entry(name, max(processes)) for name, most in MOST_ROWS.items() if case.n <= most]
    return [Entry(ALONE, 1), *(entry for entry in others if not names or entry.name in names)]


def share_of(work: Workload, rank: int, ranks: int) -> tuple[Tensor, Tensor]:
    """The rows of a rank: the batch in equal parts, each with classes of its own, as samplers draw them."""
    by_class = work.labels.argsort(stable=True)
    rows = by_class[rank * work.case.n // ranks : (rank + 1) * work.case.n // ranks]
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(rank))]
    return work.emb[rows].clone(), work.labels[rows]


def step_of(entry: Entry, work: Workload, group: Any) -> Step:
    """Forward and backward of this rank's rows."""
    own = 0 if entry.ranks == 1 else dist.get_rank(group)
    emb, labels = share_of(work, own, entry.ranks)
    emb.requires_grad_()
    margins = {"margin_plus": work.margin_plus, "margin_minus": work.margin_minus}
    loss: Callable[[], Tensor]
    if entry.name == ALONE:

        def loss() -> Tensor:
            return tcm_kernels.fused_tcm_loss(emb, labels, **margins)
    elif entry.name in OURS:

        def loss() -> Tensor:
            return distributed_tcm_loss(emb, labels, mode=entry.name, group=group, **margins)
    elif entry.name == DENSE:

        def loss() -> Tensor:
            return _dense(emb, labels, group, **margins)
    else:
        loss = _metric_learning(emb, labels, **margins)
    return lambda: torch.autograd.grad(loss(), emb)


def _dense(emb: Tensor, labels: Tensor, group: Any, **margins: float) -> Tensor:
    """As plain PyTorch writes it: all rows on every rank, with this rank's among them for the gradient."""
    ranks, own = dist.get_world_size(group), dist.get_rank(group)
    rows = [torch.empty_like(emb) for _ in range(ranks)]
    all_labels = [torch.empty_like(labels) for _ in range(ranks)]
    dist.all_gather(rows, emb.detach(), group=group)
    dist.all_gather(all_labels, labels, group=group)
    rows[own] = emb
    return opponents.dense_tcm_loss(torch.cat(rows), torch.cat(all_labels), **margins) * ranks


def _metric_learning(emb: Tensor, labels: Tensor, **margins: float) -> Callable[[], Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pytorch_metric_learning.losses import ThresholdConsistentMarginLoss  # noqa: PLC0415
        from pytorch_metric_learning.utils.distributed import DistributedLossWrapper  # noqa: PLC0415

    loss = DistributedLossWrapper(ThresholdConsistentMarginLoss(**margins))
    return lambda: loss(emb, labels)


class KernelTime:
    """CPU seconds that this thread has spent in the backend."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Around everything that is to be counted."""
        backend: Any = dispatch.module("cpu")
        names = ("pair_sums", "add_pair_sums", "pair_sums_backward")
        right = {name: getattr(backend, name) for name in names}

        def timed(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any) -> Any:
                begin = time.thread_time()
                try:
                    return function(*arguments)
                finally:
                    self.seconds += time.thread_time() - begin

            return call

        for name, function in right.items():
            setattr(backend, name, timed(function))
        try:
            yield
        finally:
            for name, function in right.items():
                setattr(backend, name, function)


def time_ranks(
    case: Case, budget_s: float, names: Sequence[str] = (), processes: Sequence[int] = PROCESSES
) -> dict[str, dict[str, list[float]]]:
    """Of one rank, the seconds of each entry in each round: {title: {"cpu", "wall", "kernel"}}."""
    work = workload.make(case)
    rank = dist.get_rank()
    groups = {ranks: dist.new_group(range(ranks)) for ranks in processes}
    turns = entries(case, names, processes)
    steps = {entry: step_of(entry, work, groups.get(entry.ranks)) for entry in turns if rank < entry.ranks}
    found: dict[str, dict[str, list[float]]] = {}
    kernel = KernelTime()
    begin = time.monotonic()
    with kernel.counted():
        for round_ in range(1000):
            goes_on = torch.tensor([round_ < 6 or time.monotonic() - begin < budget_s])
            dist.broadcast(goes_on, 0)
            if not goes_on:
                break
            for entry in turns:
                dist.barrier()
                if entry not in steps:
                    continue
                kernel.seconds = 0.0
                cpu, wall = time.process_time(), time.perf_counter()
                steps[entry]()
                cells = {
                    "cpu": time.process_time() - cpu,
                    "wall": time.perf_counter() - wall,
                    "kernel": kernel.seconds,
                }
                if round_ > 0:  # the first makes pools and connections
                    of_entry = found.setdefault(entry.title, {name: [] for name in cells})
                    for name, seconds in cells.items():
                        of_entry[name].append(seconds)
    return found


def peak_of_ranks(case: Case, entry: Entry) -> dict[str, int]:
    """Of one rank, the peak, and the kernel's workspace in it."""
    group = dist.group.WORLD if entry.ranks > 1 else None
    small = dataclasses.replace(case, n=64 * entry.ranks)
    step_of(entry, workload.make(small), group)()
    step = step_of(entry, workload.make(case), group)
    rows = torch.empty(case.n // entry.ranks, case.d)
    others = {"gather": torch.empty(case.n, case.d), "ring": rows, "rows": rows}.get(entry.name)
    workspace = torch.ops.tcm_kernels._cpu_workspace_bytes
    dist.barrier()
    peak_bytes, _ = memory.resident_peak(step)
    ours = entry.name in (ALONE, *OURS)
    return {"peak_bytes": peak_bytes, "workspace_bytes": workspace(rows, others, 1) if ours else 0}


def _as_rank(options: argparse.Namespace) -> None:
    """One of the processes that `torchrun` starts; the first writes what all have found."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    case = Case(**json.loads(options.case))
    if options.peak_of:
        mine: Any = peak_of_ranks(case, Entry(options.peak_of, dist.get_world_size()))
    else:
        mine = time_ranks(case, options.budget, options.competitor, options.processes)
    everybodys: list[Any] | None = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
    dist.gather_object(mine, everybodys)
    if everybodys is not None:
        options.as_rank.write_text(json.dumps(everybodys), encoding="utf-8")
    dist.barrier()  # nobody leaves while another still talks
    dist.destroy_process_group()
    # At once: while Python shuts down, a thread of Gloo that frees a tensor may abort it (PyTorch 179291).
    sys.stderr.flush()
    os._exit(0)


def _on_ranks(ranks: int, case: Case, *arguments: str, of_memory: bool = False) -> list[Any]:
    """What each rank has found."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report"
        subprocess.run(
            [
                *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
                *("--nproc-per-node", str(ranks), "-m", "benchmarks.suites.distributed"),
                *("--as-rank", str(report), "--case", json.dumps(dataclasses.asdict(case)), *arguments),
            ],
            cwd=ROOT,
            env=os.environ | (memory.FREED_AT_ONCE if of_memory else {}) | {"OMP_NUM_THREADS": "1"},
            check=False,
        )
        if not report.exists():
            raise RuntimeError(f"{case.title} on {ranks} ranks: no rank has reported, see above")
        found: list[Any] = json.loads(report.read_text(encoding="utf-8"))
        return found


def slowest(ranks: Sequence[dict[str, dict[str, list[float]]]], entry: Entry, what: str) -> list[float]:
    """Of each round, the seconds of the rank that took most."""
    of_ranks = [of_rank[entry.title][what] for of_rank in ranks if entry.title in of_rank]
    return [max(of_round) for of_round in zip(*of_ranks, strict=True)]


def measure(
    case: Case, budget_s: float, names: Sequence[str] = (), processes: Sequence[int] = PROCESSES
) -> list[dict[str, Any]]:
    """The records of a case, one for each entry."""
    chosen = [word for name in names for word in ("--competitor", name)]
    chosen += ["--processes", *map(str, processes)]
    timed = _on_ranks(max(processes), case, "--budget", str(budget_s), *chosen)
    alone = {what: slowest(timed, Entry(ALONE, 1), what) for what in ("cpu", "wall")}
    records = []
    for entry in entries(case, names, processes):
        seconds = {what: slowest(timed, entry, what) for what in ("cpu", "wall", "kernel")}
        peaks = _on_ranks(entry.ranks, case, "--peak-of", entry.name, of_memory=True)
        most = max(peaks, key=lambda peak: peak["peak_bytes"] - peak["workspace_bytes"])
        array = 4 * case.n // entry.ranks * case.d
        records.append(
            {
                "case": {"title": f"{case.title}: {entry.title}", **dataclasses.asdict(case)},
                "competitor": entry.name,
                "ranks": entry.ranks,
                "seconds": {what: dataclasses.asdict(Summary.of(each)) for what, each in seconds.items()},
                "over_one_process": {
                    what: dataclasses.asdict(
                        Summary.of([a / b for a, b in zip(seconds[what], alone[what], strict=True)])
                    )
                    for what in alone
                },
                **most,
                "arrays": (most["peak_bytes"] - most["workspace_bytes"]) / array,
                "environment": environment.describe("cpu") | {"threads": 1},
            }
        )
        print(f"{case.title}: {entry.title}", file=sys.stderr, flush=True)
    return records


def text(content: result_files.Results) -> str:
    """The results for people."""
    heading = (
        "N", "D", "competitor", "ranks", "CPU s", "CPU / one", "wall / one", "kernel s", "peak", "arrays",
    )  # fmt: skip
    rows = [
        (
            f"{record['case']['n']:,}",
            str(record["case"]["d"]),
            record["competitor"],
            str(record["ranks"]),
            table.seconds(record["seconds"]["cpu"]["median"]),
            f"{record['over_one_process']['cpu']['median']:.2f}",
            f"{record['over_one_process']['wall']['median']:.2f}",
            table.seconds(record["seconds"]["kernel"]["median"]),
            table.size(record["peak_bytes"]),
            f"{record['arrays']:.1f}",
        )
        for record in content["records"]
    ]
    return table.grid(heading, rows)


def path(folder: Path, slug: str) -> Path:
    """Where the results of a device lie."""
    return folder / f"distributed-{slug}.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.suites.distributed", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "--budget", type=float, default=120.0, metavar="S", help="seconds a case (default 120)"
    )
    parser.add_argument(
        "--n", type=int, action="append", help="rows of all ranks: only the cases of that many"
    )
    parser.add_argument(
        "--competitor",
        choices=(*OURS, *MOST_ROWS),
        action="append",
        default=[],
        help="only these; default all",
    )
    parser.add_argument(
        "--processes",
        type=int,
        nargs="+",
        default=PROCESSES,
        metavar="P",
        help="how many a batch is spread over (default 2 4)",
    )
    parser.add_argument("--out", type=Path, default=result_files.FOLDER, metavar="FOLDER")
    parser.add_argument("--as-rank", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.as_rank:
        _as_rank(options)
        return 0
    there = path(options.out, environment.slug("cpu"))
    content = result_files.load_if_there(there)
    for case in CASES:
        if options.n and case.n not in options.n:
            continue
        records = measure(case, options.budget, options.competitor, options.processes)
        content = result_files.merged(content, result_files.stamped(there.stem, SCHEMA, records))
        result_files.write_json(there, content)
    if content is not None:
        print(text(content))
        print(f"wrote {there}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
