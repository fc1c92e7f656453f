"""The interface of a backend, and its inputs.

The ops have the flat signatures that torch's dispatcher wants, about a dozen arguments each. Backends get
these arguments as one `Problem` or one `HistogramProblem`.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class Problem(NamedTuple):
    """The pairs, the margins and what is wanted, in the order of the ops' schema.

    Attributes:
        emb: (N, D) embeddings as the user gave them: any length, any strides.
        labels: (N,) integers.
        ref: (M, D) reference set; None in the self case, the pairs within emb.
        ref_labels: (M,) integers, None exactly where ref is.
        margins: (2,) float64 [m+, m-] on the embeddings' device.
        self_offset: row i of emb is the same sample as row i + self_offset of ref, and that pair is left out
            whatever its labels; None where no row is in both sets, and in the self case.
        need_grad_emb: whether the gradient of emb will be asked for.
        need_grad_ref: whether the gradient of ref will be asked for.
        precision: "highest" or "high": float32 products on a GPU are float32, or may use TF32. "highest" on
            a CPU and for other dtypes.
    """

    emb: Tensor
    labels: Tensor
    ref: Tensor | None
    ref_labels: Tensor | None
    margins: Tensor
    self_offset: int | None
    need_grad_emb: bool
    need_grad_ref: bool
    precision: str

    @property
    def gradient_rows(self) -> GradientRows:
        """What its backward reads beside the residual."""
        return GradientRows(
            self.emb if self.need_grad_emb else None,
            self.ref if self.need_grad_ref else None,
            self.ref is None,
        )


class GradientRows(NamedTuple):
    """The rows whose gradient is wanted: a backward reads nothing else but the residual.

    Neither labels nor margins, nor rows without gradient, which may thus be overwritten after the forward.

    Attributes:
        emb: (N, D) embeddings as the user gave them; None where their gradient is not wanted.
        ref: (M, D) reference set; None where there is none, or its gradient is not wanted.
        symmetric: whether a row of emb is at both ends of each of its pairs, as in the self case.
    """

    emb: Tensor | None
    ref: Tensor | None
    symmetric: bool


class PairList(NamedTuple):
    """Pairs one by one, in the order of the op's schema; each counts once, as it is listed.

    Attributes:
        emb: (N, D) embeddings as the user gave them.
        ref: (M, D) reference set; None where partners are rows of emb.
        margins: (2,) float64 [m+, m-] on the embeddings' device.
        positive_anchors: (K+,) int64, rows of emb.
        positive_partners: (K+,) int64, rows of ref, or of emb without one.
        negative_anchors: (K-,) int64, rows of emb.
        negative_partners: (K-,) int64, rows of ref, or of emb without one.
        deduplicate: whether a pair that is listed several times counts once.
        need_grad_emb: whether the gradient of emb will be asked for.
        need_grad_ref: whether the gradient of ref will be asked for.
    """

    emb: Tensor
    ref: Tensor | None
    margins: Tensor
    positive_anchors: Tensor
    positive_partners: Tensor
    negative_anchors: Tensor
    negative_partners: Tensor
    deduplicate: bool
    need_grad_emb: bool
    need_grad_ref: bool

    @property
    def positives(self) -> tuple[Tensor, Tensor]:
        """Anchors and partners of the positive pairs."""
        return self.positive_anchors, self.positive_partners

    @property
    def negatives(self) -> tuple[Tensor, Tensor]:
        """Anchors and partners of the negative pairs."""
        return self.negative_anchors, self.negative_partners

    @property
    def gradient_rows(self) -> GradientRows:
        """What its backward reads beside the residual."""
        return GradientRows(
            self.emb if self.need_grad_emb else None, self.ref if self.need_grad_ref else None, False
        )


class PartnerSums(NamedTuple):
    """P and Q of one side, (N, D) each, contiguous, in the compute dtype; docs/design.md, section 1."""

    positive: Tensor
    negative: Tensor


class HistogramProblem(NamedTuple):
    """The pairs to count and the tables' shape, in the order of the op's schema.

    A pair counts in the table's row of each end's group, once where both ends are in one group. In the self
    case pairs are ordered, so that (i, j) and (j, i) both count.

    Attributes:
        emb: (N, D) embeddings as the user gave them, of any length and strides; finite, norms included.
        labels: (N,) integers; a pair of equal labels is of one class.
        groups: (N,) int64 in [0, group_count): the row of the tables; often the class itself.
        ref: (M, D) reference set; None in the self case, the pairs within emb.
        ref_labels: (M,) integers, None exactly where ref is.
        ref_groups: (M,) int64 in [0, group_count), None exactly where ref is.
        self_offset: as in `Problem`.
        group_count: rows of the tables, G.
        bins: B, the number of bins, from 1 to MOST_BINS; all have one width.
        lo: lower edge of the first bin.
        hi: upper edge of the last bin, more than lo.
        precision: as in `Problem`.
    """

    emb: Tensor
    labels: Tensor
    groups: Tensor
    ref: Tensor | None
    ref_labels: Tensor | None
    ref_groups: Tensor | None
    self_offset: int | None
    group_count: int
    bins: int
    lo: float
    hi: float
    precision: str


MOST_BINS = 30_000  # B + 2 columns per sign, and one for pairs that do not count, fit into 16 bits


class Machine(Protocol):
    """What every backend reports about itself."""

    def why_not_here(self) -> str | None:
        """None where it can run on this machine, else the reason and what to do, as one sentence."""

    def why_not(self, device_type: str, dtype: torch.dtype) -> str | None:
        """None if it takes embeddings of this device type and dtype, else the reason."""


class Backend(Machine, Protocol):
    """A module (or package) with these functions."""

    def residual_bytes(self, rows: GradientRows) -> int:
        """Bytes of what the forward leaves for the backward; follows from shapes, never from data."""

    def pair_sums(self, problem: Problem, residual_size: int) -> tuple[Tensor, Tensor, Tensor]:
        """[Σ+, Σ-] float64, [n+, n-] int64 and the residual (residual_size,) uint8, fully written."""

    def pair_sums_backward(
        self, rows: GradientRows, grad_sums: Tensor, residual: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Gradients of emb and ref in their dtypes; an empty tensor where not wanted."""

    # A matrix in parts: P and Q of each part are added to those of the parts before, in the residual of the
    # first part or in zeros.

    def partner_sums(
        self, rows: GradientRows, residual: Tensor
    ) -> tuple[PartnerSums | None, PartnerSums | None]:
        """P and Q of emb and of ref in a residual; None where not wanted."""

    def add_pair_sums(
        self, problem: Problem, of_emb: PartnerSums | None, of_ref: PartnerSums | None
    ) -> tuple[Tensor, Tensor]:
        """Sums and counts as of `pair_sums`, of this part alone; P and Q are added where given.

        What is given, not what the problem says to need, is what is wanted. Where the norm of a row is not
        finite the sums are NaN, and P and Q hold anything.
        """

    def set_nan_flag(self, rows: GradientRows, residual: Tensor, nan_flag: Tensor) -> None:
        """Make the gradients of this residual NaN where `nan_flag`, 0-dim float64, is NaN; else it is 0."""


class PairListBackend(Machine, Protocol):
    """A backend that also takes a list of pairs; the residual is as that of its `pair_sums`."""

    def residual_bytes(self, rows: GradientRows) -> int:
        """As of `Backend`."""

    def pair_list_sums(self, problem: PairList, residual_size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """[Σ+, Σ-] float64, [n+, n-] int64, numbers of listed pairs (2,) int64, and the residual.

        Where pairs are listed once each, the third is [K+, K-]; without the repeated ones, if these do not
        count. P and Q have a row's partners at whichever end of its pairs it is.
        """


class HistogramBackend(Machine, Protocol):
    """A backend that also counts similarities."""

    def pair_histogram(self, problem: HistogramProblem) -> tuple[Tensor, Tensor, Tensor]:
        """Counts of same-class and of other-class pairs, (G, B + 2) each, and of all pairs (2, B + 2), int64.

        Column 0 counts s < lo, columns 1 to B the bins, column B + 1 s >= hi. A similarity s falls into bin
        floor((s - lo) · B / (hi - lo)), computed in float64 from left to right: where s is within the
        rounding of an edge, that quotient decides. The last tensor has same-class pairs in its first row and
        other-class pairs in its second; there each pair counts once.
        """
