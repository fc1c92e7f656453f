"""Records -> Markdown, from the JSON alone, so that a table can be made again long after the run.

Every ratio is to U of the same row and round; times are medians, in brackets the quartiles.
"""

from __future__ import annotations

from typing import Any

from benchmarks import measure, opponents

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


def markdown(results: dict[str, Any]) -> str:
    """The table of what `benchmarks.run` wrote: {"records": [...], ...}."""
    records = results["records"]
    lines = [f"# Benchmarks: {results['slug']}", ""]
    if not records:
        return "\n".join([*lines, "No case was measured.", ""])
    lines += _environment(records[0])
    lines += ["", "| " + " | ".join(HEADINGS) + " |", "|" + " --- |" * len(HEADINGS)]
    lines += ["| " + " | ".join(_row(record)) + " |" for record in records]
    lines += ["", NOTES]
    reasons = sorted({reason for record in records for reason in _reasons(record)})
    if reasons:
        lines += ["", "Not measured:", "", *(f"- {reason}" for reason in reasons)]
    return "\n".join([*lines, ""])


def _environment(record: dict[str, Any]) -> list[str]:
    there = record["environment"]
    commit = there["commit"]
    at = "not a git checkout"
    if commit is not None:
        at = commit["hash"][:12] + (" with local changes" if commit["dirty"] else "")
    units = ", ".join(there["cpu_int8_units"]) or "none"
    facts = {
        "device": there["device_name"],
        "driver": there["driver"] or "none",
        "CPU": f"{there['cpu_model']}, {there['cpu_capability']}, int8 units: {units}",
        "threads": there["threads"],
        "torch": there["torch"],
        "triton": there["triton"] or "none",
        "python": there["python"],
        "commit": at,
    }
    return [f"- {name}: {value}" for name, value in facts.items()]


def _row(record: dict[str, Any]) -> list[str]:
    cells = record["competitors"]

    def both(name: str) -> str:
        return _time(_get(cells, name, "steps", "forward+backward"))

    at_a_margin = " (†)" if record.get("share_of_hard_pairs_at_a_margin") else ""
    simd = f", {record['backend_simd']}" if record.get("backend_simd") else ""
    return [
        f"{record['case']['title']} (`{record['backend']}`{simd})",
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
    return f"{text}, {ratio['median']:.3g} × U [{ratio['q1']:.3g}, {ratio['q3']:.3g}]"


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
        for part in (*cell["steps"].values(), cell["memory"]):
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
