"""How settings are chosen: the same rule and the same number of trials for every loss, on validation classes.

A search climbs along one setting after the other. On each it tries the neighbours of the best so far and goes
on outwards for as long as the best stands at the edge of what was tried, so that no grid's edge is taken for
an optimum. The base is searched for its learning rate and weight decay, by the highest Recall@1. TCM keeps
those and is searched for its weight and margins, by the lowest OPIS among the trials whose Recall@1 is not
more than WORST_LOSS_OF_RECALL under that of the tuned base. Its weight is first tried at three values, two
decades from end to end, for beside some losses a middling weight is worse than a small and a large one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from .plan import (
    ALONE,
    FIRST_WEIGHTS,
    LEARNING_RATES,
    MARGINS_MINUS,
    MARGINS_PLUS,
    TUNING_SEED,
    WEIGHT_DECAYS,
    WEIGHTS,
    WORST_LOSS_OF_RECALL,
    Trial,
)

Line = tuple[str, tuple[float, ...]]
Found = Mapping[str, Any]
"""The row of a trial on validation classes."""
Evaluate = Callable[[Trial], Found]

BASE_LINES: tuple[Line, ...] = (("learning_rate", LEARNING_RATES), ("weight_decay", WEIGHT_DECAYS))
MARGIN_LINES: tuple[Line, ...] = (("margin_minus", MARGINS_MINUS), ("margin_plus", MARGINS_PLUS))
TCM_LINES: tuple[Line, ...] = (("weight", WEIGHTS), *MARGIN_LINES)


@dataclasses.dataclass(frozen=True)
class Tuned:
    """What a search came to.

    Attributes:
        trial: the best.
        tried: every trial, in order.
        open_ends: settings whose best value is the last one that their line has, or was cut off from going
            further by the number of trials.
    """

    trial: Trial
    tried: tuple[Trial, ...]
    open_ends: tuple[str, ...]


def tune_base(split: str, base: str, evaluate: Evaluate, trials: int) -> Tuned:
    """Learning rate and weight decay for the highest Recall@1; of TCM alone where base is ALONE."""
    alone = base == ALONE
    start = Trial(
        split=split,
        base=base,
        arm="alone" if alone else "base",
        purpose="tune",
        seed=TUNING_SEED,
        learning_rate=4e-3,
        weight_decay=1e-2,
        weight=1.0 if alone else 0.0,
    )
    return search((start,), BASE_LINES, lambda trial: (evaluate(trial)["recall_at_1"],), trials)


def tune_tcm(base: Trial, evaluate: Evaluate, trials: int) -> Tuned:
    """Weight and margins of TCM beside a tuned base; margins of TCM alone."""
    enough = evaluate(base)["recall_at_1"] - WORST_LOSS_OF_RECALL
    alone = base.base == ALONE
    starts = (
        (base,) if alone else tuple(dataclasses.replace(base, arm="tcm", weight=w) for w in FIRST_WEIGHTS)
    )

    def score(trial: Trial) -> tuple[float, ...]:
        found = evaluate(trial)
        accurate = found["recall_at_1"] >= enough
        return (float(accurate), -found["opis"] if accurate else found["recall_at_1"])

    return search(starts, MARGIN_LINES if alone else TCM_LINES, score, trials)


def search(
    starts: tuple[Trial, ...],
    lines: tuple[Line, ...],
    score: Callable[[Trial], tuple[float, ...]],
    trials: int,
) -> Tuned:
    """Climb along the lines, one after the other, for the highest score.

    Args:
        starts: the best of them is where the climb begins; on each line, one of its values.
        lines: settings with their values, ascending.
        score: of a trial; the first of equal ones stays.
        trials: how many at most, at least 1.
    """
    scores = {start: score(start) for start in starts[:trials]}
    best, open_ends = max(scores, key=scores.__getitem__), []
    for name, values in lines:
        # Upwards first, and downwards only where that brought nothing: what rises falls on the other side.
        for direction in (1, -1):
            origin = best
            while True:
                place = values.index(getattr(best, name)) + direction
                if not 0 <= place < len(values):
                    if best is not origin:
                        open_ends.append(name)
                    break
                candidate = dataclasses.replace(best, **{name: values[place]})
                if candidate not in scores and len(scores) >= trials:
                    if best is not origin:
                        open_ends.append(name)
                    break
                scores[candidate] = score(candidate)
                if scores[candidate] <= scores[best]:
                    break
                best = candidate
            if best is not origin:
                break
    return Tuned(best, tuple(scores), tuple(dict.fromkeys(open_ends)))
