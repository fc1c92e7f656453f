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

import contextlib
import dataclasses
import gc
import time
from collections.abc import Callable, Collection, Iterator, Mapping

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
    game = _Game(callables, unit, lambda function, repeats: _turn(function, repeats, wait, clock))
    with _without_garbage_collection():
        game.warm_up(SHORTEST_TURN_S[device])
        spent_s = clock() - begin
        share_s = budget_s / max(1, len(callables))
        rounds = _plan(
            game.turns_s, game.played(), unit, budget_s - spent_s, share_s, fewest_rounds, most_rounds
        )
        planned_s = spent_s + sum(rounds[name] * turn_s for name, turn_s in game.turns_s.items())
        for played in range(max(rounds.values(), default=0)):
            if played and clock() - begin > LATE * max(budget_s, planned_s):
                break
            game.play({name for name, wanted in rounds.items() if played < wanted})
    return game.timings()


class _Game:
    """The callables, and what they have taken so far."""

    def __init__(
        self,
        callables: Mapping[str, Callable[[], object]],
        unit: str | None,
        turn: Callable[[Callable[[], object], int], float],
    ):
        # The unit plays first, so that every ratio of a round can be formed.
        names = sorted(callables, key=lambda name: name != unit)
        self._callables = {name: callables[name] for name in names}
        self._order = tuple(callables)
        self._unit, self._turn = unit, turn
        self._unit_s: float | None = None
        self._repeats: dict[str, int] = {}
        self._seconds: dict[str, list[float]] = {name: [] for name in names}
        self._ratios: dict[str, list[float]] = {name: [] for name in names}
        self.turns_s: dict[str, float] = {}

    def warm_up(self, shortest_turn_s: float) -> None:
        """Call each until it is warm, and find how long its turns are; slow calls count as their first."""
        for name, function in self._callables.items():
            call_s = _warm_up(lambda function=function: self._turn(function, 1))
            is_slow = call_s >= SLOW_CALL_S
            self._repeats[name] = repeats = max(1, round(shortest_turn_s / max(call_s, 1e-9)))
            self.turns_s[name] = max(call_s * repeats, 1e-9)
            if name == self._unit:  # slow ones are compared with it at once
                self._unit_s = call_s if is_slow else self._turn(function, repeats) / repeats
            if is_slow:
                self._note(name, call_s)

    def played(self) -> dict[str, int]:
        """How many rounds each has played."""
        return {name: len(seconds) for name, seconds in self._seconds.items()}

    def play(self, names: Collection[str]) -> None:
        """A round of these."""
        for name, function in self._callables.items():
            if name not in names:
                continue
            call_s = self._turn(function, self._repeats[name]) / self._repeats[name]
            if name == self._unit:
                self._unit_s = call_s
            self._note(name, call_s)

    def _note(self, name: str, call_s: float) -> None:
        self._seconds[name].append(call_s)
        if self._unit_s is not None:
            self._ratios[name].append(call_s / self._unit_s)

    def timings(self) -> dict[str, Timing]:
        """What came out, in the order in which the callables were given."""
        return {
            name: Timing(
                Summary.of(self._seconds[name]),
                Summary.of(self._ratios[name]) if self._ratios[name] else None,
            )
            for name in self._order
        }


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """A collection would hit whoever allocates next, not whoever caused it."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


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
        if unit is None or not others:
            return planned
        return planned | {unit: max(1 - done[unit], *others)}  # whatever has played, the unit plays, too

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


def _warm_up(call: Callable[[], float]) -> float:
    """Seconds of a warm call, the shortest. Short functions warm up for longer, slow ones only once."""
    calls_s: list[float] = []
    while len(calls_s) < 2 or (sum(calls_s) < 0.05 and len(calls_s) < 20):
        calls_s.append(call())
        if calls_s[-1] >= SLOW_CALL_S:
            return calls_s[-1]
    return min(calls_s)
