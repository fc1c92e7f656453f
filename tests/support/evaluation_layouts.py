"""Sets of rows with exact similarities for tests of the evaluation, and how to count them.

Rows are sixteen entries of ±1, so similarities are multiples of 1/8: exact, many of them equal, and with 16
bins all of them on an edge. Counts are therefore those of the truth to the last pair; what is computed from
them may differ by the rounding of a few float64 operations, `CLOSE`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from brute_force import Truth, all_pairs
from hypothesis import strategies as st
from torch import Tensor

from tcm_kernels.evaluation import ClassCurves, class_curves

CLOSE = 1e-12


@dataclasses.dataclass(frozen=True)
class Layout:
    """A set of rows and how to count them."""

    emb: Tensor
    labels: Tensor
    bins: int
    range: tuple[float, float]
    groups: Tensor | None = None
    ref_emb: Tensor | None = None
    ref_labels: Tensor | None = None
    ref_groups: Tensor | None = None

    @property
    def curves(self) -> ClassCurves:
        return class_curves(
            self.emb,
            self.labels,
            self.ref_emb,
            self.ref_labels,
            bins=self.bins,
            range=self.range,
            groups=self.groups,
            ref_groups=self.ref_groups,
        )

    @property
    def truth(self) -> Truth:
        return all_pairs(
            self.emb,
            self.labels,
            self.ref_emb,
            self.ref_labels,
            groups=self.groups,
            ref_groups=self.ref_groups,
            bins=self.bins,
            range=self.range,
        )


def signs(draw: np.random.Generator, sizes: list[int], flips: list[float]) -> tuple[Tensor, Tensor]:
    """Rows of ±1 around one pattern a class, each entry of which is flipped as often as `flips` says."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    patterns = draw.choice([-1.0, 1.0], (len(sizes), 16))
    flipped = draw.random((len(labels), 16)) < np.array(flips)[labels, None]
    return torch.from_numpy(np.where(flipped, -1, 1) * patterns[labels]), torch.from_numpy(labels)


@st.composite
def layouts(
    draw: st.DrawFn,
    *,
    relations: tuple[str, ...] = ("self", "rectangular", "groups"),
    ranges: tuple[tuple[float, float], ...] = ((-1.0, 1.0), (0.0, 1.0), (-0.5, 0.5)),
    fewest_classes: int = 2,
    smallest_class: int = 1,
) -> Layout:
    sizes = draw(st.lists(st.integers(smallest_class, 6), min_size=fewest_classes, max_size=6))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    flips = random.choice([0.0, 0.05, 0.15, 0.3, 0.5], len(sizes))
    emb, labels = signs(random, sizes, list(flips))
    order = random.permutation(len(labels))
    emb, labels = emb[order], labels[order] * 10 - 20
    layout = Layout(emb, labels, draw(st.sampled_from([4, 10, 16, 40])), draw(st.sampled_from(ranges)))
    relation = draw(st.sampled_from(relations))
    if relation == "groups":
        layout = dataclasses.replace(layout, groups=torch.from_numpy(random.integers(0, 3, len(labels))))
    if relation == "rectangular":
        cut = draw(st.integers(1, len(labels)))
        layout = dataclasses.replace(
            layout,
            emb=emb[:cut],
            labels=labels[:cut],
            ref_emb=torch.cat((emb[cut:], emb[: cut // 2])),
            ref_labels=torch.cat((labels[cut:], labels[: cut // 2])),
        )
    return layout


def assert_close(got: Any, wanted: Any) -> None:
    """Equal but for rounding; NaN where NaN is wanted."""
    np.testing.assert_allclose(got, wanted, rtol=0, atol=CLOSE)


def both_kinds(truth: Truth) -> bool:
    """Whether there are same-class pairs and other-class pairs."""
    return bool(truth.same.any() and not truth.same.all())


def four_classes() -> Layout:
    """One set of four classes, from tight to loose."""
    return Layout(*signs(np.random.default_rng(0), [5, 7, 6, 4], [0.02, 0.1, 0.2, 0.35]), 16, (-1.0, 1.0))
