"""The command: what can be asked for, what is refused, and where the results go."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import torch

from .. import dispatch
from ..files import check_writable, write_atomically
from .comparison import RESULTS
from .digits import run as digits
from .digits import training
from .glyphs import paired
from .glyphs import run as glyphs
from .glyphs.processes import ProcessError

_PACKAGES = {
    "matplotlib": "matplotlib",
    "pytorch_metric_learning": "pytorch-metric-learning",
    "sklearn": "scikit-learn",
    "tqdm": "tqdm",
}
_RUNS = {"glyphs": 3, "digits": 8}
_EPOCHS = 20  # of the digits
_FAILED = 1
_BAD_USAGE = 2
_INTERRUPTED = 130
_MAX_SEED = 2**32  # what every generator accepts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the demo's options to the parser of its subcommand."""
    parser.add_argument(
        "--data",
        choices=_RUNS,
        default="glyphs",
        help="printed characters, or ten handwritten digits, which are too few classes to show what the loss "
        "does for consistency (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the first run (default: %(default)s)")
    runs = " or ".join(f"{count} with {data}" for data, count in _RUNS.items())
    parser.add_argument("--runs", type=int, help=f"seeds, counting up (default: {runs})")
    parser.add_argument("--steps", type=int, help=f"of a training on glyphs (default: {paired.STEPS})")
    parser.add_argument("--processes", type=int, help="trainings on glyphs at a time (default: one a core)")
    parser.add_argument("--epochs", type=int, help=f"of a training on digits (default: {_EPOCHS})")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("tcm-demo"),
        help="folder for picture, reports and results.json, created if need be (default: %(default)s)",
    )
    parser.add_argument(
        "--backend",
        default="auto",
        help=f"what computes the loss: auto, {', '.join(dispatch.BACKENDS)} (default: %(default)s)",
    )


def main(args: argparse.Namespace) -> int:
    """Run the demo.

    Returns the exit code: 0, 1 where it cannot come to its end, 2 for what cannot be run as asked, 130 on
    Ctrl-C.
    """
    complaint = _missing() or _bad_argument(args)
    if complaint is not None:
        return _refuse(complaint)
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        check_writable(args.out)
    except OSError as error:
        return _refuse(f"argument --out: cannot write to {args.out}: {error.strerror or error}")
    try:
        return _run(args)
    except KeyboardInterrupt:
        print("\ntcm-kernels: interrupted", file=sys.stderr)
        return _INTERRUPTED


def _run(args: argparse.Namespace) -> int:
    """Train, measure, report."""
    device, runs = _device(args.backend), _given(args.runs, _RUNS[args.data])
    seeds = range(args.seed, args.seed + runs)
    try:
        if args.data == "digits":
            epochs = _given(args.epochs, _EPOCHS)
            text, files = digits.run(training.Settings(epochs, args.backend, device), seeds)
        else:
            # On a GPU trainings would only take turns.
            processes = _given(args.processes, _cores() if device == "cpu" else 1)
            steps = _given(args.steps, paired.STEPS)
            settings = paired.Settings(steps, args.backend, device, min(processes, 2 * runs))
            text, files = glyphs.run(settings, seeds)
    except ProcessError as error:
        print(f"tcm-kernels: {error}", file=sys.stderr)
        return _FAILED
    try:  # before anything is printed: whoever reads that may stop early
        _write(args.out, files)
    except OSError as error:  # writable before the training, but no longer
        print(text)
        print(f"tcm-kernels: cannot write to {args.out}: {error.strerror or error}", file=sys.stderr)
        return _FAILED
    print(text)
    print(f"\nWrote {', '.join(sorted(files))} to {args.out}")
    return 0


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    """The files of a run, and none of an earlier one beside them; results.json last, after all else."""
    for name in {*glyphs.FILES, *digits.FILES} - set(files):
        (folder / name).unlink(missing_ok=True)
    for name in sorted(files, key=lambda name: name == RESULTS):
        write_atomically(folder / name, files[name])


def _refuse(complaint: str) -> int:
    print(f"tcm-kernels: {complaint}", file=sys.stderr)
    return _BAD_USAGE


def _missing() -> str | None:
    """Which packages of the `demo` extra are not installed, and the cure; None if all are there."""
    names = [package for module, package in _PACKAGES.items() if importlib.util.find_spec(module) is None]
    return f"demo needs {', '.join(names)}: pip install 'tcm-kernels[demo]'" if names else None


def _bad_argument(args: argparse.Namespace) -> str | None:
    """The first argument that cannot be used and why, or None."""
    of_the_other = ("steps", "processes") if args.data == "digits" else ("epochs",)
    for name in of_the_other:
        if getattr(args, name) is not None:
            return f"argument --{name}: got {getattr(args, name)}, but --data {args.data} has none"
    for name, least in (("epochs", 1), ("steps", 1), ("processes", 1), ("runs", 1), ("seed", 0)):
        value = getattr(args, name)
        if value is not None and value < least:
            return f"argument --{name}: got {value}, expected at least {least}"
    if args.seed + _given(args.runs, _RUNS[args.data]) > _MAX_SEED:
        return f"argument --seed: got {args.seed}, expected less than 2**32, the later runs' seeds included"
    try:
        dispatch.check_name(args.backend)
        _device(args.backend)
    except (ValueError, RuntimeError) as error:
        return f"argument --backend: {str(error).removeprefix('backend: ')}"
    return None


def _given(value: int | None, default: int) -> int:
    return default if value is None else value


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _device(backend: str) -> str:
    """The CPU, which is plenty for these images, unless the backend asked for runs on a GPU only."""
    on_cpu = backend == "auto" or dispatch.why_not(backend, "cpu", torch.float32) is None
    device = "cuda" if torch.cuda.is_available() and not on_cpu else "cpu"
    dispatch.choose(backend, device, torch.float32)
    return device
