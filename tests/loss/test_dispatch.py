"""Which backend is chosen, and what the choice may cost: it is made in every call, also of a small batch."""

from __future__ import annotations

import pytest
import torch

from tcm_kernels import dispatch
from tcm_kernels.backends.gpu import machine


def refuse(*_: object) -> None:
    raise AssertionError("nobody needs to know")


def test_a_call_on_the_cpu_asks_for_nothing_but_its_first_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = dispatch.choose("auto", "cpu", torch.float32)
    for name in dispatch.BACKENDS[dispatch.BACKENDS.index(chosen) + 1 :]:
        monkeypatch.setattr(dispatch.module(name), "why_not_here", refuse)
        monkeypatch.setattr(dispatch.module(name), "why_not", refuse)
    assert dispatch.choose("auto", "cpu", torch.float32) == chosen


def test_what_does_not_take_the_input_does_not_ask_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("triton", "cuda"):
        monkeypatch.setattr(dispatch.module(name), "why_not_here", refuse)
    assert dispatch.choose("auto", "cuda", torch.float64) == "torch"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What CUDA is asked, which has a GPU here of the compute capability 9.0."""
    questions: list[str] = []

    def answer(name: str, value: object) -> None:
        def ask(*_: object) -> object:
            questions.append(name)
            return value

        monkeypatch.setattr(torch.cuda, name, ask)

    answer("is_available", True)
    answer("get_device_capability", (9, 0))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(machine, "_has_gpu", False)
    return questions


def test_a_machine_with_a_gpu_is_asked_once(asked: list[str]) -> None:
    assert [machine.why_no_gpu() for _ in range(3)] == [None] * 3
    assert asked == ["is_available", "get_device_capability"]


def test_a_gpu_that_comes_later_is_found(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As where CUDA_VISIBLE_DEVICES is set after somebody has asked."""
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        assert "torch sees none" in str(machine.why_no_gpu())
    assert machine.why_no_gpu() is None


@pytest.mark.parametrize(("capability", "taken"), [((7, 5), False), ((8, 0), True), ((12, 0), True)])
def test_a_gpu_must_be_new_enough(
    capability: tuple[int, int], taken: bool, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    reason = machine.why_no_gpu()
    assert (reason is None) == taken
    assert taken or "this GPU has 7.5" in str(reason)
