"""A plugin for pytest, where tests may hang, break a GPU, or be stopped: `-p benchmarks.gpu.pytest_log`.

- Results are tested before streams and graphs (`rank`).
- The first lines of every traceback are printed when it happens, so that nothing is lost by being stopped;
  at the end they are not printed again. Then follow the tests that were running when the end came.
- With `--test-limit`, a process of xdist whose test takes longer ends, showing where it was: no signal
  reaches a thread that waits for the GPU. xdist reports the test and starts another process.
- After a fault in a kernel every later call of its process fails, so that process ends as well.
"""

from __future__ import annotations

import faulthandler
import os
import sys
from collections.abc import Iterator

import pytest

LINES = 40
LOST = 70  # exit status of a process whose GPU does not answer

RIGHT_FIRST = (
    "test_known_example",
    "test_against_reference",
    "test_gradients",
    "test_hard_densities",
    "test_on_the_margin",
    "test_not_finite_and_empty",
    "test_repeatability",
)
RIGHT_LAST = ("test_compile", "test_ops", "test_gpu")
"""Files of tests: results first; what is not named; streams, graphs, memory and first calls at the end."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--test-limit", type=float, metavar="S", help="seconds for a test, in processes of xdist"
    )


def pytest_configure(config: pytest.Config) -> None:
    is_worker = hasattr(config, "workerinput")
    config.pluginmanager.register(Worker(config) if is_worker else Teller(config), "gpu-log")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: rank(item.path.stem))


def rank(stem: str) -> int:
    """Where a file of tests stands."""
    if stem in RIGHT_FIRST:
        return RIGHT_FIRST.index(stem)
    return len(RIGHT_FIRST) + (1 + RIGHT_LAST.index(stem) if stem in RIGHT_LAST else 0)


class Teller:
    """In the process that prints."""

    def __init__(self, config: pytest.Config):
        self.config = config
        self.running: dict[str, None] = {}

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """A test begins."""
        self.running[nodeid] = None

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """A test is over."""
        self.running.pop(nodeid, None)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Setup, test or teardown is over."""
        if report.failed:
            self._say(f"FAILED {report.nodeid} ({report.when})", *first_lines(report.longreprtext))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file was read."""
        if report.failed:
            self._say(f"NOT COLLECTED {report.nodeid}", *first_lines(report.longreprtext))

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Before pytest prints what it has."""
        self.config.option.tbstyle = "no"  # everybody has been told
        for name in ("CI", "BUILD_NUMBER"):  # with which the summary would have messages in full
            os.environ.pop(name, None)
        if self.running:
            self._say("RUNNING when the end came:", *self.running)

    def _say(self, *lines: str) -> None:
        reporter = self.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            for line in ("", *lines):
                reporter.write_line(line)


def first_lines(text: str) -> list[str]:
    """Of a traceback: as many as tell what it is, and how many more there were."""
    lines = text.splitlines()
    more = [f"[... {len(lines) - LINES} more lines ...]"] if len(lines) > LINES else []
    return [*lines[:LINES], *more]


class Worker:
    """In a process of xdist."""

    def __init__(self, config: pytest.Config):
        self.limit_s: float | None = config.getoption("--test-limit")
        self.stderr = os.dup(2)  # before output is captured
        self.failed = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Setup, test or teardown is over."""
        self.failed = self.failed or report.failed

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Around a whole test."""
        self.failed = False
        if self.limit_s is not None:
            faulthandler.dump_traceback_later(self.limit_s, exit=True, file=self.stderr)
        yield
        faulthandler.cancel_dump_traceback_later()
        if self.failed and (reason := why_lost()) is not None:
            told = f"{item.nodeid} has lost the GPU, a new process goes on: {reason}\n"
            os.write(self.stderr, told.encode())
            os._exit(LOST)


def why_lost() -> str | None:
    """None where this process's GPU still answers, or was never asked."""
    torch = sys.modules.get("torch")  # which tests have imported, if they need it
    if torch is None or not torch.cuda.is_initialized():
        return None
    try:
        torch.zeros(1, device="cuda").item()
    except RuntimeError as error:
        return (str(error).splitlines() or [""])[0]
    return None
