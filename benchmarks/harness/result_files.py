"""The files under benchmarks/results: read, merged record by record, replaced as a whole.

A device has one file. A record in it is known by the title of its case and by the backend that was measured
(`key`). A run that measures a few cases again keeps the records of all others, and one that is interrupted
keeps what it has measured so far; each record has its own environment and settings, so that a file made by
several runs still says under which conditions each figure was taken. What a file holds beside its records
(see attempts.py and benchmarks/gpu) is kept as well.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tcm_kernels import dispatch
from tcm_kernels.files import write_atomically

FOLDER = Path(__file__).resolve().parents[1] / "results"

Results = dict[str, Any]
Key = tuple[str, ...]
"""By which something that can be measured is known: (title, backend) of a case, others by other words."""


def load(path: Path) -> Results:
    """What a file holds."""
    return json.loads(path.read_text(encoding="utf-8"))


def load_if_there(path: Path) -> Results | None:
    """The same, or None without a file."""
    return load(path) if path.exists() else None


def merged(old: Results | None, new: Results, order: Sequence[str] = ()) -> Results:
    """`new` with the records of `old` whose key it does not have, and with whatever else `old` holds.

    Records stand in the given order of titles, those of one title in `dispatch`'s order of preference.
    Records whose title is not in the order follow at the end, as they stood.
    """
    records = {key(record): record for results in (old, new) if results for record in results["records"]}
    places = {name: place for place, name in enumerate(order)}

    def place(record: dict[str, Any]) -> tuple[int, int]:
        there = places.get(title(record))
        return (len(places), 0) if there is None else (there, _preference(record))

    return (old or {}) | new | {"records": sorted(records.values(), key=place)}


def title(record: dict[str, Any]) -> str:
    """The title of a record's case."""
    return record["case"]["title"]


def key(record: dict[str, Any]) -> Key:
    """By which a record is known: its title and, where it is of one, its backend."""
    return (title(record), record["backend"]) if "backend" in record else (title(record),)


def preferred(records: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """One record a case by its title, in the same order: of several backends, that which "auto" prefers."""
    chosen: dict[str, dict[str, Any]] = {}
    for record in records:
        best = chosen.setdefault(title(record), record)
        if _preference(record) < _preference(best):
            chosen[title(record)] = record
    return chosen


def _preference(record: dict[str, Any]) -> int:
    backend = record.get("backend")
    return dispatch.BACKENDS.index(backend) if backend in dispatch.BACKENDS else len(dispatch.BACKENDS)


def stamped(slug: str, schema: int, records: list[dict[str, Any]]) -> Results:
    """The content of a file called `slug`, written now."""
    written = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    return {"schema": schema, "slug": slug, "written": written, "records": records}


def write_json(path: Path, content: Results) -> None:
    """Replace the file at once; the folder is made if need be."""
    replace(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def replace(path: Path, content: bytes) -> None:
    """Write the file so that its name shows the old content or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
