"""Times of several callables, taken in rounds, and their ratios within each round.

Clocks, temperatures and neighbours change from second to second, so measuring A for a while and then B
compares two machines. Here every round runs each callable once, A B C A B C ..., and a ratio is formed
within its round; reported are the median and the quartiles of those ratios, which noise that lasts
longer than a round leaves alone.

Calls too short for the clock are repeated within their turn. How many rounds each callable plays is planned
before the first, from what its warm-up took, so that the whole stays within a budget: everyone gets the
same time, slow ones up to three times as much while they have few rounds, and then sit out; the unit
plays in every round. A call of half a second is warm by the time it ends and counts as a round. All
times are in seconds.
"""

from __future__ import annotations

import dataclasses
import gc
import time
from collections.abc import Callable, Mapping

import torch

SHORTEST_TURN_S = {"cpu": 2e-3, "cuda": 2e-2}  # on a GPU a turn also pays for waiting, once
SLOW_CALL_S = 0.5  # its first call is warm by the time it ends, and counts
FEWEST_ROUNDS = 5
MOST_ROUNDS = 100
LATE = 1.2  # times the budget: the machine has become slower than it was when planned for, so stop


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
        callables: by name, in the order in which they take turns. Those that take a second or more should
            have run before.
        unit: the name to which ratios are formed, or None for times only.
        budget_s: time to spend, the warm-up included. It is exceeded only where one round of everything,
            or `fewest_rounds` of what is fast, takes longer.
        device: "cpu" or "cuda"; on a GPU each turn waits for the device before it and after it.
        fewest_rounds: rounds of every callable that can play them within its share of the budget.
        most_rounds: stop here even if time is left.
        clock: seconds, monotonic.
    """
    wait = torch.cuda.synchronize if device == "cuda" else _nothing
    begin = clock()
    # The unit plays first, so that every ratio of a round can be formed.
    names = sorted(callables, key=lambda name: name != unit)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    ratios: dict[str, list[float]] = {name: [] for name in names}
    gc_was_on = gc.isenabled()
    gc.collect()
    gc.disable()  # a collection would hit whoever allocates next, not whoever caused it
    try:
        repeats, turns_s, unit_s = {}, {}, None
        for name in names:
            call_s = _warm_up(callables[name], wait, clock)
            repeats[name] = max(1, round(SHORTEST_TURN_S[device] / max(call_s, 1e-9)))
            turns_s[name] = max(call_s * repeats[name], 1e-9)
            if name == unit:  # slow ones are compared with it at once
                turn_s = (
                    call_s if call_s >= SLOW_CALL_S else _turn(callables[name], repeats[name], wait, clock)
                )
                unit_s = turn_s / repeats[name]
            if call_s >= SLOW_CALL_S:
                seconds[name].append(call_s)
                ratios[name] += [] if unit_s is None else [call_s / unit_s]
        spent_s = clock() - begin
        done = {name: len(seconds[name]) for name in names}
        share_s = budget_s / max(1, len(names))
        rounds = _plan(turns_s, done, unit, budget_s - spent_s, share_s, fewest_rounds, most_rounds)
        planned_s = spent_s + sum(rounds[name] * turns_s[name] for name in names)
        for played in range(max(rounds.values(), default=0)):
            if played and clock() - begin > LATE * max(budget_s, planned_s):
                break
            for name in names:
                if played >= rounds[name]:
                    continue
                call_s = _turn(callables[name], repeats[name], wait, clock) / repeats[name]
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


def _plan(
    turns_s: Mapping[str, float],
    done: Mapping[str, int],
    unit: str | None,
    left_s: float,
    share_s: float,
    fewest_rounds: int,
    most_rounds: int,
) -> dict[str, int]:
    """Rounds still to be played by each callable: as much time for each as `left_s` allows."""
    # What is fast has its few rounds whatever the slow ones take.
    surely = {
        name: fewest_rounds if fewest_rounds * turn_s <= share_s else 1 for name, turn_s in turns_s.items()
    }

    unit_s = turns_s[unit] if unit is not None else 0.0

    def rounds(each_s: float) -> dict[str, int]:
        planned = {}
        for name, turn_s in turns_s.items():
            few = min(fewest_rounds, int(3 * each_s / turn_s))
            # Its rounds are the unit's, too, as are those of others.
            many = int(each_s / (turn_s + unit_s / 4))
            wanted = min(most_rounds, max(many, few, surely[name]))
            planned[name] = max(0, wanted - done[name])
        others = [planned[name] for name in planned if name != unit]
        return planned | ({unit: max(others)} if unit is not None and others else {})

    low_s, high_s = 0.0, max(0.0, left_s)
    for _ in range(50):  # halvings
        middle_s = (low_s + high_s) / 2
        needed_s = sum(count * turns_s[name] for name, count in rounds(middle_s).items())
        low_s, high_s = (middle_s, high_s) if needed_s <= left_s else (low_s, middle_s)
    return rounds(low_s)


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
    """Seconds of a warm call, the shortest. Short functions warm up for longer, slow ones only once."""
    calls_s: list[float] = []
    while len(calls_s) < 2 or (sum(calls_s) < 0.05 and len(calls_s) < 20):
        calls_s.append(_turn(function, 1, wait, clock))
        if calls_s[-1] >= SLOW_CALL_S:
            return calls_s[-1]
    return min(calls_s)
