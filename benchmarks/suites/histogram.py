"""What it costs to count the similarities of all pairs, as evaluation does: `class_curves` over N.

    python -m benchmarks.suites.histogram      -> results/histogram-<device>.json and .png, and a table

The unit is a bare product of the same embeddings with themselves, the full matrix, a tile at a time into one
buffer: what anybody pays who looks at all similarities without keeping them. Both are timed in turns, and a
ratio is formed within each round. `class_curves` is timed as a whole, numbering the labels and allocating the
tables included. Its peak memory, tables included, is that of a process of its own, beyond the embeddings.

What cannot be counted is said, and the next size tried; the exit status is then 1.

Embeddings are clusters, 60,000 of them in 11,000 classes (as in a large product data set), fewer in the
same proportion.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import io
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import ROOT
from benchmarks.harness import environment, interleave, memory, result_files, table
from tcm_kernels.evaluation import class_curves

SCHEMA = 1
D = 512
BINS = 2000
SIZES = {"cpu": (4096, 8192, 16384, 32768, 60000), "cuda": (16384, 65536, 200000)}
DTYPES = {"cpu": torch.float32, "cuda": torch.bfloat16}
PER_CLASS = 60000 / 11000
TILE = {"cpu": 4096, "cuda": 16384}


def embeddings(n: int, device: str) -> tuple[Tensor, Tensor]:
    """(N, D) clusters and their labels, in random order."""
    generator = torch.Generator(device).manual_seed(0)
    classes = max(2, round(n / PER_CLASS))
    labels = torch.randint(classes, (n,), generator=generator, device=device)
    emb = torch.randn(classes, D, generator=generator, device=device)[labels]
    emb += 0.8 * torch.randn(n, D, generator=generator, device=device)
    return emb.to(DTYPES[device]), labels


def tiled_product(emb: Tensor) -> Callable[[], None]:
    """All of emb @ emb.T, a tile at a time into one buffer."""
    n, tile = len(emb), min(TILE[emb.device.type], len(emb))
    buffer = emb.new_empty(tile, tile)

    def run() -> None:
        for i in range(0, n, tile):
            for j in range(0, n, tile):
                rows, columns = emb[i : i + tile], emb[j : j + tile]
                torch.mm(rows, columns.T, out=buffer[: len(rows), : len(columns)])

    return run


def measure(n: int, device: str, *, budget_s: float) -> dict[str, Any]:
    """The record of one N."""
    emb, labels = embeddings(n, device)

    def ours() -> object:
        return class_curves(emb, labels, bins=BINS)

    timings = interleave.interleave(
        {"product": tiled_product(emb), "ours": ours}, unit="product", budget_s=budget_s, device=device
    )
    peak_bytes, method = memory.allocated_peak(ours) if device == "cuda" else _peak_of_a_process(n)
    ratio = timings["ours"].ratio
    assert ratio is not None
    return {
        "case": {"title": title(n), "n": n, "d": D, "bins": BINS, "classes": len(labels.unique())},
        "dtype": str(DTYPES[device]),
        "seconds": {name: dataclasses.asdict(timing.seconds) for name, timing in timings.items()},
        "ratio": dataclasses.asdict(ratio),
        "peak_bytes": peak_bytes,
        "peak_method": method,
        "matrix_bytes": n * n * emb.element_size(),
        "environment": environment.describe(device),
    }


def _peak_of_a_process(n: int) -> tuple[int, str]:
    """Bytes beyond the embeddings, on a CPU in a fresh process."""
    child = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks.suites.histogram",
            "--peak-of",
            str(n),
            "--threads",
            str(torch.get_num_threads()),
        ],
        cwd=ROOT,
        env=os.environ | memory.FREED_AT_ONCE,
        capture_output=True,
        text=True,
        check=True,
    )
    peak_bytes, method = json.loads(child.stdout.splitlines()[-1])
    return peak_bytes, method


def _print_peak(n: int) -> None:
    """The child process: libraries are loaded and pools made before it counts."""
    class_curves(*embeddings(64, "cpu"), bins=BINS)
    emb, labels = embeddings(n, "cpu")
    print(json.dumps(memory.resident_peak(lambda: class_curves(emb, labels, bins=BINS))))


def text(content: result_files.Results) -> str:
    """The results for people."""
    heading = ("N", "classes", "product", "class_curves", "ratio [quartiles]", "peak memory", "the matrix")
    rows = [
        (
            f"{record['case']['n']:,}",
            f"{record['case']['classes']:,}",
            table.seconds(record["seconds"]["product"]["median"]),
            table.seconds(record["seconds"]["ours"]["median"]),
            "{median:.2f} [{q1:.2f}, {q3:.2f}]".format(**record["ratio"]),
            table.size(record["peak_bytes"]),
            table.size(record["matrix_bytes"]),
        )
        for record in content["records"]
    ]
    return table.grid(heading, rows)


def picture(content: result_files.Results) -> bytes:
    """Time and memory over N, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  # an extra
    from matplotlib.figure import Figure  # noqa: PLC0415

    records = sorted(content["records"], key=lambda record: record["case"]["n"])
    n = [record["case"]["n"] for record in records]
    figure = Figure(figsize=(9.0, 4.2), dpi=200, layout="constrained")
    FigureCanvasAgg(figure)
    time, space = figure.subplots(1, 2)
    for name, label, colour, marker in (
        ("product", "bare product, the full matrix in tiles", "#555555", "s"),
        ("ours", "class_curves", "#0072B2", "o"),
    ):
        cells = [record["seconds"][name] for record in records]
        time.fill_between(
            n, [c["q1"] for c in cells], [c["q3"] for c in cells], color=colour, alpha=0.25, lw=0
        )
        time.plot(n, [c["median"] for c in cells], color=colour, marker=marker, label=label)
    time.set_ylabel("time of one call, s")
    space.plot(
        n, [r["matrix_bytes"] / 2**30 for r in records], color="#555555", marker="s", label="the matrix"
    )
    space.plot(
        n, [r["peak_bytes"] / 2**30 for r in records], color="#0072B2", marker="o", label="class_curves"
    )
    space.set_ylabel("memory beyond the embeddings, GiB")
    for axes in (time, space):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(n, [f"{x:,}" for x in n], rotation=30)
        axes.minorticks_off()
        axes.set_xlabel("N, embeddings")
        axes.grid(color="#e6e6e6", linewidth=0.7)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=9)
    at = records[0]["environment"]
    figure.suptitle("Counting the similarities of all pairs, by class", x=0.01, ha="left", fontsize=11.5)
    figure.supxlabel(
        f"D={D}, {BINS:,} bins, 5.5 samples a class, {records[0]['dtype'].removeprefix('torch.')}; "
        f"{at['device_name']}, {at['threads']} threads, torch {at['torch']}. Medians, bands are quartiles.",
        x=0.01,
        ha="left",
        fontsize=7.5,
        color="#555555",
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def title(n: int) -> str:
    """By which the record of one N is known."""
    return f"N={n}, D={D}"


def path(folder: Path, slug: str) -> Path:
    """Where the results of a device lie."""
    return folder / f"histogram-{slug}.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.suites.histogram", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--device", choices=tuple(SIZES), default="cuda" if torch.cuda.is_available() else "cpu"
    )
    parser.add_argument("--n", type=int, action="append", help="default: several, up to 60,000 or 200,000")
    parser.add_argument("--budget", type=float, default=60.0, metavar="S", help="seconds an N (default 60)")
    parser.add_argument("--threads", type=int, metavar="N", help="as torch.set_num_threads")
    parser.add_argument("--out", type=Path, default=result_files.FOLDER, metavar="FOLDER")
    parser.add_argument("--missing", action="store_true", help="only sizes that the file has no record of")
    parser.add_argument("--peak-of", type=int, metavar="N", help="only print the peak memory of one N")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.peak_of:
        _print_peak(options.peak_of)
        return 0
    there = path(options.out, environment.slug(options.device))
    content = result_files.load_if_there(there)
    known = {result_files.title(record) for record in (content or {"records": ()})["records"]}
    order = [title(n) for n in SIZES[options.device]]
    failures = 0
    for n in options.n or SIZES[options.device]:
        if options.missing and title(n) in known:
            continue
        print(f"N = {n:,}", file=sys.stderr, flush=True)
        try:
            record = measure(n, options.device, budget_s=options.budget)
        except Exception:  # the other sizes may well work
            traceback.print_exc()
            failures += 1
            continue
        content = result_files.merged(content, result_files.stamped(there.stem, SCHEMA, [record]), order)
        result_files.write_json(there, content)
    if content is not None:
        if importlib.util.find_spec("matplotlib") is not None:
            result_files.replace(there.with_suffix(".png"), picture(content))
        print(text(content))
        print(f"wrote {there} and its picture", file=sys.stderr)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
