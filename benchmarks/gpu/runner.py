"""One step: a process group that is gone when its time is up, and a word for how it went.

At its limit a step gets SIGINT, so that it can say what it has (pytest prints its tracebacks, Python its
stack), and SIGKILL after the grace; both waits count. What it prints is shown and logged as it comes. Nothing
that it started outlives it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import IO

from benchmarks import ROOT
from benchmarks.gpu import plan
from benchmarks.gpu.log import CappedLog
from benchmarks.gpu.plan import Step

PASSED, FAILED, TIMED_OUT, CRASHED, NOT_RUN = "passed", "FAILED", "TIMED OUT", "CRASHED", "not run"
CRASHES = (signal.SIGILL, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGSEGV, signal.SIGKILL)
AGAIN = "--again"
ENVIRONMENT = {"PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1", "COLUMNS": "160"}
WORTH_S = 15  # that have to be left, for a process to be started again


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a step went: one of the five words above, and the particulars."""

    kind: str
    detail: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}" if self.kind == NOT_RUN else f"{self.kind} {self.detail}"


def run(
    step: Step,
    left_s: float,
    log: CappedLog,
    *,
    grace_s: float = plan.GRACE_S,
    tries_left: Callable[[], int] = lambda: 0,
) -> Outcome:
    """Run a step with its output shown and logged.

    Args:
        step: what to run.
        left_s: how long it may take at most, the grace included.
        log: receives all output.
        grace_s: seconds between SIGINT and SIGKILL.
        tries_left: how much a step that goes on could still try; it ends with a process that lessens nothing.
    """
    if step.why_not is not None:
        return Outcome(NOT_RUN, step.why_not, 0.0)
    limit_s = min(step.limit_s, left_s - grace_s)
    if limit_s <= 0:
        return Outcome(NOT_RUN, "no time was left", 0.0)
    begin = time.monotonic()
    outcome = _once(step.name, step.command, limit_s, grace_s, log)
    before = math.inf
    while step.goes_on and outcome.kind in (CRASHED, FAILED) and 0 < (now := tries_left()) < before:
        before, left_s = now, limit_s - (time.monotonic() - begin)
        if left_s < min(WORTH_S, limit_s / 4):
            break
        again = _once(step.name, (*step.command, AGAIN), left_s, grace_s, log)
        outcome = Outcome(
            outcome.kind, f"{outcome.detail}, went on: {again}", outcome.seconds + again.seconds
        )
        if again.kind == TIMED_OUT:
            break
    return outcome


def _once(name: str, command: Sequence[str], limit_s: float, grace_s: float, log: CappedLog) -> Outcome:
    _say(f"\n== {name}: {' '.join(command)}\n", log)
    begin = time.monotonic()
    try:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        return Outcome(FAILED, f"to start: {error}", 0.0)
    # A daemon: should something have left the process group with its output, nobody waits for it.
    copier = threading.Thread(target=_copy, args=(process.stdout, log), daemon=True)
    copier.start()
    last_signal = None
    try:
        if not _ends(process, limit_s):
            last_signal = signal.SIGINT
            _signal(process, signal.SIGINT)
            if not _ends(process, grace_s):
                last_signal = signal.SIGKILL
    finally:
        _signal(process, signal.SIGKILL)  # also whatever the step has left behind
        process.wait()
        copier.join(timeout=2.0)
        if process.stdout is not None and not copier.is_alive():
            process.stdout.close()
    return _outcome(process.returncode, last_signal, limit_s, time.monotonic() - begin)


def _environment() -> dict[str, str]:
    """With what was installed beside the interpreter, such as ninja, although nobody has activated it."""
    beside = os.path.dirname(sys.executable)
    return os.environ | ENVIRONMENT | {"PATH": os.pathsep.join([beside, os.environ.get("PATH", "")])}


def _outcome(status: int, last_signal: signal.Signals | None, limit_s: float, took_s: float) -> Outcome:
    if last_signal is not None:
        return Outcome(TIMED_OUT, f"after {limit_s:.0f} s ({last_signal.name})", took_s)
    crash = next((s for s in CRASHES if status in (-s, 128 + s)), None)
    if crash is not None:
        return Outcome(CRASHED, f"with {crash.name} after {took_s:.0f} s", took_s)
    if status != 0:
        return Outcome(FAILED, f"with status {status} after {took_s:.0f} s", took_s)
    return Outcome(PASSED, f"in {took_s:.0f} s", took_s)


def _ends(process: subprocess.Popen[str], within_s: float) -> bool:
    try:
        process.wait(within_s)
    except subprocess.TimeoutExpired:
        return False
    return True


def _signal(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """To the whole group, which its first process leads."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _copy(output: IO[str], log: CappedLog) -> None:
    for line in output:
        _say(line, log)


def _say(text: str, log: CappedLog) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
    log.write(text)
