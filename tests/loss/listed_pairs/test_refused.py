"""The loss over listed pairs: what is refused, and rows that are not finite."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from cases import FLOAT_DTYPES
from engines import Engine
from listed_pairs import (
    BOTH_FORMS,
    FORMS,
    INDEX_DTYPES,
    Listed,
    changed,
    index_of,
    listed,
    poisoned,
    results,
)

import tcm_kernels

# What is refused.

EMB = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
REF = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
I = torch.tensor([0, 1, 2])  # noqa: E741
# name: (changes to a good call, exception, what the message says besides "pairs")
BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "none": ({"pairs": ()}, ValueError, "0"),
    "one": ({"pairs": (I,)}, ValueError, "1"),
    "two": ({"pairs": (I, I)}, ValueError, "2"),
    "five": ({"pairs": (I,) * 5}, ValueError, "5"),
    "a tensor": ({"pairs": torch.stack((I, I, I))}, TypeError, "Tensor"),
    "a dictionary": ({"pairs": dict(enumerate((I, I, I)))}, TypeError, "dict"),
    "a number": ({"pairs": 3}, TypeError, "int"),
    "a generator": ({"pairs": (x for x in (I, I, I))}, TypeError, "generator"),
    "with a list in it": ({"pairs": (I, I, [0, 1, 2])}, TypeError, "list"),
    "with None in it": ({"pairs": (I, I, None)}, TypeError, "None"),
    "with a NumPy array in it": ({"pairs": (I, I.numpy(), I)}, TypeError, "ndarray"),
    "float32": ({"pairs": (I, I.float(), I)}, TypeError, "float32"),
    "float64": ({"pairs": (I, I, I, I.double())}, TypeError, "float64"),
    "truth values": ({"pairs": (I > 0, I, I)}, TypeError, "bool"),
    "uint64": ({"pairs": (I, I, I.to(torch.uint64))}, TypeError, "uint64"),
    "two-dimensional": ({"pairs": (I, I[:, None], I)}, ValueError, "(3, 1)"),
    "two-dimensional anchors": ({"pairs": (I[None], I, I, I)}, ValueError, "(1, 3)"),
    "zero-dimensional": ({"pairs": (I[0], I[0], I[0])}, ValueError, "()"),
    "fewer positives": ({"pairs": (I, I[:2], I, I)}, ValueError, "2"),
    "fewer negatives": ({"pairs": (I, I, I, I[:2])}, ValueError, "2"),
    "fewer anchors": ({"pairs": (I, I, I[:2], I)}, ValueError, "2"),
    "triplets with fewer anchors": ({"pairs": (I[:2], I, I)}, ValueError, "2"),
    "triplets with fewer positives": ({"pairs": (I, I[:2], I)}, ValueError, "2"),
    "triplets with fewer negatives": ({"pairs": (I, I, I[:2])}, ValueError, "2"),
    "triplets without negatives": ({"pairs": (I, I, I[:0])}, ValueError, "0"),
    "another device": ({"pairs": (I, I, I.to("meta"))}, ValueError, "meta"),
}


@pytest.mark.parametrize("name", BAD)
def test_is_refused_by_name(name: str) -> None:
    changes, exception, came = BAD[name]
    with pytest.raises(exception, match="pairs") as refusal:
        tcm_kernels.fused_tcm_loss(EMB, None, **changes)
    assert came in str(refusal.value), "the message does not say what came"


@pytest.mark.parametrize("offset", [0, 1])
def test_an_offset_is_refused_with_pairs(offset: int) -> None:
    for rest in ((), (REF,), (REF, torch.arange(6))):
        with pytest.raises(ValueError, match="self_offset"):
            tcm_kernels.fused_tcm_loss(EMB, None, *rest, self_offset=offset, pairs=(I, I, I))


def test_without_pairs_labels_are_still_needed() -> None:
    with pytest.raises(TypeError, match="labels"):
        tcm_kernels.fused_tcm_loss(EMB, None)


def test_a_reference_set_must_still_fit() -> None:
    for wrong in (REF[:, :2], REF.double(), REF[0]):
        with pytest.raises((TypeError, ValueError), match="ref_emb"):
            tcm_kernels.fused_tcm_loss(EMB, None, wrong, pairs=(I, I, I))


# Of 4 rows in the batch, and none or 6 or 3 in the reference set.
OUTSIDE = [
    (m, form, position, number)
    for m in (None, 6, 3)
    for form, anchors in (("pairs", (0, 2)), ("triplets", (0,)))
    for position in range(4 if form == "pairs" else 3)
    for number in (-1, 4 if position in anchors or m is None else m, 2**40, -(2**63))
]


@pytest.mark.parametrize(("m", "form", "position", "number"), OUTSIDE)
def test_a_number_that_names_no_row_is_refused_or_makes_the_loss_nan(
    engine: Engine, m: int | None, form: str, position: int, number: int
) -> None:
    """On a GPU, nobody waits for the numbers."""
    pairs = [index_of(0, 1, 2, device=engine.device) for _ in range(4 if form == "pairs" else 3)]
    pairs[position][1] = number
    emb = EMB.to(engine.device).requires_grad_()
    ref = None if m is None else torch.randn(m, 3, device=engine.device)
    given = Listed(emb, tuple(pairs), ref)
    if engine.device == "cpu":
        with pytest.raises(ValueError, match="pairs") as refusal:
            given.loss(engine.backend)
        assert str(number) in str(refusal.value)
        return
    loss = given.loss(engine.backend)
    (grad,) = torch.autograd.grad(loss, emb)
    assert bool(loss.isnan())
    assert bool(grad.isnan().all())


@pytest.mark.parametrize("dtype", INDEX_DTYPES, ids=str)
def test_a_number_that_names_no_row_is_seen_in_every_dtype(engine: Engine, dtype: torch.dtype) -> None:
    if engine.device != "cpu":
        pytest.skip("numbers are read on a CPU only")
    for number in (100, -1 if dtype.is_signed else 101):
        wrong = torch.tensor([0, number, 1], dtype=dtype)
        with pytest.raises(ValueError, match=f"pairs.*{number}"):
            tcm_kernels.fused_tcm_loss(EMB, None, pairs=(I, wrong, I), backend=engine.backend)


def test_a_number_for_a_batch_without_rows_is_refused(engine: Engine) -> None:
    if engine.device != "cpu":
        pytest.skip("numbers are read on a CPU only")
    for rows in (EMB[:0], EMB):
        with pytest.raises(ValueError, match="pairs"):
            tcm_kernels.fused_tcm_loss(rows, None, REF[:0], pairs=(I, I, I), backend=engine.backend)


# Rows that are not finite.


@poisoned
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
@pytest.mark.parametrize("value", [math.nan, -math.inf, 3e38], ids=str)
@pytest.mark.parametrize("row", [0, -1], ids=["first", "in_no_pair"])
@pytest.mark.parametrize("side", [0, 1], ids=["emb", "ref_emb"])
def test_a_row_that_is_not_finite_makes_loss_and_all_gradients_nan(
    engine: Engine, side: int, row: int, value: float, dtype: torch.dtype
) -> None:
    """3e38 is finite in float32 and bfloat16, and 1.7e308 in float64, but the length of such a row is not."""
    engine.skip_unless_it_takes(dtype)
    if value == 3e38 and dtype == torch.float64:
        value = 1.7e308
    for form, m, margins in itertools.product(FORMS, (None, 70) if side == 0 else (70,), (0.6, -1.0)):
        settings = {"margin_plus": margins, "margin_minus": abs(margins)}
        given = listed(form, m=m, dtype=dtype, device=engine.device, **settings)
        with torch.no_grad():
            given.sides[side][row, -2:] = value
        loss, *grads = results(engine, given)
        assert bool(loss.isnan()), (form, m, margins)
        assert all(bool(grad.isnan().all()) for grad in grads), (form, m, margins)


@poisoned
@BOTH_FORMS
def test_a_row_that_is_not_finite_is_seen_by_an_empty_choice_too(engine: Engine, form: str) -> None:
    for m, side in ((None, 0), (70, 0), (70, 1)):
        given = listed(form, m=m, count=0, device=engine.device)
        with torch.no_grad():
            given.sides[side][3] = math.nan
        assert all(bool(x.isnan().all()) for x in results(engine, given))


@poisoned
def test_a_bank_without_gradient_that_is_not_finite_is_seen(engine: Engine) -> None:
    given = listed(m=70, device=engine.device)
    assert given.ref is not None
    bank = given.ref.detach().clone()
    bank[-1, 0] = math.nan
    loss = changed(given, ref=bank).loss(engine.backend)
    (grad,) = torch.autograd.grad(loss, given.emb)
    assert bool(loss.isnan())
    assert bool(grad.isnan().all())
