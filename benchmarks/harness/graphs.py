"""CUDA-graph replays, for calls so short that launching them is a good part of what is timed.

A training step that is captured pays for no launch, one that is not pays for each: where U takes less than
five milliseconds, both are measured. A graph keeps the memory of its call, intermediate results included,
until it is reset: no two opponents' graphs are there at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch

SHORT_S = 5e-3  # calls of U below this are measured as replays, too
WARM_UP_CALLS = 3


@contextlib.contextmanager
def captured(run: Callable[[], object]) -> Iterator[Callable[[], None]]:
    """A function that replays what `run` does on the device; raises what capturing raises.

    The graph and its memory are gone at the end of the block.
    """
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(WARM_UP_CALLS):
            run()
    torch.cuda.current_stream().wait_stream(aside)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    results = None
    try:
        with torch.cuda.graph(graph):
            results = run()
        yield graph.replay
    finally:
        torch.cuda.synchronize()
        del results  # it lived as long as what writes to it
        graph.reset()
        torch.cuda.empty_cache()
