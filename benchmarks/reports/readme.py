"""README's figures of speed and memory, made from files under benchmarks/results/ and from nothing else.

    python -m benchmarks.reports.readme          put the figures in their places
    python -m benchmarks.reports.readme --check  exit 1 if README.md shows others

A figure stands between two comments (benchmarks/harness/quoted.py). Its name gives a record, one of those
below, and the way to the figure within it:

    <!--bench headline competitors/tcm_kernels/steps/forward+backward-->0.18<!--/bench-->

    headline, full-precision   the headline case as `benchmarks.suites.grid` measured it, the second with
                               full-precision screening
    histogram                  the largest that `benchmarks.suites.histogram` counted
    step-1024-0, ...           `benchmarks.suites.training_step`, by batch size and epoch
    distributed-ring-4, ...    the largest batch of `benchmarks.suites.distributed`, by way and processes

`<!--bench table-->` is the table of ROWS, `<!--bench cases-->` how many cases its file has.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from benchmarks import ROOT
from benchmarks.harness import quoted, result_files, sweeps, table
from benchmarks.harness.opponents import COMPILED, DENSE, OURS
from benchmarks.harness.quoted import QuoteError
from benchmarks.harness.result_files import FOLDER, Results
from benchmarks.harness.table import Column, Record
from benchmarks.harness.workload import Case
from benchmarks.suites import distributed, grid, histogram, training_step

KIND = "bench"
README = ROOT / "README.md"
SLUG = "cpu-intel-xeon-2-threads"
FILES = {
    "headline": FOLDER / f"{SLUG}.json",
    "full-precision": FOLDER / f"{SLUG}{grid.SUFFIXES['full']}.json",
    "histogram": histogram.path(FOLDER, SLUG),
    "step": training_step.path(FOLDER, SLUG),
    "distributed": distributed.path(FOLDER, SLUG),
}
HEADLINE = Case(8192, 512, density=1e-3)
# The table stays short: sizes, then densities, then kinds. Everything is in the Markdown file of the results.
ROWS = (
    Case(256, 128, density=1e-2),
    Case(1024, 128, density=4e-3),
    Case(2048, 128, density=1e-3),
    Case(65536, 128, density=1e-3),
    Case(16384, 512, density=1e-3),
    HEADLINE,
    Case(8192, 512, density=1e-2),
    Case(8192, 512, density=0.5),
    Case(8192, 512, density=1.0),
    *sweeps.SWEEPS["kinds"][1:],
    sweeps.SWEEPS["training"][0],
    sweeps.SWEEPS["training"][-1],
)
SCREENING = {"headline": "int8", "full-precision": "full-precision"}  # of the headline case, by file
NAMES: dict[str, Callable[[Record], str]] = {  # of the records of the other files
    "histogram": lambda record: "histogram",
    "step": lambda record: f"step-{record['batch_size']}-{record['epoch']}",
    "distributed": lambda record: f"distributed-{record['competitor']}-{record['ranks']}".replace(" ", "-"),
}


def figure(name: str, files: dict[str, Results]) -> str:
    """The figure of a name as above, out of files by the names of FILES.

    Raises:
        QuoteError: there is no such figure.
    """
    if name == "cases":
        return str(len(result_files.preferred(files["headline"]["records"])))
    if name == "table":
        return f"\n{rows(files['headline'])}\n"
    which, _, way = name.partition(" ")
    record = _by_name(files).get(which)
    if record is None:
        raise QuoteError(f"no such record: {which!r}")
    text = _text(table.at(record, way), way)
    if text is None:
        raise QuoteError(f"no such figure: {name!r}")
    return text


def _by_name(files: dict[str, Results]) -> dict[str, Record]:
    """The records that figures are of, by their names as above; of several with a name the largest."""
    found = {}
    for file, results in files.items():
        if file in SCREENING:
            record = result_files.preferred(results["records"]).get(HEADLINE.title)
            if record is not None and record["backend_screening"] == SCREENING[file]:
                found[file] = record
        else:
            largest_last = sorted(results["records"], key=lambda record: table.at(record, "case/n") or 0)
            found |= {NAMES[file](record): record for record in largest_last}
    return found


def _text(value: Any, way: str) -> str | None:
    """A value as README shows it; None for what is no figure."""
    match value:
        case {"ratio_to_unit": None}:
            text = "no U to compare with"
        case {"ratio_to_unit": {"median": median}}:
            text = table.ratio(median, digits=2)
        case {"peak_bytes": size}:
            text = table.size(size)
        case {"median": median} if way.startswith("seconds/"):
            text = table.seconds(median)
        case {"median": median} if way.startswith("share/"):
            text = f"{median:.0%}"
        case {"median": median} if way.startswith(("ratio", "over_one_process/")):
            text = f"{median:.2f}"
        case float():
            text = f"{value:.1e}"
        case int():
            text = table.size(value) if way.endswith("_bytes") else f"{value:,}"
        case str():
            text = value
        case _:
            return None
    return text


def rows(results: Results) -> str:
    """Medians of the ratios to U, for those of ROWS that were measured."""
    records = result_files.preferred(results["records"])
    return table.of_records(COLUMNS, [records[case.title] for case in ROWS if case.title in records])


def _shape(record: Record) -> str:
    case = record["case"]
    digits = f"digits after {case['epoch']} epochs" if case["epoch"] else "digits untrained"
    kind = {"clusters": "", "demo": f", {digits}"}.get(case["kind"], f", {case['kind']}")
    return f"{case['n']:,} × {case['d']}{kind}"


def _cell(way: str, pattern: str, record: Record) -> str:
    """The pattern with the figure; without one the status alone, which keeps the table narrow."""
    cell = table.at(record, way)
    return pattern.format(_text(cell, way)) if cell["status"] == "measured" else cell["status"]


COLUMNS: dict[str, Column] = {
    "N × D": _shape,
    "hard pairs": lambda record: f"{record['hard_density']:.1e}",
    "U": lambda record: table.seconds(record["units"]["U"]["seconds"]["median"]),
    "forward": partial(_cell, f"competitors/{OURS}/steps/forward", "**{} U**"),
    "forward+backward": partial(_cell, f"competitors/{OURS}/steps/forward+backward", "**{} U**"),
    "dense PyTorch, forward+backward": partial(_cell, f"competitors/{DENSE}/steps/forward+backward", "{} U"),
    "torch.compile, forward+backward": partial(
        _cell, f"competitors/{COMPILED}/steps/forward+backward", "{} U"
    ),
    "peak memory": partial(_cell, f"competitors/{OURS}/memory", "{}"),
    "dense PyTorch's": partial(_cell, f"competitors/{DENSE}/memory", "{}"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    files = {name: result_files.load(path) for name, path in FILES.items()}
    of_name = partial(figure, files=files)
    return quoted.main("benchmarks.reports.readme", __doc__, KIND, of_name, [README], arguments)


if __name__ == "__main__":
    sys.exit(main())
