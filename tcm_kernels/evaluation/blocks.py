"""Large tables in parts, so that what is computed from them never needs much memory beside them."""

from __future__ import annotations

from collections.abc import Iterator

ENTRIES = 1 << 20  # of a part: 8 MiB where they have 8 bytes


def blocks(rows: int, width: int) -> Iterator[slice]:
    """Slices that cover `rows` rows of `width` entries, each of at most ENTRIES entries or one row."""
    step = max(ENTRIES // max(width, 1), 1)
    for begin in range(0, rows, step):
        yield slice(begin, min(begin + step, rows))
