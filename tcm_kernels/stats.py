"""Sums and counts of the hard pairs of a batch, for logging."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor


def mean_violation(sums: Tensor, counts: Tensor) -> Tensor:
    """Penalty sums over hard-pair counts, element by element; 0 where there is no hard pair."""
    return sums / counts.clamp_min(1)


@dataclasses.dataclass(frozen=True)
class PairStats:
    """Penalty sums and hard-pair counts over ordered pairs; every field is a 0-dim tensor.

    No property waits for the device; only `.item()` on a result does. The sums carry gradients;
    `detach()` returns a copy without the graph.

    Attributes:
        positive_sum: Σ of (m+ - s) over hard positive pairs, float64.
        positive_count: number of hard positive pairs, int64.
        negative_sum: Σ of (s - m-) over hard negative pairs, float64.
        negative_count: number of hard negative pairs, int64.
    """

    positive_sum: Tensor
    positive_count: Tensor
    negative_sum: Tensor
    negative_count: Tensor
    _labels: Tensor | None = dataclasses.field(default=None, repr=False)
    _ref_labels: Tensor | None = dataclasses.field(default=None, repr=False)
    _self_offset: int | None = dataclasses.field(default=None, repr=False)
    _listed: Tensor | None = dataclasses.field(default=None, repr=False)  # [K+, K-] where pairs were listed

    @classmethod
    def of(
        cls,
        sums: Tensor,
        counts: Tensor,
        labels: Tensor,
        ref_labels: Tensor | None,
        self_offset: int | None,
    ) -> PairStats:
        """From the outputs of `ops.pair_sums`. Labels are copied: callers may reuse their buffer."""
        return cls(
            positive_sum=sums[0],
            positive_count=counts[0],
            negative_sum=sums[1],
            negative_count=counts[1],
            _labels=labels.clone(),
            _ref_labels=None if ref_labels is None else ref_labels.clone(),
            _self_offset=self_offset,
        )

    @classmethod
    def of_listed(cls, sums: Tensor, counts: Tensor, listed: Tensor) -> PairStats:
        """From the outputs of `ops.pair_list_sums`."""
        return cls(sums[0], counts[0], sums[1], counts[1], _listed=listed)

    def detach(self) -> PairStats:
        """The same statistics without the graph that made them."""
        return dataclasses.replace(
            self, positive_sum=self.positive_sum.detach(), negative_sum=self.negative_sum.detach()
        )

    @property
    def positive_term(self) -> Tensor:
        """Mean violation of the hard positives, before λ+; 0 where there are none."""
        return mean_violation(self.positive_sum, self.positive_count)

    @property
    def negative_term(self) -> Tensor:
        """Mean violation of the hard negatives, before λ-; 0 where there are none."""
        return mean_violation(self.negative_sum, self.negative_count)

    @property
    def positive_pairs(self) -> Tensor:
        """Number of positive pairs, hard or not, int64; counted from the labels at each access."""
        if self._listed is not None:
            return self._listed[0]
        assert self._labels is not None
        own = self._labels.to(torch.int64)
        other = own if self._ref_labels is None else self._ref_labels.to(torch.int64)
        ordered = other.sort().values
        same = torch.searchsorted(ordered, own, right=True) - torch.searchsorted(ordered, own)
        return same.sum() - self._left_out(own, other)

    @property
    def negative_pairs(self) -> Tensor:
        """Number of negative pairs, hard or not, int64."""
        if self._listed is not None:
            return self._listed[1]
        assert self._labels is not None
        own = self._labels
        other = own if self._ref_labels is None else self._ref_labels
        all_pairs = own.shape[0] * other.shape[0]
        if self._ref_labels is None or self._self_offset is not None:
            all_pairs -= own.shape[0]  # no sample is paired with itself
        return all_pairs - self.positive_pairs

    @property
    def hard_positive_share(self) -> Tensor:
        """Hard positives / positives, in [0, 1]; 0 where there are no positives."""
        return self.positive_count / self.positive_pairs.clamp_min(1)

    @property
    def hard_negative_share(self) -> Tensor:
        """Hard negatives / negatives, in [0, 1]; 0 where there are no negatives."""
        return self.negative_count / self.negative_pairs.clamp_min(1)

    def _left_out(self, own: Tensor, other: Tensor) -> Tensor | int:
        """Pairs of a sample with itself that the label comparison counted as positive."""
        if self._ref_labels is None:
            return own.shape[0]
        if self._self_offset is None:
            return 0
        own_copies = other[self._self_offset : self._self_offset + own.shape[0]]
        return (own_copies == own).sum()
