"""The benchmark frame: what the loss costs, next to U, to dense PyTorch and to other packages.

    harness/    what every measurement needs
        sweeps.py        which cases are measured: densities, N, D, samples a class, kinds, epochs
        workload.py      what a case is, its data, margins that give a wanted hard density
        digits.py        the data of the demo's training
        opponents.py     who is measured, and how much memory each needs
        accuracy.py      is the result right? errors against the float64 truth
        interleave.py    times, taken in rounds (A B C A B C ...), and ratios to U within each round
        graphs.py        calls captured as CUDA graphs
        stages.py        where our own time goes
        memory.py        peak memory beyond the inputs
        environment.py   on what it ran
        measure.py       one case -> a record for each backend
        cells.py         what a record's cells are: figures, or reasons
        result_files.py  the files of records: merged, replaced at once
        attempts.py      what is not measured, why, and how often it was tried
        table.py         records -> Markdown
        quoted.py        figures in documents, each between comments that name it
        launches.py      what the `triton` backend would launch, recorded and compiled without a GPU
    suites/     what is measured, each `python -m benchmarks.suites.<name>`
        grid.py          the loss over all sweeps -> results/<device>.json and .md
        training_step.py the share of a whole training step
        histogram.py     what evaluation costs, over N
        ablation.py      what one mechanism brings: the package with it and without it
        distributed.py   a batch that is spread over processes
        pytorch_metric_learning.py    pairs that its miners have chosen, beside its losses
        test_loss.py     `pytest benchmarks/ --benchmark-only`
    reports/    from the files of results alone
        figures.py       pictures: `python -m benchmarks.reports.figures`
        readme.py        README's figures of speed and memory
    quality/    `python -m benchmarks.quality`: what TCM adds to a base loss
    gpu/        `python -m benchmarks.gpu`: all of this and the tests on a machine with a GPU, in minutes
    sass/       `python -m benchmarks.sass`: clocks predicted from compiled code; no measurement

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
