"""How unequal the rates of classes are, in one number. NaN, a class without such pairs, is left out."""

from __future__ import annotations

import math

import numpy as np

from .curves import Rates


def gini(values: Rates) -> float:
    """Gini coefficient of non-negative values, with the correction n / (n - 1) for few of them.

    Σ_ij |x_i - x_j| / (2 n² mean) · n / (n - 1): 0 where all are equal, 1 where one value has everything. So
    Howard et al., "Evaluating Proposed Fairness Models for Face Recognition Algorithms", 2022 (GARBE),
    summarise the error rates of groups.

    Args:
        values: (C,) rates.

    Returns:
        From 0 to 1; 0 where all values are 0 or there is one only, NaN where there is none.
    """
    values = np.sort(values[~np.isnan(values)])
    n, total = len(values), values.sum()
    if n == 0:
        return math.nan
    if n == 1 or values[0] == values[-1]:
        return 0.0
    # In ascending order value i (from 0) is the larger one in i pairs and the smaller one in n - 1 - i.
    return float(((2 * np.arange(n) - n + 1) * values).sum() / ((n - 1) * total))


def ratio(values: Rates) -> float:
    """The largest value over the smallest.

    So Grother, Ngan and Hanaoka, "Face Recognition Vendor Test part 3: demographic effects" (NISTIR 8280,
    2019), compare the error rates of groups.

    Args:
        values: (C,) non-negative rates.

    Returns:
        At least 1; inf where the smallest is 0 and the largest is not, 1 where all are 0, NaN where there is
        none.
    """
    values = values[~np.isnan(values)]
    if not len(values):
        return math.nan
    lowest, highest = float(values.min()), float(values.max())
    if lowest == 0:
        return 1.0 if highest == 0 else math.inf
    return highest / lowest


def gap(values: Rates) -> float:
    """The largest value minus the smallest; NaN where there is none."""
    values = values[~np.isnan(values)]
    return float(values.max() - values.min()) if len(values) else math.nan
