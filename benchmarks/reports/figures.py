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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

from benchmarks.harness import environment, result_files, sweeps, table
from benchmarks.harness.opponents import COMPILED, DENSE, OURS
from benchmarks.harness.workload import STEPS
from tcm_kernels.evaluation.plots.drawing import BLUE, QUIET, VERMILION, as_png, grid, new_figure

SIZE = (8.0, 4.7)  # inches: text of 9 points is legible where README shows 100 pixels an inch
DPI = 200
FORWARD, BOTH = STEPS
ORANGE, SKY = "#E69F00", "#56B4E9"
LINES = (
    ("dense PyTorch,\nforward+backward", f"competitors/{DENSE}/steps/{BOTH}", VERMILION, "s-"),
    ("torch.compile of it,\nforward+backward", f"competitors/{COMPILED}/steps/{BOTH}", ORANGE, "D-"),
    ("U, a bare x @ x.T", "units/U", QUIET, "--"),
    ("ours,\nforward+backward", f"competitors/{OURS}/steps/{BOTH}", BLUE, "o-"),
    ("ours,\nforward", f"competitors/{OURS}/steps/{FORWARD}", SKY, "^-"),
)
"""Label, way to the cell in a record, colour, format; from top to bottom of the legend."""

Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Picture:
    """What a picture shows of the records of a sweep."""

    sweep: str
    title: str
    x: str  # the way to where a record stands on the axis
    y: str  # the entry of a cell whose median and quartiles are drawn
    shape: str  # the entries of its case that all records share, as text to be formatted
    label_axes: Callable[[Axes], object]


def points(way: str, picture: Picture, records: Sequence[Record]) -> tuple[np.ndarray, list[float]]:
    """The (points, 4) x, median and quartiles of what was measured, by x; the xs at which it did not fit."""
    in_order = sorted(records, key=lambda record: table.at(record, picture.x))
    cells = [(table.at(record, picture.x), table.at(record, way) or {}) for record in in_order]
    measured = [(x, cell[picture.y]) for x, cell in cells if cell.get(picture.y)]
    rows = [(x, value["median"], value["q1"], value["q3"]) for x, value in measured]
    return np.reshape(rows, (-1, 4)), [x for x, cell in cells if cell.get("status") == "does not fit"]


def render(picture: Picture, records: Sequence[Record]) -> bytes:
    """The picture of these records as PNG."""
    figure = new_figure(*SIZE)
    axes = figure.add_subplot(xscale="log", yscale="log")
    for label, way, colour, form in LINES:
        drawn, does_not_fit = points(way, picture, records)
        x, median, q1, q3 = drawn.T
        note = f"\n(does not fit from {does_not_fit[0]:,g} on)" if does_not_fit else ""
        if note or len(x):
            axes.fill_between(x, q1, q3, color=colour, alpha=0.25, linewidth=0)
            axes.plot(x, median, form, color=colour, label=label + note, linewidth=1.6, markersize=5)
    picture.label_axes(axes)
    axes.minorticks_off()
    axes.tick_params(labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    grid(axes)
    figure.suptitle(picture.title, x=0.01, ha="left", fontsize=11.5)
    figure.legend(loc="outside right center", frameon=False, fontsize=9, labelspacing=0.9)
    figure.supxlabel(caption(picture, records), x=0.01, ha="left", fontsize=7.5, color=QUIET)
    return as_png(figure, DPI)


def caption(picture: Picture, records: Sequence[Record]) -> str:
    """Where and of what: a difference between the records is named, never left out."""
    there = [record["environment"] for record in records]
    machine = "{device_name}, {threads} threads, torch {torch}"
    machines = dict.fromkeys(machine.format(**each) for each in there)
    commits = dict.fromkeys(map(table.commit, there))
    shape = picture.shape.format(**records[0]["case"])
    return f"{shape}.\n{' / '.join(machines)}; commit {' / '.join(commits)}. Medians, bands are quartiles."


def _time_over_n(axes: Axes) -> None:
    axes.set_xscale("log", base=2)
    axes.set(xlabel="N, rows of the batch", ylabel="time of one call")
    axes.tick_params("x", rotation=30)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_formatter(lambda seconds, _: table.seconds(seconds))


def _ratio_over_density(axes: Axes) -> None:
    axes.set(xlabel="share of all pairs that are hard", ylabel="time / time of U")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")


FIGURES = {
    "time-over-n": Picture(
        sweep="N",
        title="Time of the loss over the batch size",
        x="case/n",
        y="seconds",
        shape="D = {d}, {dtype}, {per_class} samples a class, hard density about {density:g}",
        label_axes=_time_over_n,
    ),
    "ratio-over-density": Picture(
        sweep="density",
        title="Cost of the loss over the share of hard pairs, in units of a bare x @ x.T",
        x="hard_density",
        y="ratio_to_unit",
        shape="N = {n:,}, D = {d}, {dtype}, {per_class} samples a class",
        label_axes=_ratio_over_density,
    ),
}
"""By name."""


def make(content: result_files.Results, folder: Path) -> list[Path]:
    """Write the pictures that the records suffice for, and say which do not; returns their paths."""
    slug, written = content["slug"], []
    by_title = result_files.preferred(content["records"])
    for name, picture in FIGURES.items():
        records = [by_title[title] for title in sweeps.titles(picture.sweep) if title in by_title]
        path = folder / f"{slug}-{name}.png"
        if len(records) < 2:
            print(f"{name}: left out, {slug} has {len(records)} case(s) of sweep {picture.sweep!r}")
            continue
        result_files.replace(path, render(picture, records))
        print(f"wrote {path}")
        written.append(path)
    return written


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reports.figures", description=__doc__.splitlines()[0]
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"  # as benchmarks.suites.grid chooses
    this_machine = result_files.FOLDER / f"{environment.slug(device)}.json"
    parser.add_argument("file", type=Path, nargs="?", default=this_machine, help="default: this machine's")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="default: beside the file")
    options = parser.parse_args(arguments)
    if not options.file.exists():
        parser.error(f"{options.file}: not there; python -m benchmarks.suites.grid makes it")
    make(result_files.load(options.file), options.out or options.file.parent)


if __name__ == "__main__":
    main()
