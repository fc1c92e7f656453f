"""The log of a call: all output of all steps, of which head and tail are kept where it grows too large.

The file is on the disk as far as it has been written, at any moment: the machine may vanish. So the middle
goes by writing the file anew, which happens once in as many bytes as are then free.
"""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType

MOST_BYTES = 8 * 2**20


class CappedLog:
    """A text file of at most `most_bytes`."""

    def __init__(self, path: Path, most_bytes: int = MOST_BYTES, *, append: bool = False):
        """Begin the file anew, or go on with the one that is there."""
        self.path = path
        self.most_bytes = most_bytes
        self.left_out = 0
        self._marker = b""  # of what is left out
        self._lock = threading.Lock()
        self._file = path.open("ab" if append else "wb")

    def __enter__(self) -> CappedLog:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._file.close()

    def write(self, text: str) -> None:
        """Add a line, or several."""
        with self._lock:
            if self._file.closed:  # somebody has come too late
                return
            self._file.write(text.encode(errors="replace"))
            self._file.flush()
            if self._file.tell() > self.most_bytes:
                self._file.close()
                self._cut()
                self._file = self.path.open("ab")

    def _cut(self) -> None:
        """Keep half of what is allowed of the head, a quarter of the tail."""
        content = self.path.read_bytes().replace(self._marker, b"", 1)
        head, tail = content[: self.most_bytes // 2], content[-(self.most_bytes // 4) :]
        self.left_out += len(content) - len(head) - len(tail)
        self._marker = f"\n[... {self.left_out:,} bytes left out ...]\n".encode()
        self.path.write_bytes(head + self._marker + tail)
