"""Records -> Markdown, from the JSON alone, so that a table can be made again long after the run.

A table for each sweep, one of what is in no sweep, and one of our stages. Every ratio is to U of the same
row and round; times are medians, in brackets the quartiles.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from benchmarks.harness import attempts, measure, stages, sweeps
from benchmarks.harness.opponents import COMPILED, DENSE, METRIC_LEARNING, OURS
from benchmarks.harness.result_files import title

Record = dict[str, Any]
Column = str | Callable[[Record], str]
"""The way to a value of a record, as `at` goes it, or what makes a text of the record."""

NOTES = """\
U is one bare `torch.mm(x, x.T, out=...)` in the same dtype and shape. All columns of a row were measured
in turns, round by round; "× U" is the median over rounds of the ratio within a round, with its quartiles in
brackets. Forward is the loss alone, without gradient. Peak memory is that of one forward+backward beyond the
inputs, the gradient included. Errors are relative, against float64. Labels are shuffled.
† Some pair lies within rounding of a margin: rounding decides its side, and with it a bit of the gradient."""

REPLAY_NOTES = """\
The same calls, captured and replayed in turns with U's replay: the time of the device alone. Only where U
takes less than five milliseconds; elsewhere launches hide behind the work."""

STAGE_NOTES = f"""\
Shares of one forward and backward of ours; medians over some calls, beside the interleaved ones. The forward
here also collects what the backward needs. "{stages.CALLING}" is the forward outside the kernel's stages:
Python, and the allocation of tensors."""

PROFILE_NOTES = """\
Of the kernels of one forward and backward, each alone and with the clocks as they were. Stalls: warps that
wait, per issued instruction, the three most frequent reasons."""


def markdown(results: Record) -> str:
    """The tables of what `benchmarks.suites.grid` and benchmarks/gpu wrote: {"records": [...], ...}."""
    records = results["records"]
    blocks = [f"# Benchmarks: {results['slug']}"]
    if records:
        replayed = [record for record in records if measure.UNIT_REPLAYED in record["units"]]
        blocks += [_environment(records), *_sweeps(records), NOTES]
        blocks += _section("As CUDA-graph replays", REPLAY_COLUMNS, replayed, REPLAY_NOTES)
        blocks += _stages(records)
    else:
        blocks += ["No case was measured."]
    profiles, outcomes = results.get("profile", {}), results.get("steps", {})
    kernels = [{"backend": f"`{name}`", **kernel} for name in profiles for kernel in profiles[name]]
    blocks += _section("Kernels, by Nsight Compute", PROFILE_COLUMNS, kernels, PROFILE_NOTES)
    ends = [{"step": name, **outcome} for name, outcome in outcomes.items()]
    blocks += _section("Steps of `make gpu`", OUTCOME_COLUMNS, ends)
    if reasons := _reasons(results):
        blocks += ["## Not measured", "\n".join(f"- {reason}" for reason in reasons)]
    return "\n\n".join(blocks) + "\n"


def _section(heading: str, columns: Mapping[str, Column], records: list[Record], *notes: str) -> list[str]:
    """The blocks of a section with a table; without records there is none."""
    return [f"## {heading}", of_records(columns, records), *notes] if records else []


def of_records(columns: Mapping[str, Column], records: Iterable[Record]) -> str:
    """The table with these columns by heading, a row a record."""

    def text(column: Column, record: Record) -> str:
        return column(record) if callable(column) else words(at(record, column))

    return grid(columns, ([text(column, record) for column in columns.values()] for record in records))


def grid(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    headings = list(headings)
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _environment(records: list[Record]) -> str:
    """A line a fact; where records of several runs differ, every value with how many it holds for."""
    facts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for there in (record["environment"] for record in records):
        units = ", ".join(there["cpu_int8_units"]) or "none"
        facts["device"][there["device_name"]] += 1
        facts["driver"][there["driver"] or "none"] += 1
        facts["CPU"][f"{there['cpu_model']}, {there['cpu_capability']}, int8 units: {units}"] += 1
        facts["threads"][there["threads"]] += 1
        facts["torch"][there["torch"]] += 1
        facts["triton"][there["triton"] or "none"] += 1
        facts["python"][there["python"]] += 1
        facts["commit"][commit(there)] += 1
    lines = []
    for name, counts in facts.items():
        several = "; ".join(f"{value} ({count} cases)" for value, count in counts.items())
        lines.append(f"- {name}: {several if len(counts) > 1 else next(iter(counts))}")
    return "\n".join(lines)


def commit(environment: dict[str, Any]) -> str:
    """The commit that was measured, in words."""
    if (of := environment["commit"]) is None:
        return "not a git checkout"
    return of["hash"][:12] + (" with local changes" if of["dirty"] else "")


def _sweeps(records: list[Record]) -> list[str]:
    """A section for each sweep that has records, in its order; a record may be in several, or in none."""
    blocks, others = [], records
    for name in sweeps.SWEEPS:
        titles = sweeps.titles(name)
        members = [record for each in titles for record in records if title(record) == each]
        others = [record for record in others if title(record) not in titles]
        blocks += _section(f"Sweep: {name}", COLUMNS, members)
    return blocks + _section("Other cases", COLUMNS, others)


def _stages(records: list[Record]) -> list[str]:
    """A row a case: the seconds of one forward and backward, and the share of each part."""
    parts = dict.fromkeys(part for record in records for part in at(record, "stages/seconds") or ())
    if not parts:
        return ["## Where the time goes", "Not measured."]
    columns = {"case": _case, "hard density": _density, "forward+backward": "stages"}
    columns |= {part: partial(_share, part) for part in parts}
    return _section("Where the time goes", columns, records, STAGE_NOTES)


def _share(part: str, record: Record) -> str:
    times = at(record, "stages/seconds") or {}
    return f"{times[part] / sum(times.values()):.0%}" if part in times else ""


def _reasons(results: Record) -> list[str]:
    """Why there is no figure, for the cells and cases that do not say so themselves."""
    of_cells = {
        f"{name} at {title(record)}: {cell['status']}, {cell['reason']}"
        for record in results["records"]
        for name, of in record["competitors"].items()
        for cell in (*of["steps"].values(), *of.get("replays", {}).values(), of["memory"])
        if "reason" in cell
    }
    of_cases = (f"{', '.join(what)}: {entry['reason']}" for what, entry in attempts.entries(results).items())
    return [*sorted(of_cells), *of_cases]


def at(value: Any, way: str) -> Any:
    """The value at the end of a way like "units/U/seconds", or None where a key is not there."""
    for key in way.split("/"):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def words(value: Any) -> str:
    """A value of a record; a cell like "12.3 ms, 0.21 × U [0.20, 0.23]", or why it has no figure."""
    match value:
        case None:
            text = "not measured"
        case {"needed_bytes": needed}:
            text = f"{value['status']} (needs ~{size(needed)})"
        case {"peak_bytes": peak}:
            text = size(peak)
        case {"seconds": of_stages, "calls": _}:
            text = seconds(sum(of_stages.values()))
        case {"seconds": time, "ratio_to_unit": None}:
            text = f"{seconds(time['median'])} (no U to compare with)"
        case {"seconds": time, "ratio_to_unit": {"q1": 1.0, "q3": 1.0}}:  # U itself: quartiles of its time
            text = f"{seconds(time['median'])} [{seconds(time['q1'])}, {seconds(time['q3'])}]"
        case {"seconds": time, "ratio_to_unit": of_unit}:
            median, q1, q3 = (ratio(of_unit[key], digits=3) for key in ("median", "q1", "q3"))
            text = f"{seconds(time['median'])}, {median} × U [{q1}, {q3}]"
        case {"status": status}:
            text = status
        case dict():
            text = ", ".join(f"{name} {share:.3g}" for name, share in value.items())
        case int() | float():
            text = f"{value:.4g}"
        case _:
            text = str(value)
    return text


def _case(record: Record) -> str:
    return f"{title(record)} (`{record['backend']}`)"


def _case_and_way(record: Record) -> str:
    said = [f"`{record['backend']}`", record.get("backend_simd"), record.get("backend_screening")]
    return f"{title(record)} ({', '.join(filter(None, said))})"


def _density(record: Record) -> str:
    return f"{record['hard_density']:.2g}"


def _errors(name: str, record: Record) -> str:
    errors = at(record, f"competitors/{name}/error")
    if errors is None:
        return words(None)
    mark = " (†)" if record.get("share_of_hard_pairs_at_a_margin") else ""
    return " / ".join(words(None) if e is None else f"{e:.1e}" for e in errors.values()) + mark


def ratio(value: float, digits: int) -> str:
    """So many digits, of large ratios all that stand before the point."""
    return f"{value:.{digits}g}" if value < 10**digits else f"{value:,.0f}"


def seconds(value: float) -> str:
    """A time with three digits and a fitting unit."""
    return _in_unit(value, {"s": 1.0, "ms": 1e-3, "µs": 1e-6})


def size(value: int) -> str:
    """Bytes with three digits and a fitting unit, powers of ten."""
    return _in_unit(value, {"GB": 1e9, "MB": 1e6, "kB": 1e3})


def _in_unit(value: float, units: dict[str, float]) -> str:
    """In the largest unit of which there is one, else in the smallest."""
    unit = next((name for name, one in units.items() if value >= one), list(units)[-1])
    return f"{value / units[unit]:.3g} {unit}"


COLUMNS: dict[str, Column] = {
    "case": _case_and_way,
    "hard density": _density,
    "U": f"units/{measure.UNIT}",
    "U, allocating": f"units/{measure.UNIT_ALLOCATING}",
    "ours, forward": f"competitors/{OURS}/steps/forward",
    "ours, forward+backward": f"competitors/{OURS}/steps/forward+backward",
    "dense PyTorch, forward+backward": f"competitors/{DENSE}/steps/forward+backward",
    "torch.compile, forward+backward": f"competitors/{COMPILED}/steps/forward+backward",
    "pytorch-metric-learning, forward+backward": f"competitors/{METRIC_LEARNING}/steps/forward+backward",
    "peak memory, ours": f"competitors/{OURS}/memory",
    "peak memory, dense": f"competitors/{DENSE}/memory",
    "error of loss / gradient, ours": partial(_errors, OURS),
    "error of loss / gradient, dense": partial(_errors, DENSE),
}
"""Of a sweep's table, by heading."""
REPLAY_COLUMNS: dict[str, Column] = {
    "case": _case,
    "hard density": _density,
    "U": f"units/{measure.UNIT_REPLAYED}",
    "ours, forward": f"competitors/{OURS}/replays/forward",
    "ours, forward+backward": f"competitors/{OURS}/replays/forward+backward",
    "dense PyTorch, forward": f"competitors/{DENSE}/replays/forward",
    "dense PyTorch, forward+backward": f"competitors/{DENSE}/replays/forward+backward",
    "torch.compile, forward": f"competitors/{COMPILED}/replays/forward",
    "torch.compile, forward+backward": f"competitors/{COMPILED}/replays/forward+backward",
}
COUNTERS = ("duration, µs", "tensor pipe, %", "issue slots, %", "DRAM, MB", "L2, MB", "stalls")
PROFILE_COLUMNS: dict[str, Column] = {name: name for name in ("backend", "kernel", *COUNTERS)}
OUTCOME_COLUMNS: dict[str, Column] = {"step": "step", "outcome": "outcome", "": "detail", "ended": "ended"}
