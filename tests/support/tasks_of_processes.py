"""Tasks for several processes, which import them from here: some end well, and some in every other way."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable

Tell = Callable[[object], None]


def square(task: int, tell: Tell) -> tuple[int, int]:
    tell(("begun", task))
    return task * task, os.getpid()


def start_method(task: int, tell: Tell) -> str:
    """How this process was started: its class says so."""
    return str(multiprocessing.current_process()._start_method)  # type: ignore[attr-defined]


def fail_at_two(task: int, tell: Tell) -> int:
    if task == 2:
        raise ValueError("two is refused")
    return task


def die_at_two(task: int, tell: Tell) -> int:
    if task == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.01)
    return task


def leave(task: int, tell: Tell) -> None:
    os._exit(0)


def die_in_the_middle(task: int, tell: Tell) -> bytes:
    """Of what is sent, more than a pipe holds, only the beginning arrives."""
    threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
    tell("slow listener")
    return bytes(50_000_000)


def sleep(task: int, tell: Tell) -> None:
    tell("asleep")
    time.sleep(600)
