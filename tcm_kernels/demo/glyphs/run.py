"""The demo on glyphs, from its settings to its files."""

from __future__ import annotations

import functools
import sys
import unicodedata
from collections.abc import Sequence

import torch

from ...evaluation import class_curves
from ...evaluation.summary import evaluate
from .. import comparison
from . import figure, paired
from .measures import MEANINGS
from .paired import Progress, Settings, Trained
from .processes import run_all

_HEADER = (
    f"{'seed':>4} {'':<11}{'step':>6}{'base loss':>11}{'pos. term':>11}{'neg. term':>11}"
    f"{'hard pos.':>11}{'hard neg.':>11}"
)
_LINE_EVERY = 200  # steps
_PICTURE = "utilities.png"
_REPORTS = ("report-without-tcm.html", "report-with-tcm.html")
FILES = (_PICTURE, *_REPORTS, comparison.RESULTS)


def run(settings: Settings, seeds: Sequence[int]) -> tuple[str, dict[str, bytes]]:
    """Train and measure.

    Returns:
        What was found, for people; and the content of the files to be written, by their names.
    """
    print(paired.describe(settings, seeds), flush=True)
    trained = _train_all(settings, seeds)
    pairs = list(zip(trained[0::2], trained[1::2], strict=True))
    comparisons = comparison.compare(MEANINGS, [(a.measures, b.measures) for a, b in pairs])
    reasons = {name: reason for each in trained for name, reason in each.reasons.items()}
    files = {
        comparison.RESULTS: comparison.as_json(
            paired.as_dict(settings), MEANINGS, comparisons, [_as_dict(*pair) for pair in pairs]
        )
    }
    title = f"On {len(paired.split().test):,} characters never seen in training"
    told = comparison.text(title, MEANINGS, comparisons, len(pairs), reasons)
    return told, files | _looked_at(*pairs[0])


def _train_all(settings: Settings, seeds: Sequence[int]) -> list[Trained]:
    """All trainings, with a line every now and then, and a bar where somebody is watching."""
    from tqdm import tqdm  # noqa: PLC0415  # an extra

    watched = sys.stdout.isatty() and sys.stderr.isatty()
    tasks = paired.tasks(seeds)
    steps = dict.fromkeys(tasks, 0)
    with tqdm(total=len(tasks) * settings.steps, unit="step", disable=not watched, dynamic_ncols=True) as bar:

        def tell(progress: Progress) -> None:
            look = progress.look
            bar.update(progress.step - steps[progress.task])
            bar.set_postfix_str(f"terms {look.positive_term:.4f} + {look.negative_term:.4f}", refresh=False)
            steps[progress.task] = progress.step
            if progress.step % _LINE_EVERY == 0 or progress.step == settings.steps:
                bar.write(_line(progress), file=sys.stdout)

        bar.write(f"\n{_HEADER}", file=sys.stdout)
        return run_all(functools.partial(paired.train, settings), tasks, tell, settings.processes)


def _line(progress: Progress) -> str:
    task, look = progress.task, progress.look
    return (
        f"{task.seed:>4} {_side(task.with_tcm):<11}{progress.step:>6,}{look.base_loss:>11.4f}"
        f"{look.positive_term:>11.4f}{look.negative_term:>11.4f}"
        f"{look.hard_positive_share:>11.1%}{look.hard_negative_share:>11.1%}"
    )


def _side(with_tcm: bool) -> str:
    return comparison.SIDES["with_tcm" if with_tcm else "without_tcm"]


def _as_dict(without: Trained, with_tcm: Trained) -> dict[str, object]:
    """Everything but the embeddings."""
    return {
        "seed": without.task.seed,
        **{
            side: {
                "measures": trained.measures,
                "looks": [
                    {"step": step, **{name: getattr(look, name) for name in _LOGGED}}
                    for step, look in trained.looks.items()
                ],
            }
            for side, trained in zip(comparison.SIDES, (without, with_tcm), strict=True)
        },
    }


_LOGGED = (
    "base_loss",
    "positive_term",
    "negative_term",
    "hard_positive_share",
    "hard_negative_share",
    "gradient_ratio",
)


def _looked_at(without: Trained, with_tcm: Trained) -> dict[str, bytes]:
    """The picture of a seed, and a report of either of its trainings, where all measures are there."""
    from ...evaluation.page import page  # noqa: PLC0415  # needs matplotlib and scikit-learn

    sides = dict(zip(comparison.SIDES, (without, with_tcm), strict=True))
    if any(trained.reasons for trained in sides.values()):
        return {}
    labels = paired.unseen().labels
    curves = {
        side: class_curves(torch.from_numpy(trained.unseen_emb), labels) for side, trained in sides.items()
    }
    names = [_named(paired.alphabet().characters[c]) for c in paired.split().test]
    margins = (paired.MARGIN_PLUS, paired.MARGIN_MINUS)
    pages = [
        page(
            f"Glyphs {title}, seed {without.task.seed}",
            of_side,
            evaluate(of_side),
            names=names,
            margins=margins,
        )
        for title, of_side in zip(comparison.SIDES.values(), curves.values(), strict=True)
    ]
    measures = {side: trained.measures for side, trained in sides.items()}
    return {
        _PICTURE: figure.render(curves, measures),
        **{name: each.encode() for name, each in zip(_REPORTS, pages, strict=True)},
    }


def _named(character: str) -> str:
    return f"{character} {unicodedata.name(character).capitalize()}"
