"""`tcm-kernels demo`: train on handwritten digits with and without the loss, and look at the difference.

Open-world, as the loss is meant: the network is trained on five digits and judged on the five it has
never seen. Everything is trained twice from the same start on the same batches, once with a base loss
alone and once with the TCM loss added, for a few seeds. What is printed is computed from the results,
also where they do not flatter the loss.

    training.py   the images, the two trainings      student.py    the network and one step of it
    measures.py   the numbers                        report.py     table, verdict, results.json
    figure.py     similarities.png
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

import torch

from .. import dispatch
from ..files import check_writable, write_atomically
from . import figure, report, training

_NEEDS = {
    "matplotlib": "matplotlib",
    "pytorch_metric_learning": "pytorch-metric-learning",
    "sklearn": "scikit-learn",
    "tqdm": "tqdm",
}
_FAILED = 1
_BAD_USAGE = 2
_INTERRUPTED = 130
_MAX_SEED = 2**32  # what every generator accepts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the demo's options to the parser of its subcommand."""
    parser.add_argument("--seed", type=int, default=0, help="seed of the first run (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=8, help="seeds, counting up (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=20, help="epochs of a training (default: %(default)s)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("tcm-demo"),
        help="folder for similarities.png and results.json, created if need be (default: %(default)s)",
    )
    parser.add_argument(
        "--backend",
        default="auto",
        help=f"what computes the loss: auto, {', '.join(dispatch.BACKENDS)} (default: %(default)s)",
    )


def main(args: argparse.Namespace) -> int:
    """Run the demo.

    Returns the exit code: 0, 1 where the results cannot be written, 2 for what cannot be run as asked,
    130 on Ctrl-C.
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
    settings = training.Settings(args.epochs, args.backend, _device(args.backend))
    seeds = range(args.seed, args.seed + args.runs)
    print(training.describe(settings, seeds))
    digits = training.load_digits()
    results = training.train_all(digits, settings, seeds)
    comparison = report.compare(results)
    print(report.text(comparison, results))
    png, numbers = args.out / "similarities.png", args.out / "results.json"
    first = results[0]
    picture = figure.render(digits.unseen_labels, first.without_tcm, first.with_tcm)
    try:
        write_atomically(png, picture)
        write_atomically(numbers, report.as_json(settings, comparison, results))
    except OSError as error:  # writable before the training, but no longer
        print(f"tcm-kernels: cannot write to {args.out}: {error.strerror or error}", file=sys.stderr)
        return _FAILED
    print(f"\nWrote {png} and {numbers}")
    return 0


def _refuse(complaint: str) -> int:
    print(f"tcm-kernels: {complaint}", file=sys.stderr)
    return _BAD_USAGE


def _missing() -> str | None:
    """Which packages of the `demo` extra are not installed, and the cure; None if all are there."""
    names = [package for module, package in _NEEDS.items() if importlib.util.find_spec(module) is None]
    return f"demo needs {', '.join(names)}: pip install 'tcm-kernels[demo]'" if names else None


def _bad_argument(args: argparse.Namespace) -> str | None:
    """The first argument that cannot be used and why, or None."""
    for name, least in (("epochs", 1), ("runs", 1), ("seed", 0)):
        value = getattr(args, name)
        if value < least:
            return f"argument --{name}: got {value}, expected at least {least}"
    if args.seed + args.runs > _MAX_SEED:
        return f"argument --seed: got {args.seed}, expected less than 2**32, the later runs' seeds included"
    try:
        dispatch.check_name(args.backend)
        _device(args.backend)
    except (ValueError, RuntimeError) as error:
        return f"argument --backend: {str(error).removeprefix('backend: ')}"
    return None


def _device(backend: str) -> str:
    """The CPU, which is plenty for these images, unless the backend asked for runs on a GPU only."""
    if torch.cuda.is_available() and dispatch.why_not(backend, "cpu", torch.float32) is not None:
        dispatch.choose(backend, "cuda", torch.float32)
        return "cuda"
    dispatch.choose(backend, "cpu", torch.float32)
    return "cpu"
