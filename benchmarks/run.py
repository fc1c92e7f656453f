"""Measure the grid and write `results/<device>.json` and, from it, `results/<device>.md`.

    python -m benchmarks.run                        all sweeps, on this machine's device
    python -m benchmarks.run --sweep N --sweep D    these only
    python -m benchmarks.run --cases N=8192         those whose title contains the text
    python -m benchmarks.run --screening full       as on a processor without 8-bit units; own files
    python -m benchmarks.run --quick                two tiny cases, to see that everything works

After every case its record takes the place of the one that the file has of it, and the files are replaced
as a whole: records of other cases stay, and an interrupted run keeps what it has. A complete run drops
the records of cases that no sweep has any more. The exit status is 1 if any result of ours was wrong
(its times are then not recorded).
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import environment, measure, opponents, result_files, sweeps, table, workload
from benchmarks.workload import Case
from tcm_kernels import dispatch

SCREENING = "TCM_KERNELS_CPU_SCREENING"
"""The environment variable that the `cpu` backend reads at its first use; inherited by our processes."""

SUFFIXES = {
    "full": "-full-precision-screening",
    "int8": "-int8-screening",
    "bfloat16": "-bfloat16-screening",
}
"""Of file names, by what SCREENING asks for."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.screening:
        os.environ[SCREENING] = options.screening
    grid = sweeps.TINY if options.quick else sweeps.cases(options.sweep or tuple(sweeps.SWEEPS))
    asked_for = [case for case in grid if case.device == options.device and options.cases in case.title]
    if not asked_for:
        titles = "\n  ".join(case.title for case in grid)
        print(f"no case on {options.device} contains {options.cases!r}; there are\n  {titles}")
        return 2
    reasons = {case.title: workload.why_not_here(case) for case in asked_for}
    for title, reason in reasons.items():
        if reason is not None:
            _say(f"left out: {title}: {reason}")
    cases = [case for case in asked_for if reasons[case.title] is None]
    if not cases:
        print(f"--device {options.device}: none of the cases can be measured here")
        return 2

    name = slug(options.device, options.backend) + ("-quick" if options.quick else "")
    path = options.out / f"{name}.json"
    order = [case.title for case in grid] if options.quick else [case.title for case in sweeps.cases()]
    if path.exists():
        result_files.load(path)  # a file that cannot be read is better known of before the measurements
    all_right = True
    begin = time.monotonic()
    for i, case in enumerate(cases):
        _say(f"case {i + 1} of {len(cases)}: {case.title}{_remaining(begin, i, len(cases))}")
        record, wrong = _measure(case, options)
        if wrong:
            all_right = False
            _say(f"  WRONG RESULT, no time recorded: {wrong}")
        merge(path, [record], order)
    if not (options.quick or options.sweep or options.cases):
        drop_others(path, order)
    _say(f"{time.monotonic() - begin:.0f} s; wrote {path} and {path.with_suffix('.md').name}")
    return 0 if all_right else 1


def slug(device: str, backend: str = "auto") -> str:
    """The results' file name on this machine, with the backend and the screening where one was asked for."""
    of_backend = "" if backend == "auto" else f"-{backend}-backend"
    return environment.slug(device) + of_backend + SUFFIXES.get(os.environ.get(SCREENING, ""), "")


def _measure(case: Case, options: argparse.Namespace) -> tuple[dict[str, Any], str | None]:
    """The case's record, and what is wrong with our result if something is."""
    begin = time.monotonic()
    bench = measure.Bench(
        case,
        options.backend,
        options.without,
        log=lambda phase: _say(f"  {time.monotonic() - begin:6.1f} s  {phase}"),
    )
    # A process each, in which torch is loaded and torch.compile compiles once more: of the opponents that
    # the tables leave out, once a sweep is enough.
    thorough = options.quick or case in sweeps.SWEEPS["batches"]
    memory_of = measure.EVERYONE if thorough else measure.OURS_AND_DENSE
    record = bench.measure(budget_s=options.budget, memory_of=() if options.no_memory else memory_of)
    record["settings"] = {
        "backend": options.backend,
        "budget_s": options.budget,
        "without": options.without,
    }
    record["measuring_took_s"] = round(time.monotonic() - begin, 1)
    wrong = bench.wrong
    del bench
    gc.collect()
    return record, wrong


def merge(path: Path, records: list[dict[str, Any]], order: Sequence[str]) -> None:
    """Put the records into the file, which may not be there yet, and renew its table."""
    old = result_files.load(path) if path.exists() else None
    write(path, result_files.merged(old, result_files.stamped(path.stem, measure.SCHEMA, records), order))


def drop_others(path: Path, titles: Sequence[str]) -> None:
    """Leave only the records with these titles in the file."""
    content = result_files.load(path)
    write(path, content | {"records": [r for r in content["records"] if result_files.title(r) in titles]})


def write(path: Path, content: result_files.Results) -> None:
    """The JSON file and, made of what it holds, the Markdown file beside it."""
    result_files.write_json(path, content)
    result_files.replace(path.with_suffix(".md"), table.markdown(json.loads(json.dumps(content))).encode())


def _remaining(begin: float, done: int, total: int) -> str:
    """Of the whole grid, judged by the cases so far, as "; about 2 min left"; "" before the first."""
    if done == 0:
        return ""
    left_s = (time.monotonic() - begin) / done * (total - done)
    return f"; about {left_s / 60:.0f} min left" if left_s >= 60 else f"; about {left_s:.0f} s left"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--sweep",
        action="append",
        choices=tuple(sweeps.SWEEPS),
        help="only this sweep; may be given more than once (default: all)",
    )
    parser.add_argument("--cases", default="", metavar="TEXT", help="only cases whose title contains TEXT")
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu"
    )
    parser.add_argument("--backend", choices=("auto", *dispatch.BACKENDS), default="auto")
    parser.add_argument(
        "--screening",
        choices=tuple(SUFFIXES),
        help=f"what the cpu backend screens with (default: its choice, or {SCREENING}); own files",
    )
    parser.add_argument(
        "--budget", type=float, default=30.0, metavar="S", help="seconds of timing a case (default 30)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="as torch.set_num_threads")
    parser.add_argument("--out", type=Path, default=result_files.FOLDER, metavar="FOLDER")
    parser.add_argument("--quick", action="store_true", help="two tiny cases; file name ends in -quick")
    opponent_names = [c.name for c in opponents.COMPETITORS if c.name != opponents.OURS]
    parser.add_argument(
        "--without", action="append", default=[], choices=opponent_names, help="leave this opponent out"
    )
    parser.add_argument("--no-memory", action="store_true", help="skip the peak-memory processes")
    return parser


if __name__ == "__main__":
    sys.exit(main())
