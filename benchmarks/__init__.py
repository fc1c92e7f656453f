"""The benchmark frame: what the loss costs, next to U, to dense PyTorch and to other packages.

    workload.py      the cases, their data, margins that give a wanted hard density
    opponents.py     who is measured, and how much memory each needs
    accuracy.py      is the result right? errors against the float64 truth
    interleave.py    times, taken in rounds (A B C A B C ...), and ratios to U within each round
    memory.py        peak memory beyond the inputs
    environment.py   on what it ran
    measure.py       one case -> one record
    table.py         records -> Markdown
    readme.py        records -> the figures in README.md
    run.py           `python -m benchmarks.run`: the grid -> results/<device>.json and .md
    test_loss.py     `pytest benchmarks/ --benchmark-only`

pytest and `python -m` put the checkout first on sys.path, where its sources, which may lack the compiled
extension, would hide an installed tcm_kernels: the checkout goes last, unless PYTHONPATH names it.
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def _put_checkout_last() -> None:
    def is_root(entry: str) -> bool:
        return Path(entry or ".").resolve() == ROOT

    asked_for = os.environ.get("PYTHONPATH", "")
    if asked_for and any(is_root(entry) for entry in asked_for.split(os.pathsep)):
        return
    sys.path[:] = [entry for entry in sys.path if not is_root(entry)] + [str(ROOT)]


_put_checkout_last()
