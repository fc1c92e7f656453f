"""The file of records: one line of JSON a run, appended as a whole when the run is done.

A run is known by its key, a digest of everything that its result follows from. What is there is not run
again; a line that a kill or a full disk cut short is not there, and makes room for the next.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from .errors import UsageError

Record = dict[str, Any]


class RecordsError(UsageError):
    """The file of records holds something else; the message names the file and the line."""


def key(settings: dict[str, Any]) -> str:
    """A digest of the settings; equal settings have equal ones."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def load(path: Path) -> dict[str, Record]:
    """The records by key, the latest where there are several; none without a file.

    Raises:
        RecordsError: a whole line is not a record.
    """
    content = path.read_bytes() if path.exists() else b""
    records = {}
    for number, line in enumerate(content[: _whole(content)].splitlines(), start=1):
        try:
            record = json.loads(line)
            records[record["key"]] = record
        except (ValueError, TypeError, KeyError):
            raise RecordsError(f"{path}, line {number}: is not a record; move the file away") from None
    return records


def append(path: Path, record: Record) -> None:
    """Add a record, on a line of its own; the folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    with path.open("ab+") as file:
        file.seek(0)
        content = file.read()
        if (whole := _whole(content)) < len(content):
            file.truncate(whole)
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def _whole(content: bytes) -> int:
    """How many bytes are whole lines."""
    return content.rfind(b"\n") + 1
