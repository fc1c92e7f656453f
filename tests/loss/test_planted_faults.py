"""The suite can fail: faults are planted one at a time, and the shared comparison must find each.

They are planted in the `torch` backend, the one that runs everywhere, either at the functions it is made
of or around its two operations. A fault that nothing finds means that a case is missing in `cases.py`, or
that a tolerance in `agreement.py` cannot fail.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from agreement import assert_agrees, run
from cases import Case, Inputs
from engines import Engine
from torch import Tensor

from tcm_kernels.backends import torch_tiled
from tcm_kernels.backends.contract import Problem

ENGINE = Engine("torch", "cpu")
Plant = Callable[[pytest.MonkeyPatch], None]

SELF = Case(n=129, d=20, look="random", seed=1)
LONG = Case(n=1100, d=20, look="random", seed=1)
RECTANGULAR = Case(relation="rectangular", n=65, d=20, look="random", seed=1)
WITH_OFFSET = Case(relation="rectangular_with_self_offset", n=65, d=20, look="everything_hard", seed=1)
ALL_HARD = Case(n=129, d=20, look="everything_hard", seed=1)  # m+ = 1: a sample and itself would be hard
HUGE_LABELS = Case(n=129, d=20, labels="huge", look="random", seed=1)
WILD_NORMS = Case(n=129, d=20, look="wild_norms", seed=1)
ZERO_ROWS = Case(n=129, d=20, look="zero_rows", seed=1)
FLOAT64 = Case(n=129, d=20, look="random", dtype=torch.float64, seed=1)
BFLOAT16 = Case(n=129, d=20, look="random", dtype=torch.bfloat16, seed=1)


def _on_the_margin() -> Inputs:
    """Rows of ±1/2 with similarities of exactly ±1/2 and 0."""
    rows = torch.tensor([[1.0, 1, 1, 1], [1, 1, 1, -1], [1, 1, -1, -1], [1, -1, -1, -1]])
    return Inputs(
        rows.requires_grad_(),
        torch.tensor([0, 0, 1, 1]),
        margin_plus=0.5,
        margin_minus=0.5,
        similarities_are_exact=True,
    )


def _rule(change: Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]) -> Plant:
    """Another rule for which pairs are hard, from (s, same, margin_plus, margin_minus)."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(torch_tiled, "hard_masks", lambda s, same, m: change(s, same, m[0], m[1]))

    return plant


def _forward(change: Callable[..., tuple[Any, ...]]) -> Plant:
    """Other arguments for the forward: (emb, labels, ref, ref_labels, margins, self_offset)."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        right = torch_tiled.pair_sums
        patch.setattr(torch_tiled, "pair_sums", lambda p, size: right(Problem(*change(*p[:6]), *p[6:]), size))

    return plant


def _sums(change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Plant:
    """Other sums and counts out of the forward."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        right = torch_tiled.pair_sums

        def wrong(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
            sums, counts, residual = right(*args)
            return *change(sums, counts), residual

        patch.setattr(torch_tiled, "pair_sums", wrong)

    return plant


def _gradient(change: Callable[[Tensor], Tensor]) -> Plant:
    """Another gradient out of the backward, for both sides."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        right = torch_tiled.pair_sums_backward
        patch.setattr(torch_tiled, "pair_sums_backward", lambda *args: tuple(change(x) for x in right(*args)))

    return plant


def _function(name: str, change: Callable[..., Any]) -> Plant:
    """A function of the backend called `name`, given the right one first."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        right = getattr(torch_tiled, name)
        patch.setattr(torch_tiled, name, lambda *args: change(right, *args))

    return plant


def _normalize_backward_without_projection(
    _: Any, x: Tensor | None, sums: Tensor | None, weights: Tensor
) -> Tensor:
    if x is None or sums is None:
        return weights.new_empty(0)
    g = weights[0] * sums[0].double() + weights[1] * sums[1].double()
    return (g / x.double().norm(dim=1, keepdim=True)).to(x.dtype)


def _normalize_backward_without_division(right: Any, x: Tensor | None, *rest: Any) -> Tensor:
    grad: Tensor = right(x, *rest)
    return grad if x is None else grad * x.norm(dim=1, keepdim=True)


def _without_last_row(x: Tensor) -> Tensor:
    x = x.clone()
    x[-1:] = 0
    return x


FAULTS: dict[str, tuple[Plant, Case | Callable[[], Inputs]]] = {
    "positives on the margin are not hard": (
        _rule(lambda s, same, mp, mm: (same & (s < mp), ~same & (s >= mm))),
        _on_the_margin,
    ),
    "negatives on the margin are not hard": (
        _rule(lambda s, same, mp, mm: (same & (s <= mp), ~same & (s > mm))),
        _on_the_margin,
    ),
    "margins are exchanged": (_rule(lambda s, same, mp, mm: (same & (s <= mm), ~same & (s >= mp))), SELF),
    "the margin is a little off": (
        _rule(lambda s, same, mp, mm: (same & (s <= mp), ~same & (s >= mm + 1e-4))),
        SELF,
    ),
    "labels are exchanged": (_rule(lambda s, same, mp, mm: (~same & (s <= mp), same & (s >= mm))), SELF),
    "one pair too few": (_sums(lambda sums, counts: (sums, counts - torch.tensor([0, 2]))), SELF),
    "unordered pairs are counted": (_sums(lambda sums, counts: (sums, counts // 2)), SELF),
    "unordered pairs are counted and summed": (_sums(lambda sums, counts: (sums / 2, counts // 2)), SELF),
    "terms are exchanged": (_sums(lambda sums, counts: (sums.flip(0), counts.flip(0))), SELF),
    "sums are kept in bfloat16": (_sums(lambda sums, counts: (sums.bfloat16().double(), counts)), SELF),
    "the diagonal is counted": (_forward(lambda e, y, r, yr, m, o: (e, y, e, y, m, None)), ALL_HARD),
    "self_offset is ignored": (_forward(lambda e, y, r, yr, m, o: (e, y, r, yr, m, None)), WITH_OFFSET),
    "self_offset is off by one": (_forward(lambda e, y, r, yr, m, o: (e, y, r, yr, m, o + 1)), WITH_OFFSET),
    "labels are read as 32 bits": (
        _forward(lambda e, y, r, yr, m, o: (e, y.to(torch.int32), r, yr, m, o)),
        HUGE_LABELS,
    ),
    "labels are read as float32": (
        _forward(lambda e, y, r, yr, m, o: (e, y.float(), r, yr, m, o)),
        HUGE_LABELS,
    ),
    "the last row is left out": (
        _forward(lambda e, y, r, yr, m, o: (_without_last_row(e), y, r, yr, m, o)),
        LONG,
    ),
    "strides are ignored": (
        _forward(lambda e, y, r, yr, m, o: (torch.as_strided(e, e.shape, (e.shape[1], 1)), y, r, yr, m, o)),
        Case(n=129, d=20, look="random", memory="transposed", seed=1),
    ),
    "unit rows are rounded to bfloat16": (
        _function("unit_rows", lambda right, *args: right(*args).bfloat16().float()),
        SELF,
    ),
    "unit rows are rounded to tf32": (
        _function(
            "unit_rows",
            lambda right, *args: (right(*args).view(torch.int32) & ~0x1FFF).view(torch.float32),
        ),
        SELF,
    ),
    "unit rows are rounded to float32": (
        _function("unit_rows", lambda right, *args: right(*args).float().double()),
        FLOAT64,
    ),
    "norms are off in the seventh digit": (
        _function("norms_of", lambda right, x: right(x) * (1 + 3e-6)),
        SELF,
    ),
    "the floor of norms is too high": (
        lambda patch: patch.setattr(torch_tiled, "NORM_FLOOR", 1e-10),
        WILD_NORMS,
    ),
    "the floor of norms is too low": (
        lambda patch: patch.setattr(torch_tiled, "NORM_FLOOR", 1e-14),
        ZERO_ROWS,
    ),
    "the gradient is half": (_gradient(lambda grad: grad / 2), SELF),
    "the gradient is twice": (_gradient(lambda grad: grad * 2), RECTANGULAR),
    "the gradient has the other sign": (_gradient(lambda grad: -grad), SELF),
    "the gradient is of the next row": (_gradient(lambda grad: grad.roll(1, 0)), SELF),
    "the last row has no gradient": (_gradient(_without_last_row), LONG),
    "the gradient is off in the sixth digit": (_gradient(lambda grad: grad * (1 + 2e-5)), SELF),
    "the bfloat16 gradient is an ulp too long": (_gradient(lambda grad: grad * (1 + 2.0**-7)), BFLOAT16),
    "the gradient is not written": (_gradient(torch.empty_like), SELF),
    "the gradient along the row is kept": (
        _function("_normalize_backward", _normalize_backward_without_projection),
        SELF,
    ),
    "the gradient is not divided by the norm": (
        _function("_normalize_backward", _normalize_backward_without_division),
        SELF,
    ),
    "pulls push": (
        _function("_normalize_backward", lambda right, x, s, w: right(x, s, w * w.new_tensor([-1, 1]))),
        SELF,
    ),
    "one sign has no gradient": (
        _function("_normalize_backward", lambda right, x, s, w: right(x, s, w * w.new_tensor([1, 0]))),
        SELF,
    ),
    "both sides get the gradient of the other": (
        _function(
            "_normalize_backward",
            lambda right, x, s, w: right(x, None if s is None else [part.flip(0) for part in s], w),
        ),
        RECTANGULAR,
    ),
}


def _build(case: Case | Callable[[], Inputs]) -> Inputs:
    return case.build() if isinstance(case, Case) else case()


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("fault", FAULTS)
def test_the_comparison_finds(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant, case = FAULTS[fault]
    inputs = _build(case)
    plant(monkeypatch)
    result = run(ENGINE, inputs)
    with pytest.raises(AssertionError):
        assert_agrees(result, inputs)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize(
    "case",
    list({id(case): case for _, case in FAULTS.values()}.values()),
    ids=lambda case: getattr(case, "id", "on_the_margin"),
)
def test_without_a_fault_the_same_comparison_finds_nothing(case: Case | Callable[[], Inputs]) -> None:
    inputs = _build(case)
    assert_agrees(run(ENGINE, inputs), inputs)


def test_a_kernel_that_forgets_its_output_is_seen(poisoned_memory: None) -> None:
    for fresh in (torch.empty(3), torch.zeros(3).new_empty(3), torch.empty_like(torch.zeros(3))):
        assert bool(fresh.isnan().all())
    assert torch.empty(3, dtype=torch.int64).tolist() == [-1, -1, -1]
    assert torch.empty(3, dtype=torch.uint8).tolist() == [255, 255, 255]
