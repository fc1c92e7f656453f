"""The table, the verdict and results.json; every word about the outcome follows from the numbers.

A seed's two trainings share everything but the loss, so they are compared with each other: per measure,
the change is taken seed by seed, and counts as a change only where the 95 % interval of its mean, Student's t
over the seeds, leaves out 0.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch

from .. import plain_json
from .._version import __version__

RESULTS = "results.json"
SIDES = {"without_tcm": "without TCM", "with_tcm": "with TCM"}
"""The two trainings of a seed: the names that results.json has, and those for people."""

_WIDTH = 110  # of what is printed
_FEW = 3  # runs without which a spread says nothing
_CONFIDENCE = 0.95
_NOT_MEASURED = "not measured"


@dataclasses.dataclass(frozen=True)
class Meaning:
    """How a measure is shown: a title for the table, one sentence, and which direction is good."""

    title: str
    sentence: str
    higher_is_better: bool
    is_consistency: bool


@dataclasses.dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation over the runs; None for the latter where there is one run."""

    mean: float
    deviation: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)

    def __str__(self) -> str:
        """With three decimals, and with up to five where fewer would show too little."""
        told = abs(self.mean) / 10 if self.deviation is None else self.deviation
        decimals = next((d for d in (3, 4) if told >= 2 * 10**-d), 5) if told else 3
        deviation = "" if self.deviation is None else f" ± {self.deviation:.{decimals}f}"
        return f"{self.mean:.{decimals}f}{deviation}"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One measure, without and with the TCM loss, and the change from seed to seed.

    Attributes:
        without_tcm, with_tcm, change: over the runs; all None where a run lacks the measure.
        verdict: "better", "worse", "within the spread", "too few runs" or "not measured".
    """

    without_tcm: Spread | None
    with_tcm: Spread | None
    change: Spread | None
    verdict: str


def compare(
    meanings: Mapping[str, Meaning], runs: Sequence[tuple[Mapping[str, float], Mapping[str, float]]]
) -> dict[str, Comparison]:
    """Compare each measure, over all runs.

    Args:
        meanings: by the name of the measure.
        runs: of each its measures without and with the TCM loss; those that could not be taken are missing.

    Returns:
        By the name of the measure, in the order of `meanings`.
    """
    comparisons = {}
    for name, meaning in meanings.items():
        if not all(name in measured for run in runs for measured in run):
            comparisons[name] = Comparison(None, None, None, _NOT_MEASURED)
            continue
        without, with_tcm = ([run[side][name] for run in runs] for side in (0, 1))
        change = Spread.of([after - before for before, after in zip(without, with_tcm, strict=True)])
        verdict = _verdict(change, len(runs), meaning.higher_is_better)
        comparisons[name] = Comparison(Spread.of(without), Spread.of(with_tcm), change, verdict)
    return comparisons


def _verdict(change: Spread, runs: int, higher_is_better: bool) -> str:
    if change.deviation is None or runs < _FEW:
        return "too few runs"
    from scipy import stats  # noqa: PLC0415  # comes with scikit-learn, an extra

    t = float(stats.t.ppf((1 + _CONFIDENCE) / 2, runs - 1))
    if abs(change.mean) <= t * change.deviation / math.sqrt(runs):
        return "within the spread"
    return "better" if (change.mean > 0) == higher_is_better else "worse"


def text(
    title: str,
    meanings: Mapping[str, Meaning],
    comparisons: Mapping[str, Comparison],
    runs: int,
    reasons: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Table, what its lines mean, and the verdict.

    Args:
        title: what the measures are of, as in "On the unseen digits".
        meanings: by the name of the measure.
        comparisons: of `compare`.
        runs: how many were compared.
        reasons: why a measure is lacking, by its name.
    """
    counted = "1 run" if runs == 1 else f"{runs} runs: mean ± standard deviation"
    head = ("", *SIDES.values(), "change", "verdict")
    rows = [
        (meanings[name].title, *_cells(c, meanings[name].is_consistency), c.verdict)
        for name, c in comparisons.items()
    ]
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = [f"\n{title}, {counted}\n"]
    for row in (head, *rows):
        lines.append("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    told = [f"{meanings[name].title}: {meanings[name].sentence}." for name in comparisons]
    lines += ["", *(textwrap.fill(sentence, _WIDTH, subsequent_indent="  ") for sentence in told)]
    lacking = [f"{meanings[name].title} is not measured: {reason}" for name, reason in reasons.items()]
    lines += ["", *lacking] if lacking else []
    lines += ["", conclusion(meanings, comparisons)]
    return "\n".join(lines)


def _cells(comparison: Comparison, in_percent: bool) -> tuple[str, str, str]:
    """Both sides and the change, perhaps in percent as well: units of consistency say little."""
    before, after, change = comparison.without_tcm, comparison.with_tcm, comparison.change
    if before is None or after is None or change is None:
        return "-", "-", "-"
    sign = "-" if change.mean < 0 else "+"
    percent = f" ({change.mean / before.mean:+.0%})" if in_percent and before.mean else ""
    return str(before), str(after), f"{sign}{Spread(abs(change.mean), change.deviation)}{percent}"


def conclusion(meanings: Mapping[str, Meaning], comparisons: Mapping[str, Comparison]) -> str:
    """What the verdicts add up to, in sentences."""
    if any(c.verdict == "too few runs" for c in comparisons.values()) or not comparisons:
        return f"Fewer than {_FEW} runs: how much seeds alone change is unknown, so no conclusion."
    consistency, others = (
        {
            meanings[name].title: c.verdict
            for name, c in comparisons.items()
            if meanings[name].is_consistency is of
        }
        for of in (True, False)
    )
    return "\n".join(
        (
            f"A change counts where the {_CONFIDENCE:.0%} interval of its mean over the seeds leaves out 0.",
            f"Consistency between classes: {_summary(consistency)}.",
            f"Everything else: {_summary(others)}.",
        )
    )


def _summary(verdicts: Mapping[str, str]) -> str:
    """From the verdict of each measure, by its title."""
    parts = []
    found_of = {
        "better": "better with TCM",
        "worse": "worse with TCM",
        "within the spread": "no effect beyond the spread",
        _NOT_MEASURED: _NOT_MEASURED,
    }
    for verdict, found in found_of.items():
        titles = [title for title, each in verdicts.items() if each == verdict]
        if titles:
            parts.append(f"{found} in {', '.join(titles)}")
    return "; ".join(parts)


def as_json(
    settings: Mapping[str, Any],
    meanings: Mapping[str, Meaning],
    comparisons: Mapping[str, Comparison],
    runs: Sequence[Mapping[str, Any]],
) -> bytes:
    """Everything that was set and found, as the content of results.json; null for what is not finite."""
    content = {
        "tcm_kernels": __version__,
        "torch": torch.__version__,
        "settings": settings,
        "measures": {
            name: {"title": meanings[name].title, "meaning": meanings[name].sentence, **dataclasses.asdict(c)}
            for name, c in comparisons.items()
        },
        "runs": runs,
    }
    return plain_json.as_bytes(content)
