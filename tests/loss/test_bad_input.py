"""Wrong input is refused with a message that names the argument and says what came."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from engines import Engine

import tcm_kernels
from tcm_kernels import dispatch

EMB = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 0, 1, 1])
REF = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
REF_LABELS = torch.tensor([0, 0, 1, 1, 2, 2])
RECTANGLE = {"ref_emb": REF, "ref_labels": REF_LABELS}

# name: (changes to a good call, exception, what the message says besides the argument's name)
BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "emb: a list": ({"emb": [[1.0, 2.0]]}, TypeError, "list"),
    "emb: None": ({"emb": None}, TypeError, "None"),
    "emb: a NumPy array": ({"emb": EMB.numpy()}, TypeError, "ndarray"),
    "emb: one-dimensional": ({"emb": EMB[0]}, ValueError, "(3,)"),
    "emb: three-dimensional": ({"emb": EMB[None]}, ValueError, "(1, 4, 3)"),
    "emb: integers": ({"emb": EMB.long()}, TypeError, "int64"),
    "emb: booleans": ({"emb": EMB > 0}, TypeError, "bool"),
    "emb: complex numbers": ({"emb": EMB.to(torch.complex64)}, TypeError, "complex64"),
    "emb: float8": ({"emb": EMB.to(torch.float8_e4m3fn)}, TypeError, "float8_e4m3fn"),
    "labels: None": ({"labels": None}, TypeError, "None"),
    "labels: a list": ({"labels": [0, 0, 1, 1]}, TypeError, "list"),
    "labels: too few": ({"labels": LABELS[:3]}, ValueError, "(3,)"),
    "labels: too many": ({"labels": REF_LABELS}, ValueError, "(6,)"),
    "labels: two-dimensional": ({"labels": LABELS[:, None]}, ValueError, "(4, 1)"),
    "labels: zero-dimensional": ({"labels": LABELS[0]}, ValueError, "()"),
    "labels: float": ({"labels": LABELS.float()}, TypeError, "float32"),
    "labels: bool": ({"labels": LABELS > 0}, TypeError, "bool"),
    "labels: another device": ({"labels": LABELS.to("meta")}, ValueError, "meta"),
    "ref_labels: missing": ({"ref_emb": REF}, (TypeError, ValueError), "None"),
    "ref_emb: missing": ({"ref_labels": REF_LABELS}, (TypeError, ValueError), "None"),
    "ref_emb: a list": ({**RECTANGLE, "ref_emb": [[1.0]]}, TypeError, "list"),
    "ref_emb: one-dimensional": ({**RECTANGLE, "ref_emb": REF[:, 0]}, ValueError, "(6,)"),
    "ref_emb: another width": ({**RECTANGLE, "ref_emb": REF[:, :2]}, ValueError, "2"),
    "ref_emb: another dtype": ({**RECTANGLE, "ref_emb": REF.double()}, TypeError, "float64"),
    "ref_emb: integers": ({**RECTANGLE, "ref_emb": REF.long()}, TypeError, "int64"),
    "emb: a sparse tensor": ({"emb": EMB.detach().to_sparse()}, TypeError, "sparse_coo"),
    "ref_emb: both on another device": (
        {**RECTANGLE, "ref_emb": REF.to("meta"), "ref_labels": RECTANGLE["ref_labels"].to("meta")},
        ValueError,
        "meta",
    ),
    "margin_plus: on another device": ({"margin_plus": torch.tensor(0.5, device="meta")}, ValueError, "meta"),
    "ref_emb: another device": ({**RECTANGLE, "ref_emb": REF.to("meta")}, ValueError, "meta"),
    "ref_labels: unsigned against signed": (
        {**RECTANGLE, "ref_labels": torch.zeros(6, dtype=torch.uint64)},
        TypeError,
        "uint64",
    ),
    "ref_labels: a list": ({**RECTANGLE, "ref_labels": [0] * 6}, TypeError, "list"),
    "ref_labels: too few": ({**RECTANGLE, "ref_labels": LABELS}, ValueError, "(4,)"),
    "ref_labels: float": ({**RECTANGLE, "ref_labels": REF_LABELS.double()}, TypeError, "float64"),
    "ref_labels: bool": ({**RECTANGLE, "ref_labels": REF_LABELS > 0}, TypeError, "bool"),
    "ref_labels: another device": ({**RECTANGLE, "ref_labels": REF_LABELS.to("meta")}, ValueError, "meta"),
    "ref_labels: others for the same rows": ({"ref_emb": EMB, "ref_labels": LABELS.clone()}, ValueError, ""),
    "self_offset: without ref_emb": ({"self_offset": 0}, ValueError, "0"),
    "self_offset: negative": ({**RECTANGLE, "self_offset": -1}, ValueError, "-1"),
    "self_offset: past the end": ({**RECTANGLE, "self_offset": 3}, ValueError, "3"),
    "self_offset: a float": ({**RECTANGLE, "self_offset": 1.0}, TypeError, "float"),
    "self_offset: a string": ({**RECTANGLE, "self_offset": "1"}, TypeError, "str"),
    "self_offset: a bool": ({**RECTANGLE, "self_offset": True}, TypeError, "bool"),
    "self_offset: a tensor": ({**RECTANGLE, "self_offset": torch.tensor(1)}, TypeError, "Tensor"),
    "backend: unknown": ({"backend": "tpu"}, ValueError, "'tpu'"),
    "backend: upper case": ({"backend": "TORCH"}, ValueError, "'TORCH'"),
}
for _name in ("margin_plus", "margin_minus"):
    BAD |= {
        f"{_name}: above 1": ({_name: 1.0001}, ValueError, "1.0001"),
        f"{_name}: below -1": ({_name: -1.5}, ValueError, "-1.5"),
        f"{_name}: NaN": ({_name: float("nan")}, ValueError, "nan"),
        f"{_name}: infinite": ({_name: float("inf")}, ValueError, "inf"),
        f"{_name}: a string": ({_name: "0.9"}, TypeError, "str"),
        f"{_name}: None": ({_name: None}, TypeError, "None"),
        f"{_name}: one-dimensional": ({_name: torch.tensor([0.5])}, ValueError, "(1,)"),
        f"{_name}: complex": ({_name: torch.tensor(0.5j)}, TypeError, "complex64"),
        f"{_name}: a truth value": ({_name: torch.tensor(True)}, TypeError, "torch.bool"),
        f"{_name}: requires grad": ({_name: torch.tensor(0.5, requires_grad=True)}, ValueError, "grad"),
    }
for _name in ("lambda_plus", "lambda_minus"):
    BAD |= {
        f"{_name}: negative": ({_name: -0.1}, ValueError, "-0.1"),
        f"{_name}: NaN": ({_name: float("nan")}, ValueError, "nan"),
        f"{_name}: infinite": ({_name: float("inf")}, ValueError, "inf"),
        f"{_name}: a string": ({_name: "1"}, TypeError, "str"),
        f"{_name}: None": ({_name: None}, TypeError, "None"),
    }


@pytest.mark.parametrize("name", BAD)
def test_is_refused_by_name(name: str) -> None:
    changes, exception, came = BAD[name]
    call = {"emb": EMB, "labels": LABELS, **changes}
    with pytest.raises(exception) as refusal:
        tcm_kernels.fused_tcm_loss(**call)
    argument = name.split(":", maxsplit=1)[0]
    assert argument in str(refusal.value), "the message does not name the argument"
    assert came in str(refusal.value), "the message does not say what came"


SETTINGS = [name for name in BAD if name.startswith(("margin", "lambda", "backend"))]


# Which device is another one is known when embeddings come.
@pytest.mark.parametrize("name", [name for name in SETTINGS if "device" not in name])
def test_the_module_refuses_it_when_it_is_made(name: str) -> None:
    changes, exception, came = BAD[name]
    with pytest.raises(exception) as refusal:
        tcm_kernels.ThresholdConsistentMarginLoss(**changes)
    assert name.split(":", maxsplit=1)[0] in str(refusal.value)
    assert came in str(refusal.value)


def test_an_unknown_backend_is_answered_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="backend") as refusal:
        tcm_kernels.fused_tcm_loss(EMB, LABELS, backend="tpu")
    for name in ("auto", *dispatch.BACKENDS):
        assert repr(name) in str(refusal.value)


def test_settings_are_keyword_only() -> None:
    with pytest.raises(TypeError, match="positional"):
        tcm_kernels.fused_tcm_loss(EMB, LABELS, None, None, 0.9)  # type: ignore[misc]
    with pytest.raises(TypeError, match="positional"):
        tcm_kernels.ThresholdConsistentMarginLoss(0.9)  # type: ignore[misc]


def test_pairs_chosen_by_a_miner_are_refused_for_a_batch_of_many_processes() -> None:
    """Accepting and ignoring them would train on other pairs than the caller chose."""
    loss = tcm_kernels.ThresholdConsistentMarginLoss(gather_across_devices=True)
    with pytest.raises(ValueError, match="indices_tuple"):
        loss(EMB, LABELS, (LABELS,) * 4)


def test_labels_are_an_argument_of_the_module_all_the_same() -> None:
    with pytest.raises(TypeError, match="labels"):
        tcm_kernels.ThresholdConsistentMarginLoss()(EMB)


@pytest.mark.parametrize("name", dispatch.BACKENDS)
def test_a_backend_that_is_not_here_says_why(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(dispatch.module(name), "why_not_here", lambda: "its moon is in the wrong house")
    assert name not in tcm_kernels.available_backends()
    with pytest.raises(RuntimeError, match=name) as refusal:
        tcm_kernels.fused_tcm_loss(EMB, LABELS, backend=name)
    assert "its moon is in the wrong house" in str(refusal.value)


def test_auto_takes_what_is_here_and_says_why_nothing_is(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = tcm_kernels.fused_tcm_loss(EMB, LABELS)
    for name in dispatch.BACKENDS:
        assert bool(tcm_kernels.fused_tcm_loss(EMB, LABELS).isclose(expected, atol=1e-6))
        monkeypatch.setattr(dispatch.module(name), "why_not_here", lambda: "not today")
    with pytest.raises(RuntimeError, match="not today") as refusal:
        tcm_kernels.fused_tcm_loss(EMB, LABELS)
    assert all(name in str(refusal.value) for name in dispatch.BACKENDS)


def test_a_backend_that_cannot_take_the_device_says_so(engine: Engine) -> None:
    if dispatch.why_not(engine.backend, "meta", torch.float32) is None:
        pytest.skip(f"backend {engine.backend} takes any device")
    with pytest.raises(RuntimeError, match="meta") as refusal:
        tcm_kernels.fused_tcm_loss(EMB.to("meta"), LABELS.to("meta"), backend=engine.backend)
    assert engine.backend in str(refusal.value)


def test_a_refused_call_leaves_its_arguments_alone() -> None:
    emb, labels = EMB.clone(), LABELS.clone()
    with pytest.raises(ValueError, match="margin_plus"):
        tcm_kernels.fused_tcm_loss(emb, labels, margin_plus=2.0)
    assert torch.equal(emb, EMB)
    assert torch.equal(labels, LABELS)


GOOD: dict[str, dict[str, Any]] = {
    "margins as integers": {"margin_plus": 1, "margin_minus": 0},
    "margins at both ends": {"margin_plus": 1.0, "margin_minus": -1.0},
    "margins in the wrong order": {"margin_plus": -0.3, "margin_minus": 0.8},
    "a margin in a float32 tensor": {"margin_plus": torch.tensor(0.8)},
    "a margin in a float64 tensor": {"margin_minus": torch.tensor(0.8, dtype=torch.float64)},
    "weights of zero": {"lambda_plus": 0, "lambda_minus": 0.0},
    "an offset at the last place": {**RECTANGLE, "self_offset": 2},
    "the batch as reference set": {"ref_emb": EMB},
    "the batch and its labels as reference set": {"ref_emb": EMB, "ref_labels": LABELS},
    "labels that require nothing else": {"labels": LABELS.to(torch.uint8)},
}


@pytest.mark.parametrize("name", GOOD)
def test_is_accepted(engine: Engine, name: str) -> None:
    call = {"emb": EMB, "labels": LABELS, **GOOD[name]}
    moved = {key: x.to(engine.device) if isinstance(x, torch.Tensor) else x for key, x in call.items()}
    if call.get("ref_emb") is EMB:
        moved["ref_emb"] = moved["emb"]
        if "ref_labels" in moved:
            moved["ref_labels"] = moved["labels"]
    loss = tcm_kernels.fused_tcm_loss(**moved, backend=engine.backend)
    assert bool(loss.isfinite())
