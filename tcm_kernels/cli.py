"""The command line: `tcm-kernels` and `python -m tcm_kernels`.

    doctor     which backends run on this machine, and what to install for those that do not
    demo       train a small network with and without the loss, and look at the difference
    evaluate   whether one threshold is good for every class of a file of embeddings; a report
    calibrate  from similarities to probabilities

Each command's module adds its own arguments; this module connects them.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from . import demo, doctor
from ._version import __version__
from .evaluation.commands import calibrate, evaluate

_READER_GONE = 141  # the exit code of a process that SIGPIPE ended


def build_parser() -> argparse.ArgumentParser:
    """The parser, with one subcommand per command; each sets `run`, a function of the parsed arguments."""
    parser = argparse.ArgumentParser(
        prog="tcm-kernels", description="Threshold-Consistent Margin loss over all pairs of a batch"
    )
    parser.add_argument("--version", action="version", version=f"tcm_kernels {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    doctor_parser = commands.add_parser("doctor", help="what runs on this machine, and what is missing")
    doctor_parser.set_defaults(run=_doctor)

    demo_parser = commands.add_parser("demo", help="train a small network with and without the loss")
    demo.add_arguments(demo_parser)
    demo_parser.set_defaults(run=demo.main)

    evaluate_parser = commands.add_parser("evaluate", help="is one threshold good for every class? a report")
    evaluate.add_arguments(evaluate_parser)
    evaluate_parser.set_defaults(run=evaluate.main)

    calibrate_parser = commands.add_parser("calibrate", help="turn similarities into probabilities")
    calibrate.add_arguments(calibrate_parser)
    calibrate_parser.set_defaults(run=calibrate.main)
    return parser


def _doctor(_: argparse.Namespace) -> int:
    print(doctor.report())
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; `arguments` default to the process's. Returns the exit code."""
    parsed = build_parser().parse_args(arguments)
    try:
        code: int = parsed.run(parsed)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output, `head` for example, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the last flush then raises nothing
        return _READER_GONE
    return code
