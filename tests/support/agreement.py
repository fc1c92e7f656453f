"""What "agrees with the reference" means: the comparison, its tolerances, and why they are what they are.

The truth is `reference.py` in float64 on the very numbers the kernel got (after rounding to float16, say).

Counts are exact, except for pairs in the *rounding band*: within the error of the similarity itself, where
either decision is right. With u = 2^-24 (2^-53 for float64) a similarity of unit rows is off by about
u * (2 roundings in each factor + a random walk over D products), so the band is u * (4 + 2 sqrt(D)) wide.
Where pairs lie in it, terms and gradients may move by what those pairs can contribute, and no more.

Terms of the loss are means of violations over hard pairs, so they may be off by the band (where all rows are
alike, all errors have one sign and nothing averages out) plus the rounding of the result: 0.6e-6 at D=1,
1.4e-6 at D=64, 3e-6 at D=513. Float64: 1e-12, for the sum of a million terms.
bf16 and fp16 embeddings get the float32 tolerances: their products are exact in float32, and sums, too,
are kept in float32 or better.

Gradients are compared row by row. The last step, (g - (g.x) x) / norm, cancels, and P and Q have opposite
signs, so the error of a row is measured against what was added up: (|w+ P| + |w- Q|) / norm. Sums of up to
2,000 unit rows in float32 stay below 2e-6 of that (the random walk of 2,000 roundings is 45 u = 2.7e-6 if
nothing is blocked or paired; every sane kernel does one of the two); 5e-6 leaves room for hardware that
truncates instead of rounding. Float64: 1e-12. bf16 and fp16 add the one rounding of the result: half an ulp.
A backend that adds such rows up on matrix units may round each of them once more, to their own dtype.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from cases import Inputs
from engines import Engine, interprets_triton
from torch import Tensor

import tcm_kernels
from tcm_kernels import reference

TERM_TOLERANCE = {torch.float64: 1e-12, torch.float32: 2.0**-22}  # on top of the rounding band
ROW_TOLERANCE = {torch.float64: 1e-12, torch.float32: 5e-6}
UNIT_ROUNDOFF = {torch.float64: 2.0**-53, torch.float32: 2.0**-24}
# Half an ulp, relative to the value, and half of the smallest subnormal.
RESULT_ROUNDING = {torch.bfloat16: (2.0**-8, 0.0), torch.float16: (2.0**-11, 2.0**-25)}
# Half an ulp of each row, where unit rows are multiplied in the embeddings' dtype. Triton's interpreter cuts
# bfloat16 off instead of rounding it: a whole one. In float32, where 1/norm is rounded and not the row: two
# that cancel in the reference then need not.
ROW_ROUNDING = {
    "triton": {torch.bfloat16: 2.0**-7 if interprets_triton() else 2.0**-8, torch.float16: 2.0**-11},
    "cuda": {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11, torch.float32: 2.0**-24},
}
NORM_FLOOR = 1e-12


@dataclasses.dataclass(frozen=True)
class Result:
    """What a call returned; the gradients are those of `upstream` times the loss."""

    loss: Tensor
    stats: tcm_kernels.PairStats
    grad_emb: Tensor
    grad_ref: Tensor | None
    upstream: float
    row_rounding: float = 0.0  # of the rows that a gradient adds up, relative


def upstream_for(dtype: torch.dtype) -> float:
    """Loss scale: float16 gradients of a mean over many pairs vanish without one, as in training."""
    return 1024.0 if dtype == torch.float16 else 1.0


def run(engine: Engine, inputs: Inputs) -> Result:
    """Loss, statistics and gradients of every side."""
    loss, stats = tcm_kernels.fused_tcm_loss(
        *inputs.tensors, **inputs.settings, backend=engine.backend, return_stats=True
    )
    sides = [x for x in (inputs.emb, inputs.ref_emb) if x is not None]
    upstream = upstream_for(inputs.emb.dtype)
    grads = torch.autograd.grad(loss, sides, torch.full_like(loss, upstream))
    row_rounding = ROW_ROUNDING.get(engine.backend, {}).get(inputs.emb.dtype, 0.0)
    return Result(loss, stats, grads[0], grads[1] if len(grads) > 1 else None, upstream, row_rounding)


@dataclasses.dataclass(frozen=True)
class _Sign:
    """What is true of the pairs of one sign."""

    term: float  # mean violation of the hard pairs
    counted: int  # hard pairs, as decided in float64
    fewest: int  # hard pairs outside the rounding band
    most: int  # those and all pairs in the band
    slack: float  # what the pairs in the band can do to the term

    @classmethod
    def of(cls, hard: Tensor, undecided: Tensor, band: float) -> _Sign:
        """hard: the violations of all hard pairs; undecided: of all pairs in the band; both 1-D."""
        sure = hard[hard > band] if band else hard
        most = len(sure) + len(undecided)
        total = float(sure.sum())
        slack = (total + len(undecided) * band) / max(len(sure), 1) - total / max(most, 1)
        return cls(float(hard.sum()) / max(len(hard), 1), len(hard), len(sure), most, slack)


@dataclasses.dataclass(frozen=True)
class _Side:
    """What is true of the gradient of one side, emb or ref_emb."""

    grad: Tensor  # (N, D) float64
    scale: Tensor  # (N,) the size of what a row's gradient adds up
    lengths: Tensor  # (N,) the lengths of all that it adds up
    slack: Tensor  # (N,) what the pairs in the band can do to it


@dataclasses.dataclass(frozen=True)
class Truth:
    """The float64 reference's answer, and how far a right answer may be from it."""

    loss: float
    signs: tuple[_Sign, _Sign]  # positive, negative
    sides: tuple[_Side, ...]  # emb, ref_emb
    weights: tuple[float, float]  # λ+, λ-
    term_tolerance: float


def computed_in(dtype: torch.dtype) -> torch.dtype:
    """The dtype of the loss and of the similarities for embeddings of `dtype`."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def rounding_band(dtype: torch.dtype, d: int) -> float:
    """How far a similarity of two unit rows of length d may be off (see the top of this file)."""
    return UNIT_ROUNDOFF[computed_in(dtype)] * (4 + 2 * math.sqrt(d))


def truth_of(inputs: Inputs, device: str = "cpu") -> Truth:
    """Loss and gradients from the reference, and what the rounding band allows, densely in float64.

    device: where that is computed; thousands of rows take a GPU, if they are there, or minutes.
    """
    dtype, d = inputs.emb.dtype, inputs.emb.shape[1]
    emb, labels, ref, ref_labels = (None if x is None else x.detach().to(device) for x in inputs.tensors)
    emb, ref = (None if x is None else x.double().requires_grad_() for x in (emb, ref))
    leaves = [x for x in (emb, ref) if x is not None]
    loss = reference.tcm_loss(emb, labels, ref, ref_labels, **inputs.settings)
    grads = torch.autograd.grad(loss, leaves)

    weights = (inputs.lambda_plus, inputs.lambda_minus)
    with torch.no_grad():
        units = [reference.unit_rows(x) for x in leaves]
        s = units[0] @ units[-1].T
        same, different = _pairs(labels, labels if ref is None else ref_labels, inputs, s.shape)
        band = 0.0 if inputs.similarities_are_exact else rounding_band(dtype, d)
        signs = []
        scales, slacks, lengths = ([torch.zeros(len(x), device=device) for x in leaves] for _ in range(3))
        for takes_part, violation, weight in (
            (same, inputs.margin_plus - s, weights[0]),
            (different, s - inputs.margin_minus, weights[1]),
        ):
            hard = takes_part & (violation >= 0)
            undecided = takes_part & (violation.abs() <= band) if band else torch.zeros_like(hard)
            sign = _Sign.of(violation[hard], violation[undecided], band)
            signs.append(sign)
            # In the self case a row meets every partner twice, as row and as column.
            per_pair = weight * (2 if ref is None else 1)
            spread = sign.most / max(sign.fewest, 1) - 1  # a moved count rescales the whole term
            for k in range(len(leaves)):
                mask, partners = (hard.T, units[0]) if k else (hard, units[-1])
                size = (mask.float() @ partners.float()).norm(dim=1) * per_pair / max(sign.counted, 1)
                scales[k] += size
                lengths[k] += mask.sum(dim=1) * per_pair / max(sign.counted, 1)
                if sign.most > sign.fewest:  # each moved pair adds or removes one unit row
                    slacks[k] += size * spread + undecided.sum(dim=1 - k) * per_pair / max(sign.fewest, 1)
        norms = [x.norm(dim=1).clamp_min(NORM_FLOOR) for x in leaves]

    # The reference and this file wrote the sums down independently: they must agree before either judges.
    mine = weights[0] * signs[0].term + weights[1] * signs[1].term
    assert abs(mine - float(loss.detach())) <= 1e-12, "reference.py and agreement.py disagree"
    sides = (
        _Side(*(x.cpu() for x in (grad, scale / norm, length / norm, slack / norm)))
        for grad, scale, length, slack, norm in zip(grads, scales, lengths, slacks, norms, strict=True)
    )
    tolerance = TERM_TOLERANCE[computed_in(dtype)] + rounding_band(dtype, d)
    return Truth(float(loss.detach()), (signs[0], signs[1]), tuple(sides), weights, tolerance)


def _pairs(labels: Tensor, other_labels: Tensor, inputs: Inputs, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """(N, M) masks of the pairs of one class and of two; no sample is paired with itself."""
    same = labels[:, None] == other_labels[None, :]
    different = ~same
    offset = 0 if inputs.ref_emb is None else inputs.self_offset
    if offset is not None:
        i = torch.arange(shape[0], device=labels.device)
        same[i, i + offset] = different[i, i + offset] = False
    return same, different


def assert_agrees(result: Result, inputs: Inputs, truth: Truth | None = None) -> None:
    """Raise AssertionError unless loss, terms, counts and gradients are those of the float64 reference."""
    truth = truth_of(inputs) if truth is None else truth
    dtype = inputs.emb.dtype
    wide = computed_in(dtype)

    stats = result.stats.detach()
    for name, sign, count, term in (
        ("positive", truth.signs[0], stats.positive_count, stats.positive_term),
        ("negative", truth.signs[1], stats.negative_count, stats.negative_term),
    ):
        assert count.dtype == torch.int64
        expected = f"{sign.fewest}" if sign.fewest == sign.most else f"{sign.fewest} to {sign.most}"
        assert sign.fewest <= int(count) <= sign.most, f"{int(count)} hard {name} pairs, expected {expected}"
        _assert_close(f"the {name} term", float(term), sign.term, truth.term_tolerance + sign.slack)
    assert result.loss.shape == ()
    assert result.loss.dtype == wide, f"the loss is {result.loss.dtype}, expected {wide}"
    allowed = sum(
        weight * (truth.term_tolerance + sign.slack)
        for weight, sign in zip(truth.weights, truth.signs, strict=True)
    )
    _assert_close("the loss", float(result.loss.detach()), truth.loss, allowed)

    names = ("the gradient of emb", "the gradient of ref_emb")
    for name, grad, side in zip(names, (result.grad_emb, result.grad_ref), truth.sides, strict=False):
        assert grad is not None, f"{name} is missing"
        assert grad.dtype == dtype, f"{name} is {grad.dtype}, expected {dtype}"
        rounding = ROW_TOLERANCE[wide] * side.scale + result.row_rounding * side.lengths
        allowed_rows = result.upstream * (rounding + side.slack)
        _assert_rows_close(name, grad.cpu(), result.upstream * side.grad, allowed_rows)


def _assert_close(name: str, value: float, expected: float, allowed: float) -> None:
    # written so that a NaN fails
    assert abs(value - expected) <= allowed, (
        f"{name} is {value!r}, expected {expected!r}: off by {abs(value - expected):.3g}, "
        f"allowed {allowed:.3g}"
    )


def _assert_rows_close(name: str, grad: Tensor, expected: Tensor, allowed: Tensor) -> None:
    """Each row's error, as a norm, against its own allowance plus the rounding of the result."""
    assert grad.shape == expected.shape, f"{name}: shape {grad.shape}, expected {expected.shape}"
    # Rows under the norm floor have gradients of size 1e12, too large for float16: there, infinity is right.
    overflows = expected.to(grad.dtype).isinf()
    assert torch.equal(grad.isinf(), overflows), f"{name} is infinite in the wrong places"
    error = (grad.double() - expected).masked_fill(overflows, 0.0).norm(dim=1)
    relative, subnormal = RESULT_ROUNDING.get(grad.dtype, (0.0, 0.0))
    size = expected.masked_fill(overflows, 0.0).norm(dim=1)
    allowed = allowed + relative * size + subnormal * math.sqrt(grad.shape[1])
    wrong = ~(error <= allowed)
    if wrong.any():
        row = int((error / allowed).nan_to_num(torch.inf).argmax())
        raise AssertionError(
            f"{name}: {int(wrong.sum())} of {len(wrong)} rows are off, worst row {row} by "
            f"{error[row]:.3g} where {allowed[row]:.3g} is allowed; it is {size[row]:.3g} long"
        )
