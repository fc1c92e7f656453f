"""The report of an evaluation with all its pictures, as `tcm-kernels evaluate` and the demo write it."""

from __future__ import annotations

from collections.abc import Sequence

from . import plots, report
from .calibration import fit_calibration, reliability
from .curves import ClassCurves
from .summary import Evaluation


def page(
    title: str,
    curves: ClassCurves,
    found: Evaluation,
    *,
    names: Sequence[str] | None = None,
    margins: tuple[float, float] | None = None,
) -> str:
    """The page as text, to be written as UTF-8.

    Args:
        title: what has been evaluated.
        curves: C classes.
        found: of `evaluate`, over these curves.
        names: C names to show instead of `curves.classes`.
        margins: (margin_plus, margin_minus) of the loss, to be shown.
    """
    at = found.threshold.threshold
    pictures = {
        "Utility of each class over the threshold": plots.plot_utilities(
            curves, range=found.opis.range, names=names
        ),
        "Similarities of same-class and other-class pairs": plots.plot_similarities(
            curves, margins=margins, threshold=at
        ),
        "The threshold that each class would choose for itself": plots.plot_own_thresholds(
            curves, found.threshold_far, threshold=at, names=names
        ),
        "False rejects over false accepts": plots.plot_det(curves, threshold=at),
        "The classes that fare worst": plots.plot_worst_classes(curves, at, names=names),
        "Similarity read as a probability, before and after Platt scaling": plots.plot_reliability(
            reliability(curves), reliability(curves, fit_calibration(curves))
        ),
    }
    return report.html(
        title,
        curves,
        names=names,
        range=found.opis.range,
        threshold=at,
        margins=margins,
        numbers=[(line.title, line.value, line.meaning) for line in found.lines()],
        notes=found.notes(),
        pictures=[(caption, plots.as_png(figure)) for caption, figure in pictures.items()],
    )
