"""All chains, two at a time, each in a process of its own that runs on one thread."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait

from tqdm import tqdm

from . import chain
from .plan import Size
from .records import Records

_EVERY = 2.0  # seconds between two looks at what has been recorded


def run(
    wanted: Sequence[tuple[str, str]], size: Size, records: Records, *, processes: int, only_tune: bool
) -> None:
    """Make every run of the chains that is not recorded yet; the first failure ends all."""
    # Spawned, for a forked process inherits locks that torch's threads may hold.
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        tasks = [
            pool.submit(chain.walk, split, base, size, records, say, only_tune) for split, base in wanted
        ]
        try:
            _watch(tasks, wanted)
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _watch(tasks: list, wanted: Sequence[tuple[str, str]]) -> None:
    """A bar over the chains where somebody is watching, until all are done or one has failed."""
    watched = sys.stderr.isatty()
    with tqdm(total=len(wanted), unit="chain", disable=not watched, dynamic_ncols=True) as bar:
        while True:
            done, left = wait(tasks, timeout=_EVERY, return_when=FIRST_EXCEPTION)
            bar.update(len(done) - bar.n)
            if not left or any(task.exception() for task in done):
                return


def say(line: str) -> None:
    """A line for whoever follows the study, with the time of day."""
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)
