"""Certified screening on the CPU: the certificate holds, no pair is lost, every way gives the loss."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

import tcm_kernels
from tcm_kernels import dispatch, reference

REASON = dispatch.why_not_here("cpu")
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"cpu backend: {REASON}")

SLACK = 2e-6  # kSlack of csrc/certificate.h


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def half_steps(n: int, d: int) -> torch.Tensor:
    """Rows whose every component lies halfway between two codes, all on the same side: errors add up."""
    rows = torch.randint(-126, 127, (n, d), generator=generator(1)) + 0.4999
    rows[:, 0] = 127.0
    return rows


def one_large(n: int, d: int) -> torch.Tensor:
    """One component takes all the codes, the others are under half a step."""
    rows = torch.full((n, d), 0.45 / 127)
    rows[torch.arange(n), torch.arange(n) % d] = 1.0
    return rows


def all_equal(n: int, d: int) -> torch.Tensor:
    return torch.ones(n, d) * torch.where(torch.arange(n) % 2 == 0, 1.0, -1.0)[:, None]


def random(n: int, d: int) -> torch.Tensor:
    return torch.randn(n, d, generator=generator(2))


def sparse(n: int, d: int) -> torch.Tensor:
    return random(n, d) * (torch.rand(n, d, generator=generator(3)) < 0.1)


def wide_range(n: int, d: int) -> torch.Tensor:
    """Components from 1 down to denormal numbers, in one row."""
    return random(n, d) * 10.0 ** -(40 * torch.rand(n, d, generator=generator(4)))


ADVERSARIES = {f.__name__: f for f in (half_steps, one_large, all_equal, random, sparse, wide_range)}


def encode(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    padded = -(-rows.shape[1] // 64) * 64
    codes = torch.full((rows.shape[0], padded), 99, dtype=torch.int8)
    scales, errors = torch.empty(rows.shape[0]), torch.empty(rows.shape[0])
    torch.ops.tcm_kernels._cpu_encode(rows.contiguous(), codes, scales, errors)
    assert not codes[:, rows.shape[1] :].any(), "padding must not add to a product"
    return codes[:, : rows.shape[1]].double(), scales.double(), errors.double()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("d", [1, 2, 3, 64, 100, 512, 2048])
@pytest.mark.parametrize("rows", ADVERSARIES.values(), ids=ADVERSARIES)
def test_the_certificate_holds_for_every_pair(rows, d, dtype):
    unit = normalize(rows(1000, d).double()).to(dtype)
    codes, scales, errors = encode(unit)
    exact = unit.double()
    rest = exact - scales[:, None] * codes
    assert (errors >= rest.norm(dim=1)).all()
    assert (codes.abs() <= 127).all()
    bound = errors[:, None] + errors[None, :] + errors[:, None] * errors[None, :]
    estimate = (scales[:, None] * codes) @ (scales[:, None] * codes).T
    assert ((exact @ exact.T - estimate).abs() <= bound + 1e-12).all()


def test_the_certificate_holds_for_millions_of_random_pairs():
    unit = normalize(torch.randn(4000, 96, generator=generator(5)))
    codes, scales, errors = encode(unit)
    estimate = (scales[:, None] * codes) @ (scales[:, None] * codes).T
    off = (unit.double() @ unit.double().T - estimate).abs()
    assert (off <= errors[:, None] + errors[None, :] + errors[:, None] * errors[None, :]).all()


def test_the_certificate_is_not_vacuous():
    """At D = 512 it leaves about 0.02 undecided on either side of a margin, and errors come near it."""
    _, _, errors = encode(normalize(torch.randn(500, 512, generator=generator(6))))
    assert 0.005 < errors.mean() < 0.012
    unit = normalize(half_steps(2, 512))
    codes, scales, errors = encode(unit)
    off = (unit.double() @ unit.double().T - (scales[:, None] * codes) @ (scales[:, None] * codes).T)[
        0, 1
    ].abs()
    assert off <= errors.sum() + errors.prod()


@pytest.mark.parametrize("value", [0.0, 1e-45, 1e-38, 1e-31, 1e-12])
def test_rows_too_short_for_a_code_carry_their_whole_length_as_error(value):
    codes, scales, errors = encode(torch.full((2, 70), value))
    rest = torch.full((2, 70), value).double() - scales[:, None] * codes
    assert (errors >= rest.norm(dim=1)).all()


def counts(emb, labels, ref=None, ref_labels=None, **settings):
    _, stats = tcm_kernels.fused_tcm_loss(
        emb, labels, ref, ref_labels, backend="cpu", return_stats=True, **settings
    )
    return int(stats.positive_count), int(stats.negative_count)


@pytest.mark.parametrize("rows", ADVERSARIES.values(), ids=ADVERSARIES)
def test_no_pair_is_lost_with_margins_where_the_bound_bites(rows):
    """Margins at the similarity of some pair, moved by the bound to either side and by a hair."""
    emb = rows(1100, 96)
    labels = torch.randint(200, (1100,), generator=generator(7))
    unit = normalize(emb.double())
    s = (unit @ unit.T).flatten()
    others = s[(labels[:, None] != labels[None, :]).flatten()]
    _, _, errors = encode(normalize(emb))
    moves = [0.0, 1e-5, -1e-5, *(sign * 2 * float(errors.median()) for sign in (1, -1))]
    for quantile in (0.3, 0.9, 0.999):
        at = float(others.kthvalue(int(quantile * len(others))).values)
        for move in moves:
            margin = min(1.0, max(-1.0, at + move))
            expected = reference.tcm_sums(emb, labels, margin_plus=margin, margin_minus=margin)
            in_band = int(((s - margin).abs() <= 2e-6).sum())
            positives, negatives = counts(emb, labels, margin_plus=margin, margin_minus=margin)
            assert abs(positives - int(expected.positive_count)) <= in_band
            assert abs(negatives - int(expected.negative_count)) <= in_band


def sample(n: int, d: int, classes: int, seed: int, dtype: torch.dtype, common: float = 0.0):
    g = generator(seed)
    centres = normalize(torch.randn(classes, d, generator=g)) + common
    labels = torch.randint(classes, (n,), generator=g)
    emb = centres[labels] + 0.7 * normalize(torch.randn(n, d, generator=g))
    return emb.to(dtype).requires_grad_(), labels


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("relation", ["self", "rectangular", "with_offset"])
@pytest.mark.parametrize("classes", [2, 8, 300])
@pytest.mark.parametrize("margin_minus", [0.5, 0.2, 0.05, -0.1, -0.4, -1.0])
def test_every_way_through_gives_the_loss(margin_minus, classes, relation, dtype):
    """From nothing hard over lists, patterns and full less a list to everything hard; both signs."""
    emb, labels = sample(1100, 80, classes, 1, dtype)
    arguments, settings = (emb, labels), {"margin_minus": margin_minus, "margin_plus": 0.45}
    if relation != "self":
        bank, bank_labels = sample(1300, 80, classes, 2, dtype)
        if relation == "with_offset":
            with torch.no_grad():
                bank[150:1250] = emb
            bank_labels[150:1250] = labels
            settings["self_offset"] = 150
        arguments = (emb, labels, bank, bank_labels)
    leaves = [x for x in arguments if x.requires_grad]
    loss, stats = tcm_kernels.fused_tcm_loss(*arguments, backend="cpu", return_stats=True, **settings)
    grads = torch.autograd.grad(loss, leaves)
    with torch.no_grad():  # sums cannot be deferred here
        again, stats_again = tcm_kernels.fused_tcm_loss(
            *arguments, backend="cpu", return_stats=True, **settings
        )
    truth = reference.tcm_loss(*arguments, **settings)
    true_grads = torch.autograd.grad(truth, leaves)

    exact = 1e-12 if dtype == torch.float64 else 1e-6
    assert abs(loss - truth) <= exact
    assert abs(again - truth) <= exact
    assert stats.positive_count == stats_again.positive_count
    assert stats.negative_count == stats_again.negative_count
    tolerance = {torch.float64: 1e-11, torch.float32: 1e-5, torch.bfloat16: 3e-3}[dtype]
    for ours, true in zip(grads, true_grads, strict=True):
        assert (ours.double() - true.double()).norm() <= tolerance * true.double().norm()


@pytest.mark.parametrize("hidden", [0, 3, 60])
def test_a_prefix_that_suits_the_sample_loses_no_pair_elsewhere(hidden):
    """Most rows are told apart by their first columns; `hidden` rows are alike in the last ones only."""
    emb, labels = sample(1100, 512, 300, 8, torch.float32)
    rows = torch.randperm(1100, generator=generator(9))[:hidden]
    with torch.no_grad():
        emb[rows, :448] *= 0.05
        emb[rows, 448:] = 1.0 + 0.3 * torch.rand(hidden, 64, generator=generator(10))
    found = counts(emb, labels, margin_minus=0.4)
    expected = reference.tcm_sums(emb, labels, margin_minus=0.4)
    assert found == (int(expected.positive_count), int(expected.negative_count))
    assert found[1] >= hidden * (hidden - 1) * 0.9
    loss = tcm_kernels.fused_tcm_loss(emb, labels, margin_minus=0.4, backend="cpu")
    (grad,) = torch.autograd.grad(loss, emb)
    (true,) = torch.autograd.grad(reference.tcm_loss(emb, labels, margin_minus=0.4), emb)
    assert (grad - true).norm() <= 1e-5 * true.norm()


SCRIPT = """
import sys, torch
sys.path.insert(0, "tests")
import test_screening as t
from tcm_kernels import dispatch
print(dispatch.module("cpu").screening_name())
emb, labels = t.sample(1100, 80, 50, 1, torch.float32)
for margin in (0.3, 0.05, -1.0):
    print(*t.counts(emb, labels, margin_minus=margin))
"""


def run_with(**environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=Path(__file__).parent.parent,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def in_full() -> list[str]:
    screening, *found = run_with(TCM_KERNELS_CPU_SCREENING="full")
    assert screening == "full-precision"
    return found


@pytest.mark.parametrize("isa", ["AVX2", "AVX512_CORE", "AVX512_CORE_VNNI", "DEFAULT"])
@pytest.mark.parametrize("asked", ["auto", "int8"])
def test_screening_decides_the_same_pairs_whatever_int8_units_there_are(isa, asked, in_full):
    """Without VNNI the int8 product saturates; the probe must see that and screen in full precision."""
    screening, *found = run_with(TCM_KERNELS_CPU_SCREENING=asked, ONEDNN_MAX_CPU_ISA=isa)
    assert screening in ("int8", "full-precision")
    assert found == in_full


def test_the_doctor_tells_what_screens():
    assert f"{dispatch.module('cpu').screening_name()} screening" in dispatch.module("cpu").details()
