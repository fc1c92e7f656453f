"""The demo on few of its classes, also in processes that are started anew."""

from __future__ import annotations

from collections.abc import Callable

from tcm_kernels.demo.glyphs import Split, paired
from tcm_kernels.demo.glyphs.paired import Progress, Settings, Task, Trained

_split_of_all = paired.split


def split() -> Split:
    """Seventy classes to learn from and thirty to judge on."""
    whole = _split_of_all()
    return Split(whole.train[:70], whole.validation[:20], whole.test[:30])


def train(settings: Settings, task: Task, tell: Callable[[Progress], None]) -> Trained:
    """`paired.train` on these classes."""
    paired.split = split
    return paired.train(settings, task, tell)
