"""`python -m benchmarks.quality`: run what is missing of the study, then write tables and pictures."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.harness.result_files import FOLDER

from . import data, plan, study
from .records import Records

SIZES = {"full": plan.FULL, "short": plan.SHORT, "smoke": plan.SMOKE}


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 0, or 130 on Ctrl-C."""
    args = _parser().parse_args(arguments)
    folder = args.results or FOLDER / ("quality" if args.size == "full" else f"quality-{args.size}")
    records = Records(folder)
    if not args.report:
        try:
            data.check_same_glyphs(folder)
        except data.OtherGlyphsError as error:
            print(error, file=sys.stderr)
            return 1
        try:
            splits = args.splits or SIZES[args.size].splits
            wanted = [(s, b) for s, b in plan.chains() if s in splits and b in args.bases]
            study.run(wanted, SIZES[args.size], records, processes=args.processes, only_tune=args.tune)
        except KeyboardInterrupt:
            print("\nInterrupted; the same command goes on from here.", file=sys.stderr)
            return 130
    if args.tune:
        return 0
    from . import report  # noqa: PLC0415  # needs matplotlib

    report.write(records, SIZES[args.size], folder)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="full", help="how much (default: %(default)s)")
    parser.add_argument(
        "--results", type=Path, help="folder of the records (default: benchmarks/results/quality)"
    )
    parser.add_argument("--processes", type=int, default=2, help="runs at a time (default: %(default)s)")
    parser.add_argument(
        "--splits", nargs="+", choices=plan.SPLITS, metavar="SPLIT", help="(default: those of the size)"
    )
    bases = [*plan.BASES, plan.ALONE]
    parser.add_argument("--bases", nargs="+", choices=bases, default=bases, metavar="BASE")
    parser.add_argument("--tune", action="store_true", help="only choose settings")
    parser.add_argument("--report", action="store_true", help="run nothing")
    return parser


if __name__ == "__main__":
    sys.exit(main())
