"""What an embedding is judged by: retrieval on one side, threshold consistency on the other.

Recall@1 sees each query's nearest neighbour; all other numbers come from one count of all pairs, binned in
2,000 (`class_curves`). Neither holds the similarity matrix. A number that the data cannot support is None,
with the reason beside it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from tcm_kernels.evaluation import ClassCurves, class_curves, epsilon_opis, error_rates, opis, tar_at_far

ROWS, COLUMNS = 1024, 8192
"""Of a block of similarities in `recall_at_1`: 32 MiB of float32."""

THRESHOLD_FAR = 1e-2  # of the one threshold at which false rejects are looked at
DECILE = 10  # percent of classes


class Measure(NamedTuple):
    """How a measure is shown, and how it follows from the curves; Recall@1 does not."""

    title: str
    higher_is_better: bool
    of_curves: Callable[[ClassCurves], float] | None


class Measures(dict[str, float | None]):
    """Values by name, those of MEASURES in their order; None where the data do not define one.

    Attributes:
        reasons: why, by the name of each that is None.
    """

    reasons: dict[str, str]

    def __init__(self) -> None:
        super().__init__()
        self.reasons = {}


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
    found = Measures()

    def put(name: str, compute: Callable[[], float]) -> None:
        try:
            found[name] = compute()
        except ValueError as error:  # TooFewPairsError among them
            found[name], found.reasons[name] = None, str(error)

    ref_emb, ref_labels = gallery or (None, None)
    if not all(bool(x.isfinite().all()) for x in (emb, ref_emb) if x is not None):
        for name in MEASURES:
            found[name], found.reasons[name] = None, "there are embeddings that are not finite"
        return found
    curves = functools.cache(lambda: class_curves(emb, labels, ref_emb, ref_labels))
    for name, how in MEASURES.items():
        of_curves = how.of_curves
        if of_curves is None:
            put(name, lambda: recall_at_1(emb, labels, gallery))
        else:
            put(name, lambda of_curves=of_curves: of_curves(curves()))
    return found


@torch.no_grad()
def recall_at_1(emb: Tensor, labels: Tensor, gallery: tuple[Tensor, Tensor] | None = None) -> float:
    """Share of queries whose nearest neighbour, by cosine similarity, has their label.

    Arguments as in `measure`. Of equally near neighbours the first counts. A query whose class has no other
    row (in the gallery) is a miss. Holds a copy of the embeddings and one block of similarities.

    Raises:
        ValueError: there is no query, or nothing to compare it with.
    """
    unit = normalize(emb)
    others, other_labels = (unit, labels) if gallery is None else (normalize(gallery[0]), gallery[1])
    if len(unit) == 0 or len(others) < (2 if gallery is None else 1):
        raise ValueError(f"got {len(unit)} queries and {len(others)} rows to compare them with")
    hits = 0
    for rows in range(0, len(unit), ROWS):
        queries = unit[rows : rows + ROWS]
        best = torch.full_like(queries[:, 0], -torch.inf)
        nearest = torch.zeros(len(queries), dtype=torch.int64, device=emb.device)
        for columns in range(0, len(others), COLUMNS):
            similarity = queries @ others[columns : columns + COLUMNS].T
            if gallery is None:
                _leave_out_self(similarity, rows, columns)
            value, at = similarity.max(dim=1)
            better = value > best
            best = torch.where(better, value, best)
            nearest = torch.where(better, at + columns, nearest)
        hits += int((other_labels[nearest] == labels[rows : rows + ROWS]).sum())
    return hits / len(unit)


def _leave_out_self(similarity: Tensor, first_row: int, first_column: int) -> None:
    """Set the pairs of a row with itself, in a block that begins there, to minus infinity."""
    rows = torch.arange(similarity.shape[0], device=similarity.device)
    columns = rows + first_row - first_column
    inside = (columns >= 0) & (columns < similarity.shape[1])
    similarity[rows[inside], columns[inside]] = -torch.inf


def _require(curves: ClassCurves, far: float) -> None:
    """Refuse a false-accept rate that no share of so few pairs but 0 can reach."""
    pairs = int(curves.pooled[1].sum()) // (2 if curves.symmetric else 1)
    if pairs * far < 1:
        raise ValueError(
            f"a false-accept rate of {far:g} needs at least {round(1 / far):,} distinct other-class pairs, "
            f"got {pairs:,}"
        )


def _opis(curves: ClassCurves, far: tuple[float, float]) -> float:
    _require(curves, min(far))
    return opis(curves, far=far, draws=0).value


def _epsilon_opis(curves: ClassCurves) -> float:
    _require(curves, 1e-2)
    return epsilon_opis(curves, draws=0).value


def _tar(curves: ClassCurves, far: float) -> float:
    _require(curves, far)
    return tar_at_far(curves, far).tar


def _worst_decile_frr(curves: ClassCurves) -> float:
    """Mean false-reject rate of the worst tenth of the classes, at least one, at the pooled threshold."""
    _require(curves, THRESHOLD_FAR)
    rejected = error_rates(curves, tar_at_far(curves, THRESHOLD_FAR).threshold).false_reject
    rejected = np.sort(rejected[~np.isnan(rejected)])
    return float(rejected[-max(1, DECILE * len(rejected) // 100) :].mean())


MEASURES = {
    "recall_at_1": Measure("Recall@1", True, None),
    "opis": Measure("OPIS, FAR 1e-2..1e-1", False, lambda curves: _opis(curves, (1e-2, 1e-1))),
    "opis_strict": Measure("OPIS, FAR 1e-3..1e-2", False, lambda curves: _opis(curves, (1e-3, 1e-2))),
    "epsilon_opis": Measure("10 %-OPIS, FAR 1e-2..1e-1", False, _epsilon_opis),
    "tar_at_1e-3": Measure("TAR at FAR 1e-3", True, lambda curves: _tar(curves, 1e-3)),
    "tar_at_1e-2": Measure("TAR at FAR 1e-2", True, lambda curves: _tar(curves, 1e-2)),
    "worst_decile_frr": Measure("FRR of the worst decile at FAR 1e-2", False, _worst_decile_frr),
}
"""By the name that records use."""
