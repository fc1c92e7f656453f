"""Records -> Markdown, from the JSON alone, so that a table can be made again long after the run.

A table for each sweep, one of what is in no sweep, and one of our stages. Every ratio is to U of the same
row and round; times are medians, in brackets the quartiles.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from benchmarks.harness import attempts, measure, opponents, stages, sweeps, workload

Cell = dict[str, Any]

HEADINGS = (
    "case",
    "hard density",
    "U",
    "U, allocating",
    "ours, forward",
    "ours, forward+backward",
    "dense PyTorch, forward+backward",
    "torch.compile, forward+backward",
    "pytorch-metric-learning, forward+backward",
    "peak memory, ours",
    "peak memory, dense",
    "error of loss / gradient, ours",
    "error of loss / gradient, dense",
)

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

DESCRIPTIONS = {
    "batches": "Batches of several sizes",
    "density": "Over the hard density",
    "N": "Over the batch size",
    "D": "Over the dimension",
    "samples a class": "Over the samples a class",
    "kinds": "Over kinds of embeddings",
    "training": "Over the epochs of the demo's training",
    "GPU, small batches": "On a GPU: small batches",
    "GPU, headline": "On a GPU: headline shapes",
    "GPU, large shapes": "On a GPU: large shapes",
    "GPU, density": "On a GPU: over the hard density",
}
"""Headings, by sweep."""


def markdown(results: dict[str, Any]) -> str:
    """The table of what `benchmarks.suites.grid` wrote: {"records": [...], ...}."""
    records = results["records"]
    lines = [f"# Benchmarks: {results['slug']}", ""]
    if records:
        lines += _measured(records)
    else:
        lines += ["No case was measured."]
    lines += gpu_sections(results)
    reasons = sorted({reason for record in records for reason in _reasons(record)})
    reasons += [f"{', '.join(what)}: {entry['reason']}" for what, entry in attempts.entries(results).items()]
    if reasons:
        lines += ["", "## Not measured", "", *(f"- {reason}" for reason in reasons)]
    return "\n".join([*lines, ""])


def _measured(records: list[dict[str, Any]]) -> list[str]:
    lines = _environment(records)
    for heading, members in _sections(records):
        lines += ["", f"## {heading}", "", *grid(HEADINGS, (_row(record) for record in members))]
    lines += ["", NOTES]
    lines += _replays(records)
    return [*lines, "", "## Where the time goes", "", *_stages(records)]


def gpu_sections(results: dict[str, Any]) -> list[str]:
    """What benchmarks/gpu leaves beside the records: kernels' counters, and how its steps went."""
    lines = []
    if profiles := results.get("profile"):
        rows = [
            [f"`{backend}`", kernel["kernel"], *(_counter(kernel, name) for name in PROFILE_HEADINGS)]
            for backend, kernels in profiles.items()
            for kernel in kernels
        ]
        headings = ["backend", "kernel", *PROFILE_HEADINGS]
        lines += ["", "## Kernels, by Nsight Compute", "", *grid(headings, rows), "", PROFILE_NOTES]
    if outcomes := results.get("steps"):
        rows = [[name, step["outcome"], step["detail"], step["ended"]] for name, step in outcomes.items()]
        lines += ["", "## Steps of `make gpu`", "", *grid(("step", "outcome", "", "ended"), rows)]
    return lines


def _counter(kernel: dict[str, Any], name: str) -> str:
    value = kernel.get(name)
    if isinstance(value, dict):
        return ", ".join(f"{part} {share:.3g}" for part, share in value.items())
    return "not measured" if value is None else f"{value:.4g}"


def _sections(records: list[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A heading and its records for each sweep that has some; a record may be in several."""
    by_title: dict[str, list[dict[str, Any]]] = {}  # in it a record for each backend
    for record in records:
        by_title.setdefault(record["case"]["title"], []).append(record)
    for name in sweeps.SWEEPS:
        members = [record for title in sweeps.titles(name) for record in by_title.get(title, ())]
        if members:
            yield DESCRIPTIONS[name], members
    in_a_sweep = {case.title for case in sweeps.cases()}
    others = [record for record in records if record["case"]["title"] not in in_a_sweep]
    if others:
        yield "Other cases", others


def grid(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """Lines of a Markdown table."""
    headings = list(headings)
    lines = ["| " + " | ".join(headings) + " |", "|" + " --- |" * len(headings)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def _stages(records: list[dict[str, Any]]) -> list[str]:
    """A row a case: the seconds of one forward and backward, and the share of each part."""
    measured = [record for record in records if _get(record, "stages", "status") == "measured"]
    if not measured:
        return ["Not measured."]
    parts = list(dict.fromkeys(part for record in measured for part in record["stages"]["seconds"]))
    rows = []
    for record in records:
        start = [f"{record['case']['title']} (`{record['backend']}`)", f"{record['hard_density']:.2g}"]
        if record not in measured:
            rows.append([*start, _get(record, "stages", "status") or "not measured", *("" for _ in parts)])
            continue
        times = record["stages"]["seconds"]
        whole = sum(times.values())
        shares = [f"{times[part] / whole:.0%}" if part in times else "" for part in parts]
        rows.append([*start, seconds(whole), *shares])
    return [*grid(["case", "hard density", "forward+backward", *parts], rows), "", STAGE_NOTES]


def _replays(records: list[dict[str, Any]]) -> list[str]:
    """A row for each case that was also measured as CUDA-graph replays; no section without one."""
    rows = []
    for record in records:
        unit = _get(record, "units", measure.UNIT_REPLAYED)
        if unit is None:
            continue
        case = f"{record['case']['title']} (`{record['backend']}`)"
        row = [case, f"{record['hard_density']:.2g}", _time(unit)]
        for name in (opponents.OURS, opponents.DENSE, opponents.COMPILED):
            row += [_time(_get(record, "competitors", name, "replays", step)) for step in workload.STEPS]
        rows.append(row)
    if not rows:
        return []
    names = ("ours", "dense PyTorch", "torch.compile")
    headings = [f"{name}, {step}" for name in names for step in workload.STEPS]
    lines = grid(["case", "hard density", "U", *headings], rows)
    return ["", "## As CUDA-graph replays", "", *lines, "", REPLAY_NOTES]


def _environment(records: list[dict[str, Any]]) -> list[str]:
    """A line a fact; where records of several runs differ, every value with how many it holds for."""
    lines = []
    for name in _facts(records[0]):
        values = [_facts(record)[name] for record in records]
        counts = {value: values.count(value) for value in dict.fromkeys(values)}
        if len(counts) == 1:
            lines.append(f"- {name}: {values[0]}")
        else:
            each = "; ".join(f"{value} ({count} cases)" for value, count in counts.items())
            lines.append(f"- {name}: {each}")
    return lines


def _facts(record: dict[str, Any]) -> dict[str, str]:
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


def _row(record: dict[str, Any]) -> list[str]:
    cells = record["competitors"]

    def both(name: str) -> str:
        return _time(_get(cells, name, "steps", "forward+backward"))

    at_a_margin = " (†)" if record.get("share_of_hard_pairs_at_a_margin") else ""
    said = [record[key] for key in ("backend_simd", "backend_screening") if record.get(key)]
    backend = ", ".join([f"`{record['backend']}`", *said])
    return [
        f"{record['case']['title']} ({backend})",
        f"{record['hard_density']:.2g}",
        _time(_get(record, "units", measure.UNIT)),
        _time(_get(record, "units", measure.UNIT_ALLOCATING)),
        _time(_get(cells, opponents.OURS, "steps", "forward")),
        both(opponents.OURS),
        both(opponents.DENSE),
        both(opponents.COMPILED),
        both(opponents.METRIC_LEARNING),
        _memory(_get(cells, opponents.OURS, "memory")),
        _memory(_get(cells, opponents.DENSE, "memory")),
        _errors(_get(cells, opponents.OURS, "error"), at_a_margin),
        _errors(_get(cells, opponents.DENSE, "error"), at_a_margin),
    ]


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


def _time(cell: Cell | None) -> str:
    """Like "12.3 ms, 0.21 × U [0.20, 0.23]"; U itself with quartiles of its time."""
    no_figure = _no_figure(cell)
    if no_figure is not None or cell is None:
        return no_figure or ""
    text = seconds(cell["seconds"]["median"])
    ratio = cell["ratio_to_unit"]
    if ratio is None:
        return text + " (no U to compare with)"
    if ratio["median"] == ratio["q1"] == ratio["q3"] == 1:  # U itself: its own quartiles say more
        return f"{text} [{seconds(cell['seconds']['q1'])}, {seconds(cell['seconds']['q3'])}]"
    median, q1, q3 = (
        f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
        for value in (ratio["median"], ratio["q1"], ratio["q3"])
    )
    return f"{text}, {median} × U [{q1}, {q3}]"


def _memory(cell: Cell | None) -> str:
    no_figure = _no_figure(cell)
    return no_figure if no_figure is not None or cell is None else size(cell["peak_bytes"])


def _errors(errors: dict[str, float | None] | None, mark: str) -> str:
    if errors is None:
        return "not measured"
    return " / ".join("not measured" if e is None else f"{e:.1e}" for e in errors.values()) + mark


def _reasons(record: dict[str, Any]) -> list[str]:
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
