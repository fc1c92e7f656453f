"""Records -> Markdown, from the JSON alone, so that a table can be made again long after the run.

A table for each sweep, one of what is in no sweep, and one of our stages. Every ratio is to U of the same
row and round; times are medians, in brackets the quartiles.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from benchmarks.harness import attempts, measure, opponents, stages, sweeps, workload

Record = dict[str, Any]
Cell = dict[str, Any]
Column = Callable[[Record], str]

NOTES = """\
U is one bare `torch.mm(x, x.T, out=...)` in the same dtype and shape. All columns of a row were measured
in turns, round by round; "× U" is the median over rounds of the ratio within a round, with its quartiles in
brackets. Forward is the loss alone, without gradient. Peak memory is that of one forward+backward beyond the
inputs, the gradient included. Errors are relative, against float64. Labels are shuffled.
† Some pair lies within rounding of a margin: rounding decides its side, and with it a bit of the gradient."""

REPLAY_NOTES = """\
The same calls, captured and replayed in turns with U's replay: the time of the device alone. Only where U
takes less than five milliseconds; elsewhere launches hide behind the work."""

PROFILE_HEADINGS = ("duration, µs", "tensor pipe, %", "issue slots, %", "DRAM, MB", "L2, MB", "stalls")
PROFILE_NOTES = """\
Of the kernels of one forward and backward, each alone and with the clocks as they were. Stalls: warps that
wait, per issued instruction, the three most frequent reasons."""

STAGE_NOTES = f"""\
Shares of one forward and backward of ours; medians over some calls, beside the interleaved ones. The forward
here also collects what the backward needs. "{stages.CALLING}" is the forward outside the kernel's stages:
Python, and the allocation of tensors."""


def markdown(results: dict[str, Any]) -> str:
    """The table of what `benchmarks.suites.grid` wrote: {"records": [...], ...}."""
    records = results["records"]
    lines = [f"# Benchmarks: {results['slug']}", ""]
    if records:
        lines += _environment(records)
        for heading, members in _sections(records):
            rows = ([text(record) for text in COLUMNS.values()] for record in members)
            lines += ["", f"## {heading}", "", *grid(COLUMNS, rows)]
        lines += ["", NOTES, *_replays(records), "", "## Where the time goes", "", *_stages(records)]
    else:
        lines += ["No case was measured."]
    lines += gpu_sections(results)
    reasons = sorted({reason for record in records for reason in _reasons(record)})
    reasons += [f"{', '.join(what)}: {entry['reason']}" for what, entry in attempts.entries(results).items()]
    if reasons:
        lines += ["", "## Not measured", "", *(f"- {reason}" for reason in reasons)]
    return "\n".join([*lines, ""])


def gpu_sections(results: dict[str, Any]) -> list[str]:
    """What benchmarks/gpu leaves beside the records: kernels' counters, and how its steps went."""
    lines = []
    if profiles := results.get("profile"):
        rows = [
            [f"`{backend}`", kernel["kernel"], *(_counter(kernel.get(name)) for name in PROFILE_HEADINGS)]
            for backend, kernels in profiles.items()
            for kernel in kernels
        ]
        headings = ["backend", "kernel", *PROFILE_HEADINGS]
        lines += ["", "## Kernels, by Nsight Compute", "", *grid(headings, rows), "", PROFILE_NOTES]
    if outcomes := results.get("steps"):
        rows = [[name, step["outcome"], step["detail"], step["ended"]] for name, step in outcomes.items()]
        lines += ["", "## Steps of `make gpu`", "", *grid(("step", "outcome", "", "ended"), rows)]
    return lines


def _counter(value: dict[str, float] | float | None) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{part} {share:.3g}" for part, share in value.items())
    return "not measured" if value is None else f"{value:.4g}"


def _sections(records: list[Record]) -> Iterator[tuple[str, list[Record]]]:
    """A heading and its records for each sweep that has some; a record may be in several."""
    titles = {name: sweeps.titles(name) for name in sweeps.SWEEPS}
    for name, of_sweep in titles.items():
        members = [record for record in records if record["case"]["title"] in of_sweep]
        if members:  # in the order of the sweep; the records of a case, one a backend, as they stand
            yield f"Sweep: {name}", sorted(members, key=lambda each: of_sweep.index(each["case"]["title"]))
    in_a_sweep = set().union(*titles.values())
    others = [record for record in records if record["case"]["title"] not in in_a_sweep]
    if others:
        yield "Other cases", others


def grid(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """Lines of a Markdown table."""
    headings = list(headings)
    lines = ["| " + " | ".join(headings) + " |", "|" + " --- |" * len(headings)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def _stages(records: list[Record]) -> list[str]:
    """A row a case: the seconds of one forward and backward, and the share of each part."""
    measured = [record for record in records if _get(record, "stages", "status") == "measured"]
    if not measured:
        return ["Not measured."]
    parts = list(dict.fromkeys(part for record in measured for part in record["stages"]["seconds"]))
    rows = []
    for record in records:
        rows.append([_case_and_backend(record), f"{record['hard_density']:.2g}"])
        if record in measured:
            times = record["stages"]["seconds"]
            whole = sum(times.values())
            shares = (f"{times[part] / whole:.0%}" if part in times else "" for part in parts)
            rows[-1] += [seconds(whole), *shares]
        else:
            rows[-1] += [_get(record, "stages", "status") or "not measured", *("" for _ in parts)]
    return [*grid(["case", "hard density", "forward+backward", *parts], rows), "", STAGE_NOTES]


def _replays(records: list[Record]) -> list[str]:
    """A row for each case that was also measured as CUDA-graph replays; no section without one."""
    columns: dict[str, Column] = {
        "case": _case_and_backend,
        "hard density": lambda record: f"{record['hard_density']:.2g}",
        "U": _time("units", measure.UNIT_REPLAYED),
    }
    for name in (opponents.OURS, opponents.DENSE, opponents.COMPILED):
        for step in workload.STEPS:
            called = "ours" if name == opponents.OURS else name
            columns[f"{called}, {step}"] = _time("competitors", name, "replays", step)
    replayed = [record for record in records if _get(record, "units", measure.UNIT_REPLAYED)]
    if not replayed:
        return []
    lines = grid(columns, ([text(record) for text in columns.values()] for record in replayed))
    return ["", "## As CUDA-graph replays", "", *lines, "", REPLAY_NOTES]


def _environment(records: list[Record]) -> list[str]:
    """A line a fact; where records of several runs differ, every value with how many it holds for."""
    lines = []
    for name in _facts(records[0]):
        counts = collections.Counter(_facts(record)[name] for record in records)
        several = "; ".join(f"{value} ({count} cases)" for value, count in counts.items())
        lines.append(f"- {name}: {several if len(counts) > 1 else next(iter(counts))}")
    return lines


def _facts(record: Record) -> dict[str, str]:
    there = record["environment"]
    units = ", ".join(there["cpu_int8_units"]) or "none"
    return {
        "device": there["device_name"],
        "driver": there["driver"] or "none",
        "CPU": f"{there['cpu_model']}, {there['cpu_capability']}, int8 units: {units}",
        "threads": str(there["threads"]),
        "torch": there["torch"],
        "triton": there["triton"] or "none",
        "python": there["python"],
        "commit": commit(there),
    }


def commit(environment: dict[str, Any]) -> str:
    """The commit that was measured, in words."""
    at = environment["commit"]
    if at is None:
        return "not a git checkout"
    return at["hash"][:12] + (" with local changes" if at["dirty"] else "")


def _case_and_backend(record: Record) -> str:
    return f"{record['case']['title']} (`{record['backend']}`)"


def _case_and_way(record: Record) -> str:
    said = [f"`{record['backend']}`", record.get("backend_simd"), record.get("backend_screening")]
    return f"{record['case']['title']} ({', '.join(filter(None, said))})"


def _get(value: Any, *keys: str) -> Any:
    """value[key][key]..., or None where a key is not there."""
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            return None
        value = value[key]
    return value


def _no_figure(cell: Cell | None) -> str | None:
    """What a cell without a figure says; None for a cell with one."""
    if cell is None:
        return "not measured"
    if cell["status"] == "does not fit":
        return f"does not fit (needs ~{cell['needed_bytes'] / 1e9:.3g} GB)"
    return None if cell["status"] == "measured" else cell["status"]


def _time(*keys: str) -> Column:
    """Like "12.3 ms, 0.21 × U [0.20, 0.23]"; U itself with quartiles of its time."""

    def text(record: Record) -> str:
        cell = _get(record, *keys)
        if no_figure := _no_figure(cell):
            return no_figure
        time, ratio = cell["seconds"], cell["ratio_to_unit"]
        if ratio is None:
            return f"{seconds(time['median'])} (no U to compare with)"
        if ratio["median"] == ratio["q1"] == ratio["q3"] == 1:  # U itself: its own quartiles say more
            return f"{seconds(time['median'])} [{seconds(time['q1'])}, {seconds(time['q3'])}]"
        median, q1, q3 = (
            f"{ratio[key]:.3g}" if ratio[key] < 1000 else f"{ratio[key]:,.0f}"
            for key in ("median", "q1", "q3")
        )
        return f"{seconds(time['median'])}, {median} × U [{q1}, {q3}]"

    return text


def _both(name: str) -> Column:
    return _time("competitors", name, "steps", "forward+backward")


def _memory(name: str) -> Column:
    def text(record: Record) -> str:
        cell = _get(record, "competitors", name, "memory")
        return _no_figure(cell) or size(cell["peak_bytes"])

    return text


def _errors(name: str) -> Column:
    def text(record: Record) -> str:
        errors = _get(record, "competitors", name, "error")
        if errors is None:
            return "not measured"
        mark = " (†)" if record.get("share_of_hard_pairs_at_a_margin") else ""
        return " / ".join("not measured" if e is None else f"{e:.1e}" for e in errors.values()) + mark

    return text


COLUMNS: dict[str, Column] = {
    "case": _case_and_way,
    "hard density": lambda record: f"{record['hard_density']:.2g}",
    "U": _time("units", measure.UNIT),
    "U, allocating": _time("units", measure.UNIT_ALLOCATING),
    "ours, forward": _time("competitors", opponents.OURS, "steps", "forward"),
    "ours, forward+backward": _both(opponents.OURS),
    "dense PyTorch, forward+backward": _both(opponents.DENSE),
    "torch.compile, forward+backward": _both(opponents.COMPILED),
    "pytorch-metric-learning, forward+backward": _both(opponents.METRIC_LEARNING),
    "peak memory, ours": _memory(opponents.OURS),
    "peak memory, dense": _memory(opponents.DENSE),
    "error of loss / gradient, ours": _errors(opponents.OURS),
    "error of loss / gradient, dense": _errors(opponents.DENSE),
}
"""Heading and text of each column of a sweep's table."""


def _reasons(record: Record) -> list[str]:
    """Why cells of this record have no figure, for those that did not say so themselves."""
    found = []
    for name, cell in record["competitors"].items():
        for part in (*cell["steps"].values(), *cell.get("replays", {}).values(), cell["memory"]):
            if "reason" in part:
                found.append(f"{name} at {record['case']['title']}: {part['status']}, {part['reason']}")
    return found


def seconds(value: float) -> str:
    """A time with three digits and a fitting unit."""
    for unit, size_s in (("s", 1.0), ("ms", 1e-3)):
        if value >= size_s:
            return f"{value / size_s:.3g} {unit}"
    return f"{value / 1e-6:.3g} µs"


def size(value: int) -> str:
    """Bytes with three digits and a fitting unit, powers of ten."""
    for unit, size_bytes in (("GB", 1e9), ("MB", 1e6)):
        if value >= size_bytes:
            return f"{value / size_bytes:.3g} {unit}"
    return f"{value / 1e3:.3g} kB"
