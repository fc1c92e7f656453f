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

from benchmarks.harness import environment, opponents, result_files, sweeps, table
from benchmarks.harness.workload import STEPS

SIZE = (8.0, 4.7)  # inches: text of 9 points is legible where README shows 100 pixels an inch
DPI = 200
FORWARD, BOTH = STEPS
GREY = "#555555"

Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Line:
    """How a competitor's step is drawn; without a step it is a bare product."""

    label: str
    competitor: str
    step: str | None
    style: dict[str, str]

    def cell(self, record: Record) -> dict[str, Any]:
        """The record's cell of that step."""
        cells = (
            record["competitors"].get(self.competitor, {}).get("steps", {}) if self.step else record["units"]
        )
        return cells.get(self.step or self.competitor) or {"status": "not measured"}


def _line(label: str, competitor: str, step: str, colour: str, marker: str) -> Line:
    return Line(f"{label},\n{step}", competitor, step, {"color": colour, "marker": marker, "linestyle": "-"})


DENSE = _line("dense PyTorch", opponents.DENSE, BOTH, "#D55E00", "s")
COMPILED = _line("torch.compile of it", opponents.COMPILED, BOTH, "#E69F00", "D")
UNIT = Line("U, a bare x @ x.T", "U", None, {"color": GREY, "marker": "", "linestyle": "--"})
OURS_BOTH = _line("ours", opponents.OURS, BOTH, "#0072B2", "o")
OURS_FORWARD = _line("ours", opponents.OURS, FORWARD, "#56B4E9", "^")


@dataclasses.dataclass(frozen=True)
class Picture:
    """What a picture shows.

    Attributes:
        sweep: whose records.
        title: what stands over it.
        lines: from top to bottom of the legend.
        value: the entry of a cell whose median and quartiles are drawn.
        x: where a record stands on the axis.
        shape: the entries of its case that all records of the sweep share, as text to be formatted.
        label_axes: labels and ticks, on matplotlib's axes and the xs of the records.
    """

    sweep: str
    title: str
    lines: tuple[Line, ...]
    value: str
    x: Callable[[Record], float]
    shape: str
    label_axes: Callable[[Any, list[float]], None]


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
    cells = sorted(((picture.x(record), line.cell(record)) for record in records), key=lambda each: each[0])
    there = [(x, cell[picture.value]) for x, cell in cells if cell.get(picture.value)]
    median, q1, q3 = ([value[key] for _, value in there] for key in ("median", "q1", "q3"))
    return Points(
        [x for x, _ in there], median, q1, q3, [x for x, cell in cells if cell["status"] == "does not fit"]
    )


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
        drawn = points(line, picture, records)
        label = line.label
        if drawn.does_not_fit:
            label += f"\n(does not fit from {min(drawn.does_not_fit):,g} on)"
        elif not drawn.x:
            continue
        axes.fill_between(drawn.x, drawn.q1, drawn.q3, color=line.style["color"], alpha=0.25, linewidth=0)
        axes.plot(drawn.x, drawn.median, label=label, linewidth=1.6, markersize=5, **line.style)
    picture.label_axes(axes, sorted(picture.x(record) for record in records))
    axes.grid(which="major", color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(which="minor", length=0)
    axes.tick_params(labelsize=9)
    figure.suptitle(picture.title, x=0.01, ha="left", fontsize=11.5)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9, labelspacing=0.9)
    figure.supxlabel(caption(picture, records), x=0.01, ha="left", fontsize=7.5, color=GREY)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def caption(picture: Picture, records: Sequence[Record]) -> str:
    """Where and of what: a difference between the records is named, never left out."""
    there = [record["environment"] for record in records]
    machines = dict.fromkeys(
        "{device_name}, {threads} threads, torch {torch}".format(**each) for each in there
    )
    commits = dict.fromkeys(table.commit(each) for each in there)
    shape = picture.shape.format(**records[0]["case"])
    return f"{shape}.\n{' / '.join(machines)}; commit {' / '.join(commits)}. Medians, bands are quartiles."


def _over_n(axes: Any, xs: list[float]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(xs, [f"{x:,.0f}" for x in xs], rotation=30)
    axes.set_xlabel("N, rows of the batch", fontsize=10)
    axes.set_ylabel("time of one call", fontsize=10)
    low, high = axes.get_ylim()
    ticks = [10.0**power for power in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]
    axes.set_yticks(ticks, [table.seconds(tick) for tick in ticks])


def _over_density(axes: Any, xs: list[float]) -> None:
    axes.axhline(1, color=GREY, linestyle="--", linewidth=1.2)
    beside = {"xycoords": ("axes fraction", "data"), "xytext": (0, 3), "textcoords": "offset points"}
    axes.annotate(UNIT.label, (0.01, 1), fontsize=8.5, color=GREY, **beside)
    axes.set_xlabel("share of all pairs that are hard", fontsize=10)
    axes.set_ylabel("time / time of U", fontsize=10)
    low, high = axes.get_ylim()
    steps = [factor * 10.0**power for power in range(-3, 5) for factor in (1, 2, 5)]
    ticks = [step for step in steps if low <= step <= high]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    powers = range(round(math.log10(min(xs))), round(math.log10(max(xs))) + 1)
    names = [f"{10.0**power:.{max(0, -power)}f}" for power in powers]
    axes.set_xticks([10.0**power for power in powers], names)


FIGURES = {
    "time-over-n": Picture(
        sweep="N",
        title="Time of the loss over the batch size",
        lines=(DENSE, COMPILED, UNIT, OURS_BOTH, OURS_FORWARD),
        value="seconds",
        x=lambda record: record["case"]["n"],
        shape="D = {d}, {dtype}, {per_class} samples a class, hard density about {density:g}",
        label_axes=_over_n,
    ),
    "ratio-over-density": Picture(
        sweep="density",
        title="Cost of the loss over the share of hard pairs, in units of a bare x @ x.T",
        lines=(DENSE, COMPILED, OURS_BOTH, OURS_FORWARD),
        value="ratio_to_unit",
        x=lambda record: record["hard_density"],
        shape="N = {n:,}, D = {d}, {dtype}, {per_class} samples a class",
        label_axes=_over_density,
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
    slug = content["slug"]
    for name, picture in FIGURES.items():
        records = [by_title[title] for title in sweeps.titles(picture.sweep) if title in by_title]
        if len(records) < 2:
            print(f"{name}: left out, {slug} has {len(records)} case(s) of sweep {picture.sweep!r}")
            continue
        written.append(path(folder, slug, name))
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
