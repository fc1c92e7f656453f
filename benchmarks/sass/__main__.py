"""The table of predictions: see `benchmarks/sass/__init__.py`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import compiled, model, pipes

TITLE = "Predictions from compiled code, not measurements"
LEGEND = """\
Of one multiprocessor, if nothing waits; U at the chip's full rate. Rest of a tile: at least, where nothing is
found in it, and at most. Least certain is the rate of the L2 cache of sm_90a: benchmarks/sass/model.py.
"""


def record(found: model.Prediction) -> dict[str, Any]:
    """A prediction as JSON."""
    kernel, tile = found.kernel, found.tile
    parts = {f"products {n}": part for n, part in enumerate(tile.products, 1)}
    parts |= {"rest, least": tile.least, "rest, most": tile.most}
    bound, of_bound = found.bound()
    most_bound, of_most = found.bound(most=True)
    return {
        "what": "prediction",
        "backend": kernel.backend,
        "kernel": kernel.name,
        "chip": compiled.CHIPS[kernel.chip],
        "dim": kernel.dim,
        "dtype": kernel.dtype,
        "registers": kernel.registers,
        "stack_bytes": kernel.stack,
        "warps": kernel.warps,
        "loops": tile.form,
        "multiply_adds": kernel.tile.multiply_adds,
        "step": kernel.tile.step,
        "parts": {
            name: {
                "times": part.times,
                "instructions": dict(part.counts()),
                "matrix": [i.mnemonic for i in part.code if i.multiply_adds],
                "unknown": sorted({i.mnemonic for i in part.code if pipes.pipe_of(i) == pipes.UNKNOWN}),
            }
            for name, part in parts.items()
        },
        "predicted": {
            "clocks": found.clocks(),
            "bound": bound,
            "bound_clocks": of_bound,
            "share_of_u": found.share(of_bound),
            "apart_clocks": found.apart(),
            "apart_share_of_u": found.share(found.apart()),
            "most_bound": most_bound,
            "most_clocks": of_most,
            "most_share_of_u": found.share(of_most),
        },
    }


def table(found: dict[str, Any]) -> str:
    """A record as a few lines."""
    predicted, parts = found["predicted"], found["parts"]
    lines = [
        f"{found['kernel']}, {found['backend']}, {found['chip']}, {found['dtype']}, D = {found['dim']}: "
        f"{found['registers']} registers, {found['stack_bytes']} bytes of stack, {found['warps']} warps, "
        f"loops {found['loops']}",
        _row("instructions of a warp", [*(f"{name} x{part['times']}" for name, part in parts.items())], 20),
    ]
    for pipe in pipes.PIPES:
        numbers = [part["instructions"].get(pipe, 0) for part in parts.values()]
        if any(numbers):
            lines.append(_row(pipe, numbers, 20))
    lines.append(_row("all", [sum(part["instructions"].values()) for part in parts.values()], 20))
    if unknown := sorted({name for part in parts.values() for name in part["unknown"]}):
        lines.append(f"    not known to pipes.py: {', '.join(unknown)}")
    by_clocks = sorted(predicted["clocks"].items(), key=lambda item: -item[1])
    spent = ", ".join(f"{name} {number:.0f}" for name, number in by_clocks if number >= 0.5)
    lines += [
        f"    predicted clocks a tile: {spent}",
        f"    predicted bound: {predicted['bound']}, {predicted['bound_clocks']:.0f} clocks a tile, "
        f"{predicted['share_of_u']:.2f} U; {predicted['apart_share_of_u']:.2f} U if the rest of a tile waits "
        f"for its products; {predicted['most_share_of_u']:.2f} U ({predicted['most_bound']}) at most a tile",
    ]
    return "\n".join(lines)


def _row(name: str, cells: Sequence[object], width: int) -> str:
    return f"    {name:<24}" + "".join(f"{cell!s:>{width}}" for cell in cells)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sass", description=TITLE)
    parser.add_argument("--backend", choices=("triton", "cuda"), action="append", help="default: both")
    parser.add_argument("--chip", type=int, choices=compiled.CHIPS, action="append", help="default: both")
    parser.add_argument("--dim", type=int, default=512, metavar="D")
    parser.add_argument("--dtype", choices=compiled.DTYPES, default="bfloat16")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to put the predictions, too")
    options = parser.parse_args(arguments)
    print(f"{TITLE}\n{LEGEND}")
    records: list[dict[str, Any]] = []
    failed = False
    for backend in options.backend or ("triton", "cuda"):
        for chip in options.chip or compiled.CHIPS:
            try:
                for kernel in compiled.kernels(backend, chip, options.dim, options.dtype):
                    failed |= not _predicted(kernel, records)
            except compiled.NotHereError as error:
                failed = True
                print(f"{backend}, {compiled.CHIPS[chip]}: {error}\n")
    if options.json is not None:
        text = json.dumps({"title": TITLE, "predictions": records}, indent=1)
        options.json.write_text(text, encoding="utf-8")
    return 1 if failed else 0


def _predicted(kernel: compiled.Kernel, records: list[dict[str, Any]]) -> bool:
    """Whether there is a prediction, which is printed and added to the records."""
    try:
        records.append(record(model.predict(kernel)))
    except ValueError as error:  # loops of another form than model.py knows
        print(f"{error}\n")
        return False
    print(f"{table(records[-1])}\n")
    return True


if __name__ == "__main__":
    sys.exit(main())
