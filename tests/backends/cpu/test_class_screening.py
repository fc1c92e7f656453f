"""One code for a class, products of bit patterns, label order: no pair is lost, whatever computes them.

The kernel looks at a sample of pairs before it chooses. Batches below are tight classes, so it chooses to
screen by classes; pairs that would be lost by a wrong certificate are hidden where the sample does not look.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import subprocess
import sys
import tempfile

import pytest
import torch
from agreement import Result, Truth, assert_agrees, run, truth_of
from cases import Inputs, pairwise
from checkout import ROOT
from coded_rows import around, direction, generator
from engines import Engine
from torch import Tensor
from torch.nn.functional import normalize

from tcm_kernels import dispatch

REASON = dispatch.why_not_here("cpu")
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"cpu backend: {REASON}")

ENGINE = Engine("cpu", "cpu")
DTYPES = (torch.float32, torch.float64)
SAMPLED_FROM = 128  # kSampledFrom of csrc/cpu/loss/probe.cpp
PREFIX = 64  # kStep there: the shortest prefix of D that screening takes


@pytest.fixture(autouse=True)
def one_thread(restored_threads: None) -> None:
    """Dense truths this small gain nothing from threads, which wait for each other on a busy machine."""
    torch.set_num_threads(1)


class Named:
    @property
    def id(self) -> str:
        return "-".join(str(value) for value in dataclasses.astuple(self)).replace("torch.", "")


@dataclasses.dataclass(frozen=True)
class Hidden(Named):
    """A batch of tight classes in which one member of one class is near a column that the others are not."""

    relation: str = "self"
    look: str = "outlier"
    layout: str = "four"
    labels: str = "close"
    n: int = 1301
    d: int = 64
    dtype: torch.dtype = torch.float32
    move: float = -1e-5  # the margin lies so far from the similarity of the hidden pair

    def build(self) -> Inputs:
        g = generator(11)
        sizes = {
            "four": [4] * (self.n // 4 + 1),
            "large": [4] * (self.n // 16) + [self.n // 2] + [4] * (self.n // 8),  # more than a block holds
            "mixed": [1] * (self.n // 3) + [6] * (self.n // 8),  # blocks of singletons have no class codes
        }[self.layout]
        of_row = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))[: self.n]
        centres = torch.randn(int(of_row[-1]) + 1, self.d, generator=g, dtype=torch.float64)
        if self.look == "beyond":  # classes are told apart by the first columns
            centres[:, PREFIX:] *= 0.02
        centres[5::40] = centres[4::40][: len(centres[5::40])]  # a few classes are hard for each other
        centres = normalize(centres)
        rows = around(centres[of_row], self.n, 0.2, 12)
        own = self._members(of_row)
        column = self._hide(rows, own, centres[of_row[own[0]]])

        shuffle = torch.randperm(self.n, generator=g)
        if self.relation == "self":
            rows[-3], ref, of_column = column, None, None
        else:
            of_column = torch.randint(len(centres), (self.n + 130,), generator=g)
            ref = around(centres[of_column], len(of_column), 0.2, 16).to(self.dtype)
            ref[5], of_column[5] = column.to(self.dtype), of_row[-1]
        emb, labels = rows[shuffle].to(self.dtype), of_row[shuffle]
        offset = 57 if self.relation == "rectangular_with_self_offset" else None
        if offset is not None:
            ref[offset : offset + self.n], of_column[offset : offset + self.n] = emb, labels
        s = normalize(torch.stack([rows[own[0]], column]).to(self.dtype).double())
        return Inputs(
            emb.requires_grad_(),
            self._number(labels, len(centres)),
            None if ref is None else ref.requires_grad_(),
            None if of_column is None else self._number(of_column, len(centres)),
            margin_plus=0.97,  # nearly all positives are hard, so that a lost one is counted
            margin_minus=float(s[0] @ s[1]) + self.move,
            self_offset=offset,
        )

    def _members(self, of_row: Tensor) -> Tensor:
        """Rows of the class of the hidden pair, which the sample does not see."""
        if self.layout == "large" and self.look == "near":
            large = (of_row == of_row.bincount().argmax()).nonzero()[:, 0]
            return large[torch.randperm(len(large), generator=generator(13))]
        samples = self.n // SAMPLED_FROM
        at = int((2.15 if self.layout != "mixed" else samples - 1.85) * self.n / samples) + 8
        return (of_row == of_row[at]).nonzero()[:, 0]

    def _hide(self, rows: Tensor, own: Tensor, centre: Tensor) -> Tensor:
        """Changes the first of rows `own`; returns a column whose similarity to it is about 0.7 to 0.97."""
        aside = normalize(direction(self.d, 14) - (direction(self.d, 14) @ centre) * centre, dim=0)
        if self.look == "outlier":  # the column lies along what the mean leaves out: the bound is met
            rows[own[0]] = -0.28 * centre + 0.96 * aside
            return normalize(rows[own[0]] - rows[own].mean(0), dim=0)
        if self.look == "opposite":  # the class has no mean to speak of
            rows[own] = torch.tensor([1.0, -1.0]).repeat(len(own))[: len(own), None] * centre
            return 0.8 * centre + 0.6 * aside
        if self.look == "mislabelled":  # right on the centre of another class
            rows[own[0]] = rows[-2]
            return normalize(rows[-2] + 0.25 * aside, dim=0)
        if self.look == "beyond":  # half of the class, and the column, reach into the last columns of D
            front, back = normalize(centre[:PREFIX], dim=0), normalize(aside[PREFIX:], dim=0)
            rows[own] = torch.cat([front, 0 * back])
            rows[own[::2]] = torch.cat([0.95 * front, 0.0975**0.5 * back])
            return torch.cat([0.19**0.5 * front, 0.9 * back])
        if self.look == "coarse":  # the column's own code leaves out as much as it can, all along the class
            flat = (torch.arange(self.d) >= 4).double()
            rows[own] = normalize(flat, dim=0)
            return normalize(21.4999 * flat + 127.0 * (torch.arange(self.d) == 0), dim=0)
        rows[own[0]] = normalize(centre + 0.16 * aside, dim=0)  # near: nothing unusual about it
        return 0.7 * centre + 0.51**0.5 * aside

    def _number(self, classes: Tensor, count: int) -> Tensor:
        if self.labels == "ends":
            return classes + torch.tensor([-(2**63), 2**63 - count])[(classes > count // 2).long()]
        return classes - 7 if self.labels == "close" else (classes - count // 2) * 10**12


HIDDEN = [
    Hidden(**row)
    for row in pairwise(
        {
            "relation": ("self", "rectangular", "rectangular_with_self_offset"),
            "look": ("outlier", "opposite", "mislabelled", "near"),
            "layout": ("four", "large", "mixed"),
            "labels": ("close", "spread", "ends"),
            "n": (1301, 1535),
            "d": (33, 64, 100, 200),
            "dtype": (torch.float32, torch.float64, torch.bfloat16),
            "move": (-1e-5, 0.0, 1e-5),
        }
    )
] + [
    Hidden(n=2700),  # tiles of 512
    Hidden(d=2100, dtype=torch.float64),  # several super-tiles
    Hidden(look="coarse"),
    *(Hidden(look="beyond", relation=relation, d=200) for relation in ("self", "rectangular")),
]


@dataclasses.dataclass(frozen=True)
class Pattern(Named):
    """A batch in which `share` of the pairs of either sign are hard, too many and too few for lists."""

    relation: str
    dtype: torch.dtype
    d: int
    share: float
    n: int = 203

    def build(self) -> Inputs:
        rows = torch.randn(2 * self.n + 30, self.d, generator=generator(21), dtype=torch.float64).to(
            self.dtype
        )
        labels = torch.randint(3, (len(rows),), generator=generator(22))
        emb, of_emb, ref, of_ref = rows[: self.n], labels[: self.n], rows[self.n :], labels[self.n :]
        if self.relation == "self":
            ref, of_ref = emb, of_emb
        s = normalize(emb.double()) @ normalize(ref.double()).T
        same = of_emb[:, None] == of_ref
        plus, minus = 0.0, 0.0  # at D = 1 every similarity is 1 or -1
        if self.d > 1:
            plus, minus = float(s[same].quantile(self.share)), float(s[~same].quantile(1 - self.share))
        sides = (emb.clone().requires_grad_(), of_emb, ref.clone().requires_grad_(), of_ref)
        return Inputs(*sides[: 2 if self.relation == "self" else 4], margin_plus=plus, margin_minus=minus)


WIDTHS = (1, 3, 31, 32, 33, 63, 65, 100, 129)
SHARES = (0.1, 0.3, 0.5, 0.9)
AXES = {"relation": ("self", "rectangular"), "dtype": DTYPES, "d": WIDTHS, "share": SHARES}
PATTERNS = [Pattern(**row) for row in pairwise(AXES)]
PATTERNS += [Pattern("self", dtype, 65, 0.5, n=1301) for dtype in DTYPES]  # several words of bits


# Every case in every environment -----------------------------------------------------------------------

CASES: dict[str, Hidden | Pattern] = {case.id: case for case in (*HIDDEN, *PATTERNS)}
# What is asked for, and a word of what the kernel then calls itself.
ENVIRONMENTS = {
    "auto": ("", "screening"),
    "full": ("TCM_KERNELS_CPU_SCREENING=full", "full-precision"),
    "avx512": ("TCM_KERNELS_CPU_ISA=avx512", "screening"),
    "avx2": ("TCM_KERNELS_CPU_ISA=avx2 TCM_KERNELS_CPU_SCREENING=int8 ONEDNN_MAX_CPU_ISA=AVX2", "int8"),
    "baseline": ("TCM_KERNELS_CPU_ISA=baseline TCM_KERNELS_CPU_SCREENING=bfloat16", "baseline"),
}
SCRIPT = """
import sys, torch
sys.path[:0] = ["tests/support", "tests/backends/cpu"]
import test_class_screening as t
from tcm_kernels import dispatch
print(dispatch.module("cpu").details())
torch.set_num_threads(1)
inputs = [case.build() for case in t.CASES.values()]
torch.set_num_threads(2)  # the size of tiles follows it
torch.save([t.run(t.ENGINE, x) for x in inputs], sys.argv[1])
"""


@functools.cache
def run_in(environment: str) -> tuple[str, dict[str, Result]]:
    """What a process of its own says, and every case as it computes it: the environment is read once."""
    asked = f"OMP_WAIT_POLICY=PASSIVE {ENVIRONMENTS[environment][0]}"  # kind to what else runs
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, f"{folder}/results"],
            cwd=ROOT,
            env={**os.environ, **dict(word.split("=") for word in asked.split())},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            return f"{done.returncode}: {done.stderr}", {}
        return done.stdout, dict(zip(CASES, torch.load(f"{folder}/results", weights_only=False), strict=True))


@functools.cache
def inputs_and_truth(case: str) -> tuple[Inputs, Truth]:
    inputs = CASES[case].build()
    return inputs, truth_of(inputs)


def check(case: str, environment: str) -> None:
    said, results = run_in(environment)
    assert case in results, f"the process failed, {said}"
    assert_agrees(results[case], *inputs_and_truth(case))


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_an_environment_is_what_it_is_named_for(environment):
    said, _ = run_in(environment)
    assert ENVIRONMENTS[environment][1] in said


# Environments vary fastest, so that the dense truth is computed once for all of them.
@pytest.mark.parametrize("environment", ENVIRONMENTS)
@pytest.mark.parametrize("case", [case.id for case in HIDDEN])
def test_no_pair_is_lost_that_only_one_member_of_a_class_makes_hard(case, environment):
    check(case, environment)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
@pytest.mark.parametrize("case", [case.id for case in PATTERNS])
def test_patterns_of_hard_pairs_give_the_gradient(case, environment):
    check(case, environment)


def test_results_repeat_and_do_not_depend_on_the_numbers_of_labels():
    """Close labels are counted, labels far apart are compared: one order, and so the same bits."""
    torch.set_num_threads(2)
    for case in (
        Hidden(),
        Hidden(relation="rectangular_with_self_offset"),
        Pattern("self", DTYPES[0], 65, 0.5),
    ):
        inputs = case.build()
        far = {"labels": inputs.labels * 10**12}
        if inputs.ref_labels is not None:
            far["ref_labels"] = inputs.ref_labels * 10**12
        first = run(ENGINE, inputs)
        for again in (run(ENGINE, inputs), run(ENGINE, dataclasses.replace(inputs, **far))):
            assert torch.equal(first.loss, again.loss)
            assert torch.equal(first.grad_emb, again.grad_emb)
            assert first.grad_ref is None or torch.equal(first.grad_ref, again.grad_ref)
            assert first.stats.negative_count == again.stats.negative_count
