"""Tasks in several processes: their order, what is told on the way, and every way in which one may end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from checkout import ROOT
from tasks_of_processes import die_at_two, die_in_the_middle, fail_at_two, leave, sleep, square, start_method

from tcm_kernels.demo.glyphs.processes import ProcessError, run_all

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that need not import torch each: forks of a server that has done so."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tcm_kernels.demo.glyphs.processes", "tasks_of_processes"])
    monkeypatch.setattr(multiprocessing, "get_context", lambda kind: context)


def test_processes_are_spawned() -> None:
    assert run_all(start_method, [0, 1], lambda _: None, 2) == ["spawn", "spawn"]


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("processes", [1, 2, 3, 8])
def test_results_come_in_the_order_of_their_tasks(processes: int) -> None:
    told: list[object] = []
    results = run_all(square, [3, 1, 2, 5, 4], told.append, processes)
    assert [square for square, _ in results] == [9, 1, 4, 25, 16]
    assert sorted(told) == [("begun", task) for task in (1, 2, 3, 4, 5)]
    used = {pid for _, pid in results}
    assert len(used) == min(processes, 5)
    assert (os.getpid() in used) == (processes == 1)


def test_no_tasks_are_no_results() -> None:
    assert run_all(square, [], lambda _: None, 2) == []


def test_one_task_needs_no_process_of_its_own() -> None:
    assert run_all(square, [7], lambda _: None, 4) == [(49, os.getpid())]


@pytest.mark.usefixtures("forked")
def test_what_a_task_raises_is_told_with_its_traceback() -> None:
    with pytest.raises(ProcessError, match=r"(?s)fail_at_two.*ValueError: two is refused"):
        run_all(fail_at_two, [0, 1, 2, 3], lambda _: None, 2)


def test_in_this_process_it_is_raised_as_it_is() -> None:
    with pytest.raises(ValueError, match="two is refused"):
        run_all(fail_at_two, [0, 1, 2, 3], lambda _: None, 1)


@pytest.mark.usefixtures("forked")
def test_a_process_that_is_killed_ends_all_with_its_code() -> None:
    with pytest.raises(ProcessError, match="killed by signal 9, perhaps for lack of memory: use fewer"):
        run_all(die_at_two, [0, 1, 2, 3], lambda _: None, 2)


@pytest.mark.usefixtures("forked")
def test_a_process_that_leaves_before_its_last_task_is_missed() -> None:
    with pytest.raises(ProcessError, match="ended early with code 0"):
        run_all(leave, [0, 1], lambda _: None, 2)


@pytest.mark.usefixtures("forked")
def test_a_message_that_breaks_off_is_no_result() -> None:
    with pytest.raises(ProcessError, match="killed by signal 9"):
        run_all(die_in_the_middle, [0, 1], lambda _: time.sleep(1.5), 2)


@pytest.mark.usefixtures("forked")
def test_an_error_of_the_listener_leaves_no_process_behind() -> None:
    def listen(_: object) -> None:
        raise KeyboardInterrupt

    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_all(sleep, [0, 1], listen, 2)
    assert time.monotonic() - begun < 60
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("told", [0, 2], ids=["while they start", "while they work"])
def test_ctrl_c_ends_all_at_once_and_without_a_traceback_of_theirs(told: int, tmp_path: Path) -> None:
    """As a terminal sends it: to the whole group of processes."""
    script = tmp_path / "script.py"
    script.write_text(
        "import signal, sys\n"
        f"sys.path.insert(0, {str(ROOT / 'tests/support')!r})\n"
        "from tasks_of_processes import sleep\n"
        "from tcm_kernels.demo.glyphs.processes import run_all\n"
        "if __name__ == '__main__':\n"
        # A shell that starts the tests in the background has them ignore it, and so all that they start. Only
        # here: the processes import this file, too, and are to stay deaf while they do.
        "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "    print('begun', flush=True)\n"
        "    try:\n"
        "        run_all(sleep, [0, 1], lambda told: print(told, flush=True), 2)\n"
        "    except KeyboardInterrupt:\n"
        "        print('interrupted')\n"
    )
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(1 + told)] == ["begun\n", *["asleep\n"] * told]
        if not told:
            time.sleep(0.7)  # both have been started and import; none has said a word
        os.killpg(process.pid, signal.SIGINT)
        try:
            output, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert output == "interrupted\n"
    assert errors == ""
    assert process.returncode == 0
