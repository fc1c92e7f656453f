"""The inputs every backend must get right, as small named cases.

A `Case` says in words what an input looks like; `Case.build` makes it from a seed, and the same seed gives
the same tensors everywhere. Backends add no cases of their own here: a new backend is held against all of
them because the test modules take `CASES` times the `engine` fixture. What counts as right is in
`agreement.py`.

Combinations are pairwise: every value of every axis meets every value of every other axis at least once,
which finds what the full product finds except for faults that need three causes at once.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

FLOAT_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
LABEL_DTYPES = (
    torch.uint8,
    torch.int8,
    torch.uint16,
    torch.int16,
    torch.uint32,
    torch.int32,
    torch.uint64,
    torch.int64,
)
RELATIONS = ("self", "rectangular", "rectangular_with_self_offset")

# Nothing, less than a pair, one pair; then one below, at and above the tile edges in use: 64 to 1024.
SIZES = (0, 1, 2, 3, 63, 64, 65, 127, 128, 129, 511, 512, 513, 1025, 1100)
# A single number, less than a vector register, whole registers, and two that are a multiple of nothing.
WIDTHS = (1, 3, 64, 100, 513)
LABELS = ("all_equal", "all_different", "sorted", "shuffled", "unbalanced", "negative", "huge")
LOOKS = ("random", "clustered", "collapsed", "nothing_hard", "everything_hard", "wild_norms", "zero_rows")
MEMORY = (
    "contiguous",
    "transposed",
    "every_second_row",
    "unaligned",
    "expanded_rows",
    "expanded_columns",
)

# margin_plus, margin_minus, lambda_plus, lambda_minus that make each look worth looking at
_SETTINGS = {
    "random": (0.9, 0.05, 1.0, 1.0),
    "clustered": (0.9, 0.5, 1.0, 1.0),
    "collapsed": (0.99, 0.5, 0.3, 2.0),
    "nothing_hard": (-1.0, 1.0, 1.0, 1.0),
    "everything_hard": (1.0, -1.0, 1.0, 1.0),
    "wild_norms": (0.7, 0.1, 1.0, 0.5),
    "zero_rows": (0.6, -0.3, 2.0, 1.0),
}

# Values that become equal, or change order, when something computes them in int32, float32 or float64,
# or subtracts one from another in int64.
_HUGE = (-(2**63), 2**63 - 1, 2**62, 2**53, 2**53 + 1, 2**32 + 5, 5 - 2**32, 5, 2**24, 2**24 + 1, -1)


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Arguments of `fused_tcm_loss`, and what the comparison has to know about them."""

    emb: Tensor  # (N, D), requires grad
    labels: Tensor  # (N,)
    ref_emb: Tensor | None = None  # (M, D), requires grad
    ref_labels: Tensor | None = None  # (M,)
    margin_plus: float = 0.9
    margin_minus: float = 0.5
    lambda_plus: float = 1.0
    lambda_minus: float = 1.0
    self_offset: int | None = None
    similarities_are_exact: bool = False  # no rounding anywhere: then a pair on a margin is decided

    @property
    def settings(self) -> dict[str, Any]:
        """The keyword arguments shared by the function under test and by the reference."""
        names = ("margin_plus", "margin_minus", "lambda_plus", "lambda_minus", "self_offset")
        return {name: getattr(self, name) for name in names}

    def to(self, device: str) -> Inputs:
        """The same inputs on a device, as new leaves of the graph; strides are kept on the CPU only."""
        moved = {
            name: getattr(self, name).detach().to(device)
            for name in ("emb", "labels", "ref_emb", "ref_labels")
            if getattr(self, name) is not None
        }
        for name in ("emb", "ref_emb"):
            if name in moved:
                moved[name].requires_grad_()
        return dataclasses.replace(self, **moved)

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        return self.emb, self.labels, self.ref_emb, self.ref_labels


@dataclasses.dataclass(frozen=True)
class Case:
    """One input in words. Its id reads like "self-n129-d100-shuffled-clustered-float32-transposed"."""

    relation: str = "self"
    n: int = 129
    d: int = 64
    labels: str = "shuffled"
    look: str = "clustered"
    dtype: torch.dtype = torch.float32
    memory: str = "contiguous"
    label_dtype: torch.dtype = torch.int64
    extra: int = 37  # the reference set has this many rows more than the batch
    seed: int = 0

    @property
    def id(self) -> str:
        words = [self.relation, f"n{self.n}", f"d{self.d}", self.labels, self.look, _name(self.dtype)]
        if self.relation != "self":
            words.insert(2, f"m{self.m}")
        if self.memory != "contiguous":
            words.append(self.memory)
        if self.label_dtype != torch.int64:
            words.append(_name(self.label_dtype))
        return "-".join(words)

    @property
    def pairs(self) -> int:
        return self.n * (self.n if self.relation == "self" else self.m)

    @property
    def m(self) -> int:
        """Rows of the reference set."""
        return max(self.n + self.extra, 0)

    def build(self, device: str = "cpu") -> Inputs:
        generator = torch.Generator().manual_seed(self.seed)
        margin_plus, margin_minus, lambda_plus, lambda_minus = _SETTINGS[self.look]
        total = self.n if self.relation == "self" else self.n + self.m
        labels = _labels(self.labels, total, self.label_dtype, generator)
        rows = _embeddings(self.look, labels, self.d, self.dtype, generator)
        emb, ref = rows[: self.n], rows[self.n :]
        own, other = labels[: self.n], labels[self.n :]
        offset = None
        if self.relation == "rectangular_with_self_offset":
            offset = (self.m - self.n) // 2  # the batch stands in the middle of its reference set
            ref, other = ref.clone(), other.clone()
            ref[offset : offset + self.n] = emb
            other[offset : offset + self.n] = own
        return Inputs(
            _in_memory(emb, self.memory).to(device).requires_grad_(),
            _labels_in_memory(own, self.memory).to(device),
            None if self.relation == "self" else _in_memory(ref, self.memory).to(device).requires_grad_(),
            None if self.relation == "self" else _labels_in_memory(other, self.memory).to(device),
            margin_plus,
            margin_minus,
            lambda_plus,
            lambda_minus,
            offset,
        )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _labels(layout: str, n: int, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """(n,) labels. Values that do not fit `dtype` wrap around, which may make further labels equal."""
    four_a_class = torch.arange(n) // 4
    shuffle = torch.randperm(n, generator=generator)
    if layout == "all_equal":
        labels = torch.full((n,), 7)
    elif layout == "all_different":
        labels = torch.arange(n)[shuffle]
    elif layout == "sorted":
        labels = four_a_class
    elif layout == "shuffled":
        labels = four_a_class[shuffle]
    elif layout == "unbalanced":  # nine tenths are one class, most others stand alone
        labels = torch.where(torch.rand(n, generator=generator) < 0.9, 0, torch.arange(n))
    elif layout == "negative":
        labels = -3 * four_a_class[shuffle] - 1
    elif layout == "huge":
        labels = torch.tensor(_HUGE)[torch.randint(len(_HUGE), (n,), generator=generator)]
    else:
        raise ValueError(layout)
    return labels.to(dtype)


def _embeddings(look: str, labels: Tensor, d: int, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """(n, d) rows of `dtype`, rounded to it: everything after this works on the same rounded numbers."""
    n = labels.shape[0]
    noise = torch.randn(n, d, generator=generator, dtype=torch.float64)
    if look in ("clustered", "wild_norms", "zero_rows"):
        # .to(int64) because unique() takes no unsigned types; wrapping keeps distinct labels distinct
        classes, of_class = labels.to(torch.int64).unique(return_inverse=True)
        centres = torch.randn(len(classes), d, generator=generator, dtype=torch.float64)
        rows = centres[of_class] + 0.6 * noise
    elif look == "collapsed":  # an untrained network: everything points one way
        rows = 1.0 + 0.2 * noise
    else:
        rows = noise
    if look == "wild_norms":
        low, high = (-0.5, 2.0) if dtype == torch.float16 else (-15.0, 18.0)
        exponents = torch.rand(n, 1, generator=generator, dtype=torch.float64) * (high - low) + low
        rows = rows / rows.norm(dim=1, keepdim=True) * 10.0**exponents
        # The gradient jumps where a norm passes the floor of 1e-12: no row may sit on it.
        near_floor = (rows.norm(dim=1, keepdim=True).log10() + 12).abs() < 0.1
        rows = torch.where(near_floor, rows * 10, rows)
    if look == "zero_rows":
        rows[::5] = 0.0
    return rows.to(dtype)


def _in_memory(x: Tensor, memory: str) -> Tensor:
    """The rows of x laid out another way; the expanded ones repeat its first row or first column."""
    n, d = x.shape
    if memory == "contiguous" or n == 0:
        return x.contiguous()
    if memory == "transposed":
        return x.T.contiguous().T
    if memory == "every_second_row":
        return x.repeat_interleave(2, dim=0)[::2]
    if memory == "unaligned":  # neither the first element nor any row starts at a multiple of 16 bytes
        wide = x.new_full((n, d + 1), torch.nan)
        wide[:, 1:] = x
        return wide[:, 1:]
    if memory == "expanded_rows":
        return x[:1].clone().expand(n, d)
    if memory == "expanded_columns":
        return x[:, :1].clone().expand(n, d)
    raise ValueError(memory)


def _labels_in_memory(labels: Tensor, memory: str) -> Tensor:
    if memory == "contiguous":
        return labels
    if memory.startswith("expanded") and len(labels) and bool((labels == labels[0]).all()):
        return labels[:1].clone().expand(len(labels))
    spread = torch.stack((labels, labels ^ 1), dim=1)  # a reader that ignores strides sees other labels
    return spread[:, 0]


def pairwise(axes: Mapping[str, Sequence[Any]], seed: int = 0) -> list[dict[str, Any]]:
    """Few combinations in which every two values of two axes meet: greedy, and the same every time."""
    chooser = random.Random(seed)
    names = list(axes)

    def pairs_in(row: Mapping[str, Any]) -> Iterable[tuple[Any, ...]]:
        return ((a, row[a], b, row[b]) for a, b in itertools.combinations(names, 2))

    missing = {
        (a, x, b, y): None  # a dict, because the order of a set of strings changes from run to run
        for a, b in itertools.combinations(names, 2)
        for x, y in itertools.product(axes[a], axes[b])
    }
    rows = []
    while missing:
        a, x, b, y = next(iter(missing))
        candidates = [{name: chooser.choice(axes[name]) for name in names} | {a: x, b: y} for _ in range(20)]
        best = max(candidates, key=lambda row: sum(pair in missing for pair in pairs_in(row)))
        for pair in pairs_in(best):
            missing.pop(pair, None)
        rows.append(best)
    return rows


def _cases() -> list[Case]:
    combined = [
        Case(**row, seed=number)
        for number, row in enumerate(
            pairwise(
                {
                    "n": SIZES,
                    "labels": LABELS,
                    "look": LOOKS,
                    "memory": MEMORY,
                    "d": WIDTHS,
                    "dtype": FLOAT_DTYPES,
                    "extra": (37, 0, 1, 130),
                    "relation": RELATIONS,
                }
            )
        )
    ]
    of_every_label_type = [
        Case(relation=relation, labels=labels, d=17, label_dtype=dtype, seed=number)
        for number, (dtype, relation, labels) in enumerate(
            itertools.product(LABEL_DTYPES, RELATIONS, ("shuffled", "huge"))
        )
    ]
    with_a_smaller_reference_set = [
        Case(relation="rectangular", n=n, d=33, extra=extra, dtype=dtype)
        for n, extra in ((129, -129), (130, -129), (513, -450), (1, 1100))
        for dtype in FLOAT_DTYPES
    ]
    return combined + of_every_label_type + with_a_smaller_reference_set


CASES = _cases()
