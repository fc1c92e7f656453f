"""Curves for reports, and how a page must write a rate, worked out from decimals and not as the page does."""

from __future__ import annotations

import decimal
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tcm_kernels.evaluation import ClassCurves, class_curves, report

HOSTILE = [
    "</script><script>window.ran = 1</script>",
    '<img src=x onerror="window.ran = 1">',
    "\"'><b>bold</b>&amp;&lt;",
    "<!-- <script>",
    "${ran} $title {{title}} \\u003c",
    "line\u2028separator\u2029and\nnew line",
    "\u202egnihtemos\u202c \u200fright to left\u200e שלום",
    "🦜👩‍👩‍👧‍👦 飛行機",
    "long " * 2000,
    "",
    "   ",
    "half \ud800 of a pair, \0 nothing",
]


def small_curves(bins: int = 200, seed: int = 3) -> ClassCurves:
    """28 classes, more than a list of the worst holds, some without same-class pairs."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.repeat(np.arange(24), rng.integers(2, 9, 24)), np.arange(24, 28)])
    centres = rng.normal(size=(28, 8))
    noise = rng.normal(size=(len(labels), 8)) * rng.uniform(0.3, 1.2, 28)[labels, None]
    emb = (centres[labels] + noise).astype(np.float32)
    return class_curves(emb, labels, bins=bins, backend="torch")


def many_curves(classes: int, bins: int = 2000, seed: int = 0) -> ClassCurves:
    """Counts as of 60,000 embeddings, without the embeddings: 300 classes, the others much like them."""
    rng = np.random.default_rng(seed)
    centres = np.linspace(-1, 1, bins + 2)

    def counts(total: int, means: Any, width: float) -> Any:
        shape = np.exp(-(((centres - means[:, None]) / width) ** 2))
        drawn = rng.poisson(total * shape / shape.sum(axis=1, keepdims=True)).astype(np.int64)
        found = drawn[np.arange(classes) % len(means)]
        found[np.arange(classes), rng.integers(0, bins + 2, classes)] += 1
        return found

    positives = counts(30, rng.uniform(0.3, 0.8, 300), 0.2)
    negatives = counts(300_000, rng.uniform(-0.1, 0.2, 300), 0.15)
    pooled = np.stack([positives.sum(axis=0), negatives.sum(axis=0) // 2])
    return ClassCurves(np.arange(classes), positives, negatives, pooled)


def page(curves: ClassCurves, *, title: str = "a report", **changes: Any) -> str:
    """A page with something in every part of it."""
    given: dict[str, Any] = {
        "range": (0.2, 0.5),
        "threshold": 0.33,
        "margins": (0.9, 0.5),
        "numbers": [
            ("OPIS", "0.0123 (0.01 to 0.014)", "variance of utility across classes; 0 is consistent")
        ],
        "notes": ["OPIS looks at thresholds 0.2 to 0.5."],
    }
    return report.html(title, curves, **(given | changes))


def percent(rate: float) -> str:
    """Three significant digits, halves rounded up."""
    if math.isnan(rate):
        return "–"
    if rate == 0:
        return "0 %"
    with decimal.localcontext() as context:
        context.rounding = decimal.ROUND_HALF_UP
        rounded = f"{decimal.Decimal(100 * rate):.2e}"
    plain = decimal.Decimal(rounded)
    return f"{rounded if plain.adjusted() < -6 else f'{plain:f}'} %"


def out_of(count: int, total: int) -> str:
    return f"{count:,} of {total:,}" if total else "no pairs"


def spread(rates: Sequence[float]) -> list[float]:
    """Lowest, 5th percentile, median, 95th percentile and highest: rates that are there, none in between."""
    known = sorted(rate for rate in rates if not math.isnan(rate))
    return [known[max(0, math.ceil(share * len(known)) - 1)] for share in (0, 0.05, 0.5, 0.95, 1)]
