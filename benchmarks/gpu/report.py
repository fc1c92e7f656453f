"""What a call ends with: ratios to U, what is not measured, how the steps went; short enough to be read.

The outcomes come last, and whole: whatever is too long for the limit is left out above them, and said to be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.gpu.runner import Outcome
from benchmarks.harness import measure, opponents, result_files, workload

MOST_CHARACTERS = 12_000
TITLE = 58


def text(
    content: result_files.Results, not_measured: Sequence[str], outcomes: Mapping[str, Outcome], where: str
) -> str:
    """The whole of it: `not_measured` a line a key, `outcomes` by step, `where` the files are."""
    end = ["", *(f"{name:<15} {outcome}" for name, outcome in outcomes.items()), where]
    left = MOST_CHARACTERS - len("\n".join(end)) - 200
    middle = _cut([line[:160] for line in not_measured], left // 3)
    middle = ["", "Not measured:", *middle] if middle else []
    top = _cut(table(content), left - len("\n".join(middle)))
    return "\n".join([*top, *middle, *end])[-MOST_CHARACTERS:]


def table(content: result_files.Results) -> list[str]:
    """A line a case, and one of its replays: U, then ratios to it of our backends and of the opponents."""
    by_case: dict[str, list[dict[str, Any]]] = {}
    for record in content["records"]:
        by_case.setdefault(result_files.title(record), []).append(record)
    if not by_case:
        return []
    backends = list(dict.fromkeys(record["backend"] for record in content["records"]))
    others = (opponents.DENSE, opponents.COMPILED)
    lines = [
        "Ratios to U (forward, forward+backward); U in ms",
        f"{'':<{TITLE}} {'U':>8} " + " ".join(f"{name:>15}" for name in (*backends, *others)),
    ]
    for title, records in by_case.items():
        of = {record["backend"]: record for record in records}
        for part, unit, label in (
            ("steps", measure.UNIT, title.replace(" on cuda", "")[:TITLE]),
            ("replays", measure.UNIT_REPLAYED, "    as CUDA-graph replays"),
        ):
            if any(unit in record["units"] for record in records):
                cells = [_ours(of.get(backend), part) for backend in backends]
                cells += [_ratios(records[0]["competitors"].get(name, {}).get(part)) for name in others]
                lines.append(f"{label:<{TITLE}} {_unit(records[0]['units'].get(unit))} " + " ".join(cells))
    return lines


def _ours(record: dict[str, Any] | None, part: str) -> str:
    return _ratios(record["competitors"][opponents.OURS].get(part) if record else None)


def _unit(cell: dict[str, Any] | None) -> str:
    return f"{cell['seconds']['median'] * 1e3:8.3f}" if cell and "seconds" in cell else f"{'-':>8}"


def _ratios(of_steps: dict[str, Any] | None) -> str:
    """Both steps of one competitor, in 15 characters."""
    texts = []
    for step in workload.STEPS:
        cell = (of_steps or {}).get(step, {})
        ratio = cell.get("ratio_to_unit")
        word = {"does not fit": "no room", "wrong result": "WRONG"}.get(cell.get("status", ""), "-")
        texts.append(f"{ratio['median']:7.3f}" if ratio else f"{word:>7}")
    return " ".join(texts)


def _cut(lines: Sequence[str], most: int) -> list[str]:
    """As many lines as fit, and how many did not."""
    kept: list[str] = []
    for i, line in enumerate(lines):
        if sum(len(each) + 1 for each in kept) + len(line) > most:
            return [*kept, f"... and {len(lines) - i} more lines, in the file"]
        kept.append(line)
    return kept
