"""Pairs that a miner has chosen, and what the loss over them is: written down densely, in float64.

A list is turned into a matrix that says how often each pair counts, with a row for each row of emb and a
column for each row it can be paired with. Everything else is products of that matrix with the unit rows of
the very numbers the kernel got. Tolerances are those of `agreement.py`, which says why; where a pair lies
within rounding of a margin either decision is right, so no list here may have one.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from agreement import NORM_FLOOR, RESULT_ROUNDING, ROW_TOLERANCE, computed_in, upstream_for
from engines import Engine
from torch import Tensor

import tcm_kernels

LOSS_TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6}
APART = 1e-6  # at least, of a similarity and a margin
FORMS = ("pairs", "triplets")
INDEX_DTYPES = (
    torch.uint8,
    torch.int8,
    torch.uint16,
    torch.int16,
    torch.uint32,
    torch.int32,
    torch.int64,
)
# Rows of the reference set: none, fewer than of the batch, more.
REFERENCES = pytest.mark.parametrize("m", [None, 41, 95], ids=["self", "small_ref", "large_ref"])
BOTH_FORMS = pytest.mark.parametrize("form", FORMS)
poisoned = pytest.mark.usefixtures("poisoned_memory")


@dataclasses.dataclass(frozen=True)
class Listed:
    """Arguments of `fused_tcm_loss`."""

    emb: Tensor  # (N, D), requires grad
    pairs: tuple[Tensor, ...]  # (a, p, b, n) or (a, p, n)
    ref: Tensor | None = None  # (M, D), requires grad
    margin_plus: float = 0.6
    margin_minus: float = 0.2
    lambda_plus: float = 1.0
    lambda_minus: float = 1.0
    apart: float = APART  # 0 where similarities have no rounding error

    @property
    def sides(self) -> tuple[Tensor, ...]:
        return (self.emb,) if self.ref is None else (self.emb, self.ref)

    @property
    def settings(self) -> dict[str, Any]:
        names = ("margin_plus", "margin_minus", "lambda_plus", "lambda_minus")
        return {name: getattr(self, name) for name in names}

    def loss(self, backend: str, **more: Any) -> Any:
        return tcm_kernels.fused_tcm_loss(
            self.emb, None, self.ref, pairs=self.pairs, backend=backend, **self.settings | more
        )


@dataclasses.dataclass(frozen=True)
class Result:
    """What a call returned; the gradients are those of `upstream` times the loss."""

    loss: Tensor
    stats: tcm_kernels.PairStats
    grads: tuple[Tensor, ...]  # of emb and of the reference set
    upstream: float


@dataclasses.dataclass(frozen=True)
class Truth:
    """In the order positives, negatives, and emb, reference set."""

    loss: float
    sums: list[float]
    hard: list[int]
    listed: list[int]
    grads: list[Tensor]
    scales: list[Tensor]  # for each row the size of what its gradient adds up


def listed(
    form: str = "pairs",
    n: int = 60,
    m: int | None = None,
    d: int = 16,
    dtype: torch.dtype = torch.float32,
    count: int = 400,
    seed: int = 0,
    device: str = "cpu",
    **settings: float,
) -> Listed:
    """Random pairs of six clusters of rows; m: rows of a reference set, if there is to be one.

    Some pairs are listed twice, some the other way round as well, and some are of a row with itself. The
    last row is in no pair, if there are others.
    """
    generator = torch.Generator().manual_seed(seed)
    total = n + (m or 0)
    centres = torch.randn(6, d, generator=generator, dtype=torch.float64)
    noise = torch.randn(total, d, generator=generator, dtype=torch.float64)
    width = 1.5 * torch.rand(total, 1, generator=generator, dtype=torch.float64)
    rows = (centres[torch.arange(total) % 6] + width * noise).to(dtype)
    partners = n if m is None else m

    def numbers(size: int) -> Tensor:
        return torch.randint(max(size - 1, 1), (count,), generator=generator)

    def drawn(rows: int) -> tuple[Tensor, Tensor, Tensor]:
        a, p, other = numbers(rows), numbers(partners), numbers(partners)
        fifth = count // 5
        a[:fifth], p[:fifth] = a[fifth : 2 * fifth], p[fifth : 2 * fifth]  # twice
        both = min(rows, partners) - 1 or 1
        few = a[:fifth] % both
        a[2 * fifth : 3 * fifth], p[2 * fifth : 3 * fifth] = p[:fifth] % both, few  # the other way round
        p[3 * fifth : 3 * fifth + 3] = a[3 * fifth : 3 * fifth + 3] % both  # itself, in a batch
        return a, p, other

    a, p, other = drawn(n)
    if form == "pairs":
        b, other, _ = drawn(n)
        b, other = b[: count - count // 7], other[: count - count // 7]  # fewer than of the other sign
        pairs: tuple[Tensor, ...] = (a, p, b, other)
    else:
        other[: count // 5] = other[count // 5 : 2 * (count // 5)]  # whole triplets twice
        pairs = (a, p, other)
    return Listed(
        rows[:n].to(device).requires_grad_(),
        tuple(x.to(device) for x in pairs),
        None if m is None else rows[n:].to(device).requires_grad_(),
        **settings,
    )


def run(engine: Engine, given: Listed) -> Result:
    """Loss, statistics and gradients of every side."""
    loss, stats = given.loss(engine.backend, return_stats=True)
    upstream = upstream_for(given.emb.dtype)
    grads = torch.autograd.grad(loss, given.sides, torch.full_like(loss, upstream))
    return Result(loss, stats, grads, upstream)


def index_of(*numbers: int, device: str = "cpu") -> Tensor:
    """Numbers of rows."""
    return torch.tensor(numbers, dtype=torch.int64, device=device)


def changed(given: Listed, **changes: Any) -> Listed:
    """The same but for these."""
    return dataclasses.replace(given, **changes)


def results(engine: Engine, given: Listed) -> tuple[Tensor, ...]:
    """Loss and gradients."""
    result = run(engine, given)
    return result.loss.detach(), *result.grads


def assert_same_bits(one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> None:
    assert all(torch.equal(x, y) for x, y in zip(one, other, strict=True))


def truth_of(given: Listed) -> Truth:
    """From matrices of how often each pair counts."""
    rows = [x.detach().cpu().double() for x in given.sides]
    norms = [x.norm(dim=1, keepdim=True) for x in rows]
    units = [x / norm.clamp_min(NORM_FLOOR) for x, norm in zip(rows, norms, strict=True)]
    own, other = units[0], units[-1]
    s = own @ other.T
    sums, hard, numbers = [], [], []
    towards = [torch.zeros_like(x) for x in rows]
    scales = [torch.zeros(len(x), dtype=torch.float64) for x in rows]
    loss = 0.0
    for times, violation, direction, weight in (
        (_times(given, 0), given.margin_plus - s, -1.0, given.lambda_plus),
        (_times(given, 1), s - given.margin_minus, 1.0, given.lambda_minus),
    ):
        near = (times > 0) & (violation.abs() < given.apart)
        assert not bool(near.any()), "a pair lies on a margin: take another seed"
        counts = times * (violation >= 0)
        numbers.append(int(times.sum()))
        hard.append(int(counts.sum()))
        sums.append(float((counts * violation).sum()))
        per_pair = weight / max(hard[-1], 1)
        loss += per_pair * sums[-1]
        partner_sums = [counts @ other, counts.T @ own]
        if given.ref is None:  # a row is at either end of its pairs
            partner_sums = [partner_sums[0] + partner_sums[1]]
        for side, partner_sum in enumerate(partner_sums):
            towards[side] += direction * per_pair * partner_sum
            scales[side] += per_pair * partner_sum.norm(dim=1)
    grads = []
    for unit, norm, g in zip(units, norms, towards, strict=True):
        along = (g * unit).sum(dim=1, keepdim=True) * unit
        # Below the floor a row is divided by a constant.
        grads.append(torch.where(norm >= NORM_FLOOR, g - along, g) / norm.clamp_min(NORM_FLOOR))
    lengths = (norm[:, 0].clamp_min(NORM_FLOOR) for norm in norms)
    return Truth(loss, sums, hard, numbers, grads, [x / y for x, y in zip(scales, lengths, strict=True)])


def _times(given: Listed, sign: int) -> Tensor:
    """(N, M): how often each pair counts as a positive (sign 0) or a negative (1)."""
    triplets = len(given.pairs) == 3
    one, two = ((0, 1), (0, 2))[sign] if triplets else ((0, 1), (2, 3))[sign]
    times = [[0.0] * len(given.sides[-1]) for _ in range(len(given.emb))]
    for i, j in zip(given.pairs[one].tolist(), given.pairs[two].tolist(), strict=True):
        times[i][j] = 1.0 if triplets else times[i][j] + 1.0
    return torch.tensor(times, dtype=torch.float64).reshape(len(given.emb), len(given.sides[-1]))


def assert_right(engine: Engine, given: Listed) -> Truth:
    """Raise AssertionError unless loss, statistics and gradients are those of the list; the truth."""
    truth = truth_of(given)
    assert_agrees(run(engine, given), given, truth)
    return truth


def assert_agrees(result: Result, given: Listed, truth: Truth) -> None:
    """Raise AssertionError unless the result is the truth, as far as its dtype can say."""
    dtype, wide = given.emb.dtype, computed_in(given.emb.dtype)
    stats = result.stats.detach()
    found = [int(stats.positive_pairs), int(stats.negative_pairs)]
    assert found == truth.listed, f"{found} pairs are listed, expected {truth.listed}"
    counts = [int(stats.positive_count), int(stats.negative_count)]
    assert counts == truth.hard, f"{counts} pairs are hard, expected {truth.hard}"
    for share, hard, pairs in zip(
        (stats.hard_positive_share, stats.hard_negative_share), truth.hard, truth.listed, strict=True
    ):
        assert abs(float(share) - hard / max(pairs, 1)) <= 1e-6
    for total, expected, hard in zip(
        (stats.positive_sum, stats.negative_sum), truth.sums, truth.hard, strict=True
    ):
        assert total.dtype == torch.float64
        error = abs(float(total) - expected) / max(hard, 1)  # written so that a NaN fails
        assert error <= LOSS_TOLERANCE[wide], f"a term is off by {error:.3g}"

    assert result.loss.shape == ()
    assert result.loss.dtype == wide
    error = abs(float(result.loss.detach()) - truth.loss)
    allowed = LOSS_TOLERANCE[wide] * (max(1.0, given.lambda_plus + given.lambda_minus))
    assert error <= allowed, f"the loss is off by {error:.3g}, {allowed:.3g} is allowed"

    for name, x, grad, expected, scale in zip(
        ("emb", "ref_emb"), given.sides, result.grads, truth.grads, truth.scales, strict=False
    ):
        assert grad.dtype == dtype
        assert grad.shape == x.shape
        off = (grad.detach().cpu().double() - result.upstream * expected).norm(dim=1)
        relative, subnormal = RESULT_ROUNDING.get(dtype, (0.0, 0.0))
        size = result.upstream * expected.norm(dim=1)
        limit = result.upstream * ROW_TOLERANCE[wide] * scale
        limit += relative * size + subnormal * math.sqrt(x.shape[1])
        wrong = ~(off <= limit)
        if bool(wrong.any()):
            row = int((off - limit).nan_to_num(torch.inf).argmax())
            raise AssertionError(
                f"the gradient of {name}: {int(wrong.sum())} of {len(wrong)} rows are off, row {row} by "
                f"{off[row]:.3g} where {limit[row]:.3g} is allowed; it is {size[row]:.3g} long"
            )
