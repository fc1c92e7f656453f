"""Whether one threshold is good for every class, and which one to ship.

    embeddings -> class_curves -> ClassCurves -> every number, threshold, calibration and picture

    counting.py       class_curves                    curves.py       the counts; they add up and are saved
    consistency.py    OPIS and ε-OPIS                 bootstrap.py    their intervals
    rates.py          error rates of every class      inequality.py   how unequal they are
    roc.py            TAR@FAR, EER, AUC               spread.py       similarities of classes and data sets
    thresholds.py     the threshold to ship           own_thresholds.py  how far those of classes lie apart
    targets.py        which edge meets a target       calibration.py  from similarity to probability
    summary.py        all numbers of a report         plots/, report/ pictures, one HTML page
    metrics.py        torchmetrics; pair_metric.py and reference_set.py behind it
    embeddings.py     files of embeddings             commands/       `tcm-kernels evaluate` and `calibrate`

Plots, reports, calibrations and metrics need packages of the extras `evaluation` and `metrics`, and are
imported from their modules.
"""

from .checks import TooFewPairsError
from .consistency import Consistency, epsilon_opis, opis
from .counting import class_curves
from .curves import ClassCurves
from .own_thresholds import ThresholdSpread, threshold_spread
from .rates import ErrorRates, error_rates
from .roc import EqualErrorRate, TarAtFar, equal_error_rate, roc_auc, tar_at_far
from .spread import SimilaritySpread, similarity_spread, spread_difference
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
    "ThresholdSpread",
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
    "threshold_spread",
]
