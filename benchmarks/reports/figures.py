"""Two pictures of a results file, made from the file and never by measuring.

    python -m benchmarks.reports.figures                   of this machine's file under results/
    python -m benchmarks.reports.figures FILE --out FOLDER

`<device>-time-over-n.png`: seconds over the batch size, both axes logarithmic, for the sweep "N".
`<device>-ratio-over-density.png`: the ratio to U over the hard density, for the sweep "density".
Lines are medians, bands are quartiles. A sweep of which the file has fewer than two cases gives no
picture, and a message. Colours are Okabe and Ito's, which colour-blind people can tell apart; markers
differ too.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import environment, measure, opponents, result_files, sweeps, table
from benchmarks.harness.workload import STEPS

SIZE = (8.0, 4.7)  # inches: text of 9 points is legible where README shows 100 pixels an inch
DPI = 200
FORWARD, BOTH = STEPS

Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Line:
    """How a competitor's step is drawn, and where a record has its cell."""

    label: str
    keys: tuple[str, ...]
    colour: str
    marker: str
    style: str = "-"

    def cell(self, record: Record) -> dict[str, Any] | None:
        """The record's cell, or None where it has none."""
        value: Any = record
        for key in self.keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value


DENSE = Line(
    f"dense PyTorch,\n{BOTH}", ("competitors", opponents.DENSE, "steps", BOTH), colour="#D55E00", marker="s"
)
COMPILED = Line(
    f"torch.compile of it,\n{BOTH}",
    ("competitors", opponents.COMPILED, "steps", BOTH),
    colour="#E69F00",
    marker="D",
)
UNIT = Line("U, a bare x @ x.T", ("units", measure.UNIT), colour="#555555", marker="", style="--")
OURS_BOTH = Line(f"ours,\n{BOTH}", ("competitors", opponents.OURS, "steps", BOTH), "#0072B2", "o")
OURS_FORWARD = Line(f"ours,\n{FORWARD}", ("competitors", opponents.OURS, "steps", FORWARD), "#56B4E9", "^")


@dataclasses.dataclass(frozen=True)
class Picture:
    """What a picture shows.

    Attributes:
        sweep: whose records.
        title: what stands over it.
        alt: what it shows, for those who cannot see it.
        lines: from top to bottom of the legend.
        value: the entry of a cell whose median and quartiles are drawn.
        x: where a record stands on the axis.
        fixed: what all records of the sweep share, in words, made from one of them.
        finish: labels and scales, on matplotlib's axes and the xs of the records.
    """

    sweep: str
    title: str
    alt: str
    lines: tuple[Line, ...]
    value: str
    x: Callable[[Record], float]
    fixed: Callable[[Record], str]
    finish: Callable[[Any, list[float]], None]


@dataclasses.dataclass(frozen=True)
class Points:
    """One line's points, in the order of x, and the xs at which it did not fit into memory."""

    x: list[float]
    median: list[float]
    q1: list[float]
    q3: list[float]
    does_not_fit: list[float]


def points(line: Line, picture: Picture, records: Sequence[Record]) -> Points:
    """What the records say of the line; cells without a figure give no point."""
    there, does_not_fit = [], []
    for record in sorted(records, key=picture.x):
        cell = line.cell(record) or {"status": "not measured"}
        if cell["status"] == "does not fit":
            does_not_fit.append(picture.x(record))
        elif cell["status"] == "measured" and cell[picture.value] is not None:
            there.append((picture.x(record), *(cell[picture.value][key] for key in ("median", "q1", "q3"))))
    x, median, q1, q3 = (list(column) for column in zip(*there, strict=True)) if there else ([], [], [], [])
    return Points(x, median, q1, q3, does_not_fit)


def render(picture: Picture, records: Sequence[Record]) -> bytes:
    """The picture of these records as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  # an extra
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)  # whatever canvas the user's environment asks for stays out of it
    axes = figure.subplots()
    axes.set_xscale("log")
    axes.set_yscale("log")
    for line in picture.lines:
        _draw(axes, line, points(line, picture, records))
    picture.finish(axes, sorted(picture.x(record) for record in records))
    axes.grid(which="major", color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(which="minor", length=0)
    axes.tick_params(labelsize=9)
    figure.suptitle(picture.title, x=0.01, ha="left", fontsize=11.5)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9, labelspacing=0.9)
    figure.supxlabel(_caption(picture, records), x=0.01, ha="left", fontsize=7.5, color="#555555")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _draw(axes: Any, line: Line, drawn: Points) -> None:
    label = line.label
    if drawn.does_not_fit:
        label += f"\n(does not fit from {min(drawn.does_not_fit):,g} on)"
    if not drawn.x:
        if drawn.does_not_fit:
            axes.plot([], [], color=line.colour, marker=line.marker, linestyle=line.style, label=label)
        return
    axes.fill_between(drawn.x, drawn.q1, drawn.q3, color=line.colour, alpha=0.25, linewidth=0)
    axes.plot(
        drawn.x,
        drawn.median,
        color=line.colour,
        marker=line.marker,
        linestyle=line.style,
        linewidth=1.6,
        markersize=5,
        label=label,
    )


def _caption(picture: Picture, records: Sequence[Record]) -> str:
    """Where and of what: a difference between the records is named, never left out."""

    def each(read: Callable[[Record], str]) -> str:
        return " / ".join(dict.fromkeys(read(record) for record in records))

    there = each(
        lambda record: (
            f"{record['environment']['device_name']}, {record['environment']['threads']} threads, "
            f"torch {record['environment']['torch']}"
        )
    )
    commits = each(lambda record: table.commit(record["environment"]))
    return f"{picture.fixed(records[0])}.\n{there}; commit {commits}. Medians, bands are quartiles."


def _over_n(axes: Any, xs: list[float]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(xs, [f"{x:,.0f}" for x in xs], rotation=30)
    axes.set_xlabel("N, rows of the batch", fontsize=10)
    axes.set_ylabel("time of one call", fontsize=10)
    low, high = axes.get_ylim()
    ticks = [10.0**power for power in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]
    axes.set_yticks(ticks, [table.seconds(tick) for tick in ticks])


def _over_density(axes: Any, xs: list[float]) -> None:
    axes.axhline(1, color="#555555", linestyle="--", linewidth=1.2)
    axes.annotate(
        "U, a bare x @ x.T",
        (0.01, 1),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        fontsize=8.5,
        color="#555555",
    )
    axes.set_xlabel("share of all pairs that are hard", fontsize=10)
    axes.set_ylabel("time / time of U", fontsize=10)
    low, high = axes.get_ylim()
    steps = [factor * 10.0**power for power in range(-3, 5) for factor in (1, 2, 5)]
    ticks = [step for step in steps if low <= step <= high]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    powers = range(round(math.log10(min(xs))), round(math.log10(max(xs))) + 1)
    axes.set_xticks(
        [10.0**power for power in powers], [f"{10.0**power:.{max(0, -power)}f}" for power in powers]
    )


FIGURES = {
    "time-over-n": Picture(
        sweep="N",
        title="Time of the loss over the batch size",
        alt="Time of the loss over the batch size, ours beside dense PyTorch, torch.compile and U",
        lines=(DENSE, COMPILED, UNIT, OURS_BOTH, OURS_FORWARD),
        value="seconds",
        x=lambda record: record["case"]["n"],
        fixed=lambda record: (
            f"D = {record['case']['d']}, {record['case']['dtype']}, {record['case']['per_class']} samples a "
            f"class, hard density about {record['case']['density']:g}"
        ),
        finish=_over_n,
    ),
    "ratio-over-density": Picture(
        sweep="density",
        title="Cost of the loss over the share of hard pairs, in units of a bare x @ x.T",
        alt="Ratio to U over the hard density, ours beside dense PyTorch and torch.compile",
        lines=(DENSE, COMPILED, OURS_BOTH, OURS_FORWARD),
        value="ratio_to_unit",
        x=lambda record: record["hard_density"],
        fixed=lambda record: (
            f"N = {record['case']['n']:,}, D = {record['case']['d']}, {record['case']['dtype']}, "
            f"{record['case']['per_class']} samples a class"
        ),
        finish=_over_density,
    ),
}
"""By name."""


def path(folder: Path, slug: str, name: str) -> Path:
    """Where the picture of that name lies."""
    return folder / f"{slug}-{name}.png"


def make(content: result_files.Results, folder: Path) -> list[Path]:
    """Write the pictures that the records suffice for, and say which do not; returns their paths."""
    written = []
    by_title = {result_files.title(record): record for record in result_files.preferred(content["records"])}
    for name, picture in FIGURES.items():
        records = [by_title[title] for title in sweeps.titles(picture.sweep) if title in by_title]
        if len(records) < 2:
            print(
                f"{name}: left out, {content['slug']} has {len(records)} case(s) of sweep {picture.sweep!r}"
            )
            continue
        written.append(path(folder, content["slug"], name))
        result_files.replace(written[-1], render(picture, records))
        print(f"wrote {written[-1]}")
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reports.figures", description=__doc__.splitlines()[0]
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"  # as benchmarks.suites.grid chooses
    this_machine = result_files.FOLDER / f"{environment.slug(device)}.json"
    parser.add_argument("file", type=Path, nargs="?", default=this_machine, help="default: this machine's")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="default: beside the file")
    options = parser.parse_args(arguments)
    if not options.file.exists():
        print(f"{options.file}: not there; python -m benchmarks.suites.grid makes it", file=sys.stderr)
        return 2
    make(result_files.load(options.file), options.out or options.file.parent)
    return 0


if __name__ == "__main__":
    sys.exit(main())
