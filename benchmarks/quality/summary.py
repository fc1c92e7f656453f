"""What the records say: the arms of each split and base loss, their differences, and those at equal accuracy.

Everything here is computed from runs.csv and draws.csv, and every number that README or the documentation
quotes comes from here; a test computes some of them again.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable
from typing import Any

from .chain import Settings, judged, recorded_settings
from .intervals import Difference, difference
from .losses import BASES
from .matched import Curve, matched_pair
from .measures import MEASURES, Values
from .plan import ALONE, Arm, Size, chains
from .records import Records, Row

CONSISTENCY = ("opis", "opis_strict", "spread_relative")
ACCURACIES = ("recall_at_1", "tar_at_1e-3")


@dataclasses.dataclass(frozen=True)
class Runs:
    """The judged runs of one arm, seed by seed.

    Attributes:
        curves: of each seed, its rows on test classes.
        draws: of each seed, by measure.
    """

    curves: tuple[Curve, ...]
    draws: tuple[dict[str, Values], ...]

    def final(self, measure: str) -> list[float]:
        """The measure at the end of every run."""
        return [curve[-1][measure] for curve in self.curves]

    def mean(self, measure: str) -> float:
        """Its mean over the seeds."""
        return statistics.fmean(self.final(measure))


@dataclasses.dataclass(frozen=True)
class Matched:
    """The effect at equal accuracy.

    Attributes:
        change: of the measure, with TCM minus without, over the pairs that can be compared; None if none can.
        relative: the same as a share of the measure without TCM.
        before: the measure without TCM, the mean over those pairs.
        pairs: how many seeds could be compared.
        of: how many there are.
    """

    change: Difference | None
    relative: float | None
    before: float
    pairs: int
    of: int


@dataclasses.dataclass(frozen=True)
class Compared:
    """One base loss on one split.

    Attributes:
        split, base: names of the plan.
        settings: what the searches chose.
        arms: the runs of each arm, TCM alone of the same split among them where it has been run.
    """

    split: str
    base: str
    settings: Settings
    arms: dict[Arm, Runs]

    @property
    def title(self) -> str:
        """The base loss as tables name it."""
        return BASES[self.base].title

    def change(self, measure: str, arm: Arm = "tcm", before: Arm = "base") -> Difference:
        """The measure of one arm minus that of another, paired over seeds."""
        a, b = self.arms[before], self.arms[arm]
        return difference(
            a.final(measure), b.final(measure), [d[measure] for d in a.draws], [d[measure] for d in b.draws]
        )

    def relative_change(self, measure: str, arm: Arm = "tcm", before: Arm = "base") -> float:
        """The change of the mean as a share of the mean before."""
        return self.arms[arm].mean(measure) / self.arms[before].mean(measure) - 1

    def matched(self, measure: str, accuracy: str, arm: Arm = "tcm") -> Matched:
        """The change of a measure where both have the same accuracy."""
        pairs = [
            matched_pair(base, other, accuracy, measure)
            for base, other in zip(self.arms["base"].curves, self.arms[arm].curves, strict=True)
        ]
        found = [pair for pair in pairs if pair is not None]
        if not found:
            return Matched(None, None, math.nan, 0, len(pairs))
        before, after = ([pair[i] for pair in found] for i in (0, 1))
        mean = statistics.fmean(before)
        relative = statistics.fmean(after) / mean - 1
        return Matched(difference(before, after), relative, mean, len(found), len(pairs))


def compared(records: Records, size: Size) -> list[Compared]:
    """Every chain whose judged runs are all there, in the order of the plan."""
    runs, draws = records.runs(), records.draws()
    found = []
    for split, base in chains():
        if base == ALONE:
            continue
        settings = recorded_settings(split, base, size, runs)
        arms = {} if settings is None else _arms(settings, size, runs, draws)
        if settings is None or not {"base", "tcm"} <= set(arms):
            continue
        if all(trial.arm != "tcm_default" for trial in judged(settings, size)):
            arms["tcm_default"] = arms["tcm"]  # what was chosen is the default
        alone = recorded_settings(split, ALONE, size, runs)
        if alone is not None:
            arms |= _arms(alone, size, runs, draws)
        found.append(Compared(split, base, settings, arms))
    return found


def _arms(
    settings: Settings, size: Size, runs: dict[str, list[Row]], draws: dict[str, dict[str, Values]]
) -> dict[Arm, Runs]:
    """The arms that have all their seeds."""
    keys: dict[Arm, list[str]] = {}
    for trial in judged(settings, size):
        keys.setdefault(trial.arm, []).append(trial.key)
    return {
        arm: Runs(
            tuple([row for row in runs[key] if row["classes"] == "test"] for key in of),
            tuple(draws[key] for key in of),
        )
        for arm, of in keys.items()
        if all(key in runs and key in draws for key in of)
    }


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure that the project wanted to reach, and what came of it."""

    wanted: str
    found: str
    reached: bool


def figures_to_reach(all_compared: Iterable[Compared], arm: Arm = "tcm") -> list[Figure]:
    """Hopes that were written down before the study was run, against the results of an arm with TCM."""
    rows = [row for row in all_compared if arm in row.arms]
    if not rows:
        return []
    recall = {_where(row): row.change("recall_at_1", arm) for row in rows}
    costly = [name for name, change in recall.items() if change.low <= -0.005]
    pairs = [
        (before, after)
        for row in rows
        for before, after in zip(row.arms["base"].final("opis"), row.arms[arm].final("opis"), strict=True)
    ]
    lower = sum(after < before for before, after in pairs) / len(pairs)
    own, proxies = (
        [row.relative_change("opis", arm) for row in rows if BASES[row.base].has_pair_margins is margins]
        for margins in (True, False)
    )
    spread = statistics.fmean(row.relative_change("spread_relative", arm) for row in rows)
    clear = {
        measure: sum(_clear(row.matched(measure, "tar_at_1e-3", arm)) for row in rows)
        for measure in ("opis", "spread_relative")
    }
    return [
        Figure(
            "Recall@1: the interval of the change lies above -0.5 points for every loss",
            f"{len(recall) - len(costly)} of {len(recall)}"
            + (f"; not: {', '.join(costly)}" if costly else ""),
            not costly,
        ),
        Figure(
            "OPIS lower in at least 90 % of the paired runs", f"{lower:.0%} of {len(pairs)}", lower >= 0.9
        ),
        *(
            Figure(
                f"OPIS lower by at least {-goal:.0%} in the mean over the losses {which}",
                f"{statistics.fmean(changes):+.1%}",
                statistics.fmean(changes) <= goal,
            )
            for changes, goal, which in (
                (proxies, -0.3, "without pair margins of their own"),
                (own, -0.1, "with them"),
            )
            if changes
        ),
        Figure(
            "relative threshold spread lower by at least 20 % in the mean", f"{spread:+.1%}", spread <= -0.2
        ),
        *(
            Figure(
                f"{name} at equal TAR: clearly lower for at least half of the losses",
                f"{clear[measure]} of {len(rows)}",
                2 * clear[measure] >= len(rows),
            )
            for measure, name in (("opis", "OPIS"), ("spread_relative", "relative threshold spread"))
        ),
    ]


def _clear(matched: Matched) -> bool:
    return matched.change is not None and matched.change.sign < 0


def _where(row: Compared) -> str:
    return f"{row.title} ({row.split})"


def as_dict(row: Compared) -> dict[str, Any]:
    """All numbers of one base loss on one split, for summary.json."""
    arms = {
        arm: {measure: {"mean": runs.mean(measure), "values": runs.final(measure)} for measure in MEASURES}
        for arm, runs in row.arms.items()
    }
    changes = {
        f"{arm} minus {before}": {
            measure: dataclasses.asdict(row.change(measure, arm, before)) for measure in MEASURES
        }
        for arm, before in (("tcm", "base"), ("tcm_default", "base"), ("tcm", "alone"))
        if arm in row.arms and before in row.arms
    }
    matched = {
        f"{measure} at equal {accuracy}, {arm}": dataclasses.asdict(row.matched(measure, accuracy, arm))
        for arm in ("tcm", "tcm_default")
        if arm in row.arms
        for measure in CONSISTENCY
        for accuracy in ACCURACIES
    }
    settings = {
        name: {
            "trial": dataclasses.asdict(tuned.trial),
            "trials": len(tuned.tried),
            "open_ends": tuned.open_ends,
        }
        for name, tuned in (("base", row.settings.base), ("tcm", row.settings.tcm))
    }
    return {
        "split": row.split,
        "base": row.base,
        "settings": settings,
        "arms": arms,
        "changes": changes,
        "at_equal_accuracy": matched,
    }
