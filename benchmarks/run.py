"""Measure the grid and write `results/<device>.json` and, from it, `results/<device>.md`.

    python -m benchmarks.run                     all cases of this machine's device
    python -m benchmarks.run --cases N=8192      those whose title contains the text
    python -m benchmarks.run --quick             two tiny cases, to see that everything works

Files are replaced as a whole when the grid is done; an interrupted run leaves the old ones. The exit status
is 1 if any result of ours was wrong (its times are then not recorded).
"""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import environment, measure, opponents, table, workload
from tcm_kernels import dispatch

RESULTS = Path(__file__).resolve().parent / "results"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    grid = workload.QUICK_CASES if options.quick else workload.CASES + workload.MORE_CASES
    cases = [case for case in grid if case.device == options.device and options.cases in case.title]
    if not cases:
        titles = "\n  ".join(case.title for case in grid)
        print(f"no case on {options.device} contains {options.cases!r}; there are\n  {titles}")
        return 2
    if (reason := workload.why_not_here(cases[0])) is not None:
        print(f"--device {options.device}: {reason}")
        return 2

    records, all_right = [], True
    begin = time.monotonic()
    for i, case in enumerate(cases):
        _say(f"case {i + 1} of {len(cases)}: {case.title}{_remaining(begin, i, len(cases))}")
        bench = measure.Bench(case, options.backend, options.without, log=lambda phase: _say(f"  {phase}"))
        memory_of = () if options.no_memory else measure.EVERYONE
        records.append(bench.measure(budget_s=options.budget, memory_of=memory_of))
        if bench.wrong:
            all_right = False
            _say(f"  WRONG RESULT, no time recorded: {bench.wrong}")
        del bench
        gc.collect()

    name = environment.slug(options.device) + ("-quick" if options.quick else "")
    results = {
        "schema": measure.SCHEMA,
        "slug": name,
        "written": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "settings": {
            "backend": options.backend,
            "budget_s": options.budget,
            "cases": options.cases,
            "without": options.without,
            "quick": options.quick,
        },
        "records": records,
    }
    path = write(results, options.out)
    _say(f"{time.monotonic() - begin:.0f} s; wrote {path} and {path.with_suffix('.md').name}")
    return 0 if all_right else 1


def write(results: dict[str, Any], folder: Path) -> Path:
    """Write <slug>.json and <slug>.md into the folder, each replaced at once; returns the JSON's path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{results['slug']}.json"
    text = json.dumps(results, indent=1, ensure_ascii=False) + "\n"
    _replace(path, text)
    _replace(path.with_suffix(".md"), table.markdown(json.loads(text)))
    return path


def _replace(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


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
    parser.add_argument("--cases", default="", metavar="TEXT", help="only cases whose title contains TEXT")
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu"
    )
    parser.add_argument("--backend", choices=("auto", *dispatch.BACKENDS), default="auto")
    parser.add_argument(
        "--budget", type=float, default=30.0, metavar="S", help="seconds of timing a case (default 30)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="as torch.set_num_threads")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="FOLDER")
    parser.add_argument("--quick", action="store_true", help="two tiny cases; file name ends in -quick")
    opponent_names = [c.name for c in opponents.COMPETITORS if c.name != opponents.OURS]
    parser.add_argument(
        "--without", action="append", default=[], choices=opponent_names, help="leave this opponent out"
    )
    parser.add_argument("--no-memory", action="store_true", help="skip the peak-memory processes")
    return parser


if __name__ == "__main__":
    sys.exit(main())
