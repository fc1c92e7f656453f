"""What Nsight Compute counts in our kernels at the headline case, condensed into the device's file.

    python -m benchmarks.gpu.profile --ncu ncu --backend triton --backend cuda --out FILE.json

Of every kernel of one forward and backward: how long it takes, how busy tensor pipe and issue slots are, what
its warps wait for, and how many bytes go through DRAM and L2. The tool's own sections are asked for, whose
metrics exist on every chip under names of its own, and are then found by what the names have in common; byte
counts, which no section has under all circumstances, are asked for by name, and given up where the tool does
not know them. Clocks are left as they are: the machine may be shared.
"""

from __future__ import annotations

import argparse
import csv
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import ROOT
from benchmarks.gpu.state import PROFILE
from benchmarks.harness import measure, result_files
from benchmarks.suites import grid

SECTIONS = (
    "SpeedOfLight",  # duration
    "ComputeWorkloadAnalysis",  # pipes
    "SchedulerStats",  # issue slots
    "WarpStateStats",  # stalls
    "MemoryWorkloadAnalysis",
    "LaunchStats",  # registers
)
BYTES = ("dram__bytes_read.sum", "dram__bytes_write.sum", "lts__t_bytes.sum")
MOST_LAUNCHES = 48
STALLS_SHOWN = 3

TENSOR_PIPE = r"pipe_tensor.*\.avg\.pct_of_peak_sustained_active$"
ISSUE_SLOTS = r"(inst_issued|issue_active)\.avg\.pct_of_peak_sustained_active$"
STALL = r"issue_stalled_(?!.*not_issued)(\w+?)_per_issue_active\.ratio$"

Kernel = dict[str, Any]


def kernels(text: str) -> list[Kernel]:
    """Of the tool's table of raw metrics, a line a launch, in base units."""
    lines = text.splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), len(lines))
    found = []
    for row in csv.DictReader(lines[start:]):
        if row["ID"].isdigit():  # no units, as in the first row, nor the tool's own words
            found.append(_condensed(row))
    return found


def _condensed(row: dict[str, str]) -> Kernel:
    numbers = {name: number for name, value in row.items() if name and (number := _number(value)) is not None}
    stalls = {m[1]: numbers[name] for name in numbers if (m := re.search(STALL, name))}
    most = sorted(stalls, key=lambda reason: -stalls[reason])[:STALLS_SHOWN]
    return {
        "kernel": row["Kernel Name"].split("(")[0][:80],
        "grid": row.get("Grid Size"),
        "block": row.get("Block Size"),
        "registers": numbers.get("launch__registers_per_thread"),
        "duration, µs": _scaled(numbers.get("gpu__time_duration.sum"), 1e-3),
        "tensor pipe, %": _largest(numbers, TENSOR_PIPE),
        "issue slots, %": _largest(numbers, ISSUE_SLOTS),
        "DRAM, MB": _scaled(_sum(numbers, BYTES[:2]), 1e-6),
        "L2, MB": _scaled(numbers.get(BYTES[2]), 1e-6),
        "stalls": {reason: stalls[reason] for reason in most},
    }


def _number(value: str | None) -> float | None:
    try:
        return float((value or "").replace(",", ""))
    except ValueError:
        return None


def _largest(numbers: dict[str, float], pattern: str) -> float | None:
    return max((value for name, value in numbers.items() if re.search(pattern, name)), default=None)


def _sum(numbers: dict[str, float], names: Sequence[str]) -> float | None:
    return sum(numbers[name] for name in names) if all(name in numbers for name in names) else None


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def commands(ncu: str, backend: str, table: Path) -> Iterator[list[str]]:
    """How to ask for the counters, first with those that the tool may not know."""
    sections = [word for name in SECTIONS for word in ("--section", name)]
    program = [sys.executable, "-m", "benchmarks.gpu.kernels", "headline", "--backend", backend]
    for metrics in (["--metrics", ",".join(BYTES)], []):
        yield [
            *(ncu, "--clock-control", "none", "--profile-from-start", "off", "--csv", "--page", "raw"),
            *("--print-units", "base", "--launch-count", str(MOST_LAUNCHES), "--log-file", str(table)),
            *(*sections, *metrics, *program),
        ]


def profiled(ncu: str, backend: str) -> list[Kernel]:
    """The backend's kernels; none where the tool failed, which it has then said itself."""
    for_all = []
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder, "profile.csv")
        for command in commands(ncu, backend, table):
            done = subprocess.run(command, cwd=ROOT, check=False)
            text = table.read_text(encoding="utf-8", errors="replace") if table.exists() else ""
            for_all = kernels(text)
            if for_all:
                break
            print(f"{' '.join(command)}\nended with {done.returncode}:\n{text[:2000]}", flush=True)
    return for_all


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu.profile", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--ncu", required=True, metavar="PROGRAM")
    parser.add_argument("--backend", action="append", required=True)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    parser.add_argument("--missing", action="store_true", help="only backends that the file has nothing of")
    options = parser.parse_args(arguments)
    failures = 0
    for backend in options.backend:
        content = _content(options.out)
        if options.missing and backend in content.get(PROFILE, {}):
            continue
        found = profiled(options.ncu, backend)
        if not found:
            failures += 1
            continue
        content = _content(options.out)
        grid.write(options.out, content | {PROFILE: content.get(PROFILE, {}) | {backend: found}})
        for kernel in found:
            print(kernel, flush=True)
    return int(failures > 0)


def _content(path: Path) -> result_files.Results:
    return result_files.load_if_there(path) or result_files.stamped(path.stem, measure.SCHEMA, [])


if __name__ == "__main__":
    sys.exit(main())
