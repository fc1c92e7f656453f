"""Files written atomically: to a temporary file in the same folder, which is then renamed."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


def check_writable(folder: Path) -> None:
    """Raise OSError if no file can be created in `folder`: before the work, rather than after it."""
    with tempfile.TemporaryFile(dir=folder):
        pass


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A binary file to write, which replaces `path` at the end and is removed on an error."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with unfinished.open("wb") as file:
            yield file
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that readers of `path` see the old content or the new one, never a part of it."""
    with replacing(path) as file:
        file.write(content)
