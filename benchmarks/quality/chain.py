"""All that is done for one base loss on one split, skipping what the records have.

A search goes the same way every time, so walking it again over recorded trials costs nothing and leads to
where it stopped. Settings never depend on test classes: they follow from rows of the purpose "tune", which
have been measured on validation classes only.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.harness.environment import cpu_model

from . import running, tuning
from .plan import ALONE, DEFAULT_MARGINS, Arm, Size, Trial
from .records import Records, Row, last


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the searches of a chain came to."""

    base: tuning.Tuned
    tcm: tuning.Tuned


def walk(
    split: str, base: str, size: Size, records: Records, say: Callable[[str], None], only_tune: bool = False
) -> None:
    """Do what is missing of a chain.

    Args:
        split: its name in `plan.SPLITS`.
        base: a base loss, or ALONE.
        size: of the study.
        records: where runs are looked up and added.
        say: is told of every run that was made.
        only_tune: stop before the runs that are judged.
    """
    known = records.runs()

    def rows_of(trial: Trial, again: bool = False) -> list[Row]:
        if again or trial.key not in known:
            rows, measured = running.run(trial, size)
            records.append(rows, measured if trial.purpose == "judge" else None)
            known[trial.key] = records.runs()[trial.key]  # rounded as they will be read the next time
            say(_sentence(known[trial.key]))
        return known[trial.key]

    settings = choose(split, base, size, lambda trial: last(rows_of(trial), "validation"))
    if only_tune:
        return
    for _, of_seed in itertools.groupby(judged(settings, size), key=lambda trial: trial.seed):
        trials = list(of_seed)
        missing = [trial for trial in trials if trial.key not in known]
        # Runs that are compared are made on one processor: another one rounds differently.
        elsewhere = any(
            known[trial.key][-1]["processor"] != cpu_model() for trial in trials if trial.key in known
        )
        for trial in trials if missing and elsewhere else missing:
            rows_of(trial, again=True)


def choose(split: str, base: str, size: Size, evaluate: tuning.Evaluate) -> Settings:
    """Both searches of a chain."""
    best = tuning.tune_base(split, base, evaluate, size.trials)
    return Settings(best, tuning.tune_tcm(best.trial, evaluate, size.trials))


def judged(settings: Settings, size: Size) -> list[Trial]:
    """The runs on test classes, seed by seed, those of a seed beside each other on one processor."""
    if settings.base.trial.base == ALONE:
        arms: dict[Arm, Trial] = {"alone": settings.tcm.trial}
    else:
        plus, minus = DEFAULT_MARGINS
        default = dataclasses.replace(settings.base.trial, weight=1.0, margin_plus=plus, margin_minus=minus)
        arms = {"base": settings.base.trial, "tcm": settings.tcm.trial, "tcm_default": default}
        # Where the default is what was chosen, one run is both.
        if dataclasses.replace(default, arm="tcm") == settings.tcm.trial:
            del arms["tcm_default"]
    return [
        dataclasses.replace(trial, arm=arm, purpose="judge", seed=seed)
        for seed in size.seeds
        for arm, trial in arms.items()
    ]


def recorded_settings(split: str, base: str, size: Size, runs: Mapping[str, list[Row]]) -> Settings | None:
    """What the searches came to, from the records alone; None where they are not finished."""

    def look_up(trial: Trial) -> Mapping[str, Any]:
        return last(runs[trial.key], "validation")

    try:
        return choose(split, base, size, look_up)
    except KeyError:
        return None


def _sentence(rows: list[Row]) -> str:
    row = rows[-1]
    return (
        f"{row['key']}: {row['classes']} Recall@1 {row['recall_at_1']:.3f}, OPIS {row['opis']:.5f} and "
        f"{row['opis_strict']:.5f}, relative spread {row['spread_relative']:.4f}, "
        f"TAR at FAR 1e-3 {row['tar_at_1e-3']:.3f}, {row['training_seconds']:.0f} s"
    )
