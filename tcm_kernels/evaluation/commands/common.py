"""What the commands share: their input files, the counting with its progress, errors and exit codes.

Everything that can be wrong is looked at before the long part, and what is written is written whole: to a
file beside its place, which is then renamed.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from ... import dispatch
from ...backends.contract import MOST_BINS
from ...files import check_writable
from ..counting import class_curves
from ..curves import ClassCurves
from ..embeddings import Embedded, read_embeddings

FAILED = 1
BAD_USAGE = 2
INTERRUPTED = 130

_PACKAGES = {"tqdm": "tqdm", "matplotlib": "matplotlib", "sklearn": "scikit-learn"}


class UsageError(Exception):
    """What cannot be done as asked; the message says why and what to do."""


def add_input(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what is counted, and how."""
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
        "--device",
        choices=("cpu", "cuda"),
        default="cpu",
        help="where to count: embeddings are moved there as a whole (default: %(default)s)",
    )
    parser.add_argument(
        "--backend",
        default="auto",
        help=f"what counts: auto, {', '.join(dispatch.HISTOGRAM_BACKENDS)} (default: %(default)s)",
    )


def run(job: Callable[[], None]) -> int:
    """The exit code of a job: 0, or that of what went wrong, which has then been said on stderr."""
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


def counted(args: argparse.Namespace) -> ClassCurves:
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
    with _progress() as report, _out_of_memory(args.bins):
        return class_curves(
            emb.emb.to(args.device),
            emb.labels,
            None if ref is None else ref.emb.to(args.device),
            None if ref is None else ref.labels,
            bins=args.bins,
            groups=emb.groups if args.groups else None,
            ref_groups=ref.groups if ref is not None and args.groups else None,
            self_offset=args.self_offset,
            backend=args.backend,
            progress=report,
        )


@contextlib.contextmanager
def _out_of_memory(bins: int) -> Iterator[None]:
    """Say what to do where a table does not fit: torch says only how many bytes it wanted."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "allocate" not in str(error):
            raise
        raise UsageError(
            f"not enough memory for the counts, 16 bytes a class and bin: use fewer than {bins:,} --bins, "
            "or count by --groups"
        ) from None


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


def _check_backend(args: argparse.Namespace) -> None:
    if not 1 <= args.bins <= MOST_BINS:
        raise UsageError(f"argument --bins: got {args.bins}, expected 1 to {MOST_BINS:,}")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("argument --device: got 'cuda', but torch finds no CUDA device here")
    try:
        dispatch.check_name(args.backend, dispatch.HISTOGRAM_BACKENDS)
    except ValueError as error:
        raise UsageError(f"argument --{error}") from None


def check_output(path: Path | None) -> None:
    """That a file can be written there, before the work and not after it."""
    if path is None:
        return
    if path.is_dir():
        raise UsageError(f"cannot write to {path}: it is a folder")
    try:
        check_writable(path.parent)
    except OSError as error:
        raise UsageError(f"cannot write to {path}: {error.strerror or error}") from None


def need(*modules: str) -> None:
    """Raise UsageError, with the cure, unless these modules of an extra are installed."""
    names = [_PACKAGES[module] for module in modules if importlib.util.find_spec(module) is None]
    if names:
        raise UsageError(f"this needs {', '.join(names)}: pip install 'tcm-kernels[evaluation]'")
