"""The steps of `make gpu`: limits and signals, the log, the plugin in a real pytest, the profiler's table."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from checkout import ROOT

from benchmarks.gpu import kernels, machine, plan, profile, pytest_log, runner
from benchmarks.gpu.log import CappedLog
from benchmarks.gpu.runner import Outcome
from benchmarks.harness import result_files

GRACE_S = 1.0


def run(tmp_path: Path, code: str, limit_s: float = 30.0, left_s: float = 100.0) -> tuple[Outcome, str]:
    """How a step of this Python code goes, and its log."""
    return run_command(tmp_path, (sys.executable, "-c", textwrap.dedent(code)), limit_s, left_s)


def run_command(
    tmp_path: Path, command: tuple[str, ...], limit_s: float, left_s: float = 100.0, grace_s: float = GRACE_S
) -> tuple[Outcome, str]:
    step = plan.Step("a step", command, limit_s, (("a step",),))
    with CappedLog(tmp_path / "log.txt") as log:
        outcome = runner.run(step, left_s, log, grace_s=grace_s)
    return outcome, (tmp_path / "log.txt").read_text(encoding="utf-8")


def is_gone(pid: int) -> bool:
    """Whether the process is no more than a zombie, within the moment that dying takes."""
    until = time.monotonic() + 5
    while (there := _is_there(pid)) and time.monotonic() < until:
        time.sleep(0.01)
    return not there


def _is_there(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    return status.rsplit(")", 1)[1].split()[0] != "Z"


class TestRunner:
    def test_a_step_that_passes_is_shown_and_logged(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        outcome, log = run(tmp_path, "print('hello')")
        assert outcome.kind == "passed"
        assert "hello\n" in log
        assert "hello\n" in capsys.readouterr().out

    def test_a_step_that_fails_says_with_which_status(self, tmp_path: Path) -> None:
        outcome, _ = run(tmp_path, "raise SystemExit(3)")
        assert str(outcome).startswith("FAILED with status 3 after")

    def test_a_step_that_crashes_says_by_which_signal_and_where(self, tmp_path: Path) -> None:
        outcome, log = run(tmp_path, "import ctypes; ctypes.string_at(0)")
        assert str(outcome).startswith("CRASHED with SIGSEGV")
        assert "Segmentation fault" in log
        assert "string_at" in log

    def test_a_step_that_hangs_is_asked_to_stop_and_says_what_it_has(self, tmp_path: Path) -> None:
        code = """
            import time
            print("half of it")
            try:
                time.sleep(60)
            except KeyboardInterrupt:
                print("all I have")
                raise
            """
        outcome, log = run(tmp_path, code, limit_s=1.5)
        assert str(outcome) == "TIMED OUT after 2 s (SIGINT)"
        assert "half of it" in log
        assert "all I have" in log

    def test_a_step_that_does_not_listen_is_killed_after_the_grace_with_all_its_processes(
        self, tmp_path: Path
    ) -> None:
        code = """
            import os, signal, time
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            child = os.fork()
            os.write(1, f"pid {os.getpid()}\\n".encode())  # one write: two processes share the pipe
            time.sleep(60)
            """
        begin = time.monotonic()
        outcome, log = run(tmp_path, code, limit_s=1.5)
        assert outcome.detail == "after 2 s (SIGKILL)"
        assert 1.5 + GRACE_S <= time.monotonic() - begin < 1.5 + GRACE_S + 5
        pids = [int(line.split()[1]) for line in log.splitlines() if line.startswith("pid ")]
        assert len(pids) == 2
        assert all(is_gone(pid) for pid in pids)

    def test_what_a_step_leaves_running_is_ended_with_it(self, tmp_path: Path) -> None:
        code = """
            import subprocess, sys
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
            print("pid", child.pid)
            """
        begin = time.monotonic()
        outcome, log = run(tmp_path, code)
        assert outcome.kind == "passed"
        assert time.monotonic() - begin < 20
        (pid,) = [int(line.split()[1]) for line in log.splitlines() if line.startswith("pid ")]
        assert is_gone(pid)

    def test_no_more_than_the_time_that_is_left_is_taken(self, tmp_path: Path) -> None:
        outcome, log = run(tmp_path, "import time; time.sleep(60)", limit_s=50, left_s=1.0 + GRACE_S)
        assert outcome.detail == "after 1 s (SIGINT)"
        outcome, log = run(tmp_path, "print('too late')", limit_s=50, left_s=GRACE_S)
        assert str(outcome) == "not run: no time was left"
        assert log == ""

    def test_a_program_that_is_not_there_is_a_failure(self, tmp_path: Path) -> None:
        outcome, _ = run_command(tmp_path, ("/no/such/program",), 5)
        assert outcome.kind == "FAILED"
        assert "/no/such/program" in outcome.detail

    def test_a_parent_that_ignores_sigint_does_not_make_its_steps_ignore_it(self, tmp_path: Path) -> None:
        """As a shell does for what it runs in the background."""
        code = f"""
            import signal, sys, time
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            sys.path.insert(0, {str(ROOT)!r})
            from pathlib import Path
            from benchmarks.gpu import __main__ as gpu, machine, plan
            hang = plan.Step("hang", (sys.executable, "-c", "import time; time.sleep(60)"), 1, (("hang",),))
            chosen = plan.Plan((hang,))
            gpu._run(chosen, Path({str(tmp_path)!r}), machine.COMPLETE, time.monotonic(), is_new=True)
            """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert "TIMED OUT after 1 s (SIGINT)" in done.stdout

    def test_a_step_goes_on_while_it_makes_headway_and_keeps_its_first_outcome(self, tmp_path: Path) -> None:
        code = "raise SystemExit(7)"
        step = plan.Step("a step", (sys.executable, "-c", code), 60, (), goes_on=True)
        went_on = ", went on: FAILED with status 7 after 0 s"
        for tries, times in (
            ([3, 0], 1),
            ([3, 2, 0], 2),
            ([3, 3], 1),
            ([0], 0),
        ):
            with CappedLog(tmp_path / "log.txt") as log:
                outcome = runner.run(step, 100, log, grace_s=1, tries_left=lambda left=tries: left.pop(0))
            assert str(outcome) == "FAILED with status 7 after 0 s" + times * went_on
            assert tries == []


class TestLog:
    def test_a_long_log_keeps_its_head_and_its_tail(self, tmp_path: Path) -> None:
        path = tmp_path / "log.txt"
        with CappedLog(path, most_bytes=10_000) as log:
            for i in range(5000):
                log.write(f"line {i}\n")
                assert path.stat().st_size <= 10_000
        text = path.read_text(encoding="utf-8")
        assert text.startswith("line 0\nline 1\n")
        assert text.endswith("line 4998\nline 4999\n")
        assert text.count("bytes left out ...]") == 1
        written = sum(len(f"line {i}\n") for i in range(5000))
        marker = next(line for line in text.splitlines() if "bytes left out" in line)
        left_out = int(marker.split()[1].replace(",", ""))
        assert left_out == written - (len(text) - len(marker) - 2)

    def test_a_later_call_goes_on_with_it(self, tmp_path: Path) -> None:
        for append in (False, False, True):
            with CappedLog(tmp_path / "log.txt", append=append) as log:
                log.write("a call\n")
        assert (tmp_path / "log.txt").read_text(encoding="utf-8") == "a call\n" * 2


@pytest.fixture
def tests(tmp_path: Path) -> Path:
    folder = tmp_path / "tests"
    folder.mkdir()
    return folder


def pytest_step(folder: Path, *options: str) -> tuple[str, ...]:
    """The plan's own command, on other tests and in two processes."""
    here = dataclasses.replace(machine.COMPLETE, python=sys.executable)
    (tests,) = [step for step in plan.first(here, folder).steps if step.name == "tests"]
    (folder / "conftest.py").write_text(ALL_NEED_A_GPU, encoding="utf-8")
    others = {"tests": str(folder), "8": "2"}
    command = (*(others.get(word, word) for word in tests.command), *options)
    return (*command, "-c", "pyproject.toml", "--rootdir", str(folder))


ALL_NEED_A_GPU = """
import pytest

def pytest_collection_modifyitems(items):
    for item in items:
        item.add_marker(pytest.mark.gpu)
"""
LONG_FAILURE = """
    def test_a_long_story():
        raise AssertionError("\\n".join(f"fact {i}" for i in range(100)))
    """


class TestPytest:
    """Each a real pytest with two processes of xdist."""

    def test_a_run_that_hangs_is_stopped_and_its_tracebacks_are_in_the_log(
        self, tmp_path: Path, tests: Path
    ) -> None:
        (tests / "test_a.py").write_text(textwrap.dedent(LONG_FAILURE), encoding="utf-8")
        hang = (
            "import time\ndef test_that_never_ends():\n    time.sleep(600)\n\ndef test_right():\n    pass\n"
        )
        (tests / "test_b.py").write_text(hang, encoding="utf-8")
        (tests / "test_broken.py").write_text("import no_such_module\n", encoding="utf-8")
        outcome, log = run_command(tmp_path, pytest_step(tests), limit_s=15, grace_s=30)
        assert outcome.detail == "after 15 s (SIGINT)"
        before = log[: log.index("RUNNING when the end came:")]
        assert "test_a.py::test_a_long_story (call)" in before
        assert "E   AssertionError: fact 0" in before
        assert "more lines ...]" in before
        assert "fact 99" not in log
        assert "NOT COLLECTED" in before
        assert "No module named 'no_such_module'" in before
        assert "test_b.py::test_that_never_ends" in log[len(before) :].splitlines()[1]
        assert "1 failed, 1 passed" in log

    def test_a_test_that_hangs_costs_no_other_and_shows_where_it_was(
        self, tmp_path: Path, tests: Path
    ) -> None:
        # No signal is heard while this waits, as in a call of CUDA.
        deaf = "import signal, time\ndef test_deaf():\n"
        deaf += "    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])\n    time.sleep(600)\n"
        right = "import pytest\n@pytest.mark.parametrize('i', range(20))\ndef test_right(i):\n    pass\n"
        (tests / "test_a.py").write_text(deaf, encoding="utf-8")
        (tests / "test_b.py").write_text(right, encoding="utf-8")
        outcome, log = run_command(tmp_path, pytest_step(tests, "--test-limit", "3"), limit_s=60)
        assert outcome.kind == "FAILED"
        assert "Timeout (0:00:03)!" in log
        assert 'test_a.py", line 4 in test_deaf' in log
        assert "crashed while running" in log
        assert "1 failed, 20 passed" in log

    def test_a_process_that_has_lost_its_gpu_ends_with_the_test_that_lost_it(
        self, tmp_path: Path, tests: Path
    ) -> None:
        lost = "from benchmarks.gpu import pytest_log\nimport pytest\nlost = []\n"
        lost += "pytest_log.why_lost = lambda: 'an illegal memory access' if lost else None\n"
        lost += "def test_faulty():\n    lost.append(1)\n    assert 1 == 2\n"
        lost += "@pytest.mark.parametrize('i', range(20))\ndef test_right(i):\n    assert not lost\n"
        (tests / "test_a.py").write_text(lost, encoding="utf-8")
        outcome, log = run_command(tmp_path, pytest_step(tests), limit_s=60)
        assert outcome.kind == "FAILED"
        assert "test_faulty has lost the GPU, a new process goes on: an illegal memory access" in log
        assert "E   assert 1 == 2" in log
        assert "20 passed" in log

    def test_results_are_tested_before_streams_and_graphs(self, tests: Path) -> None:
        for stem in ("test_gpu", "test_against_reference", "test_of_tomorrow", "test_known_example"):
            (tests / f"{stem}.py").write_text("def test(): pass\n", encoding="utf-8")
        command = [*pytest_step(tests, "--collect-only"), "-n", "0"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        found = [line.split(".py")[0].split("/")[-1] for line in done.stdout.splitlines() if "::" in line]
        assert found == ["test_known_example", "test_against_reference", "test_of_tomorrow", "test_gpu"]

    def test_a_short_traceback_is_whole(self) -> None:
        assert pytest_log.first_lines("a\nb") == ["a", "b"]
        lines = pytest_log.first_lines("\n".join(map(str, range(100))))
        assert lines[-2:] == ["39", "[... 60 more lines ...]"]


# As Nsight Compute prints raw metrics: names, units, then a line a launch.
COUNTERS = {
    "gpu__time_duration.sum": ("ns", "12,500"),
    "sm__pipe_tensor_op_gmma_cycles_active.avg.pct_of_peak_sustained_active": ("%", "71.5"),
    "sm__pipe_tensor_op_dmma_cycles_active.avg.pct_of_peak_sustained_active": ("%", "0"),
    "sm__inst_issued.avg.pct_of_peak_sustained_active": ("%", "40.25"),
    "smsp__average_warps_issue_stalled_wait_per_issue_active.ratio": ("inst", "1.5"),
    "smsp__average_warps_issue_stalled_barrier_per_issue_active.ratio": ("inst", "0.5"),
    "smsp__average_warps_issue_stalled_sleeping_per_issue_active.ratio": ("inst", "0"),
    "smsp__average_warps_issue_stalled_long_scoreboard_per_issue_active.ratio": ("inst", "2.5"),
    "smsp__average_warps_issue_stalled_wait_not_issued_per_issue_active.ratio": ("inst", "9"),
    "dram__bytes_read.sum": ("byte", "3,000,000"),
    "dram__bytes_write.sum": ("byte", "1,000,000"),
    "lts__t_bytes.sum": ("byte", "25,000,000"),
    "launch__registers_per_thread": ("register/thread", "128"),
}


def printed(counters: dict[str, tuple[str, str]], *names: str) -> str:
    rows = [["ID", "Process ID", "Kernel Name", "Block Size", "Grid Size", *counters]]
    rows.append(["", "", "", "", "", *(unit for unit, _ in counters.values())])
    for i, name in enumerate(names):
        rows.append(
            [str(i), "77", name, "(256, 1, 1)", "(132, 1, 1)", *(value for _, value in counters.values())]
        )
    lines = [",".join(f'"{cell}"' for cell in row) for row in rows]
    return "\n".join(["==PROF== Connected to process 77", *lines, "==PROF== Disconnected", ""])


class TestProfile:
    def test_utilisation_stalls_and_bytes_of_every_launch_are_kept(self) -> None:
        first, second = profile.kernels(printed(COUNTERS, "sweep_kernel", "lists_kernel(float const*)"))
        assert second["kernel"] == "lists_kernel"
        assert first == {
            "kernel": "sweep_kernel",
            "grid": "(132, 1, 1)",
            "block": "(256, 1, 1)",
            "registers": 128,
            "duration, µs": 12.5,
            "tensor pipe, %": 71.5,
            "issue slots, %": 40.25,
            "DRAM, MB": 4.0,
            "L2, MB": 25.0,
            "stalls": {"long_scoreboard": 2.5, "wait": 1.5, "barrier": 0.5},
        }

    def test_what_is_not_counted_is_none_and_not_zero(self) -> None:
        few = {name: COUNTERS[name] for name in ("gpu__time_duration.sum", "dram__bytes_read.sum")}
        (kernel,) = profile.kernels(printed(few, "sweep_kernel"))
        assert kernel["DRAM, MB"] is kernel["tensor pipe, %"] is kernel["registers"] is None
        assert profile.kernels("==ERROR== no permission\n") == []

    def test_a_tool_that_does_not_know_the_byte_counters_is_asked_without_them(self, tmp_path: Path) -> None:
        (tmp_path / "table").write_text(printed(COUNTERS, "sweep_kernel"), encoding="utf-8")
        ncu = tmp_path / "ncu"
        ncu.write_text(
            "#!/bin/sh\n"
            'for word; do [ "$last" = --log-file ] && out=$word; last=$word; done\n'
            'case "$*" in *--metrics*) echo nothing > $out; exit 1;; *cuda) exit 1;; esac\n'
            f"cp {tmp_path}/table $out\n",
            encoding="utf-8",
        )
        ncu.chmod(0o755)
        out = tmp_path / "a-device.json"
        arguments = ["--ncu", str(ncu), "--backend", "triton", "--backend", "cuda", "--out", str(out)]
        assert profile.main(arguments) == 1
        found = result_files.load(out)["profile"]
        assert found.keys() == {"triton"}
        assert found["triton"][0]["registers"] == 128
        assert "sweep_kernel" in out.with_suffix(".md").read_text(encoding="utf-8")


class TestKernels:
    @pytest.mark.parametrize("backend", ["cpu", "torch"])
    def test_every_call_that_a_sanitizer_watches_runs(
        self, backend: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv(kernels.SCREENING, "")
        monkeypatch.setattr(kernels, "DTYPES", (kernels.torch.float32,))
        if kernels.dispatch.why_not_here(backend) is not None:
            pytest.skip(kernels.dispatch.why_not_here(backend))
        assert kernels.main(["small", "--backend", backend, "--device", "cpu"]) == 0
        said = capsys.readouterr().out.splitlines()
        assert len(said) == len(set(said)) == 3 * 2 + 2
        assert os.environ[kernels.SCREENING] == "full"

    def test_triton_has_one_call_for_each_screening(self) -> None:
        assert len(list(kernels.small("triton", "cuda"))) == 3
        assert len(list(kernels.small("cuda", "cuda"))) == 3 * 3 * 2 + 3 * 2
