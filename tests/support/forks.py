"""Code in processes of their own, none of which imports torch again: forks of one that has done so."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

from checkout import ROOT

# One thread until a fork: those of OpenMP would not be there in it.
PARENT = """
import json, os, signal, sys, tempfile, traceback
import torch
threads = torch.get_num_threads()
torch.set_num_threads(1)
for name in sys.argv[1:]:
    __import__(name)
for line in sys.stdin:
    code, environment = json.loads(line)
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        child = os.fork()
        if child == 0:
            os.environ.update(environment)
            os.dup2(output.fileno(), 1)
            os.dup2(errors.fileno(), 2)
            signal.alarm(300)
            status = 1
            try:
                torch.set_num_threads(threads)
                exec(code, {"__name__": "__main__"})
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        _, status = os.waitpid(child, 0)
        output.seek(0)
        errors.seek(0)
        found = os.waitstatus_to_exitcode(status), output.read(), errors.read()
    print(json.dumps(found), flush=True)
"""


class Done(NamedTuple):
    """How a fork has ended: its status, negative for a signal, and what it printed."""

    status: int
    output: str
    errors: str


class Forks:
    """The process that is forked."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def done(self, code: str, **environment: str) -> Done:
        """Run code with additions to the environment, which nobody has read but Python and its imports.

        An AssertionError if it has not ended in five minutes.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps((code, environment)), file=self._process.stdin, flush=True)
        found = Done(*json.loads(self._process.stdout.readline()))
        assert found.status != -signal.SIGALRM, "the code has not ended in five minutes"
        return found

    def output_of(self, code: str, **environment: str) -> str:
        """What code prints; an AssertionError with its errors if it fails."""
        status, output, errors = self.done(code, **environment)
        assert status == 0, errors
        return output


@contextlib.contextmanager
def forks(*imports: str, folder: str = "", **environment: str) -> Iterator[Forks]:
    """With these modules imported, from tests/support and a folder beside it, and in this environment."""
    paths = [str(ROOT), str(ROOT / "tests/support"), str(ROOT / "tests" / folder)]
    paths += filter(None, [os.environ.get("PYTHONPATH")])
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, *imports],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | environment,
        cwd=ROOT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        yield Forks(process)
