"""`tcm-kernels evaluate` and `tcm-kernels calibrate`: the numbers, the report and the calibration of a file.

Everything that can be wrong is looked at before the long part, and what is written is written whole: to a
file beside its place, which is then renamed.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from .. import dispatch
from ..backends.contract import MOST_BINS
from ..files import check_writable, replacing, write_atomically
from .counting import class_curves
from .curves import ClassCurves
from .embeddings import Embedded, read_embeddings, read_similarities
from .summary import Evaluation, evaluate

FAILED = 1
BAD_USAGE = 2
INTERRUPTED = 130
METHODS = ("platt", "isotonic", "temperature")

_PACKAGES = {"tqdm": "tqdm", "matplotlib": "matplotlib", "sklearn": "scikit-learn"}


class UsageError(Exception):
    """What cannot be done as asked; the message says why and what to do."""


def add_evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `evaluate` to its parser."""
    _add_input(parser)
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
        choices=("pooled", "worst"),
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


def add_calibrate_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `calibrate` to its parser."""
    _add_input(parser)
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


def _add_input(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="embeddings and labels: .npz, .npy or .pt")
    parser.add_argument("--labels", type=Path, help="a file with the labels, where they are not in FILE")
    parser.add_argument("--ref", type=Path, help="a gallery that the embeddings are compared with")
    parser.add_argument("--ref-labels", type=Path, help="a file with the gallery's labels")
    parser.add_argument(
        "--self-offset", type=int, metavar="K", help="row i of FILE is row i + K of the gallery"
    )
    parser.add_argument(
        "--groups",
        action="store_true",
        help="rates of the file's `groups` (domains, ...) in place of classes",
    )
    parser.add_argument(
        "--bins", type=int, default=2000, help="of similarities in [-1, 1] (default: %(default)s)"
    )
    parser.add_argument("--drop-nonfinite", action="store_true", help="leave out rows with NaN or infinity")
    parser.add_argument(
        "--backend",
        default="auto",
        help=f"what counts: auto, {', '.join(dispatch.HISTOGRAM_BACKENDS)} (default: %(default)s)",
    )


def run_evaluate(args: argparse.Namespace) -> int:
    """Run `evaluate`. Returns the exit code: 0, 1 where nothing can be written, 2 for bad input, 130."""
    return _run(lambda: _evaluate(args))


def run_calibrate(args: argparse.Namespace) -> int:
    """Run `calibrate`; exit codes as for `evaluate`."""
    return _run(lambda: _calibrate(args))


def _run(job: Callable[[], None]) -> int:
    try:
        job()
    except (UsageError, ValueError, TypeError, RuntimeError, MemoryError) as error:
        print(f"tcm-kernels: {error or type(error).__name__}", file=sys.stderr)
        return BAD_USAGE
    except BrokenPipeError:  # whoever reads what we print has seen enough: for the command line to say
        raise
    except OSError as error:
        print(f"tcm-kernels: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("\ntcm-kernels: interrupted", file=sys.stderr)
        return INTERRUPTED
    return 0


def _evaluate(args: argparse.Namespace) -> None:
    _check_rates(args)
    _need("tqdm", *(("matplotlib", "sklearn") if args.report else ()))
    for path in (args.report, args.json, args.curves):
        _check_output(path)
    curves = _curves(args)
    found = evaluate(
        curves,
        far=(min(args.far), max(args.far)),
        epsilon=args.epsilon,
        threshold_far=args.threshold_far,
        over=args.over,
    )
    print(found.text(curves))
    written = []
    if args.json:
        content = json.dumps(found.as_dict(curves), indent=2, allow_nan=False, ensure_ascii=False)
        write_atomically(args.json, (content + "\n").encode())
        written.append(args.json)
    if args.curves:
        curves.save(args.curves)
        written.append(args.curves)
    if args.report:
        write_atomically(args.report, _report(args, curves, found).encode())
        written.append(args.report)
    if written:
        print(f"\nWrote {', '.join(map(str, written))}")


def _report(args: argparse.Namespace, curves: ClassCurves, found: Evaluation) -> str:
    from . import plots, report  # noqa: PLC0415  # as is what they need
    from .calibration import fit_calibration, reliability  # noqa: PLC0415

    margins = None if args.margins is None else tuple(args.margins)
    at = found.threshold.threshold
    calibration = fit_calibration(curves)
    pictures = {
        "Utility of each class over the threshold": plots.plot_utilities(curves, range=found.opis.range),
        "Similarities of same-class and other-class pairs": plots.plot_similarities(
            curves, margins=margins, threshold=at
        ),
        "False rejects over false accepts": plots.plot_det(curves, threshold=at),
        "The classes that fare worst": plots.plot_worst_classes(curves, at),
        "Similarity read as a probability, before and after Platt scaling": plots.plot_reliability(
            reliability(curves), reliability(curves, calibration)
        ),
    }
    return report.html(
        _title(args),
        curves,
        range=found.opis.range,
        threshold=at,
        margins=margins,
        numbers=[(line.title, line.value, line.meaning) for line in found.lines()],
        notes=found.notes(),
        pictures=[(caption, plots.as_png(figure)) for caption, figure in pictures.items()],
    )


def _title(args: argparse.Namespace) -> str:
    return args.file.name if args.ref is None else f"{args.file.name} against {args.ref.name}"


def _calibrate(args: argparse.Namespace) -> None:
    _need("tqdm", "sklearn")
    from .calibration import Calibration, fit_calibration, reliability  # noqa: PLC0415  # an extra

    _check_output(args.out)
    if args.apply:
        calibration = Calibration.load(args.apply)
        probabilities = calibration(read_similarities(args.file))
        with replacing(args.out) as file:
            np.save(file, probabilities, allow_pickle=False)
        print(f"Wrote {args.out}: {probabilities.size:,} probabilities")
        return
    if args.prior is not None and not 0.0 < args.prior < 1.0:
        raise UsageError(f"argument --prior: got {args.prior}, expected a share in (0, 1)")
    curves = _curves(args)
    calibration = fit_calibration(curves, args.method, prior=args.prior)
    for when, found in (
        ("before", reliability(curves, prior=args.prior)),
        ("after", reliability(curves, calibration, prior=args.prior)),
    ):
        print(f"{when:<8}ECE {found.ece:.4g}   Brier score {found.brier:.4g}")
    calibration.save(args.out)
    print(f"Wrote {args.out}")


def _curves(args: argparse.Namespace) -> ClassCurves:
    """Read the files and count, with a progress bar."""
    _check_backend(args)
    emb = read_embeddings(args.file, args.labels, drop_nonfinite=args.drop_nonfinite)
    ref = None
    if args.ref is not None:
        ref = read_embeddings(args.ref, args.ref_labels, drop_nonfinite=args.drop_nonfinite)
        if args.self_offset is not None and (emb.dropped or ref.dropped):
            raise UsageError(
                "argument --self-offset: rows were dropped, so rows of both files no longer correspond; "
                "drop them in the files"
            )
    elif args.self_offset is not None or args.ref_labels is not None:
        raise UsageError("arguments --self-offset and --ref-labels need --ref")
    for embedded in (emb, ref):
        if embedded is not None and embedded.dropped:
            print(f"{embedded.path}: {embedded.dropped:,} rows that are not finite left out")
        if embedded is not None and args.groups and embedded.groups is None:
            raise UsageError(f"argument --groups: {embedded.path} has no `groups`")
    print(_described(emb, ref))
    with _progress() as report:
        return class_curves(
            emb.emb,
            emb.labels,
            None if ref is None else ref.emb,
            None if ref is None else ref.labels,
            bins=args.bins,
            groups=emb.groups if args.groups else None,
            ref_groups=ref.groups if ref is not None and args.groups else None,
            self_offset=args.self_offset,
            backend=args.backend,
            progress=report,
        )


def _described(emb: Embedded, ref: Embedded | None) -> str:
    n, d = emb.emb.shape
    against = "" if ref is None else f" against {len(ref.emb):,} of {ref.path.name}"
    pairs = n * (n - 1) if ref is None else n * len(ref.emb)
    return f"{emb.path.name}: {n:,} embeddings of {d} dimensions{against}, {pairs:,} pairs\n"


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[float], object]]:
    """A bar with the time that is left, where somebody looks at it."""
    from tqdm import tqdm  # noqa: PLC0415  # an extra

    layout = "{desc}: {percentage:3.0f} % {bar} {elapsed} gone, {remaining} left"
    with tqdm(desc="counting", total=1.0, bar_format=layout, disable=None, leave=False) as bar:
        yield lambda done: bar.update(done - bar.n)


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


def _check_backend(args: argparse.Namespace) -> None:
    if not 1 <= args.bins <= MOST_BINS:
        raise UsageError(f"argument --bins: got {args.bins}, expected 1 to {MOST_BINS:,}")
    try:
        dispatch.check_name(args.backend, dispatch.HISTOGRAM_BACKENDS)
    except ValueError as error:
        raise UsageError(f"argument --{str(error).replace(':', ': ', 1)}") from None


def _check_output(path: Path | None) -> None:
    """That a file can be written there, before the work and not after it."""
    if path is None:
        return
    if path.is_dir():
        raise UsageError(f"cannot write to {path}: it is a folder")
    try:
        check_writable(path.parent)
    except OSError as error:
        raise UsageError(f"cannot write to {path}: {error.strerror or error}") from None


def _need(*modules: str) -> None:
    names = [_PACKAGES[module] for module in modules if importlib.util.find_spec(module) is None]
    if names:
        raise UsageError(f"this needs {', '.join(names)}: pip install 'tcm-kernels[evaluation]'")
