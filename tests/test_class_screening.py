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
from pathlib import Path

import numpy as np
import pytest
import torch
from agreement import Result, Truth, assert_agrees, run, truth_of
from cases import Inputs, pairwise
from engines import Engine
from test_screening import Codes, generator
from torch import Tensor
from torch.nn.functional import normalize

from tcm_kernels import dispatch

REASON = dispatch.why_not_here("cpu")
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"cpu backend: {REASON}")

ENGINE = Engine("cpu", "cpu")
SAMPLED_FROM = 128  # kSampledFrom of csrc/cpu/sample.cpp
PREFIX = 64  # kStep there: the shortest prefix of D that screening takes
FORMS = ("int8", "mean")  # what stands for a class: an int8 code, or a row of the compute dtype
DTYPES = (torch.float32, torch.float64)


# The certificate ---------------------------------------------------------------------------------------


def direction(d: int, seed: int) -> Tensor:
    return normalize(torch.randn(d, generator=generator(seed), dtype=torch.float64), dim=0)


def around(centre: Tensor, count: int, spread: float, seed: int) -> Tensor:
    """Rows whose cosines with each other are about 1 / (1 + spread²)."""
    noise = torch.randn(count, centre.shape[-1], generator=generator(seed), dtype=torch.float64)
    return normalize(centre + spread * normalize(noise))


def one_outlier(d: int) -> Tensor:
    return torch.cat([direction(d, 1).expand(7, d), direction(d, 2)[None]])


def opposite(d: int) -> Tensor:
    return direction(d, 1) * torch.tensor([1.0, -1.0, 1.0, -1.0])[:, None]


def almost_opposite(d: int) -> Tensor:
    """Their mean is denormal in float32."""
    rows = opposite(d)
    rows[:, d - 1 :] = 1e-39
    return rows


def one_huge_component(d: int) -> Tensor:
    rows = torch.full((5, d), 0.45 / 127, dtype=torch.float64)
    rows[:, 0] = 1.0
    rows[4, d // 2] = 0.9
    return rows


def identical(d: int) -> Tensor:
    return direction(d, 3).expand(3, d)


def a_block_of_identical(d: int) -> Tensor:
    return direction(d, 4).abs().expand(511, d)


def alone(d: int) -> Tensor:
    return direction(d, 5)[None]


def too_short_for_a_code(d: int) -> Tensor:
    return torch.full((3, d), 1e-33, dtype=torch.float64) * torch.tensor([1.0, 2.0, 3.0])[:, None]


def tight(d: int) -> Tensor:
    return around(direction(d, 6), 4, 0.23, 7)


CLASSES = {
    f.__name__: f
    for f in (
        one_outlier,
        opposite,
        almost_opposite,
        one_huge_component,
        identical,
        a_block_of_identical,
        alone,
        too_short_for_a_code,
        tight,
    )
}


def encode_class(rows: Tensor, form: str) -> tuple[Tensor, float]:
    """What stands for all of the rows, c q or m, in their dtype or float64; and its certified error."""
    d = rows.shape[1]
    padded = -(-d // 64) * 64
    code = torch.full((1, padded), 99, dtype=torch.int8) if form == "int8" else torch.empty_like(rows[:1])
    scale, error = torch.empty(1), torch.empty(1)
    torch.ops.tcm_kernels._cpu_encode_class(rows.contiguous(), 127, code, scale, error)
    if form == "int8":
        assert not code[0, d:].any(), "padding must not add to a product"
        return scale.double() * code[0, :d].double(), float(error)
    assert float(scale) == 1.0
    return code[0], float(error)


def exact(rows: Tensor, column: Tensor) -> Tensor:
    """Inner products, rounded later than in float64 where the machine can."""
    return torch.from_numpy((rows.numpy().astype(np.longdouble) @ column.numpy()).astype(np.float64))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("d", [1, 2, 3, 31, 64, 100, 129, 1000])
@pytest.mark.parametrize("rows", CLASSES.values(), ids=CLASSES)
def test_the_certificate_of_a_class_holds_for_every_member_and_column(rows, d, dtype, form):
    unit = (normalize(rows(d)) if rows not in (too_short_for_a_code, almost_opposite) else rows(d)).to(dtype)
    shared, error = encode_class(unit, form)
    rest = unit.double() - shared.double()
    assert error >= rest.norm(dim=1).max()
    # Columns along what the code leaves out of a member are where the bound is met.
    columns = torch.cat([rest, -rest, unit.double(), torch.randn(50, d, generator=generator(8)).double()])
    columns = normalize(columns[-200:]).to(dtype)
    if form == "int8":
        codes = Codes(columns)
        estimate = codes.stands_for @ shared
        bound = error + codes.errors + error * codes.errors
    else:
        # In three orders of summation, because the certificate has to hold for any.
        terms = columns * shared
        estimate = torch.stack([columns @ shared, terms.cumsum(1)[:, -1], terms.flip(1).cumsum(1)[:, -1]])
        bound = torch.full((len(columns),), error)
    for member in unit.unique(dim=0):
        off = (exact(columns, member) - estimate.double()).abs()
        assert (off <= bound + 1e-18 * d).all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_certificate_of_a_class_is_not_vacuous(dtype, form):
    unit = tight(512).to(dtype)
    cosines = (unit @ unit.T)[~torch.eye(4, dtype=torch.bool)]
    assert 0.94 < cosines.min() < cosines.max() < 0.96
    shared, error = encode_class(unit, form)
    farthest = (unit.double() - shared.double()).norm(dim=1).max()
    assert farthest <= error <= 1.001 * farthest
    assert error <= 1.03 * (unit.double() - unit.double().mean(0)).norm(dim=1).max()


# Pairs hidden from the sample --------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Hidden:
    """A batch of tight classes in which one member of one class is near a column that the others are not."""

    relation: str = "self"
    look: str = "outlier"
    layout: str = "four"
    labels: str = "close"
    n: int = 1301
    d: int = 64
    dtype: torch.dtype = torch.float32
    move: float = -1e-5  # the margin lies so far from the similarity of the hidden pair

    @property
    def id(self) -> str:
        return "-".join(str(value) for value in dataclasses.astuple(self)).replace("torch.", "")

    def build(self) -> Inputs:
        g = generator(11)
        sizes = {
            "four": [4] * (self.n // 4 + 1),
            "large": [4] * (self.n // 16) + [self.n // 2] + [4] * (self.n // 8),  # more than a block holds
            "mixed": [1] * (self.n // 3) + [6] * (self.n // 8),  # blocks of singletons have no class codes
        }[self.layout]
        of_row = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))[: self.n]
        count = int(of_row[-1]) + 1
        centres = normalize(torch.randn(count, self.d, generator=g, dtype=torch.float64))
        if self.look == "beyond":  # classes are told apart by the first columns
            centres[:, PREFIX:] *= 0.02
            centres = normalize(centres)
        centres[5::40] = centres[4::40][: len(centres[5::40])]  # a few classes are hard for each other
        rows = around(centres[of_row], self.n, 0.2, 12)

        own = self._members(of_row)
        rows[own[0]], column = self._pair(rows[own], centres[of_row[own[0]]], rows, own)
        others, of_column, offset = self._columns(centres, of_row, rows)
        where = len(others) - 3 if self.relation == "self" else 5
        others[where], of_column[where] = column, count - 1

        shuffle = torch.randperm(self.n, generator=g)
        emb, ref = rows[shuffle].to(self.dtype), others.to(self.dtype)
        if offset is not None:
            ref[offset : offset + self.n], of_column[offset : offset + self.n] = emb, of_row[shuffle]
        s = normalize(rows[own[0]].to(self.dtype).double(), dim=0) @ normalize(
            others[where].to(self.dtype).double(), dim=0
        )
        ref_labels = self._labels(of_column, count)
        return Inputs(
            emb.requires_grad_(),
            self._labels(of_row[shuffle], count),
            None if self.relation == "self" else ref.requires_grad_(),
            None if self.relation == "self" else ref_labels,
            margin_plus=0.97,  # nearly all positives are hard, so that a lost one is counted
            margin_minus=float(s) + self.move,
            self_offset=offset,
        )

    def _members(self, of_row: Tensor) -> Tensor:
        """Rows of the class of the hidden pair, which the sample does not see."""
        if self.layout == "large" and self.look == "near":
            large = (of_row == of_row.bincount().argmax()).nonzero()[:, 0]
            return large[torch.randperm(len(large), generator=generator(13))]
        stride = self.n / (self.n // SAMPLED_FROM)
        at = int((2.15 if self.layout != "mixed" else self.n / stride - 2 + 0.15) * stride) + 8
        return (of_row == of_row[at]).nonzero()[:, 0]

    def _pair(self, members: Tensor, centre: Tensor, rows: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        """The far member and the column; their similarity is about 0.8, or 0.97 if it is mislabelled."""
        aside = normalize(direction(self.d, 14) - (direction(self.d, 14) @ centre) * centre, dim=0)
        if self.look == "outlier":  # the column lies along what the mean leaves out: the bound is met
            far = -0.28 * centre + 0.96 * aside
            return far, normalize(far - (members[1:].sum(0) + far) / len(members), dim=0)
        if self.look == "opposite":  # the class has no mean to speak of
            signs = torch.tensor([1.0, -1.0]).repeat(len(own))[: len(own), None]
            rows[own] = signs * centre
            return centre, 0.8 * centre + 0.6 * aside
        if self.look == "mislabelled":  # right on the centre of another class
            return rows[-2], normalize(rows[-2] + 0.25 * aside, dim=0)
        if self.look == "beyond":  # half of the class, and the column, reach into the last columns of D
            front, back = normalize(centre[:PREFIX], dim=0), normalize(aside[PREFIX:], dim=0)
            rows[own] = torch.cat([front, 0 * back])
            rows[own[::2]] = far = torch.cat([0.95 * front, 0.0975**0.5 * back])
            return far, torch.cat([0.19**0.5 * front, 0.9 * back])
        if self.look == "coarse":  # the column's own code leaves out as much as it can, all along the class
            flat = torch.arange(self.d) >= 4
            rows[own] = far = normalize(flat.double(), dim=0)
            column = 21.4999 * flat
            column[0] = 127.0
            return far, normalize(column, dim=0)
        far = normalize(centre + 0.16 * aside, dim=0)  # near: nothing unusual about it
        return far, 0.7 * centre + 0.51**0.5 * aside

    def _columns(self, centres: Tensor, of_row: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, int | None]:
        if self.relation == "self":
            return rows, of_row, None
        of_column = torch.randint(len(centres), (self.n + 130,), generator=generator(15))
        offset = 57 if self.relation == "rectangular_with_self_offset" else None
        return around(centres[of_column], len(of_column), 0.2, 16), of_column, offset

    def _labels(self, classes: Tensor, count: int) -> Tensor:
        if self.labels == "close":
            return classes - 7
        if self.labels == "spread":
            return (classes - count // 2) * 10**12
        ends = torch.tensor([-(2**63), 2**63 - count])
        return classes + ends[(classes > count // 2).long()]


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


# Patterns of bits --------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Pattern:
    """A batch in which `share` of the pairs of either sign are hard, too many and too few for lists."""

    relation: str
    dtype: torch.dtype
    d: int
    share: float
    n: int = 203

    @property
    def id(self) -> str:
        return "-".join(str(value) for value in dataclasses.astuple(self)).replace("torch.", "")

    def build(self) -> Inputs:
        rows = torch.randn(2 * self.n + 30, self.d, generator=generator(21), dtype=torch.float64).to(
            self.dtype
        )
        labels = torch.randint(3, (len(rows),), generator=generator(22))
        emb, of_emb = rows[: self.n], labels[: self.n]
        ref, of_ref = (None, None) if self.relation == "self" else (rows[self.n :], labels[self.n :])
        columns, of_column = (emb, of_emb) if ref is None else (ref, of_ref)
        s = normalize(emb.double()) @ normalize(columns.double()).T
        same = of_emb[:, None] == of_column
        plus, minus = 0.0, 0.0  # at D = 1 every similarity is 1 or -1
        if self.d > 1:
            plus, minus = float(s[same].quantile(self.share)), float(s[~same].quantile(1 - self.share))
        leaves = [None if x is None else x.clone().requires_grad_() for x in (emb, ref)]
        return Inputs(leaves[0], of_emb, leaves[1], of_ref, margin_plus=plus, margin_minus=minus)


PATTERNS = [
    Pattern(**row)
    for row in pairwise(
        {
            "relation": ("self", "rectangular"),
            "dtype": DTYPES,
            "d": (1, 3, 31, 32, 33, 63, 65, 100, 129),
            "share": (0.1, 0.3, 0.5, 0.9),
        }
    )
] + [Pattern("self", dtype, 65, 0.5, n=1301) for dtype in DTYPES]  # several words of bits

CASES: dict[str, Hidden | Pattern] = {case.id: case for case in (*HIDDEN, *PATTERNS)}
ENVIRONMENTS = {
    "auto": {},
    "full": {"TCM_KERNELS_CPU_SCREENING": "full"},
    "avx2": {"TCM_KERNELS_CPU_ISA": "avx2", "TCM_KERNELS_CPU_SCREENING": "full"},
    "baseline": {"TCM_KERNELS_CPU_ISA": "baseline"},
}
SCRIPT = """
import sys, torch
sys.path.insert(0, "tests")
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
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, f"{folder}/results"],
            cwd=Path(__file__).parent.parent,
            env={**os.environ, **ENVIRONMENTS[environment]},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            return f"{done.returncode}: {done.stderr}", {}
        return done.stdout, dict(zip(CASES, torch.load(f"{folder}/results", weights_only=False), strict=True))


def result(case: str, environment: str) -> Result:
    said, results = run_in(environment)
    assert case in results, f"the process failed, {said}"
    return results[case]


@pytest.fixture
def one_thread(restored_threads: None) -> None:
    """The truth is small: threads would only wait for each other, long ones where tests run side by side."""
    torch.set_num_threads(1)


@functools.cache
def inputs_and_truth(case: str) -> tuple[Inputs, Truth]:
    inputs = CASES[case].build()
    return inputs, truth_of(inputs)


# Environments vary fastest, so that the dense truth is computed once for all of them.
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("environment", ENVIRONMENTS)
@pytest.mark.parametrize("case", [case.id for case in HIDDEN])
def test_no_pair_is_lost_that_only_one_member_of_a_class_makes_hard(case, environment):
    assert_agrees(result(case, environment), *inputs_and_truth(case))


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("environment", ENVIRONMENTS)
@pytest.mark.parametrize("case", [case.id for case in PATTERNS])
def test_patterns_of_hard_pairs_give_the_gradient(case, environment):
    assert_agrees(result(case, environment), *inputs_and_truth(case))


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_environment_is_what_it_is_named_for(environment):
    said, _ = run_in(environment)
    asked = ENVIRONMENTS[environment]
    assert "TCM_KERNELS_CPU_SCREENING" not in asked or "full-precision screening" in said
    if dispatch.module("cpu").simd_name() != "baseline":
        assert asked.get("TCM_KERNELS_CPU_ISA", "") in said


@pytest.mark.usefixtures("restored_threads")
def test_results_repeat_and_do_not_depend_on_the_numbers_of_labels():
    """Close labels are counted, labels far apart are compared: one order, and so the same bits."""
    torch.set_num_threads(2)
    for case in (
        Hidden(),
        Hidden(relation="rectangular_with_self_offset"),
        Pattern("self", DTYPES[0], 65, 0.5),
    ):
        inputs = case.build()
        far = {
            name: getattr(inputs, name) * 10**12
            for name in ("labels", "ref_labels")
            if getattr(inputs, name) is not None
        }
        first = run(ENGINE, inputs)
        for again in (run(ENGINE, inputs), run(ENGINE, dataclasses.replace(inputs, **far))):
            assert torch.equal(first.loss, again.loss)
            assert torch.equal(first.grad_emb, again.grad_emb)
            assert first.grad_ref is None or torch.equal(first.grad_ref, again.grad_ref)
            assert first.stats.negative_count == again.stats.negative_count
