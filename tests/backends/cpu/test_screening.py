"""Certified screening on the CPU: the certificate holds, no pair is lost, every way gives the loss."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from coded_rows import ADVERSARIES, CODINGS, Codes, generator
from forks import Forks, forks
from torch.nn.functional import normalize

import tcm_kernels
from tcm_kernels import dispatch, reference

REASON = dispatch.why_not_here("cpu")
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"cpu backend: {REASON}")


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("d", [1, 2, 3, 64, 100, 512, 2048])
@pytest.mark.parametrize("rows", ADVERSARIES.values(), ids=ADVERSARIES)
def test_the_certificate_holds_for_every_pair(rows, d, dtype, coding):
    unit = normalize(rows(500, d).double()).to(dtype)
    codes, exact = Codes(unit, coding), unit.double()
    assert (codes.errors >= (exact - codes.stands_for).norm(dim=1)).all()
    assert ((exact @ exact.T - codes.estimate).abs() <= codes.bound).all()


@pytest.mark.parametrize("coding", CODINGS)
def test_the_certificate_holds_for_millions_of_random_pairs(coding):
    unit = normalize(torch.randn(4000, 96, generator=generator(5)))
    codes = Codes(unit, coding)
    assert ((unit.double() @ unit.double().T - codes.estimate).abs() <= codes.bound).all()


@pytest.mark.parametrize(
    ("coding", "about"), [("int8", 0.009), ("int8 (7 bits)", 0.018), ("bfloat16", 0.004)]
)
def test_the_certificate_is_not_vacuous(coding, about):
    """At D = 512 it leaves twice this undecided on either side of a margin."""
    errors = Codes(normalize(torch.randn(500, 512, generator=generator(6))), coding).errors
    assert 0.6 * about < errors.mean() < 1.4 * about


@pytest.mark.parametrize("value", [0.0, 1e-45, 1e-38, 1e-31, 1e-12])
def test_rows_too_short_for_a_code_carry_their_whole_length_as_error(value):
    for coding in CODINGS:
        rows = torch.full((2, 70), value)
        codes = Codes(rows, coding)
        assert (codes.errors >= (rows.double() - codes.stands_for).norm(dim=1)).all()


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
    errors = Codes(normalize(emb)).errors
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
sys.path[:0] = ["tests/support", "tests/backends/cpu"]
import test_screening as t
from tcm_kernels import dispatch
print(dispatch.module("cpu").screening_name())
for classes, margins in ((50, (0.3, 0.05, -0.4, -1.0)), (400, (0.5, 0.2))):
    emb, labels = t.sample(1100, 80, classes, 1, torch.float32)
    for margin in margins:
        print(*t.counts(emb, labels, margin_minus=margin))
        loss = t.tcm_kernels.fused_tcm_loss(emb, labels, margin_minus=margin, backend="cpu")
        truth = t.reference.tcm_loss(emb, labels, margin_minus=margin)
        (ours,), (true,) = torch.autograd.grad(loss, emb), torch.autograd.grad(truth, emb)
        assert abs(loss - truth) <= 1e-6
        assert (ours - true).norm() <= 1e-5 * true.norm()
"""


@pytest.fixture(scope="module")
def processes() -> Iterator[Forks]:
    with forks("test_screening", folder="backends/cpu") as all_of:
        yield all_of


@pytest.fixture(scope="module")
def in_full(processes: Forks) -> list[str]:
    screening, *found = processes.output_of(SCRIPT, TCM_KERNELS_CPU_SCREENING="full").splitlines()
    assert screening == "full-precision"
    return found


@pytest.mark.slow
@pytest.mark.parametrize("isa", ["AVX2", "AVX512_CORE", "AVX512_CORE_VNNI", "DEFAULT"])
@pytest.mark.parametrize("asked", ["", "int8", "bfloat16"])
def test_screening_decides_the_same_pairs_whatever_units_there_are(isa, asked, in_full, processes):
    """Without VNNI the int8 product saturates beyond 64; the probe must see that."""
    environment = {"TCM_KERNELS_CPU_SCREENING": asked, "ONEDNN_MAX_CPU_ISA": isa}
    screening, *found = processes.output_of(SCRIPT, **environment).splitlines()
    assert {
        "": screening in (*CODINGS, "full-precision"),
        "int8": screening in ("int8", "int8 (7 bits)"),
        "bfloat16": screening == "bfloat16",
    }[asked]
    if isa in ("AVX2", "AVX512_CORE"):
        assert screening != "int8"
    assert found == in_full


def test_the_doctor_tells_what_screens():
    assert f"{dispatch.module('cpu').screening_name()} screening" in dispatch.module("cpu").details()


@pytest.mark.parametrize(
    ("name", "accepted"),
    [
        ("TCM_KERNELS_CPU_ISA", "'baseline', 'avx2', 'avx512', 'avx512_vnni'"),
        ("TCM_KERNELS_CPU_SCREENING", "'full', 'int8', 'bfloat16'"),
    ],
)
def test_a_setting_that_it_does_not_know_is_refused(
    name: str, accepted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A misspelt one would otherwise be taken for no wish at all."""
    cpu = dispatch.module("cpu")
    cpu._check_settings.cache_clear()
    monkeypatch.setenv(name, "avx-512")
    with pytest.raises(ValueError, match=f"{name}: got 'avx-512', expected one of {accepted}"):
        tcm_kernels.fused_tcm_loss(torch.randn(8, 4), torch.arange(8), backend="cpu")
    with pytest.raises(ValueError, match=name):
        cpu.details()
    monkeypatch.delenv(name)
    cpu._check_settings()
