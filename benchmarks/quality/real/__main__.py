"""Train with and without the TCM loss on a real data set and compare: `python -m benchmarks.quality.real`."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import importlib.util
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import environment, result_files
from tcm_kernels.files import check_writable

_NEEDS = {
    "matplotlib": "matplotlib",  # brings pillow
    "pytorch_metric_learning": "pytorch-metric-learning",
    "sklearn": "scikit-learn",  # brings scipy
    "tqdm": "tqdm",
} | ({} if sys.version_info >= (3, 11) else {"tomli": "tomli"})
if missing := [package for module, package in _NEEDS.items() if importlib.util.find_spec(module) is None]:
    sys.exit(f"benchmarks.quality.real needs {', '.join(missing)}: pip install 'tcm-kernels[bench]'")

from . import backbones, config, data_sets, images, losses, measuring, records, table, train  # noqa: E402
from .errors import UsageError  # noqa: E402
from .ranks import Ranks, agreed, joined  # noqa: E402

SCHEMA = 1
_FAILED, _BAD_USAGE, _INTERRUPTED = 1, 2, 130
_AMP = {"bfloat16": torch.bfloat16, "float16": torch.float16}
_ABOUT = """
The config is a file, or the name of one of ours: cub, cars, sop, in_shop, inaturalist. Under torchrun every
rank draws batches of its own, and both losses are over a rank's own batch (pairs across ranks are not looked
at); gradients are averaged; rank 0 evaluates and writes. Each finished run is a line of the records' file;
what has a line is not run again. The exit status is 0; 1 where a training failed; 2 for what cannot be run as
asked; 130 on Ctrl-C.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    rank = ""
    try:
        with joined(options.device) as ranks:
            rank = f"rank {ranks.rank}: " if ranks.world_size > 1 else ""
            return _study(options, ranks)
    except images.ImageFileError as error:
        return _refuse(rank + images.last_line(error), _FAILED)
    except (train.TrainingError, OSError) as error:
        return _refuse(f"{rank}{error}", _FAILED)
    except UsageError as error:
        return _refuse(f"{rank}{error}", _BAD_USAGE)
    except KeyboardInterrupt:
        return _refuse("interrupted; what is finished stays, the same command goes on", _INTERRUPTED)


def _refuse(complaint: str, status: int) -> int:
    print(f"benchmarks.quality.real: {complaint}", file=sys.stderr, flush=True)
    return status


def _study(options: argparse.Namespace, ranks: Ranks) -> int:
    """All runs that are asked for and not there yet, then the table."""
    settings = config.read(config.path_of(options.config))
    settings = settings.with_ours(backbone=options.backbone, steps=options.steps)
    amp = _amp(options.amp, ranks.device.type)
    for name, value in (("seeds", min(options.seeds)), ("workers", options.workers)):
        if value < 0:
            raise UsageError(f"--{name}: got {value}, expected at least 0")
    if options.steps is not None and options.steps < 1:
        raise UsageError(f"--steps: got {options.steps}, expected at least 1")
    ours = settings.ours
    backbones.make(ours.backbone, ours.embedding_size, ours.image_size, pretrained=ours.pretrained)
    losses.make(ours.base_loss, ours.base_loss_arguments, 2, ours.embedding_size)
    path = options.out / f"quality-real-{settings.data_set}.jsonl"
    if ranks.is_first:
        path.parent.mkdir(parents=True, exist_ok=True)
        check_writable(path.parent)
    data = _load(settings.data_set, options, ranks)

    arms = train.ARMS if options.arm == "both" else (options.arm,)
    asked = [_settings(settings, data, arm, seed, amp, ranks) for seed in options.seeds for arm in arms]
    left = None
    if ranks.is_first:
        done = records.load(path)
        left = [run for run in asked if records.key(run) not in done]
    for run in agreed(ranks, left):
        _run(settings, data, run, options, ranks, amp, path)
    if ranks.is_first:
        known = records.load(path)
        shown = [known[records.key(run)] for run in asked]
        print(f"{data_sets.SOURCES[data.name].title}, {ours.backbone}, {ours.base_loss}")
        print(table.text(shown))
        print(f"{path} has {len(known)} records", file=sys.stderr)
    return 0


def _amp(asked: str | None, device: str) -> str | None:
    """What the network runs in."""
    if asked == "float16" and device == "cpu":
        raise UsageError("--amp: got float16 on the CPU, expected bfloat16")
    if asked == "auto":
        return "bfloat16" if device == "cpu" or torch.cuda.is_bf16_supported() else "float16"
    return asked


def _load(name: str, options: argparse.Namespace, ranks: Ranks) -> data_sets.OpenWorldData:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        data = data_sets.load(name, options.root, options.split_list)
    for warning in caught if ranks.is_first else ():
        print(f"benchmarks.quality.real: warning: {warning.message}", file=sys.stderr)
    return data


def _settings(
    settings: config.Config, data: data_sets.OpenWorldData, arm: str, seed: int, amp: str | None, ranks: Ranks
) -> dict[str, Any]:
    """All that a run's result follows from. The base arm does not depend on the paper's settings.

    The processor belongs to it: a pair whose arms ran on two of them is none.
    """
    return {
        "data_set": data.name,
        "data": data.counts(),
        "arm": arm,
        "seed": seed,
        "paper": dataclasses.asdict(settings.paper) if arm == "tcm" else None,
        "ours": dataclasses.asdict(settings.ours),
        "amp": amp,
        "ranks": ranks.world_size,
        "device_name": environment.describe(ranks.device.type)["device_name"],
    }


def _run(
    settings: config.Config,
    data: data_sets.OpenWorldData,
    run: dict[str, Any],
    options: argparse.Namespace,
    ranks: Ranks,
    amp: str | None,
    path: Path,
) -> None:
    """Train on all ranks; on the first, evaluate and write."""
    from tqdm import tqdm  # noqa: PLC0415  # an extra

    arm, seed, ours = run["arm"], run["seed"], settings.ours
    title = f"seed {seed}, {'base + TCM' if arm == 'tcm' else 'base'}"
    if ranks.is_first:
        print(title, file=sys.stderr, flush=True)
    watched = ranks.is_first and sys.stderr.isatty()
    with tqdm(total=ours.steps, desc=title, unit="step", disable=not watched, dynamic_ncols=True) as bar:
        trained = train.train(
            settings, data, arm, seed, ranks, amp=_AMP[amp] if amp else None, workers=options.workers, bar=bar
        )
    if not ranks.is_first:
        return
    emb, labels = train.embed(trained.network, data.test, ours, ranks.device, workers=options.workers)
    gallery = None
    if data.gallery is not None:
        gallery = train.embed(trained.network, data.gallery, ours, ranks.device, workers=options.workers)
    measures = measuring.measure(emb, labels, gallery)
    record = {
        "schema": SCHEMA,
        "key": records.key(run),
        "data_set": data.name,
        "arm": arm,
        "seed": seed,
        "settings": run,
        "measures": measures,
        "reasons": measures.reasons,
        "last_step": dataclasses.asdict(trained.terms),
        "training_seconds": round(trained.seconds, 1),
        "environment": environment.describe(ranks.device.type),
        "written": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
    records.append(path, record)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality.real", description=__doc__.splitlines()[0], epilog=_ABOUT
    )
    parser.add_argument("config", metavar="CONFIG", help="a TOML file, or the name of one of ours")
    parser.add_argument("--root", type=Path, required=True, metavar="DIR", help="where the data set lies")
    parser.add_argument(
        "--split-list", type=Path, metavar="DIR", help="iNaturalist only: where Smooth-AP's split lists lie"
    )
    parser.add_argument(
        "--backbone",
        metavar="NAME",
        help="small, timm:<model> or <module>:<factory>, in place of the config's",
    )
    parser.add_argument("--arm", choices=(*train.ARMS, "both"), default="both", help="default: %(default)s")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="N", help="default: 0")
    parser.add_argument(
        "--amp",
        nargs="?",
        const="auto",
        choices=("auto", *_AMP),
        help="run the network under autocast, in bfloat16 where there is a choice; losses stay in float32",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=4,
        metavar="N",
        help="processes that decode images (default: %(default)s)",
    )
    parser.add_argument("--steps", type=int, metavar="N", help="in place of the config's")
    parser.add_argument(
        "--out",
        type=Path,
        default=result_files.FOLDER,
        metavar="DIR",
        help="of the records (default: %(default)s)",
    )
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
