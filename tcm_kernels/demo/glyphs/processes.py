"""Tasks in several processes, of which one hears as they go on.

A process that dies, by lack of memory say, ends the whole with an error instead of a wait that never ends,
which is why this is no `multiprocessing.Pool`; and Ctrl-C ends all of them at once, which is why it is no
`ProcessPoolExecutor`, which would wait for what is running.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar, cast

T = TypeVar("T")
R = TypeVar("R")
Tell = Callable[[Any], None]


class ProcessError(RuntimeError):
    """A process failed or died; the message says how."""


def run_all(work: Callable[[T, Tell], R], tasks: Sequence[T], tell: Tell, processes: int) -> list[R]:
    """Do all tasks, at most so many at a time, each of them always in the same one of the processes.

    Args:
        work: does one task, and tells of its progress whatever it likes. To be pickled, as are tasks, results
            and what is told.
        tasks: in any number.
        tell: is told, in this process, whatever the work tells in its own.
        processes: 1 for none but this one.

    Returns:
        The results, in the order of the tasks.

    Raises:
        ProcessError: the work raised an exception, or its process ended before its last task. In this
            process, with `processes` 1 or a single task, an exception of the work passes as it is.
    """
    if processes == 1 or len(tasks) == 1:
        return [work(task, tell) for task in tasks]
    # Spawned, for a forked process inherits locks that torch's threads may hold.
    context = multiprocessing.get_context("spawn")
    started: list[Any] = []
    results: dict[int, R] = {}
    try:
        serving: dict[Any, Any] = {}  # connection: its process
        for first in range(min(processes, len(tasks))):
            ours, theirs = context.Pipe()
            share = dict(list(enumerate(tasks))[first::processes])
            process = context.Process(target=_serve, args=(theirs, work, share), daemon=True)
            with _deaf_to_ctrl_c():
                process.start()
            started.append(process)
            serving[ours] = process
            theirs.close()  # so that the end of the process is the end of what can be received
        while serving:
            for connection in wait(list(serving)):
                try:
                    kind, content = cast("Connection", connection).recv()
                except (EOFError, OSError):  # the latter in the middle of a message
                    raise _death(serving[connection]) from None
                if kind == "told":
                    tell(content)
                elif kind == "done":
                    results[content[0]] = content[1]
                elif kind == "failed":
                    raise ProcessError(f"a process failed:\n{content}")
                else:
                    del serving[connection]
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.join()
    return [results[place] for place in range(len(tasks))]


def _death(process: Any) -> ProcessError:
    """What to say of a process that ended before its tasks did."""
    process.join()
    code = process.exitcode
    if code == -signal.SIGTERM or code >= 0:
        return ProcessError(f"a process ended early with code {code}")
    return ProcessError(
        f"a process was killed by signal {-code}, perhaps for lack of memory: use fewer processes"
    )


@contextlib.contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """What is started meanwhile never hears Ctrl-C, not even while it imports: only who waits for it does."""
    if threading.current_thread() is not threading.main_thread():  # which alone may say what signals do
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _serve(connection: Connection, work: Callable[[T, Tell], R], tasks: dict[int, T]) -> None:
    """What a process does: its tasks, one after the other."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Windows it is not inherited
    with contextlib.suppress(BrokenPipeError):  # nobody listens any more
        try:
            for place, task in tasks.items():
                result = work(task, lambda content: connection.send(("told", content)))
                connection.send(("done", (place, result)))
            connection.send(("finished", None))
        except BrokenPipeError:
            raise
        except Exception:
            connection.send(("failed", traceback.format_exc()))
