"""`tcm-kernels calibrate`: fit a probability to the similarities of a file, or apply one that was fitted."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

import numpy as np

from ...files import replacing
from ..calibration_function import Method
from ..embeddings import read_similarities
from .common import UsageError, add_input, check_output, counted, need, run

METHODS = get_args(Method)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `calibrate` to its parser."""
    add_input(parser)
    parser.add_argument("--out", type=Path, required=True, help="the calibration (.json), or with --apply the"
                        " probabilities (.npy)")  # fmt: skip
    parser.add_argument("--method", choices=METHODS, default="platt", help="(default: %(default)s)")
    parser.add_argument(
        "--prior",
        type=float,
        metavar="SHARE",
        help="of same-class pairs where it will be used (default: as here)",
    )
    parser.add_argument(
        "--apply",
        type=Path,
        metavar="JSON",
        help="a calibration to apply: the file then holds similarities, and --out gets their probabilities",
    )


def main(args: argparse.Namespace) -> int:
    """Run the command; exit codes as for `evaluate`."""
    return run(lambda: _calibrate(args))


def _calibrate(args: argparse.Namespace) -> None:
    need("tqdm", "sklearn")
    from ..calibration import Calibration, fit_calibration, reliability  # noqa: PLC0415  # an extra

    check_output(args.out)
    if args.apply:
        calibration = Calibration.load(args.apply)
        probabilities = calibration(read_similarities(args.file))
        with replacing(args.out) as file:
            np.save(file, probabilities, allow_pickle=False)
        print(f"Wrote {args.out}: {probabilities.size:,} probabilities")
        return
    if args.prior is not None and not 0.0 < args.prior < 1.0:
        raise UsageError(f"argument --prior: got {args.prior}, expected a share in (0, 1)")
    curves = counted(args)
    calibration = fit_calibration(curves, args.method, prior=args.prior)
    for when, found in (
        ("before", reliability(curves, prior=args.prior)),
        ("after", reliability(curves, calibration, prior=args.prior)),
    ):
        print(f"{when:<8}ECE {found.ece:.4g}   Brier score {found.brier:.4g}")
    calibration.save(args.out)
    print(f"Wrote {args.out}")
