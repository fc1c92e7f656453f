"""What a case is, and its data.

Embeddings imitate a model that has begun to learn: samples scatter around the centre of their class, and
class centres come in groups that resemble each other, so that there are hard negatives at margins like
the default ones and not only noise. Rows have different lengths (the loss normalises) and labels are
shuffled, which is how batches arrive.

How many pairs are hard decides what an exact sparse method costs, so a case states the density it
wants and `choose_margins` reads the two margins off a sample of similarities. The density a run really
had is counted by the run and recorded.

Three other kinds are not clusters in random directions. "correlated" is what an untrained network gives: all
rows share a direction, all cosines lie between 0.3 and 0.9. "spectrum" is what a trained one gives: classes
over a common background, variances falling as 1/k along directions that are no coordinate axes. "sorted" has
these variances along the axes and no background, as after a principal component analysis. The kind "demo" is
made by nobody: see digits.py.

Data are made, and margins chosen, on the case's device: a million rows take seconds on a GPU that were
minutes on a CPU. The two have generators of their own, so a case on a GPU has other rows than its like on a
CPU, drawn from the same distribution.

A case is data; which cases are measured stands in sweeps.py.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from benchmarks.harness import digits

STEPS = ("forward", "forward+backward")
"""forward: the value alone, under no_grad. forward+backward: the value and the gradient of emb."""

CLASSES_PER_GROUP = 8
MOST_GROUPS = 256  # keeps the share of pairs within a group, the candidates for hard, above 1e-3
SAMPLED_ROWS = 512  # whose similarities to all others show where margins have to lie
MOST_SAMPLED_PAIRS = 2**27  # fewer rows, where there are more than 262,144 columns: half a gigabyte is enough
MOST_POSITIVES = 0.9  # share of the positives that are hard at most, short of a density of 1


@dataclasses.dataclass(frozen=True)
class Case:
    """One line of the table: (N, D) embeddings, against themselves or an (M, D) reference set."""

    n: int
    d: int
    m: int | None = None
    dtype: str = "float32"
    device: str = "cpu"
    per_class: int = 4
    density: float = 8e-4  # wanted: hard ordered pairs / ordered pairs
    noise: float = 0.4  # distance of a sample from its class centre, in units of the centre's length
    seed: int = 0
    kind: str = "clusters"  # "clusters", "correlated", "spectrum", "sorted", "demo"
    margins: tuple[float, float] | None = None  # (m+, m-) instead of those that give the density
    epoch: int | None = None  # of the demo's training, 0 before the first; for the kind "demo" only

    @property
    def title(self) -> str:
        """The case as a phrase; unique in a grid, used in test ids and by --cases."""
        shape = f"N={self.n} D={self.d}" if self.m is None else f"N={self.n} M={self.m} D={self.d}"
        kind = "" if self.kind == "clusters" else f", {self.kind}"
        if self.epoch is not None:
            kind += f" after epoch {self.epoch}"
        at = (
            f"density {self.density:g}"
            if self.margins is None
            else "margins {:g} and {:g}".format(*self.margins)
        )
        return f"{shape} {self.dtype} on {self.device}, {self.per_class} a class{kind}, {at}"

    @property
    def columns(self) -> int:
        """M, or N where the batch is compared with itself."""
        return self.n if self.m is None else self.m

    @property
    def matrix_bytes(self) -> int:
        """Size in bytes of the similarity matrix in the case's dtype, the output of U."""
        return self.n * self.columns * self.torch_dtype.itemsize

    @property
    def pairs(self) -> int:
        """Ordered pairs of different samples."""
        return self.n * (self.n - 1) if self.m is None else self.n * self.m

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype of the embeddings."""
        return getattr(torch, self.dtype)


def why_not_here(case: Case) -> str | None:
    """None where this machine has the case's device and data, else the reason for skipping it."""
    if case.device == "cuda" and not torch.cuda.is_available():
        return "needs a CUDA device, and torch.cuda.is_available() is False"
    return digits.why_not_here() if case.kind == "demo" else None


@dataclasses.dataclass(frozen=True)
class Workload:
    """The tensors of a case, and the margins that give it its density."""

    case: Case
    emb: Tensor  # (N, D)
    labels: Tensor  # (N,) int64
    ref: Tensor | None  # (M, D), without gradient, like a memory bank
    ref_labels: Tensor | None  # (M,) int64
    margin_plus: float
    margin_minus: float


def make(case: Case) -> Workload:
    """The case's data on its device; the same for the same case, "demo" apart on every CPU."""
    (emb, labels), (ref, ref_labels) = _demo(case) if case.kind == "demo" else _synthetic(case)
    margins = case.margins or choose_margins(emb, labels, ref, ref_labels, density=case.density)
    return Workload(case, emb, labels, ref, ref_labels, *margins)


def _demo(case: Case) -> tuple[tuple[Tensor, Tensor], tuple[None, None]]:
    if case.epoch is None or case.d != digits.D or case.m is not None:
        raise ValueError(
            f"case {case.title!r}: the demo has an epoch, {digits.D} dimensions, no reference set"
        )
    emb, labels = digits.embeddings(case.n, case.epoch, case.seed)
    return (emb.to(case.device, case.torch_dtype), labels.to(case.device)), (None, None)


def _synthetic(case: Case) -> tuple[tuple[Tensor, Tensor], tuple[Tensor | None, Tensor | None]]:
    generator = torch.Generator(case.device).manual_seed(case.seed)
    classes = -(-case.n // case.per_class)
    centres = _class_centres(classes, case.d, generator)
    rows = _samples(centres, case.n, case, generator)
    return rows, (None, None) if case.m is None else _samples(centres, case.m, case, generator)


def _class_centres(classes: int, d: int, generator: torch.Generator) -> Tensor:
    """(classes, D) unit rows; two of one group have a similarity of about a half."""
    groups = max(1, min(MOST_GROUPS, classes // CLASSES_PER_GROUP))
    of_group = F.normalize(_randn(groups, d, generator))
    own = F.normalize(_randn(classes, d, generator))
    return F.normalize(of_group[torch.arange(classes, device=own.device) % groups] + own)


def _randn(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    return torch.randn(rows, columns, generator=generator, device=generator.device)


def _rand(rows: int, generator: torch.Generator) -> Tensor:
    return torch.rand(rows, 1, generator=generator, device=generator.device)


def _samples(centres: Tensor, n: int, case: Case, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(n, D) rows of the case's dtype around the centres, and their (n,) labels, in random order."""
    device = generator.device
    in_order = torch.arange(n, device=device) // case.per_class % centres.shape[0]
    labels = in_order[torch.randperm(n, generator=generator, device=device)]
    offsets = F.normalize(_randn(n, case.d, generator))
    lengths = 2 ** (2 * _rand(n, generator) - 1)  # between 1/2 and 2
    rows = _SHAPES[case.kind](centres[labels], offsets, case, generator) * lengths
    return rows.to(case.torch_dtype), labels


def _clusters(centres: Tensor, offsets: Tensor, case: Case, _: torch.Generator) -> Tensor:
    return centres + case.noise * offsets


def _correlated(centres: Tensor, offsets: Tensor, case: Case, generator: torch.Generator) -> Tensor:
    """Cosine of rows i and j about a_i a_j, a between the roots of 0.3 and 0.9."""
    common = F.normalize(_randn(1, case.d, generator))
    own = F.normalize(centres + case.noise * offsets)
    own = F.normalize(own - (own @ common.T) * common)
    share = 0.3**0.5 + (0.9**0.5 - 0.3**0.5) * _rand(len(own), generator)
    return share * common + (1 - share**2).sqrt() * own


def _spectrum(centres: Tensor, offsets: Tensor, case: Case, generator: torch.Generator) -> Tensor:
    directions = torch.linalg.qr(_randn(case.d, case.d, generator)).Q
    background = F.normalize(_randn(1, case.d, generator))
    return 0.5 * background + _sorted(centres, offsets, case, generator) @ directions.T


def _sorted(centres: Tensor, offsets: Tensor, case: Case, generator: torch.Generator) -> Tensor:
    scale = torch.arange(1, case.d + 1, device=generator.device).rsqrt()  # variance 1/k along the k-th
    return F.normalize(centres * scale) + case.noise * F.normalize(offsets * scale)


_SHAPES = {"clusters": _clusters, "correlated": _correlated, "spectrum": _spectrum, "sorted": _sorted}


def choose_margins(
    emb: Tensor,
    labels: Tensor,
    ref: Tensor | None = None,
    ref_labels: Tensor | None = None,
    *,
    density: float,
) -> tuple[float, float]:
    """(m+, m-) at which about `density` of all ordered pairs are hard, from a sample of rows.

    emb (N, D), labels (N,); ref (M, D), ref_labels (M,), or None for the pairs within emb. Half of the
    hard pairs are to be positives, or most positives if there are fewer, as at the default m+ = 0.9. Rows
    are in random order, so the first ones are a sample; similarities are float32.
    """
    if not 0 <= density <= 1:
        raise ValueError(f"density: got {density}, expected a share between 0 and 1")
    columns, column_labels = (emb, labels) if ref is None or ref_labels is None else (ref, ref_labels)
    rows = slice(0, max(1, min(SAMPLED_ROWS, MOST_SAMPLED_PAIRS // len(columns))))
    s = F.normalize(emb[rows].float()) @ F.normalize(columns.float()).T
    same = labels[rows, None] == column_labels[None, :]
    once = torch.ones_like(same)
    if ref is None:
        # Each pair once: a margin between s_ij and s_ji would lie within rounding of both.
        once.triu_(diagonal=1)
    positives, negatives = s[same & once], s[~same & once]

    pairs = positives.numel() + negatives.numel()
    hard_positives = min(round(MOST_POSITIVES * positives.numel()), round(density * pairs / 2))
    hard_negatives = min(negatives.numel(), round(density * pairs) - hard_positives)
    if density == 1:
        hard_positives, hard_negatives = positives.numel(), negatives.numel()
    return -_margin_of_largest(-positives, hard_positives), _margin_of_largest(negatives, hard_negatives)


def _margin_of_largest(values: Tensor, count: int) -> float:
    """A margin in [-1, 1] with `count` of the values above it, halfway to the next value.

    It is a float32 number, so that float32 and float64 code compare with the same margin. Overwrites the
    values.
    """
    if count == 0:
        return 1.0
    if count == values.numel():
        return -1.0
    smallest_above = _kth_largest(values, count)
    above = values >= smallest_above
    if int(above.sum()) > count:  # equal values on both sides of the margin
        largest_below = smallest_above
    else:
        largest_below = values.masked_fill_(above, -torch.inf).max().item()
    halfway = torch.tensor((smallest_above + largest_below) / 2, dtype=torch.float32)
    return halfway.clamp(-1, 1).item()


def _kth_largest(values: Tensor, k: int) -> float:
    """The k-th largest of (n,) float32 values, k from 1 on, none of them NaN."""
    if values.device.type == "cpu":
        return values.kthvalue(values.numel() - k + 1).values.item()
    return _kth_largest_by_halves(values, k)


def _kth_largest_by_halves(values: Tensor, k: int) -> float:
    """The same by 32 counts, each of which all of a GPU takes part in: its kthvalue runs on one of its SMs.

    What is halved is the interval from -inf to inf, counted in float32 numbers.
    """
    low, high = ~_BITS_OF_INFINITY, _BITS_OF_INFINITY  # at least k values are as large as low
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if int((values >= _float_of(middle)).sum()) >= k else (low, middle - 1)
    return _float_of(low)


_BITS_OF_INFINITY = 0x7F800000


def _float_of(place: int) -> float:
    """The float32 number of this place in their order; 0.0 has place 0, its neighbours 1 and (-0.0) -1."""
    bits = place if place >= 0 else ~place - 2**31
    return torch.tensor(bits, dtype=torch.int32).view(torch.float32).item()
