"""The demo on digits, from its settings to its files."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from .. import comparison
from . import figure, training
from .measures import FALSE_ACCEPT_RATE, MEANINGS
from .student import BASE_LOSS
from .training import Run, Settings, Trained

FILES = ("similarities.png", comparison.RESULTS)


def run(settings: Settings, seeds: Sequence[int]) -> tuple[str, dict[str, bytes]]:
    """Train and measure.

    Returns:
        What was found, for people; and the content of the files to be written, by their names.
    """
    print(training.describe(settings, seeds))
    digits = training.load_digits()
    runs = training.train_all(digits, settings, seeds)
    comparisons = compare(runs)
    first = runs[0]
    return (
        comparison.text("On the unseen digits", MEANINGS, comparisons, len(runs)),
        {
            "similarities.png": figure.render(digits.unseen_labels, first.without_tcm, first.with_tcm),
            comparison.RESULTS: comparison.as_json(
                _as_dict(settings), MEANINGS, comparisons, [_run_as_dict(run) for run in runs]
            ),
        },
    )


def compare(runs: Sequence[Run]) -> dict[str, comparison.Comparison]:
    """By field of `Measures`."""
    measured = [(r.without_tcm.measures, r.with_tcm.measures) for r in runs]
    return comparison.compare(MEANINGS, [(dataclasses.asdict(a), dataclasses.asdict(b)) for a, b in measured])


def _as_dict(settings: Settings) -> dict[str, object]:
    return {
        "data": "digits",
        **dataclasses.asdict(settings),
        "base_loss": BASE_LOSS,
        "tcm_weight": training.TCM_WEIGHT,
        "margin_plus": training.MARGIN_PLUS,
        "margin_minus": training.MARGIN_MINUS,
        "unseen_digits": training.UNSEEN,
        "false_accept_rate": FALSE_ACCEPT_RATE,
    }


def _run_as_dict(run: Run) -> dict[str, object]:
    """Everything but the embeddings."""
    return {
        "seed": run.seed,
        **{side: _trained_as_dict(getattr(run, side)) for side in comparison.SIDES},
    }


def _trained_as_dict(trained: Trained) -> dict[str, object]:
    return {
        "measures": dataclasses.asdict(trained.measures),
        "epochs": [dataclasses.asdict(epoch) for epoch in trained.epochs],
    }
