"""Base beside base + TCM, for a terminal."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.quality.measures import MEASURES

from .records import Record

_HEADING = ("", "base", "base + TCM", "change", "better")


def text(records: Sequence[Record]) -> str:
    """A table of the means over seeds, with standard deviations from two seeds on.

    Args:
        records: of one data set and one setting, any arms and seeds. A change is the mean over the seeds that
            have the measure in both arms, "better" in how many of them.
    """
    arms = {arm: {r["seed"]: r for r in records if r["arm"] == arm} for arm in ("base", "tcm")}
    rows = [_HEADING, *(_row(name, arms) for name in MEASURES)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADING))]
    lines = []
    for title, *cells in rows:
        shown = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        lines.append("  ".join((title.ljust(widths[0]), *shown)).rstrip())
    pairs = len(arms["base"].keys() & arms["tcm"].keys())
    seeds = f"{len(arms['base'])} of base, {len(arms['tcm'])} of base + TCM"
    lines.append(f"Runs: {seeds}; seeds in both: {pairs}." + _caution(pairs))
    return "\n".join([*lines, *_reasons(records)])


def _row(name: str, arms: dict[str, dict[int, Record]]) -> tuple[str, ...]:
    values = {
        arm: {seed: r["measures"][name] for seed, r in runs.items() if r["measures"].get(name) is not None}
        for arm, runs in arms.items()
    }
    both = sorted(values["base"].keys() & values["tcm"].keys())
    changes = [values["tcm"][seed] - values["base"][seed] for seed in both]
    better = sum((x > 0) == MEASURES[name].higher_is_better and x != 0 for x in changes)
    return (
        MEASURES[name].title,
        *(_mean(list(values[arm].values())) for arm in ("base", "tcm")),
        _mean(changes, sign="+"),
        f"{better} of {len(both)}" if both else "-",
    )


def _mean(values: Sequence[float], sign: str = "") -> str:
    if not values:
        return "-"
    mean = f"{statistics.fmean(values):{sign}.4f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.4f}"


def _caution(pairs: int) -> str:
    return " One pair shows no more than that it runs." if pairs == 1 else ""


def _reasons(records: Sequence[Record]) -> list[str]:
    """Why measures are missing, each reason once."""
    found: dict[tuple[str, str], Any] = {}
    for record in records:
        for name, reason in record["reasons"].items():
            found[name, reason] = None
    return [f"{MEASURES[name].title} is not defined: {reason}" for name, reason in found if name in MEASURES]
