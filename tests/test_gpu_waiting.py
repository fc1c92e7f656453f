"""The place in which tests on a GPU must not wait for it, with a torch.cuda that warns as torch does."""

from __future__ import annotations

import warnings

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
