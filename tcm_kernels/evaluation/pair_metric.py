"""What the metrics share: a `torchmetrics.Metric` that turns the batches it sees, on all ranks, into curves.

metrics.py says what either way of counting costs its users.
"""

from __future__ import annotations

import abc
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .. import dispatch
from ..validation import EMBEDDING_DTYPES, check_inputs
from .checks import TooFewPairsError
from .counting import class_curves
from .curves import ClassCurves
from .reference_set import ReferenceSet

try:
    from torchmetrics import Metric
    from torchmetrics.utilities import rank_zero_warn
    from torchmetrics.utilities.data import dim_zero_cat
    from torchmetrics.utilities.distributed import gather_all_tensors
except ImportError as error:
    raise ImportError(
        f"tcm_kernels.evaluation.metrics needs torchmetrics ({error}): pip install 'tcm-kernels[metrics]'"
    ) from error

_STATE_DTYPES = (*EMBEDDING_DTYPES, torch.int64)  # a rank names one to the others by its place in here


class PairMetric(Metric):
    """A number that follows from class curves; which one, subclasses say."""

    is_differentiable = False
    full_state_update = False  # forward() computes the batch alone, then merges it

    emb: list[Tensor]  # the states without a reference set
    labels: list[Tensor]
    positives: Tensor  # and with one
    negatives: Tensor
    pooled: Tensor

    def __init__(
        self,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
        *,
        bins: int = 2000,
        range: tuple[float, float] = (-1.0, 1.0),
        backend: str = "auto",
        **kwargs: Any,
    ) -> None:
        if kwargs.get("dist_sync_fn") is None:
            kwargs["dist_sync_fn"] = gather_rows
        super().__init__(**kwargs)
        dispatch.check_name(backend, dispatch.HISTOGRAM_BACKENDS)
        no_rows = torch.empty(0, 1), torch.empty(0, dtype=torch.int64)
        self.no_pairs = class_curves(*no_rows, bins=bins, range=range)  # what settings can be checked with
        self.backend = backend
        self._warned: set[str] = set()
        # Neither parameter nor buffer: those are cast and saved with the model, and DistributedDataParallel
        # sends buffers around in every step.
        self.reference: ReferenceSet | None = None
        if ref_emb is None and ref_labels is None:
            self.add_state("emb", [], dist_reduce_fx="cat")
            self.add_state("labels", [], dist_reduce_fx="cat")
            return
        self.reference = ReferenceSet.of(ref_emb, ref_labels)
        # Keeps counts of different pairs from being added, or shared in a MetricCollection: before the first
        # row all tables look alike. It comes first, since states are reduced in turn.
        counted = [*self.reference.digest(), bins, self.no_pairs.lo, self.no_pairs.hi]
        fingerprint = torch.tensor(counted, dtype=torch.float64).view(torch.uint8).long()
        self.add_state("fingerprint", fingerprint, dist_reduce_fx=_same_everywhere)
        table = torch.zeros(self.reference.rows, bins + 2, dtype=torch.int64)
        self.add_state("positives", table, dist_reduce_fx="sum")
        self.add_state("negatives", table.clone(), dist_reduce_fx="sum")
        self.add_state("pooled", torch.zeros(2, bins + 2, dtype=torch.int64), dist_reduce_fx="sum")
        self.to(self.reference.emb.device)

    def update(self, emb: Tensor, labels: Tensor) -> None:
        """Take a batch.

        Args:
            emb: (n, D) float32, float64, float16 or bfloat16, of any length; kept in that dtype.
            labels: (n,) class of each row, any integer dtype.

        Raises:
            TypeError, ValueError: an argument that cannot be used; the message names it. Rows that are not
                finite are refused here with a reference set, and by `compute` without.
        """
        check_inputs(emb, labels, None, None, None)
        emb, labels = emb.detach(), labels.to(torch.int64)  # uint64 wraps around: as many classes as before
        if self.reference is not None:
            curves = self.no_pairs
            counts = self.reference.count(emb, labels, curves.bins, curves.lo, curves.hi, self.backend)
            # Added to the new counts: the state may be an inference tensor, or another metric's.
            states = (self.positives, self.negatives, self.pooled)
            self.positives, self.negatives, self.pooled = map(Tensor.add_, counts, states)
            return
        if self.emb and self.emb[0].shape[1] != emb.shape[1]:
            raise ValueError(
                f"emb: got shape {tuple(emb.shape)}, expected {self.emb[0].shape[1]} columns as before"
            )
        # Copies: a view would keep alive what it looks into (all tokens of a text for the sake of one), and
        # the caller may write the next batch into the same memory.
        self.emb.append(emb.clone(memory_format=torch.contiguous_format))
        self.labels.append(labels.clone())

    def compute(self) -> Tensor:
        """The number, 0-dim on the metric's device: float32, or float64 after `set_dtype(torch.float64)`.

        NaN, with a warning that says why, where what was seen has too few pairs: an error would end a
        training at the few batches of Lightning's sanity check.

        Raises:
            ValueError: rows that are not finite, or ranks whose metrics do not match.
        """
        curves = self._curves()
        try:
            value = self._value(curves)
        except TooFewPairsError as error:
            value = math.nan
            self._warn_once(str(error) if curves.pooled.any() else "there are no pairs in what was seen")
        return torch.tensor(value, dtype=torch.promote_types(self.dtype, torch.float32), device=self.device)

    @abc.abstractmethod
    def _value(self, curves: ClassCurves) -> float:
        """The number, or a TooFewPairsError."""

    def _warn_once(self, reason: str) -> None:
        """Once for what stands before the colon: numbers behind it may differ at every step of a training."""
        kind = reason.partition(":")[0]
        if kind not in self._warned:
            self._warned.add(kind)
            rank_zero_warn(f"{type(self).__name__} is NaN: {reason}", UserWarning)

    def _curves(self) -> ClassCurves:
        none = self.no_pairs
        if self.reference is not None:
            tables = (self.positives[:-1], self.negatives[:-1], self.pooled)
            positives, negatives, pooled = (x.cpu().numpy() for x in tables)
            classes = self.reference.classes.cpu().numpy()
            return ClassCurves(classes, positives, negatives, pooled, none.lo, none.hi, symmetric=False)
        if not len(self.emb):
            return none
        emb, labels = dim_zero_cat(self.emb), dim_zero_cat(self.labels)
        if not len(emb):
            return none
        return class_curves(emb, labels, bins=none.bins, range=(none.lo, none.hi), backend=self.backend)

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = ()) -> nn.Module:
        """Move the reference set too. `set_dtype` is for the result, and rounds neither counts nor labels."""
        super()._apply(fn, tuple(self._defaults) if self._dtype_convert else exclude_state)
        if self.reference is not None:
            self.reference = self.reference.to(self.device)
        return self


def _same_everywhere(fingerprints: Tensor) -> Tensor:
    if not bool((fingerprints == fingerprints[0]).all()):
        raise ValueError(
            "ref_emb, ref_labels, bins or range differ between ranks (or merged metrics), expected the same: "
            "counts of different pairs cannot be added up"
        )
    return fingerprints[0]


def gather_rows(rows: Tensor, group: Any = None) -> list[Tensor]:
    """The rows of every rank: `dist_sync_fn` of these metrics, for states of one or two dimensions.

    A rank that saw nothing knows neither the columns nor the dtype of the others. torchmetrics hands in an
    empty float32 vector for it, which cannot be gathered beside matrices; so ranks first say what they have.
    """
    columns = rows.shape[1] if rows.dim() == 2 else 0
    mine = torch.tensor([len(rows), rows.dim(), columns, _STATE_DTYPES.index(rows.dtype)], device=rows.device)
    told: list[list[int]] = [x.tolist() for x in gather_all_tensors(mine, group)]
    filled = [rest for count, *rest in told if count]
    if not filled:
        return [rows] * len(told)
    shapes = {(dim, width) for dim, width, _ in filled}
    if len(shapes) > 1:
        widths = sorted(width for _, width in shapes)
        raise ValueError(f"emb: got {widths} columns on different ranks, expected the same on all")
    ((dim, width),) = shapes
    dtype = functools.reduce(torch.promote_types, (_STATE_DTYPES[place] for _, _, place in filled))
    if len(rows) == 0:
        rows = rows.new_empty((0, width)[:dim])
    return gather_all_tensors(rows.to(dtype), group)
