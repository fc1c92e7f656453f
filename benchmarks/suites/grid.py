"""Measure the grid and write `results/<device>.json` and, from it, `results/<device>.md`.

    python -m benchmarks.suites.grid                        all sweeps, on this machine's device
    python -m benchmarks.suites.grid --sweep N --sweep D    these only
    python -m benchmarks.suites.grid --cases N=8192         those whose title contains the text
    python -m benchmarks.suites.grid --screening full       as on a processor without 8-bit units; own files
    python -m benchmarks.suites.grid --backend triton --backend cuda    both in the same rounds, a record each
    python -m benchmarks.suites.grid --missing              what the file has no record of
    python -m benchmarks.suites.grid --quick                two tiny cases, to see that everything works

After every case its record takes the place of the one that the file has of it and of the backend, and the
files are replaced as a whole: records of other cases stay, and an interrupted run keeps what it has. What is
asked for and not measured stands in the file with the reason; a process that died can be gone on with
(`--again`, see attempts.py). A complete run drops the records of cases that no sweep has any more. The exit
status is 1 if something of ours failed or was wrong (the times of a wrong result are not recorded).
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import gc
import json
import os
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import (
    attempts,
    cells,
    environment,
    measure,
    opponents,
    result_files,
    sweeps,
    table,
    workload,
)
from benchmarks.harness.workload import Case
from tcm_kernels import dispatch

SCREENING = "TCM_KERNELS_CPU_SCREENING"
"""The environment variable that the `cpu` backend reads at its first use; inherited by our processes."""

SUFFIXES = {
    "full": "-full-precision-screening",
    "int8": "-int8-screening",
    "bfloat16": "-bfloat16-screening",
}
"""Of file names, by what SCREENING asks for."""

NOT_BEGUN = "not begun"
NOT_ENDED = "begun, and not brought to an end"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    options.backend = options.backend or ["auto"]
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

    path = options.out / f"{slug(options.device)}{'-quick' if options.quick else ''}.json"
    order = [case.title for case in grid] if options.quick else [case.title for case in sweeps.cases()]
    all_right = _measure_all(cases, path, order, options)
    if not (options.quick or options.sweep or options.cases):
        drop_others(path, order)
    return 0 if all_right else 1


def slug(device: str) -> str:
    """The results' file name on this machine, with the screening where one was asked for."""
    return environment.slug(device) + SUFFIXES.get(os.environ.get(SCREENING, ""), "")


def _measure_all(cases: list[Case], path: Path, order: Sequence[str], options: argparse.Namespace) -> bool:
    """Measure what is asked for and say in the file what is not measured, and why; whether all went well."""
    by_title = {case.title: case for case in cases}
    content = result_files.load_if_there(path) or result_files.stamped(path.stem, measure.SCHEMA, [])
    keys = [(case.title, backend) for case in cases for backend in _backends(case, options.backend)]
    if options.again:
        keys = attempts.open_keys(content, keys)
    elif options.missing:
        keys = attempts.without_record(content, keys)
    if not options.again:
        content = attempts.anew(content, keys, NOT_BEGUN)
        write(path, content)
    all_right = True
    begin = time.monotonic()
    while left := attempts.open_keys(content, keys):
        group = attempts.queue(content, left)[0]
        case, backends = by_title[group[0][0]], [backend for _, backend in group]
        _say(
            f"{len(left)} of {len(keys)} left{_remaining(begin, len(keys) - len(left), len(keys))}: "
            f"{case.title}, {', '.join(backends)}"
        )
        tries = attempts.TOGETHER if len(group) > 1 else attempts.ALONE
        content = attempts.noted(content, group, NOT_ENDED, tries)
        write(path, content)
        try:
            with _watched(options.case_limit):
                records, failed = _measure(case, backends, options)
        except Exception as error:
            traceback.print_exc()
            records, failed = [], {}
            content = attempts.noted(content, group, cells.first_line(error))
        failed = {(case.title, backend): reason for backend, reason in failed.items()}
        for reason in failed.values():
            _say(f"  NO RIGHT RESULT, no time recorded: {reason}")
        content = result_files.merged(
            content, result_files.stamped(path.stem, measure.SCHEMA, records), order
        )
        done = [result_files.key(record) for record in records]
        content = attempts.settled(content, done)
        for key, reason in failed.items():
            if key not in done:
                content = attempts.noted(content, [key], reason, attempts.ALONE)
        write(path, content)
        all_right = all_right and not failed and bool(records)
        if case.device == "cuda" and (lost := _why_lost()) is not None:
            _say(f"the device is lost, a new process has to go on: {lost}")
            return False
    _say(f"{time.monotonic() - begin:.0f} s; wrote {path} and {path.with_suffix('.md').name}")
    return all_right


def _backends(case: Case, asked: Sequence[str]) -> list[str]:
    """The backends that are asked for, each once, "auto" by the name of the one that it takes."""
    taken = {name: dispatch.choose(name, case.device, case.torch_dtype) for name in asked if name == "auto"}
    return list(dict.fromkeys(taken.get(name, name) for name in asked))


def _measure(
    case: Case, backends: Sequence[str], options: argparse.Namespace
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The records of the backends that could be measured, and what is wrong with the others, by backend.

    A wrong result has both a record, without a time, and a reason.
    """
    begin = time.monotonic()
    bench = measure.Bench(
        case,
        backends,
        options.without,
        log=lambda phase: _say(f"  {time.monotonic() - begin:6.1f} s  {phase}"),
    )
    # A process each, in which torch is loaded and torch.compile compiles once more: of the opponents that
    # the tables leave out, once a sweep is enough.
    thorough = options.quick or case in sweeps.SWEEPS["batches"]
    memory_of = measure.EVERYONE if thorough else measure.OURS_AND_DENSE
    bench.measure(budget_s=options.budget, memory_of=() if options.no_memory else memory_of)
    for record in bench.records.values():
        record["settings"] = {
            "backend": ", ".join(options.backend),
            "budget_s": options.budget,
            "without": options.without,
        }
        record["measuring_took_s"] = round(time.monotonic() - begin, 1)
    records, failed = list(bench.records.values()), bench.failed
    del bench
    gc.collect()
    return records, failed


@contextlib.contextmanager
def _watched(limit_s: float | None) -> Iterator[None]:
    """End the process after so many seconds, whatever it waits for, and show where it was."""
    if limit_s is not None:
        faulthandler.dump_traceback_later(limit_s, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def _why_lost() -> str | None:
    """None where the GPU still answers: after a fault in a kernel no later call of the process does."""
    try:
        torch.zeros(1, device="cuda").item()
    except RuntimeError as error:
        return cells.first_line(error)
    return None


def drop_others(path: Path, titles: Sequence[str]) -> None:
    """Leave only the records with these titles in the file."""
    content = result_files.load(path)
    content = attempts.settled(content, [key for key in attempts.entries(content) if key[0] not in titles])
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
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.suites.grid", description=__doc__.splitlines()[0]
    )
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
    parser.add_argument(
        "--backend",
        action="append",
        choices=("auto", *dispatch.BACKENDS),
        help="may be given more than once: then all are measured in the same rounds (default: auto)",
    )
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
    parser.add_argument("--missing", action="store_true", help="only what the file has no record of")
    parser.add_argument(
        "--again", action="store_true", help="go on after a run that died: what it did not come to"
    )
    parser.add_argument(
        "--case-limit", type=float, metavar="S", help="end the process if a case takes longer than this"
    )
    parser.add_argument("--no-memory", action="store_true", help="skip the peak-memory processes")
    return parser


if __name__ == "__main__":
    sys.exit(main())
