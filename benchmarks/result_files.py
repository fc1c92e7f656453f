"""The files under benchmarks/results: read, merged record by record, replaced as a whole.

A record is known by the title of its case. A run that measures a few cases again keeps the records of all
others, and one that is interrupted keeps what it has measured so far; each record has its own environment
and settings, so that a file made by several runs still says under which conditions each figure was taken.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tcm_kernels.files import write_atomically

FOLDER = Path(__file__).resolve().parent / "results"

Results = dict[str, Any]


def load(path: Path) -> Results:
    """What a file holds."""
    return json.loads(path.read_text(encoding="utf-8"))


def merged(old: Results | None, new: Results, order: Sequence[str] = ()) -> Results:
    """`new` with the records of `old` whose case it does not have; records in the given order of titles.

    Records whose title is not in the order follow at the end, as they stood.
    """
    records = {title(record): record for results in (old, new) if results for record in results["records"]}
    places = {name: place for place, name in enumerate(order)}
    in_order = sorted(records.values(), key=lambda record: places.get(title(record), len(places)))
    return new | {"records": in_order}


def title(record: dict[str, Any]) -> str:
    """By which a record is known."""
    return record["case"]["title"]


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
