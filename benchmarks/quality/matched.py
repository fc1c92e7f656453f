"""The effect at equal accuracy: what TCM adds beyond what more of the same training would have brought.

Inconsistency falls while accuracy rises, in every training. So a run with TCM is held against the base's own
curve, OPIS (or threshold spread) over Recall@1 (or TAR) at the stops on its way: where the curve, linear
between its stops, has the accuracy that the run with TCM ends with, or, where the base never gets that far,
the other way round: the base's end against the curve with TCM. Where neither reaches the other there is no
answer, and None says so.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

Curve = Sequence[Mapping[str, Any]]
"""The rows of a run on one set of classes, by step."""


def at(curve: Curve, accuracy: str, level: float, measure: str) -> float | None:
    """The measure where the curve last crosses an accuracy; None where it does not reach it.

    Stops at which the measure was not defined are left out.
    """
    points = [(row[accuracy], row[measure]) for row in curve if row[measure] is not None]
    for (x0, y0), (x1, y1) in reversed(list(itertools.pairwise(points))):
        if min(x0, x1) <= level <= max(x0, x1):
            return y1 if x0 == x1 else y0 + (y1 - y0) * (level - x0) / (x1 - x0)
    return None


def matched_pair(base: Curve, with_tcm: Curve, accuracy: str, measure: str) -> tuple[float, float] | None:
    """The measure without and with TCM at one accuracy; None where the curves do not overlap."""
    end, end_with_tcm = base[-1], with_tcm[-1]
    on_base = at(base, accuracy, end_with_tcm[accuracy], measure)
    if on_base is not None:
        return on_base, end_with_tcm[measure]
    on_other = at(with_tcm, accuracy, end[accuracy], measure)
    return None if on_other is None else (end[measure], on_other)
