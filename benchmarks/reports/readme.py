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

import functools
import math
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks import ROOT
from benchmarks.harness import digits, opponents, quoted, result_files, table
from benchmarks.harness.quoted import QuoteError
from benchmarks.harness.result_files import FOLDER, Results
from benchmarks.harness.workload import STEPS, Case
from benchmarks.suites import distributed, grid, histogram, training_step

KIND = "bench"
README = ROOT / "README.md"
SLUG = "cpu-intel-xeon-2-threads"
FORWARD, BOTH = STEPS
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
    Case(8192, 512, kind="correlated"),
    Case(8192, 512, kind="spectrum"),
    Case(8192, digits.D, kind="demo", epoch=0),
    Case(8192, digits.D, kind="demo", epoch=digits.LAST_EPOCH),
)
FORMS = {  # of medians
    "seconds": table.seconds,
    "ratio": "{:.2f}".format,
    "over_one_process": "{:.2f}".format,
    "share": "{:.0%}".format,
}
NAMES = {"alone": distributed.ALONE}  # of competitors that are called by more than a word
SIMILAR = 3.0  # times as dense or as sparse: still the case that a row means


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
    value: Any = _record(which, files)
    for key in way.split("/"):
        if not isinstance(value, dict) or key not in value:
            raise QuoteError(f"no such figure: {name!r}")
        value = value[key]
    text = _text(value, way)
    if text is None:
        raise QuoteError(f"no such figure: {name!r}")
    return text


def _text(value: Any, way: str) -> str | None:
    """A value as README shows it; None for what is no figure."""
    match value:
        case {"ratio_to_unit": _}:
            text = _ratio(value)
        case {"peak_bytes": _}:
            text = _memory(value)
        case {"median": median} if form := FORMS.get(way.split("/", maxsplit=1)[0]):
            text = form(median)
        case float():
            text = f"{value:.1e}"
        case int():
            text = table.size(value) if way.endswith("_bytes") else f"{value:,}"
        case str():
            text = value
        case _:
            return None
    return text


def _record(which: str, files: dict[str, Results]) -> dict[str, Any]:
    match which.split("-"):
        case ["headline"] | ["full", "precision"]:
            record = find(files[which], HEADLINE)
            screening = "int8" if which == "headline" else "full-precision"
            if record is not None and record["backend_screening"] == screening:
                return record
        case ["histogram"]:
            return max(files[which]["records"], key=lambda record: record["case"]["n"])
        case ["distributed", way, ranks]:
            of_way = [
                record
                for record in files["distributed"]["records"]
                if (record["competitor"], str(record["ranks"])) == (NAMES.get(way, way), ranks)
            ]
            if of_way:
                return max(of_way, key=lambda record: record["case"]["n"])
        case ["step", batch_size, epoch]:
            for record in files["step"]["records"]:
                if (str(record["batch_size"]), str(record["epoch"])) == (batch_size, epoch):
                    return record
    raise QuoteError(f"no such record: {which!r}")


def find(results: Results, case: Case) -> dict[str, Any] | None:
    """The record that is like the case, whatever its seed and margins; of several that nearest in density."""

    def distance(record: dict[str, Any]) -> float:
        if case.kind != "clusters":  # its margins are given, and its density is what comes out
            return 0.0
        return abs(math.log(max(record["hard_density"], 1e-12) / case.density))

    same = {"n": case.n, "m": None, "d": case.d, "kind": case.kind, "dtype": case.dtype}
    alike = [
        record
        for record in result_files.preferred(results["records"])
        if same.items() <= record["case"].items()
        and record["case"].get("epoch") == case.epoch
        and (case.kind != "clusters" or record["case"]["per_class"] == case.per_class)
        and distance(record) < math.log(SIMILAR)
    ]
    return min(alike, key=distance, default=None)


def rows(results: Results) -> str:
    """Medians of the ratios to U, for those of ROWS that were measured."""
    names = {opponents.OURS: "", opponents.DENSE: "dense PyTorch, ", opponents.COMPILED: "torch.compile, "}
    both = [f"{name}{BOTH}" for name in names.values()]
    heading = ("N × D", "hard pairs", "U", FORWARD, *both, "peak memory", "dense PyTorch's")
    lines = []
    for record in filter(None, (find(results, case) for case in ROWS)):
        ours, dense, compiled = (record["competitors"][name] for name in names)
        line = (
            f"{record['case']['n']:,} × {record['case']['d']}{_kind(record['case'])}",
            f"{record['hard_density']:.1e}",
            table.seconds(record["units"]["U"]["seconds"]["median"]),
            *(f"**{_ratio(ours['steps'][step], ' U')}**" for step in STEPS),
            *(_ratio(cells["steps"][BOTH], " U") for cells in (dense, compiled)),
            *(_memory(cells["memory"]) for cells in (ours, dense)),
        )
        lines.append(line)
    return "\n".join(table.grid(heading, lines))


def _kind(case: dict[str, Any]) -> str:
    if case["kind"] == "demo":
        return ", digits untrained" if case["epoch"] == 0 else f", digits after {case['epoch']} epochs"
    return "" if case["kind"] == "clusters" else f", {case['kind']}"


def _ratio(cell: dict[str, Any], unit: str = "") -> str:
    if cell["status"] != "measured":
        return cell["status"]
    if cell["ratio_to_unit"] is None:
        return "no U to compare with"
    median = cell["ratio_to_unit"]["median"]
    return (f"{median:.2g}" if median < 100 else f"{median:,.0f}") + unit


def _memory(cell: dict[str, Any]) -> str:
    return table.size(cell["peak_bytes"]) if cell["status"] == "measured" else cell["status"]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    files = {name: result_files.load(path) for name, path in FILES.items()}
    of_name = functools.partial(figure, files=files)
    return quoted.main("benchmarks.reports.readme", __doc__, KIND, of_name, [README], arguments)


if __name__ == "__main__":
    sys.exit(main())
