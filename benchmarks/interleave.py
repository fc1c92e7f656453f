"""Times of several callables, taken in rounds, and their ratios within each round.

Clocks, temperatures and neighbours change from second to second, so measuring A for a while and then B
compares two machines. Here every round runs each callable once, A B C A B C ..., and a ratio is formed
within its round; reported are the median and the quartiles of those ratios, which noise that lasts
longer than a round leaves alone.

Calls too short for the clock are repeated within their turn. A callable that has used up its share of
the time sits out the following rounds, so that one slow opponent does not cost the fast ones their
rounds; the unit runs in every round. All times are in seconds.
"""

from __future__ import annotations

import dataclasses
import gc
import time
from collections.abc import Callable, Mapping

import torch

SHORTEST_TURN_S = {"cpu": 2e-3, "cuda": 2e-2}  # on a GPU a turn also pays for waiting, once
FEWEST_ROUNDS = 5
MOST_ROUNDS = 100


@dataclasses.dataclass(frozen=True)
class Summary:
    """Median and quartiles of `count` values."""

    median: float
    q1: float
    q3: float
    count: int

    @classmethod
    def of(cls, values: list[float]) -> Summary:
        """From at least one value; quartiles are interpolated."""
        quartiles = torch.tensor(values, dtype=torch.float64).quantile(
            torch.tensor([0.5, 0.25, 0.75], dtype=torch.float64)
        )
        return cls(*quartiles.tolist(), len(values))


@dataclasses.dataclass(frozen=True)
class Timing:
    """One callable's seconds per call, a value per round it took part in."""

    seconds: Summary
    ratio: Summary | None  # to the unit, formed within each round; None where there is no unit


def interleave(
    callables: Mapping[str, Callable[[], object]],
    *,
    unit: str | None,
    budget_s: float,
    device: str = "cpu",
    fewest_rounds: int = FEWEST_ROUNDS,
    most_rounds: int = MOST_ROUNDS,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Time the callables in turns for about `budget_s` seconds, and compare each with `unit`.

    Args:
        callables: by name, in the order in which they take turns.
        unit: the name to which ratios are formed, or None for times only.
        budget_s: time to spend after the warm-up. Each callable has an equal share of it. Very slow
            ones exceed it: each gets `fewest_rounds` unless that takes four times its share, and one
            round always.
        device: "cpu" or "cuda"; on a GPU each turn waits for the device before it and after it.
        fewest_rounds: rounds that also a slow callable takes part in.
        most_rounds: stop here even if time is left.
        clock: seconds, monotonic.
    """
    wait = torch.cuda.synchronize if device == "cuda" else _nothing
    share_s = budget_s / max(1, len(callables))
    # The unit plays first, so that every ratio of a round can be formed.
    names = sorted(callables, key=lambda name: name != unit)
    repeats, must_play = {}, {}
    for name in names:
        call_s = _warm_up(callables[name], wait, clock)
        repeats[name] = max(1, round(SHORTEST_TURN_S[device] / max(call_s, 1e-9)))
        turn_s = max(call_s * repeats[name], 1e-9)
        must_play[name] = max(1, min(fewest_rounds, int(4 * share_s / turn_s)))

    seconds: dict[str, list[float]] = {name: [] for name in names}
    ratios: dict[str, list[float]] = {name: [] for name in names}
    spent = dict.fromkeys(names, 0.0)
    gc_was_on = gc.isenabled()
    gc.collect()
    gc.disable()  # a collection would hit whoever allocates next, not whoever caused it
    try:
        for played in range(most_rounds):
            playing = {n for n in names if played < must_play[n] or spent[n] < share_s}
            if not (playing - {unit} if len(names) > 1 else playing):
                break
            unit_s = None
            for name in names:
                if name not in playing and name != unit:
                    continue
                turn_s = _turn(callables[name], repeats[name], wait, clock)
                spent[name] += turn_s
                call_s = turn_s / repeats[name]
                seconds[name].append(call_s)
                if name == unit:
                    unit_s = call_s
                if unit_s is not None:
                    ratios[name].append(call_s / unit_s)
    finally:
        if gc_was_on:
            gc.enable()
    return {
        name: Timing(Summary.of(seconds[name]), Summary.of(ratios[name]) if ratios[name] else None)
        for name in callables
    }


def _nothing() -> None:
    pass


def _turn(
    function: Callable[[], object], repeats: int, wait: Callable[[], None], clock: Callable[[], float]
) -> float:
    wait()
    begin = clock()
    for _ in range(repeats):
        function()
    wait()
    return clock() - begin


def _warm_up(function: Callable[[], object], wait: Callable[[], None], clock: Callable[[], float]) -> float:
    """Seconds of a warm call. Short functions warm up for longer, very slow ones only once."""
    call_s, total_s, calls = 0.0, 0.0, 0
    while calls < 2 or (total_s < 0.05 and calls < 20):
        call_s = _turn(function, 1, wait, clock)
        total_s += call_s
        calls += 1
        if call_s > 2.0:
            break
    return call_s
