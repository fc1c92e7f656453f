"""README's figures, made from a file under benchmarks/results/ and from nothing else.

    python -m benchmarks.readme          put the figures between the markers of README.md
    python -m benchmarks.readme --check  exit 1 if README.md shows others

A test runs the check, so that README cannot keep a figure that no file has.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks import ROOT, opponents, table

README = ROOT / "README.md"
RESULTS = ROOT / "benchmarks" / "results" / "cpu-intel-xeon-2-threads.json"
HEADLINE_CASE = {"n": 8192, "d": 512, "dtype": "float32", "device": "cpu"}
BOTH = "forward+backward"


def headline(results: dict[str, Any]) -> str:
    """One sentence on the headline case: times against U and dense PyTorch, memory."""
    record = next(r for r in results["records"] if HEADLINE_CASE.items() <= r["case"].items())
    ours, dense = (record["competitors"][name] for name in (opponents.OURS, opponents.DENSE))
    case = record["case"]
    return (
        f"On {record['environment']['threads']} cores of an Intel Xeon, {case['n']:,} float32 embeddings of "
        f"{case['d']} dimensions take {_ratio(ours, BOTH)} of the time of a bare `x @ x.T`, forward and "
        f"backward together; dense PyTorch takes {_ratio(dense, BOTH)} times as long as that product. Peak "
        f"memory: {table.size(ours['memory']['peak_bytes'])} against "
        f"{table.size(dense['memory']['peak_bytes'])}."
    )


def summary(results: dict[str, Any]) -> str:
    """The table for README: medians of the ratios to U, for every case that was measured."""
    heading = (
        "N × D",
        "hard pairs",
        "U",
        "forward",
        BOTH,
        f"dense PyTorch, {BOTH}",
        f"torch.compile, {BOTH}",
        "peak memory",
        "dense PyTorch's",
    )
    lines = ["| " + " | ".join(heading) + " |", "|" + " --- |" * len(heading)]
    for record in results["records"]:
        cells = record["competitors"]
        ours, dense, compiled = (
            cells[name] for name in (opponents.OURS, opponents.DENSE, opponents.COMPILED)
        )
        kind = record["case"]["kind"]
        row = (
            f"{record['case']['n']:,} × {record['case']['d']}" + ("" if kind == "clusters" else f", {kind}"),
            f"{record['hard_density']:.1e}",
            table.seconds(record["units"]["U"]["seconds"]["median"]),
            f"**{_ratio(ours, 'forward')} U**",
            f"**{_ratio(ours, BOTH)} U**",
            _ratio(dense, BOTH, " U"),
            _ratio(compiled, BOTH, " U"),
            _memory(ours["memory"]),
            _memory(dense["memory"]),
        )
        lines.append("| " + " | ".join(row) + " |")
    environment = results["records"][0]["environment"]
    lines += [
        "",
        f"{environment['cpu_model']}, {environment['cpu_capability']}, {environment['threads']} threads, "
        f"torch {environment['torch']}, float32, {results['records'][0]['case']['per_class']} samples a "
        "class, labels shuffled; clusters in random directions unless named: correlated as from an untrained "
        "network (all cosines about 0.3 to 0.9), or a spectrum falling as 1/k. "
        "U is one bare `torch.mm(x, x.T, out=...)`, measured in turns with "
        "everything else; figures are medians, memory is beyond the inputs and includes the gradient. "
        f"Quartiles, accuracy and the rest: [`{RESULTS.with_suffix('.md').name}`]"
        f"(benchmarks/results/{RESULTS.with_suffix('.md').name}).",
    ]
    return "\n".join(lines)


def _ratio(competitor: dict[str, Any], step: str, unit: str = "") -> str:
    cell = competitor["steps"][step]
    if cell["status"] != "measured":
        return cell["status"]
    return f"{cell['ratio_to_unit']['median']:.2g}{unit}"


def _memory(cell: dict[str, Any]) -> str:
    return table.size(cell["peak_bytes"]) if cell["status"] == "measured" else cell["status"]


def updated(text: str, results: dict[str, Any]) -> str:
    """README's text with both figures in place; its markers must be there."""
    for name, figures in (("headline", headline(results)), ("measured", summary(results))):
        pattern = re.compile(rf"(<!-- {name}:begin -->\n).*?(<!-- {name}:end -->)", re.DOTALL)
        text, count = pattern.subn(lambda found, new=figures: f"{found[1]}{new}\n{found[2]}", text)
        if count != 1:
            raise ValueError(f"README.md: expected one pair of markers for {name!r}, found {count}")
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readme", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing, exit 1 if figures differ")
    options = parser.parse_args(arguments)
    before = README.read_text(encoding="utf-8")
    after = updated(before, json.loads(RESULTS.read_text(encoding="utf-8")))
    if options.check:
        return int(before != after)
    README.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
