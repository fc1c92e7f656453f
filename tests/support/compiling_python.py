"""A Python of its own, in which triton compiles: the process of the tests may have told it to interpret."""

from __future__ import annotations

import os
import subprocess
import sys

from checkout import ROOT


def python(*arguments: str, statuses: tuple[int, ...] = (0,)) -> str:
    """Its output."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode in statuses, done.stderr[-4000:]
    return done.stdout
