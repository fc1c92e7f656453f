"""What the study consists of, by value: splits, arms, seeds, the settings searched, and the runs of each.

A `Trial` is one training. Its key names everything that it depends on, so that a record tells whether a run
has been made. A chain is all that is done for one base loss on one split: the base is tuned, then TCM beside
it, on validation classes; then the seeds, judged on test classes. Chains know nothing of each other.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from .losses import BASES

Arm = Literal["base", "tcm", "tcm_default", "alone"]
Purpose = Literal["tune", "judge"]

ARMS = {
    "base": "base alone",
    "tcm": "base + TCM, tuned",
    "tcm_default": "base + TCM, weight 1, margins 0.9 and 0.5",
    "alone": "TCM alone",
}
ALONE = "none"  # the base loss of the arm that has none
DEFAULT_MARGINS = (0.9, 0.5)

SEEDS = (0, 1, 2, 3, 4)
TUNING_SEED = 100  # none of those that are reported
TRIALS = 10  # that each tuning may take, the base's and TCM's alike
WORST_LOSS_OF_RECALL = 0.005  # that TCM may cost on validation classes to be chosen

# A line is searched outwards from where it stands for as long as the best is at the edge of what was tried.
LEARNING_RATES = (5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2)
WEIGHT_DECAYS = (1e-3, 1e-2, 1e-1, 1.0)
WEIGHTS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
FIRST_WEIGHTS = (1.0, 10.0, 100.0)  # tried before that: between a little TCM and a lot there may be a valley
MARGINS_MINUS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
MARGINS_PLUS = (0.6, 0.7, 0.8, 0.9, 0.95, 0.98)


@dataclasses.dataclass(frozen=True)
class Size:
    """How much of everything: the study itself, or a version of it that says less sooner.

    Attributes:
        steps: of a training.
        seeds: judged.
        train_views: of each drawing, to learn from.
        views: of each drawing, to measure on.
        stops: after which steps a run is measured.
        trials: of a tuning; 1 takes the middle of each line.
        splits: which of SPLITS.
    """

    steps: int
    seeds: tuple[int, ...]
    train_views: int
    views: int
    stops: tuple[int, ...]
    trials: int
    splits: tuple[str, ...]


SPLITS = {
    "random-0": "classes split at random",
    "script": "learnt on Latin, chosen on Cyrillic and Georgian, judged on all others",
    "random-1": "classes split at random once more",
}

FULL = Size(1500, SEEDS, 6, 2, (300, 600, 900, 1200, 1500), TRIALS, tuple(SPLITS))
SHORT = Size(200, SEEDS[:3], 2, 1, (50, 100, 200), 1, ("random-0",))
SMOKE = Size(6, SEEDS[:2], 1, 1, (3, 6), 2, ("random-0", "script"))


@dataclasses.dataclass(frozen=True)
class Trial:
    """One training: its split, its losses and how it is optimised."""

    split: str
    base: str
    arm: Arm
    purpose: Purpose
    seed: int
    learning_rate: float
    weight_decay: float
    weight: float = 0.0  # of the TCM loss; λ+ and λ- together
    margin_plus: float = DEFAULT_MARGINS[0]
    margin_minus: float = DEFAULT_MARGINS[1]

    @property
    def key(self) -> str:
        """Names the run; two runs of one key are the same run."""
        parts = [self.split, self.base, self.arm, self.purpose, f"seed{self.seed}"]
        parts.append(f"lr{self.learning_rate:g}-wd{self.weight_decay:g}")
        if self.weight:
            parts.append(f"w{self.weight:g}-m{self.margin_plus:g}-{self.margin_minus:g}")
        return "/".join(parts)


ON_SECOND_RANDOM_SPLIT = ("arcface", "multi_similarity", "smooth_ap")


def chains() -> list[tuple[str, str]]:
    """(split, base loss) of every chain, in the order in which they are done."""
    bases = [*BASES, ALONE]
    return [
        *(("random-0", base) for base in bases),
        *(("script", base) for base in bases),
        *(("random-1", base) for base in (*ON_SECOND_RANDOM_SPLIT, ALONE)),
    ]
