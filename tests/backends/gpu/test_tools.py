"""What tests on a GPU are made of, run without one: where they must not wait, and how a first call is timed.

torch.cuda is a stub that warns as torch does.
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path

import first_calls
import pytest
import torch
from gpu_waiting import waiting_is_an_error


class Cuda:
    """torch.cuda, as far as it is used: it sets the mode, and then warns, once in a process."""

    def __init__(self) -> None:
        self.mode = 0
        self.has_warned = False

    def get_sync_debug_mode(self) -> int:
        return self.mode

    def set_sync_debug_mode(self, mode: str | int) -> None:
        self.mode = {"default": 0, "warn": 1, "error": 2}[mode] if isinstance(mode, str) else mode
        if not self.has_warned:
            self.has_warned = True
            warnings.warn(
                "Synchronization debug mode is a prototype feature and does not yet detect all synchronizing "
                "operations (Triggered internally at Module.cpp:1112.)",
                UserWarning,
                stacklevel=2,
            )

    def synchronize(self) -> None:
        if self.mode == 2:
            raise RuntimeError("called a synchronizing CUDA operation")


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    stub = Cuda()
    for name in ("get_sync_debug_mode", "set_sync_debug_mode", "synchronize"):
        monkeypatch.setattr(torch.cuda, name, getattr(stub, name))
    return stub


def test_waiting_is_an_error_within_and_allowed_afterwards(cuda: Cuda) -> None:
    for _ in range(2):  # the second without torch's warning
        with waiting_is_an_error(), pytest.raises(RuntimeError, match="synchronizing"):
            torch.cuda.synchronize()
        torch.cuda.synchronize()


def test_waiting_is_allowed_again_after_a_failure(cuda: Cuda) -> None:
    with pytest.raises(RuntimeError, match="synchronizing"), waiting_is_an_error():
        torch.cuda.synchronize()
    torch.cuda.synchronize()


def test_a_mode_that_was_set_before_stays_set(cuda: Cuda) -> None:
    cuda.mode = 1
    with waiting_is_an_error():
        assert cuda.mode == 2
    assert cuda.mode == 1


def test_a_warning_of_anything_else_is_an_error_within(cuda: Cuda) -> None:
    with pytest.raises(UserWarning, match="something else"), waiting_is_an_error():
        warnings.warn("something else", stacklevel=1)
    assert cuda.mode == 0


def test_without_all_this_torchs_warning_would_leave_the_mode_behind(cuda: Cuda) -> None:
    """What the stub is for: the mode is set, and then comes the warning, which pytest makes an error."""
    with pytest.raises(UserWarning, match="prototype"):
        torch.cuda.set_sync_debug_mode("error")
    assert cuda.mode == 2


def test_a_first_call_is_timed_without_the_start_of_its_process(tmp_path: Path) -> None:
    begin = time.perf_counter()
    first, second = first_calls.seconds("torch", "cpu", cache=tmp_path, rows=64, dim=8)
    whole = time.perf_counter() - begin
    assert 0 < second < whole / 4
    assert 0 < first < whole / 2, "importing torch alone takes longer"


def test_a_first_call_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="expected one of 'auto'"):
        first_calls.seconds("tpu", "cpu", cache=tmp_path, rows=8, dim=8)
