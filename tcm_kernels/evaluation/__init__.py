"""Whether one threshold is good for every class, and which one to ship.

    embeddings -> class_curves -> ClassCurves -> every number, threshold, calibration and picture

    curves.py         counts of similarities by class and bin; they add up and are saved
    consistency.py    OPIS and ε-OPIS                 bootstrap.py   their intervals
    rates.py          error rates of every class at a threshold; TAR@FAR, EER, AUC, spread
    thresholds.py     the threshold to ship           calibration.py   from similarity to probability
    summary.py        all numbers of a report         plots.py, report.py   pictures, one HTML page
    metrics.py        torchmetrics for training loops
    embeddings.py     files of embeddings             command.py   `tcm-kernels evaluate` and `calibrate`

Plots, reports, calibrations and metrics need packages of the extras `evaluation` and `metrics`, and are
imported from their modules.
"""

from .checks import TooFewPairsError
from .consistency import Consistency, epsilon_opis, opis
from .curves import ClassCurves, class_curves
from .rates import (
    EqualErrorRate,
    ErrorRates,
    SimilaritySpread,
    TarAtFar,
    equal_error_rate,
    error_rates,
    roc_auc,
    similarity_spread,
    spread_difference,
    tar_at_far,
)
from .summary import Evaluation, evaluate
from .thresholds import ThresholdChoice, choose_threshold

__all__ = [
    "ClassCurves",
    "Consistency",
    "EqualErrorRate",
    "ErrorRates",
    "Evaluation",
    "SimilaritySpread",
    "TarAtFar",
    "ThresholdChoice",
    "TooFewPairsError",
    "choose_threshold",
    "class_curves",
    "epsilon_opis",
    "equal_error_rate",
    "error_rates",
    "evaluate",
    "opis",
    "roc_auc",
    "similarity_spread",
    "spread_difference",
    "tar_at_far",
]
