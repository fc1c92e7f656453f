"""The files of the study: one row a run, stop and set of classes in runs.csv, bootstrap draws in draws.csv.

Rows are appended when a run is done, all of it in one write under a lock, so that two processes can do so and
a process that is killed leaves whole runs; a line that a full disk cut short is left out by `load`. Draws are
written first: a run that has rows has draws.
"""

from __future__ import annotations

import csv
import fcntl
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .measures import DRAWS, MEASURES, Measured, Values
from .plan import Trial

LOOKS = ("tcm_loss", "hard_positive_share", "hard_negative_share", "base_loss", "gradient_ratio")
COLUMNS = (
    "key",
    *Trial.__dataclass_fields__,
    "classes",
    "step",
    *MEASURES,
    *LOOKS,
    "training_seconds",
    "processor",
)
TEXT = {"key", "split", "base", "arm", "purpose", "classes", "processor"}
WHOLE = {"seed", "step"}

Row = dict[str, Any]


class Records:
    """The two files in a folder, which is made where it is not there."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.runs_path = folder / "runs.csv"
        self.draws_path = folder / "draws.csv"

    def append(self, rows: Sequence[Row], measured: Measured | None) -> None:
        """Add a run: its rows, and the draws of its last stop where somebody will ask for them."""
        key = rows[0]["key"]
        if measured is not None:
            header = ("key", "measure", *(f"draw_{i}" for i in range(DRAWS)))
            # Four digits are plenty for a deviation, and a third of the bytes.
            lines = [(key, name, *(f"{x:.4g}" for x in draws)) for name, draws in measured.draws.items()]
            _append(self.draws_path, header, lines)
        lines = [tuple(_text(row.get(column)) for column in COLUMNS) for row in rows]
        _append(self.runs_path, COLUMNS, lines)

    def runs(self) -> dict[str, list[Row]]:
        """The rows of every run, by its key, stop by stop; of a run that was made twice, the later ones."""
        found: dict[str, dict[tuple[str, str], Row]] = {}
        for row in _read(self.runs_path, COLUMNS):
            place = row["classes"], row["step"]
            found.setdefault(row["key"], {})[place] = {name: _value(name, row[name]) for name in COLUMNS}
        return {key: list(rows.values()) for key, rows in found.items()}

    def draws(self) -> dict[str, dict[str, Values]]:
        """(DRAWS,) of every measure of every judged run, by its key."""
        found: dict[str, dict[str, Values]] = {}
        for row in _read(self.draws_path, ("key", "measure")):
            values = [row[f"draw_{i}"] for i in range(DRAWS)]
            found.setdefault(row["key"], {})[row["measure"]] = np.array(values, dtype=np.float64)
        return found


def _append(path: Path, header: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if file.seek(0, os.SEEK_END) == 0:
            writer.writerow(header)
        elif not _ends_a_line(path):
            text.write("\n")  # somebody's half line is not to become the beginning of ours
        writer.writerows(lines)
        file.write(text.getvalue().encode())
        file.flush()
        os.fsync(file.fileno())


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


def _read(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The lines that are whole; ValueError where the file is another kind of file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        missing = [name for name in columns if name not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(f"{path}: no column {', '.join(missing)}: of another version? Move it away")
        return [row for row in reader if None not in row and None not in row.values()]


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _value(name: str, text: str) -> Any:
    if name in TEXT:
        return text
    if name in WHOLE:
        return int(text)
    return float(text) if text else None


def last(rows: Sequence[Mapping[str, Any]], classes: str) -> Mapping[str, Any]:
    """The last stop of a run on one set of classes."""
    return [row for row in rows if row["classes"] == classes][-1]
