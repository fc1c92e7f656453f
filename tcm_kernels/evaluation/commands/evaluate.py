"""`tcm-kernels evaluate`: whether one threshold is good for every class of a file; numbers and a report."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from ... import plain_json
from ...files import write_atomically
from ..summary import evaluate
from ..thresholds import Over
from .common import UsageError, add_input, check_output, counted, need, run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `evaluate` to its parser."""
    add_input(parser)
    parser.add_argument(
        "--far",
        type=float,
        nargs=2,
        default=(0.01, 0.1),
        metavar=("LOW", "HIGH"),
        help="false-accept rates between which OPIS looks at thresholds (default: 0.01 0.1)",
    )
    parser.add_argument(
        "--threshold-far",
        type=float,
        metavar="RATE",
        help="false-accept rate that the threshold is chosen for (default: LOW of --far)",
    )
    parser.add_argument(
        "--over",
        choices=get_args(Over),
        default="pooled",
        help="whether all pairs keep that rate, or every class does (default: %(default)s)",
    )
    parser.add_argument(
        "--epsilon", type=float, default=10.0, help="percent of ε-OPIS (default: %(default)s)"
    )
    parser.add_argument(
        "--margins", type=float, nargs=2, metavar=("PLUS", "MINUS"), help="the loss's, shown in the report"
    )
    parser.add_argument("--report", type=Path, metavar="HTML", help="write a report to open in a browser")
    parser.add_argument("--json", type=Path, metavar="JSON", help="write every number")
    parser.add_argument("--curves", type=Path, metavar="NPZ", help="write the counts, for later")


def main(args: argparse.Namespace) -> int:
    """Run the command. Returns the exit code: 0, 1 where nothing can be written, 2 for bad input, 130."""
    return run(lambda: _evaluate(args))


def _evaluate(args: argparse.Namespace) -> None:
    _check_rates(args)
    need("tqdm", *(("matplotlib", "sklearn") if args.report else ()))
    for path in (args.report, args.json, args.curves):
        check_output(path)
    curves = counted(args)
    found = evaluate(
        curves,
        far=(min(args.far), max(args.far)),
        epsilon=args.epsilon,
        threshold_far=args.threshold_far,
        over=args.over,
    )
    written = []  # before anything is printed: whoever reads that may stop early
    if args.json:
        write_atomically(args.json, plain_json.as_bytes(found.as_dict(curves)))
        written.append(args.json)
    if args.curves:
        curves.save(args.curves)
        written.append(args.curves)
    if args.report:
        from ..page import page  # noqa: PLC0415  # as is what it needs

        margins = None if args.margins is None else tuple(args.margins)
        write_atomically(args.report, page(_title(args), curves, found, margins=margins).encode())
        written.append(args.report)
    print(found.text(curves))
    if written:
        print(f"\nWrote {', '.join(map(str, written))}")


def _title(args: argparse.Namespace) -> str:
    return args.file.name if args.ref is None else f"{args.file.name} against {args.ref.name}"


def _check_rates(args: argparse.Namespace) -> None:
    rates = {
        "--far": args.far,
        "--threshold-far": () if args.threshold_far is None else (args.threshold_far,),
    }
    for name, values in rates.items():
        for value in values:
            if not 0.0 < value < 1.0:
                raise UsageError(f"argument {name}: got {value}, expected a rate in (0, 1)")
    if not 0.0 < args.epsilon <= 50.0:
        raise UsageError(f"argument --epsilon: got {args.epsilon}, expected percent in (0, 50]")
    for value in args.margins or ():
        if not -1.0 <= value <= 1.0:
            raise UsageError(f"argument --margins: got {value}, expected similarities in [-1, 1]")
