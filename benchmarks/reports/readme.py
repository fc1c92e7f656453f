"""README's figures, made from files under benchmarks/results/ and from nothing else.

    python -m benchmarks.reports.readme          put the figures between the markers of README.md
    python -m benchmarks.reports.readme --check  exit 1 if README.md shows others

A test runs the check, so that README cannot keep a figure that no file has. What there is no file for, or
no record, README does not mention: pictures, screening without 8-bit units, the training step.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import ROOT
from benchmarks.harness import digits, opponents, result_files, table
from benchmarks.harness.result_files import FOLDER, Results, load, load_if_there
from benchmarks.harness.workload import STEPS, Case
from benchmarks.reports import figures
from benchmarks.suites import grid, histogram, training_step

README = ROOT / "README.md"
SLUG = "cpu-intel-xeon-2-threads"
RESULTS = FOLDER / f"{SLUG}.json"
FULL_PRECISION = FOLDER / f"{SLUG}{grid.SUFFIXES['full']}.json"
TRAINING_STEP = training_step.path(FOLDER, SLUG)
HISTOGRAM = histogram.path(FOLDER, SLUG)
FORWARD, BOTH = STEPS

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
SIMILAR = 3.0  # times as dense or as sparse: still the case that a row means


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


def headline(results: Results) -> str:
    """One sentence on the headline case: times against U and dense PyTorch, memory."""
    record = find(results, HEADLINE)
    if record is None:
        raise ValueError(f"{RESULTS.name} has no record like {HEADLINE.title!r}, README's headline")
    ours, dense = (record["competitors"][name] for name in (opponents.OURS, opponents.DENSE))
    case = record["case"]
    return (
        f"On {record['environment']['threads']} cores of an Intel Xeon, {case['n']:,} float32 embeddings of "
        f"{case['d']} dimensions take {_ratio(ours, BOTH)} of the time of a bare `x @ x.T`, forward and "
        f"backward together; dense PyTorch takes {_ratio(dense, BOTH)} times as long as that product. Peak "
        f"memory: {table.size(ours['memory']['peak_bytes'])} against "
        f"{table.size(dense['memory']['peak_bytes'])}."
    )


def measured(
    results: Results,
    full_precision: Results | None = None,
    step: Results | None = None,
    pictures: Sequence[str] = (),
) -> str:
    """The table of ROWS, the pictures, and what the other files say."""
    parts = [
        _table(results),
        _conditions(results),
        "\n".join(pictures),
        _without_8_bit_units(full_precision) if full_precision else "",
        _in_training(step) if step else "",
    ]
    return "\n\n".join(part for part in parts if part)


def _table(results: Results) -> str:
    """Medians of the ratios to U, for the rows that were measured."""
    heading = (
        "N × D",
        "hard pairs",
        "U",
        FORWARD,
        BOTH,
        f"dense PyTorch, {BOTH}",
        f"torch.compile, {BOTH}",
        "peak memory",
        "dense PyTorch's",
    )
    rows = []
    for record in (find(results, case) for case in ROWS):
        if record is None:
            continue
        cells = record["competitors"]
        ours, dense, compiled = (
            cells[name] for name in (opponents.OURS, opponents.DENSE, opponents.COMPILED)
        )
        row = (
            f"{record['case']['n']:,} × {record['case']['d']}{_kind(record['case'])}",
            f"{record['hard_density']:.1e}",
            table.seconds(record["units"]["U"]["seconds"]["median"]),
            f"**{_ratio(ours, FORWARD)} U**",
            f"**{_ratio(ours, BOTH)} U**",
            _ratio(dense, BOTH, " U"),
            _ratio(compiled, BOTH, " U"),
            _memory(ours["memory"]),
            _memory(dense["memory"]),
        )
        rows.append(row)
    return "\n".join(table.grid(heading, rows))


def _kind(case: dict[str, Any]) -> str:
    if case["kind"] == "demo":
        return ", digits untrained" if case["epoch"] == 0 else f", digits after {case['epoch']} epochs"
    return "" if case["kind"] == "clusters" else f", {case['kind']}"


def _conditions(results: Results) -> str:
    record = find(results, HEADLINE)
    assert record is not None  # or there were no headline
    environment = record["environment"]
    demo, details = "", "quartiles and accuracy"
    if any(each["case"]["kind"] == "demo" for each in results["records"]):
        demo = ", or digits as the network of `tcm-kernels demo --data digits` embeds them (five classes)"
    if any("stages" in each for each in results["records"]):
        details = "quartiles, accuracy and where the time goes"
    return (
        f"{environment['cpu_model']}, {environment['cpu_capability']}, {environment['threads']} threads, "
        f"torch {environment['torch']}, float32, {record['case']['per_class']} samples a "
        "class, labels shuffled; clusters in random directions unless named: correlated as from an untrained "
        f"network (all cosines about 0.3 to 0.9), a spectrum falling as 1/k{demo}. "
        "U is one bare `torch.mm(x, x.T, out=...)`, measured in turns with "
        "everything else; figures are medians, memory is beyond the inputs and includes the gradient. "
        f"All {len(result_files.preferred(results['records']))} cases, with {details}: "
        f"{_link(RESULTS.with_suffix('.md'))}."
    )


def _without_8_bit_units(results: Results) -> str:
    record = find(results, HEADLINE)
    if record is None or record.get("backend_screening") != "full-precision":
        return ""
    ours, case = record["competitors"][opponents.OURS], record["case"]
    return (
        "Screening in full precision, as on a processor without 8-bit units, the same "
        f"{case['n']:,} × {case['d']} with {record['hard_density']:.1e} hard pairs takes "
        f"{_ratio(ours, FORWARD)} U forward and {_ratio(ours, BOTH)} U forward and backward "
        f"({_link(FULL_PRECISION.with_suffix('.md'))})."
    )


def _in_training(step: Results) -> str:
    """One sentence, a part for each batch size, over the epochs that were measured."""
    parts = []
    for batch_size in sorted({record["batch_size"] for record in step["records"]}):
        records = [record for record in step["records"] if record["batch_size"] == batch_size]
        ours = " and ".join(
            f"{record['share'][opponents.OURS]['median']:.0%} "
            + ("before training" if record["epoch"] == 0 else f"after {record['epoch']} epochs")
            for record in records
        )
        dense = " and ".join(f"{record['share'][opponents.DENSE]['median']:.0%}" for record in records)
        parts.append(f"with {batch_size:,} images, {ours} (written densely, {dense})")
    return (
        "Of a whole training step on digits (their network, base loss, optimiser, augmentation) the loss "
        f"takes, {'; '.join(parts)} ({_link(TRAINING_STEP)})."
    )


def evaluation(counted: Results | None) -> str:
    """What it costs to count all pairs, at the largest N that was measured; nothing without a file."""
    if counted is None:
        return ""
    record = max(counted["records"], key=lambda record: record["case"]["n"])
    case = record["case"]
    picture = HISTOGRAM.with_suffix(".png")
    ours_s, ratio = table.seconds(record["seconds"]["ours"]["median"]), record["ratio"]["median"]
    peak, matrix = (table.size(record[f"{name}_bytes"]) for name in ("peak", "matrix"))
    return (
        f"All pairs of {case['n']:,} float32 embeddings of {case['d']} dimensions in {case['classes']:,} "
        f"classes, {case['bins']:,} bins: {ours_s} on {record['environment']['threads']} cores of an Intel "
        f"Xeon, {ratio:.2f} of the time of a bare product that computes the same similarities in tiles, with "
        f"{peak} beyond the embeddings, most of it the counts; the matrix would take {matrix} "
        f"({_link(HISTOGRAM)}).\n\n"
        "![Time and memory of counting all pairs over the number of embeddings]"
        f"(benchmarks/results/{picture.name})"
    )


def _link(path: Path) -> str:
    """To a file of the results."""
    return f"[`{path.name}`](benchmarks/results/{path.name})"


def _ratio(competitor: dict[str, Any], step: str, unit: str = "") -> str:
    cell = competitor["steps"][step]
    if cell["status"] != "measured":
        return cell["status"]
    if cell["ratio_to_unit"] is None:
        return "no U to compare with"
    median = cell["ratio_to_unit"]["median"]
    return (f"{median:.2g}" if median < 100 else f"{median:,.0f}") + unit


def _memory(cell: dict[str, Any]) -> str:
    return table.size(cell["peak_bytes"]) if cell["status"] == "measured" else cell["status"]


def updated(text: str, results: Results, counted: Results | None = None, **others: Any) -> str:
    """README's text with its figures in place; its markers must be there. `others` as for `measured`."""
    made = {
        "headline": headline(results),
        "evaluation": evaluation(counted),
        "measured": measured(results, **others),
    }
    for name, figure in made.items():
        pattern = re.compile(rf"(<!-- {name}:begin -->\n).*?(<!-- {name}:end -->)", re.DOTALL)
        text, count = pattern.subn(lambda found, new=figure: f"{found[1]}{new}\n{found[2]}", text)
        if count != 1:
            raise ValueError(f"README.md: expected one pair of markers for {name!r}, found {count}")
    return text


def _pictures() -> list[str]:
    """Markdown of the pictures that there are."""
    paths = [figures.path(FOLDER, SLUG, name) for name in figures.FIGURES]
    return [
        f"![{figure.alt}](benchmarks/results/{path.name})"
        for figure, path in zip(figures.FIGURES.values(), paths, strict=True)
        if path.exists()
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reports.readme", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--check", action="store_true", help="change nothing, exit 1 if figures differ")
    options = parser.parse_args(arguments)
    before = README.read_text(encoding="utf-8")
    after = updated(
        before,
        load(RESULTS),
        counted=load_if_there(HISTOGRAM),
        full_precision=load_if_there(FULL_PRECISION),
        step=load_if_there(TRAINING_STEP),
        pictures=_pictures(),
    )
    if options.check:
        return int(before != after)
    README.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
