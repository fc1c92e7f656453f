"""The study's measures for data sets of the user's own: with a gallery, on any device, whatever the classes.

A number that the data cannot support is None, with the reason beside it.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from benchmarks.quality.measures import MEASURES, of_curves
from tcm_kernels.evaluation import class_curves
from tcm_kernels.evaluation.retrieval import recall_at_1


class Measures(dict[str, float | None]):
    """Values by name, those of MEASURES in their order; None where the data do not define one.

    Attributes:
        reasons: why, by the name of each that is None.
    """

    reasons: dict[str, str]

    def __init__(self, values: dict[str, float], reasons: dict[str, str]) -> None:
        super().__init__({name: values.get(name) for name in MEASURES})
        self.reasons = {name: reasons[name] for name in MEASURES if name not in values}


def measure(emb: Tensor, labels: Tensor, gallery: tuple[Tensor, Tensor] | None = None) -> Measures:
    """All measures of embeddings of classes that were not trained on.

    Args:
        emb: (N, D) float32 or float64, of any length; the queries where there is a gallery.
        labels: (N,) integers, on the same device.
        gallery: (M, D) embeddings and (M,) labels that queries are compared with; None for all pairs within
            `emb`, no row with itself.

    Returns:
        A dict of the names in MEASURES; all of them None where a row is not finite.
    """
    ref_emb, ref_labels = gallery or (None, None)
    if not all(bool(x.isfinite().all()) for x in (emb, ref_emb) if x is not None):
        return Measures({}, dict.fromkeys(MEASURES, "there are embeddings that are not finite"))
    values, reasons = {}, {}
    try:
        values["recall_at_1"] = recall_at_1(emb, labels, gallery)
    except ValueError as error:
        reasons["recall_at_1"] = str(error)
    curves = class_curves(emb, labels, ref_emb, ref_labels)
    of_pairs, whys = of_curves(curves, np.ones((1, len(curves.classes))))
    values |= {name: float(value[0]) for name, value in of_pairs.items()}
    return Measures(values, reasons | whys)
