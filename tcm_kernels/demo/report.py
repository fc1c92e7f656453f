"""The table, the verdict and results.json; every word about the outcome follows from the numbers.

A seed's two trainings share everything but the loss, so they are compared with each other: per measure,
the change is taken seed by seed, and counts as a change only where its mean is larger than its spread.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from typing import Any

import torch

from .._version import __version__
from . import training
from .measures import FALSE_ACCEPT_RATE, MEANINGS
from .student import BASE_LOSS
from .training import Run, Settings

_SMALL = 0.01  # what three decimals would show too little of
_FEW = 3  # runs without which a spread says nothing


@dataclasses.dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation over the runs; None for the latter where there is one run."""

    mean: float
    deviation: float | None

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """Of at least one value."""
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)

    def __str__(self) -> str:
        small = max(abs(self.mean), self.deviation or 0.0) < _SMALL
        decimals = 3 if self.mean == 0 or not small else 5  # OPIS is a variance
        deviation = "" if self.deviation is None else f" ± {self.deviation:.{decimals}f}"
        return f"{self.mean:.{decimals}f}{deviation}"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One measure, without and with the TCM loss, and the change from seed to seed."""

    without_tcm: Spread
    with_tcm: Spread
    change: Spread
    verdict: str  # "better", "worse", "within the spread", "too few runs"


def compare(runs: list[Run]) -> dict[str, Comparison]:
    """By field of `Measures`."""
    comparisons = {}
    for name, meaning in MEANINGS.items():
        without = [getattr(run.without_tcm.measures, name) for run in runs]
        with_tcm = [getattr(run.with_tcm.measures, name) for run in runs]
        change = Spread.of([after - before for before, after in zip(without, with_tcm, strict=True)])
        verdict = _verdict(change, len(runs), meaning.higher_is_better)
        comparisons[name] = Comparison(Spread.of(without), Spread.of(with_tcm), change, verdict)
    return comparisons


def _verdict(change: Spread, runs: int, higher_is_better: bool) -> str:
    if change.deviation is None or runs < _FEW:
        return "too few runs"
    if abs(change.mean) <= change.deviation:
        return "within the spread"
    return "better" if (change.mean > 0) == higher_is_better else "worse"


def text(comparisons: dict[str, Comparison], runs: list[Run]) -> str:
    """Table, what its lines mean, and the verdict."""
    counted = "1 run" if len(runs) == 1 else f"{len(runs)} runs: mean ± standard deviation"
    head = ("", "without TCM", "with TCM", "change", "verdict")
    rows = [
        (MEANINGS[name].title, str(c.without_tcm), str(c.with_tcm), _signed(c.change), c.verdict)
        for name, c in comparisons.items()
    ]
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = [f"\nOn the unseen digits, {counted}\n"]
    for row in (head, *rows):
        lines.append("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    lines += [
        "",
        f"The one threshold is set so that {FALSE_ACCEPT_RATE:.0%} of other-class pairs are accepted.",
    ]
    lines += [f"{meaning.title}: {meaning.sentence}." for meaning in MEANINGS.values()]
    lines += ["", conclusion(comparisons)]
    return "\n".join(lines)


def _signed(change: Spread) -> str:
    sign = "-" if change.mean < 0 else "+"
    return f"{sign}{Spread(abs(change.mean), change.deviation)}"


def conclusion(comparisons: dict[str, Comparison]) -> str:
    """What the verdicts add up to, in sentences."""
    if any(c.verdict == "too few runs" for c in comparisons.values()):
        return f"Fewer than {_FEW} runs: how much seeds alone change is unknown, so no conclusion."
    consistency = [name for name in comparisons if MEANINGS[name].is_consistency]
    others = [name for name in comparisons if not MEANINGS[name].is_consistency]
    return "\n".join(
        (
            "A change counts where its mean over the seeds is larger than its standard deviation.",
            f"Consistency between classes: {_summary(comparisons, consistency)}.",
            f"Everything else: {_summary(comparisons, others)}.",
        )
    )


def _summary(comparisons: dict[str, Comparison], names: list[str]) -> str:
    parts = []
    for verdict in ("better", "worse", "within the spread"):
        titles = [MEANINGS[name].title for name in names if comparisons[name].verdict == verdict]
        if not titles:
            continue
        found = "no effect beyond the spread" if verdict == "within the spread" else f"{verdict} with TCM"
        parts.append(f"{found} in {', '.join(titles)}")
    return "; ".join(parts)


def as_json(settings: Settings, comparisons: dict[str, Comparison], runs: list[Run]) -> bytes:
    """Everything that was set and found; embeddings are left out."""
    content: dict[str, Any] = {
        "tcm_kernels": __version__,
        "torch": torch.__version__,
        "settings": {
            **dataclasses.asdict(settings),
            "base_loss": BASE_LOSS,
            "tcm_weight": training.TCM_WEIGHT,
            "margin_plus": training.MARGIN_PLUS,
            "margin_minus": training.MARGIN_MINUS,
            "unseen_digits": training.UNSEEN,
            "false_accept_rate": FALSE_ACCEPT_RATE,
        },
        "measures": {
            name: {"title": MEANINGS[name].title, "meaning": MEANINGS[name].sentence, **dataclasses.asdict(c)}
            for name, c in comparisons.items()
        },
        "runs": [
            {
                "seed": run.seed,
                **{
                    side: {
                        "measures": dataclasses.asdict(trained.measures),
                        "epochs": [dataclasses.asdict(epoch) for epoch in trained.epochs],
                    }
                    for side, trained in (("without_tcm", run.without_tcm), ("with_tcm", run.with_tcm))
                },
            }
            for run in runs
        ],
    }
    return (json.dumps(content, indent=2, allow_nan=False) + "\n").encode()
