"""Tasks in several processes, of which one hears as they go on.

A process that dies, by lack of memory say, ends the whole with an error instead of a wait that never ends,
which is why this is no `multiprocessing.Pool`; and Ctrl-C ends all of them at once, which is why it is no
`ProcessPoolExecutor`, which would wait for what is running.
"""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

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
        ProcessError: see above; whatever the work raises, where it runs in this process.
    """
    if processes == 1 or len(tasks) == 1:
        return [work(task, tell) for task in tasks]
    # Spawned, for a forked process inherits locks that torch's threads may hold.
    context = multiprocessing.get_context("spawn")
    started, results = [], {}
    try:
        listening: dict[Connection, Any] = {}
        for first in range(min(processes, len(tasks))):
            ours, theirs = context.Pipe()
            share = dict(list(enumerate(tasks))[first::processes])
            process = context.Process(target=_serve, args=(theirs, work, share), daemon=True)
            process.start()
            theirs.close()  # so that the end of the process is the end of what can be received
            started.append(process)
            listening[ours] = process
        while listening:
            for connection in wait(list(listening)):
                assert isinstance(connection, Connection)
                try:
                    kind, content = connection.recv()
                except EOFError:
                    process = listening.pop(connection)
                    process.join()
                    if process.exitcode:
                        raise ProcessError(f"a training process ended with code {process.exitcode}") from None
                    continue
                if kind == "told":
                    tell(content)
                elif kind == "done":
                    place, result = content
                    results[place] = result
                else:
                    raise ProcessError(content)
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.join()
    return [results[place] for place in range(len(tasks))]


def _serve(connection: Connection, work: Callable[[T, Tell], R], tasks: dict[int, T]) -> None:
    """What a process does: its tasks, one after the other."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    try:
        for place, task in tasks.items():
            result = work(task, lambda content: connection.send(("told", content)))
            connection.send(("done", (place, result)))
    except Exception:
        connection.send(("failed", traceback.format_exc()))
    finally:
        connection.close()
