"""CUDA-graph replays, for calls so short that launching them is what takes the time.

A training step that is captured pays for no launch, one that is not pays for each: below a millisecond both
are measured.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

SHORT_S = 1e-3  # calls of U below this are measured as replays, too
WARM_UP_CALLS = 3


def captured(run: Callable[[], object]) -> Callable[[], None]:
    """A function that replays what `run` does on the device; raises what capturing raises."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(WARM_UP_CALLS):
            run()
    torch.cuda.current_stream().wait_stream(aside)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = run()

    def replay(_results: object = results) -> None:  # which live as long as what writes to them
        graph.replay()

    return replay
