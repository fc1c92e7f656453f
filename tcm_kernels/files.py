"""Files that are whole or not there: written beside their place and then renamed."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


def check_writable(folder: Path) -> None:
    """Raise OSError now rather than after the work if no file can be made in `folder`."""
    with tempfile.TemporaryFile(dir=folder):
        pass


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write to that takes the place of `path` at the end, and vanishes on an error."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with unfinished.open("wb") as file:
            yield file
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that its name shows the old content or the new one, never half of it."""
    with replacing(path) as file:
        file.write(content)
