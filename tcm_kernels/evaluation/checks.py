"""Checks of what users give: each returns what it accepts and names what it refuses."""

from __future__ import annotations

import math
import numbers
from typing import Any


class TooFewPairsError(ValueError):
    """The pairs that were counted do not have what a number needs; the message says what and what to do."""


def is_number(x: Any) -> bool:
    """Whether x is a real number, of Python or numpy; NaN is one, True is not."""
    return isinstance(x, numbers.Real) and not isinstance(x, bool)


def check_rate(name: str, x: Any) -> float:
    """A number in (0, 1)."""
    if not is_number(x) or not 0 < x < 1:
        raise ValueError(f"{name}: got {x!r}, expected a number in (0, 1)")
    return float(x)


def check_positive(name: str, x: Any) -> float:
    """A finite number above 0."""
    if not is_number(x) or not 0 < x < math.inf:
        raise ValueError(f"{name}: got {x!r}, expected a positive number")
    return float(x)


def check_count(name: str, x: Any) -> int:
    """An integer of at least 0."""
    if isinstance(x, bool) or not isinstance(x, numbers.Integral) or int(x) < 0:
        raise ValueError(f"{name}: got {x!r}, expected an integer of at least 0")
    return int(x)
