"""Times in rounds: turns, ratios within a round, and a budget that slow opponents do not break."""

from __future__ import annotations

import pytest

from benchmarks.harness import interleave


class FakeMachine:
    """A clock and functions that move it; `drift` makes everything slower from call to call."""

    def __init__(self, drift: float = 1.0) -> None:
        self.now, self.speed, self.drift, self.calls = 0.0, 1.0, drift, []

    def clock(self) -> float:
        return self.now

    def function(self, name: str, cost_s: float):
        def call() -> None:
            self.now += cost_s * self.speed
            self.speed *= self.drift
            self.calls.append(name)

        return call


class TestInterleave:
    def test_callables_take_turns_in_order_and_the_unit_plays_first(self) -> None:
        machine = FakeMachine()
        functions = {name: machine.function(name, 1.0) for name in ("a", "U", "b")}
        interleave.interleave(functions, unit="U", budget_s=9, most_rounds=3, clock=machine.clock)
        assert machine.calls == ["U", "a", "b"] * 3  # what takes a second needs no warming up

    def test_short_calls_are_warm_before_their_first_round(self) -> None:
        machine = FakeMachine()
        functions = {name: machine.function(name, 0.1) for name in ("a", "U")}
        timings = interleave.interleave(functions, unit="U", budget_s=9, most_rounds=3, clock=machine.clock)
        assert machine.calls == ["U"] * 2 + ["U"] + ["a"] * 2 + ["U", "a"] * 3
        assert timings["a"].seconds.count == 3

    def test_ratios_formed_within_rounds_ignore_a_machine_that_slows_down(self) -> None:
        machine = FakeMachine(drift=1.01)
        functions = {"U": machine.function("U", 1.0), "a": machine.function("a", 3.0)}
        timing = interleave.interleave(
            functions, unit="U", budget_s=1e9, most_rounds=40, clock=machine.clock
        )["a"]
        assert timing.seconds.q3 / timing.seconds.q1 > 1.3
        assert timing.ratio == interleave.Summary(*[pytest.approx(3 * 1.01)] * 3, count=40)

    def test_a_slow_callable_sits_out_once_its_share_of_the_time_is_spent(self) -> None:
        machine = FakeMachine()
        functions = {
            "U": machine.function("U", 0.01),
            "fast": machine.function("fast", 0.02),
            "slow": machine.function("slow", 1.0),
        }
        timings = interleave.interleave(
            functions, unit="U", budget_s=6, most_rounds=50, fewest_rounds=3, clock=machine.clock
        )
        assert 3 <= timings["slow"].seconds.count < 6
        assert timings["fast"].seconds.count == timings["U"].seconds.count == 50

    def test_everything_together_stays_within_the_budget(self) -> None:
        machine = FakeMachine()
        costs = {"U": 0.2, "ours": 0.05, "dense, forward": 1.1, "dense": 1.9, "compiled": 1.4, "tiny": 1e-4}
        functions = {name: machine.function(name, cost) for name, cost in costs.items()}
        timings = interleave.interleave(functions, unit="U", budget_s=24, clock=machine.clock)
        assert 0.8 * 24 < machine.now <= 24
        assert timings["ours"].seconds.count > 4 * timings["dense"].seconds.count
        assert timings["dense"].seconds.count >= 2

    def test_fast_callables_have_their_few_rounds_where_slow_ones_take_the_budget(self) -> None:
        machine = FakeMachine()
        costs = {"U": 0.3, "ours": 0.1, "slow": 30.0}
        functions = {name: machine.function(name, cost) for name, cost in costs.items()}
        timings = interleave.interleave(functions, unit="U", budget_s=20, clock=machine.clock)
        assert timings["slow"].seconds.count == timings["slow"].ratio.count == 1
        assert timings["slow"].ratio.median == pytest.approx(100)
        assert timings["ours"].seconds.count == interleave.FEWEST_ROUNDS

    def test_a_machine_that_becomes_much_slower_does_not_keep_us(self) -> None:
        machine = FakeMachine(drift=1.1)
        functions = {"U": machine.function("U", 0.1), "a": machine.function("a", 0.1)}
        timings = interleave.interleave(functions, unit="U", budget_s=10, clock=machine.clock)
        assert machine.now < 2 * 10
        assert timings["a"].seconds.count >= 5

    def test_a_call_longer_than_the_whole_budget_still_gets_one_round(self) -> None:
        machine = FakeMachine()
        timing = interleave.interleave(
            {"a": machine.function("a", 100.0)}, unit=None, budget_s=1, clock=machine.clock
        )["a"]
        assert timing.seconds.count == 1
        assert timing.ratio is None

    def test_the_unit_plays_a_round_where_the_slow_ones_have_played_theirs(self) -> None:
        machine = FakeMachine()
        functions = {"U": machine.function("U", 0.01), "slow": machine.function("slow", 0.6)}
        timings = interleave.interleave(functions, unit="U", budget_s=0.5, clock=machine.clock)
        assert timings["U"].seconds.count >= 1
        assert timings["slow"].ratio is not None

    def test_short_calls_are_repeated_within_a_turn_and_divided_again(self) -> None:
        machine = FakeMachine()
        timing = interleave.interleave(
            {"a": machine.function("a", 1e-5)}, unit=None, budget_s=1, most_rounds=2, clock=machine.clock
        )["a"]
        assert timing.seconds.median == pytest.approx(1e-5)
        assert len(machine.calls) > 2 * 100

    def test_quartiles_of_five_values(self) -> None:
        assert interleave.Summary.of([5.0, 1.0, 4.0, 2.0, 3.0]) == interleave.Summary(3.0, 2.0, 4.0, 5)
