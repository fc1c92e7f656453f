"""A reference set (a gallery) that batches are counted against, one after the other, where the batches are.

`class_curves` does this for one batch and hands over curves in main memory. Here the set is looked at once,
and counts stay on its device as tensors of one shape for all batches: that of C classes and one row more, for
the queries of all classes that the set has not. Those have other-class pairs only, which count for the
classes of the set and in the pooled counts like any other; so the row is there for completeness, and no rate
needs it.
"""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import dispatch, ops
from ..backends.contract import HistogramProblem
from ..backends.numerics import rows_not_finite
from ..functional import fp32_precision
from ..validation import check_embeddings, check_labels


@dataclasses.dataclass(frozen=True, eq=False)
class ReferenceSet:
    """Embeddings, and labels replaced by their places among the classes.

    Attributes:
        emb: (M, D) finite, of any length.
        numbers: (M,) int64 in [0, C).
        classes: (C,) int64, sorted.
    """

    emb: Tensor
    numbers: Tensor
    classes: Tensor

    @classmethod
    def of(cls, ref_emb: Any, ref_labels: Any) -> ReferenceSet:
        """Check and copy a set.

        Args:
            ref_emb: (M, D) float32, float64, float16 or bfloat16, at least one row.
            ref_labels: (M,) any integer dtype.

        Raises:
            TypeError, ValueError: what cannot be used, rows that are not finite among it.
        """
        if ref_emb is None or ref_labels is None:
            missing, given = "ref_emb", "ref_labels"
            if ref_labels is None:
                missing, given = given, missing
            raise ValueError(f"{missing}: got None with {given}; expected both or neither")
        check_embeddings("ref_emb", ref_emb)
        check_labels("ref_labels", ref_labels, "ref_emb", ref_emb)
        if len(ref_emb) == 0:
            raise ValueError("ref_emb: got no rows, expected at least one")
        wrong = len(rows_not_finite(ref_emb))
        if wrong:
            raise ValueError(f"ref_emb: {wrong} of {len(ref_emb)} rows are not finite; leave them out")
        classes, numbers = torch.unique(ref_labels.to(torch.int64), return_inverse=True)
        return cls(ref_emb.detach().clone(memory_format=torch.contiguous_format), numbers, classes)

    @property
    def rows(self) -> int:
        """Rows of the tables: C + 1."""
        return len(self.classes) + 1

    def to(self, device: torch.device) -> ReferenceSet:
        """The set on a device, in the dtype that it has."""
        return ReferenceSet(self.emb.to(device), self.numbers.to(device), self.classes.to(device))

    def digest(self) -> bytes:
        """32 bytes that two sets have in common only if they are equal."""
        digest = hashlib.blake2b(str(self.emb.dtype).encode(), digest_size=32)
        for x in (self.classes, self.numbers, self.emb):
            digest.update(np.array(x.shape).tobytes())
            digest.update(x.cpu().view(torch.uint8).numpy().data)
        return digest.digest()

    def numbers_of(self, labels: Tensor) -> Tensor:
        """(n,) the place of each int64 label among the classes; C where it is none of them."""
        none = len(self.classes)
        place = torch.searchsorted(self.classes, labels).clamp_(max=none - 1)
        return torch.where(self.classes[place] == labels, place, none)

    def count(
        self, emb: Tensor, labels: Tensor, bins: int, lo: float, hi: float, backend: str
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Count the pairs of a batch with the set.

        Args:
            emb: (n, D) without gradient. Where its dtype is not that of the set, both are taken to one that
                holds the values of either.
            labels: (n,) int64.
            bins: B, as in `class_curves`.
            lo: lower edge of the first bin.
            hi: upper edge of the last.
            backend: "auto" or a name.

        Returns:
            positives (C + 1, B + 2), negatives (C + 1, B + 2) and pooled (2, B + 2) int64 on the device.

        Raises:
            ValueError: other columns, another device, or rows that are not finite.
        """
        if emb.device != self.emb.device:
            raise ValueError(f"emb: got device {emb.device}, expected {self.emb.device} as ref_emb has")
        if emb.shape[1] != self.emb.shape[1]:
            raise ValueError(
                f"emb: got shape {tuple(emb.shape)}, expected {self.emb.shape[1]} columns as ref_emb has"
            )
        dtype = torch.promote_types(emb.dtype, self.emb.dtype)
        emb, ref, numbers = emb.to(dtype), self.emb.to(dtype), self.numbers_of(labels)
        problem = HistogramProblem(
            emb, numbers, numbers, ref, self.numbers, self.numbers,
            None, self.rows, bins, lo, hi, fp32_precision(emb),
        )  # fmt: skip
        chosen = dispatch.choose(backend, emb.device.type, dtype, dispatch.HISTOGRAM_BACKENDS)
        return ops.pair_histogram(problem, chosen)
