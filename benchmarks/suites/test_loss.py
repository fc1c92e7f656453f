"""`pytest benchmarks/ --benchmark-only`: every case x competitor x {forward, forward+backward}.

pytest-benchmark times one function after the other, so its table (one group per case and step) is for
orientation. The ratios to trust come from our own interleaved measurement, made once per case; each
test puts its part of it, the peak memory and the errors into `extra_info`, beside pytest-benchmark's figures
in what `--benchmark-json` writes. `python -m benchmarks.suites.grid` writes the files of benchmarks/results.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from benchmarks.harness import opponents, sweeps, workload
from benchmarks.harness.measure import OURS_AND_DENSE, Bench
from benchmarks.harness.workload import STEPS, Case

BUDGET_S = 8.0  # of interleaved timing, per case
PEDANTIC_S = 0.5  # of pytest-benchmark's own timing, per test
MEMORY_OF = OURS_AND_DENSE  # `benchmarks.suites.grid` measures everyone's, which takes longer
MOST_PEDANTIC_ROUNDS = 20


_latest: dict[Case, Bench] = {}


def _measured(case: Case) -> Bench:
    """The case, measured once for all its tests, which follow each other; dropped before the next."""
    if case not in _latest:
        _latest.clear()
        gc.collect()
        bench = Bench(case)
        bench.measure(budget_s=BUDGET_S, memory_of=MEMORY_OF)
        _latest[case] = bench
    return _latest[case]


def _parameters() -> Iterator[object]:
    for case in sweeps.QUICK_LOOK:
        for step in STEPS:
            for competitor in opponents.COMPETITORS:
                yield pytest.param(
                    case,
                    competitor.name,
                    step,
                    id=f"{competitor.name}, {step}, {case.title}",
                    marks=_marks(case),
                )


def _marks(case: Case) -> list[pytest.MarkDecorator]:
    reason = workload.why_not_here(case)
    marks = [pytest.mark.gpu] if case.device == "cuda" else []
    return marks if reason is None else [*marks, pytest.mark.skip(reason=reason)]


@pytest.mark.parametrize(("case", "competitor", "step"), list(_parameters()))
def test_loss(case: Case, competitor: str, step: str, benchmark) -> None:
    bench = _measured(case)
    (record,) = bench.records.values()
    cells = record["competitors"][competitor]
    timing = cells["steps"][step]
    if competitor == opponents.OURS:
        assert not bench.wrong, f"wrong result, so no time: {bench.wrong}"
    if timing["status"] != "measured":
        pytest.skip(_why_not(timing))

    everything_else = {key: value for key, value in record.items() if key != "competitors"}
    benchmark.extra_info.update(
        everything_else,
        competitor=competitor,
        step=step,
        interleaved=timing,
        memory=cells["memory"],
        error=cells["error"],
    )
    benchmark.group, benchmark.name = f"{case.title}: {step}", competitor
    rounds = int(PEDANTIC_S / timing["seconds"]["median"])
    benchmark.pedantic(
        bench.runs[competitor, step], rounds=max(1, min(MOST_PEDANTIC_ROUNDS, rounds)), warmup_rounds=0
    )


def _why_not(cell: dict) -> str:
    if cell["status"] == "does not fit":
        needed, available = cell["needed_bytes"] / 1e9, cell["available_bytes"] / 1e9
        share = f"{cell['usable_share']:.0%} of {available:.3g} GB available"
        return f"does not fit: needs about {needed:.3g} GB, may use {share}"
    return f"{cell['status']}: {cell['reason']}"
