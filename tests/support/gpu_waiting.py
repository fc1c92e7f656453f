"""Where waiting for the GPU is an error. Not in test_gpu.py, because it is tested without a GPU, too."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def waiting_is_an_error() -> Iterator[None]:
    """Whatever waits for the device raises, and afterwards it may wait as before, whatever has happened.

    torch warns once in a process that this is a prototype, after it has set the mode: where warnings are
    errors, that must neither raise here nor leave the mode behind for all later tests.
    """
    before = torch.cuda.get_sync_debug_mode()
    try:
        _set_mode("error")
        yield
    finally:
        _set_mode(before)


def _set_mode(mode: str | int) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype", UserWarning)
        torch.cuda.set_sync_debug_mode(mode)
