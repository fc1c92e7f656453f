"""Cells of a record: a measured time, or a status and the reason why there is none.

"does not fit" is decided from stated bytes before anything runs, never by crashing.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from benchmarks.harness import interleave, memory

Cell = dict[str, Any]


def timed(timing: interleave.Timing) -> Cell:
    """A figure."""
    return {
        "status": "measured",
        "seconds": dataclasses.asdict(timing.seconds),
        "ratio_to_unit": dataclasses.asdict(timing.ratio) if timing.ratio else None,
    }


def first_line(error: Exception) -> str:
    """What was raised, in a line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"


def not_measured(reason: str) -> Cell:
    """None, for a reason."""
    return {"status": "not measured", "reason": reason}


def wrong(reason: str) -> Cell:
    """None, because the result was wrong: in which way."""
    return {"status": "wrong result", "reason": reason}


def does_not_fit(needed: int, held: int, device: str, share: float = memory.SAFE_SHARE) -> Cell | None:
    """None where `needed` bytes fit beside `held` bytes, else the cell that says so."""
    if memory.fits(needed + held, device, share):
        return None
    return {
        "status": "does not fit",
        "needed_bytes": needed,
        "available_bytes": memory.available_bytes(device),
        "usable_share": share,
    }
