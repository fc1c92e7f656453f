"""The bootstrap over classes: how far a number would move had other classes of the same kind been seen.

Classes, not pairs, are drawn: the pairs of one class stand or fall together. A draw is the multiplicity of
every class, so that all draws are one matrix product with the classes' curves and no loop over classes.

Draws go by the position of a class in an order that follows from its counts and not from its name, so that
naming the classes anew changes no interval, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from .blocks import blocks
from .checks import check_count, check_rate
from .curves import Counts, Rates


def check_bootstrap(draws: int, confidence: float) -> None:
    """Refuse what cannot be drawn; 0 draws mean no interval."""
    check_count("draws", draws)
    check_rate("confidence", confidence)


def multiplicities(classes: int, draws: int, seed: int, *, width: int) -> Iterator[Rates]:
    """Draw as many classes as there are, with replacement, `draws` times.

    Args:
        classes: C, at least 1.
        draws: how often.
        seed: of numpy's default generator.
        width: entries that the caller computes from each draw, so that these fit into memory as well.

    Yields:
        (d, C) float64, how often each class was drawn; `draws` rows altogether, in parts of bounded size.
    """
    generator = np.random.default_rng(seed)
    for rows in blocks(draws, max(classes, width)):
        part = rows.stop - rows.start
        drawn = generator.integers(0, classes, size=(part, classes))
        drawn += classes * np.arange(part)[:, None]
        counted = np.bincount(drawn.ravel(), minlength=part * classes)
        yield counted.reshape(part, classes).astype(np.float64)


def percentile_interval(values: Rates, confidence: float) -> tuple[float, float] | None:
    """The (1 ∓ confidence) / 2 quantiles of what the draws gave, NaN left out; None where nothing is left."""
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    lo, hi = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(lo), float(hi)


def order_of_counts(positives: Counts, negatives: Counts) -> npt.NDArray[np.intp]:
    """An order of the classes that follows from their counts alone.

    Each row is hashed, as its product with fixed odd numbers modulo 2⁶⁴: exact in any order of addition and
    without a copy of counts that may fill hundreds of MiB.

    Args:
        positives: (C, B + 2) int64.
        negatives: (C, B + 2) int64.

    Returns:
        (C,) numbers of the classes; classes of equal counts stand in any order.
    """
    factors = np.random.default_rng(0).integers(-(2**62), 2**62, size=positives.shape[1]) * 2 + 1
    return np.lexsort((negatives @ factors, positives @ factors))
