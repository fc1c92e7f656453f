"""One case, one record: make the data, check the results, measure memory, times, and our stages.

Several backends of ours can be measured in the same rounds, beside the same opponents: a record each.

The order matters. Correctness comes first, because a wrong result gets no time. Memory is measured in
processes of its own while this one holds little. Times come last, all callables in the same rounds;
where ours spends its own is looked at after that, on calls that no ratio is made of.

A cell of the record that has no figure has a status and a reason instead: "does not fit" (decided from
stated bytes before running, never by crashing), "not measured", or "wrong result".
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor

import tcm_kernels
from benchmarks.harness import (
    accuracy,
    cells,
    environment,
    graphs,
    interleave,
    memory,
    opponents,
    stages,
    workload,
)
from benchmarks.harness.workload import STEPS, Case
from tcm_kernels import dispatch

SCHEMA = 2
UNIT = "U"
UNIT_ALLOCATING = "U, allocating"
UNIT_REPLAYED = "U, replayed"
EVERYONE = tuple(competitor.name for competitor in opponents.COMPETITORS)
OURS_AND_DENSE = (opponents.OURS, opponents.DENSE)

Cell = dict[str, Any]
Run = Callable[[], tuple[Tensor, ...]]


class Bench:
    """A case with its data, its callables and, after `measure`, its records.

    Whoever is measured has a name: ours with the first backend `opponents.OURS`, with others also theirs,
    opponents their own.

    Attributes:
        ours: by backend, the name of ours with it.
        runs: by (name, step), what can be timed here.
        refusals: by name, the cell that says why it cannot.
        wrong: by name of ours, in words how its result differs from the truth.
        records: by backend, what was measured.
        failed: by backend, why its result is wrong or there is none.
    """

    def __init__(
        self,
        case: Case,
        backends: str | Sequence[str] = "auto",
        without: Collection[str] = (),
        log: Callable[[str], None] = lambda _: None,
    ):
        """Make the data and the callables; `without` names opponents to leave out, `log` gets phases."""
        self.case = case
        self.without = without
        self.log = log
        self.runs: dict[tuple[str, str], Run] = {}
        self.refusals: dict[str, Cell] = {}
        self.errors: dict[str, accuracy.Errors] = {}
        self.wrong: dict[str, str] = {}
        self.records: dict[str, dict[str, Any]] = {}
        self.failed: dict[str, str] = {}
        self.ours = self._names([backends] if isinstance(backends, str) else backends)
        self.log("data")
        self.work = workload.make(case)
        for name, competitor, backend in self._everyone():
            refusal = self._refusal(competitor)
            if refusal is not None:
                self.refusals[name] = refusal
                continue
            made = opponents.steps(competitor.loss(self.work, backend), self.work.emb)
            self.runs |= {(name, step): run for step, run in made.items()}

    def _names(self, backends: Sequence[str]) -> dict[str, str]:
        """Those of ours, by backend; raises what `dispatch.choose` does if none can run."""
        chosen = {}
        for asked in backends:
            try:
                chosen[dispatch.choose(asked, self.case.device, self.case.torch_dtype)] = None
            except RuntimeError as error:
                if len(backends) == 1:
                    raise
                self.failed[asked] = str(error)
        if not chosen:
            raise RuntimeError("; ".join(self.failed.values()))
        first = next(iter(chosen))
        return {
            backend: opponents.OURS if backend == first else f"{opponents.OURS}, {backend}"
            for backend in chosen
        }

    def _everyone(self) -> list[tuple[str, opponents.Competitor, str]]:
        """(name, competitor, backend) of ours with each backend, then of the opponents."""
        first = next(iter(self.ours))
        ours = opponents.named(opponents.OURS)
        others = [competitor for competitor in opponents.COMPETITORS if competitor.name != opponents.OURS]
        return [(name, ours, backend) for backend, name in self.ours.items()] + [
            (competitor.name, competitor, first) for competitor in others
        ]

    def measure(self, *, budget_s: float, memory_of: Collection[str] = EVERYONE) -> dict[str, Any]:
        """Fill `records` and return the first; takes about `budget_s` seconds for the times, and more else.

        `memory_of` names the competitors whose memory is measured: on a CPU a new process each, in which
        torch is loaded again, and torch.compile compiles again.
        """
        stats = self._stats()
        truth = self._check(stats)
        if all(name in self.refusals for name in self.ours.values()):
            raise RuntimeError("; ".join(self.failed.values()))
        peaks = self._peaks(memory_of)
        self.log("times")
        timings, units = self._times(budget_s)
        replays = self._replays(budget_s) if _is_short(units.get(UNIT), self.case.device) else {}
        if replays:
            units[UNIT_REPLAYED] = replays[UNIT]
        self.log("stages")
        for backend, name in self.ours.items():
            if name not in self.refusals:  # it was not given up
                self.records[backend] = self._record(backend, stats, truth, peaks, timings, units, replays)
        return next(iter(self.records.values()))

    def _record(
        self,
        backend: str,
        stats: dict[str, int],
        truth: accuracy.Truth,
        peaks: dict[str, Cell],
        timings: dict[Any, interleave.Timing],
        units: dict[str, Cell],
        replays: dict[Any, Cell],
    ) -> dict[str, Any]:
        own = self.ours[backend]
        profile = cells.wrong(self.wrong[own]) if own in self.wrong else stages.profile(self.work, backend)
        competitors = {}
        for competitor in opponents.COMPETITORS:
            name = own if competitor.name == opponents.OURS else competitor.name
            steps = {step: self._cell(name, step, timings) for step in STEPS}
            errors = self.errors.get(name)
            competitors[competitor.name] = {
                "steps": steps,
                "memory": peaks[name],
                "error": dataclasses.asdict(errors) if errors else None,
            }
            if replays:
                competitors[competitor.name]["replays"] = {
                    step: replays.get((name, step), steps[step]) for step in STEPS
                }
        hard = stats["positive_count"] + stats["negative_count"]
        return {
            "schema": SCHEMA,
            "case": dataclasses.asdict(self.case) | {"title": self.case.title},
            "environment": environment.describe(self.case.device),
            "backend": backend,
            "backend_simd": _said(backend, "simd_name"),
            "backend_screening": _said(backend, "screening_name"),
            "measured_beside": [other for other in self.ours if other != backend],
            "labels": {"samples_per_class": self.case.per_class, "order": "shuffled"},
            "margins": {"plus": self.work.margin_plus, "minus": self.work.margin_minus},
            "hard_pairs": stats,
            "ordered_pairs": self.case.pairs,
            "hard_density": hard / self.case.pairs,
            "checked": truth.checked,
            "share_of_hard_pairs_at_a_margin": truth.band_share,
            "units": units,
            "competitors": competitors,
            "stages": profile,
        }

    def _refusal(self, competitor: opponents.Competitor) -> Cell | None:
        if competitor.name in self.without:
            return cells.not_measured("left out of this run")
        missing = competitor.why_not_here()
        if missing is not None:
            return cells.not_measured(missing)
        held = 0  # ours comes before U, U comes before the opponents
        if competitor.name != opponents.OURS and self._unit_refusal() is None:
            held = self.case.matrix_bytes
        return cells.does_not_fit(competitor.bytes_needed(self.case), held, self.case.device)

    def _unit_refusal(self) -> Cell | None:
        ours = opponents.named(opponents.OURS).bytes_needed(self.case)
        return cells.does_not_fit(self.case.matrix_bytes, ours, self.case.device, memory.EXACT_SHARE)

    def _stats(self) -> dict[str, int]:
        """Hard pairs, as counted by the first backend that can; the others are held to the same truth."""
        for backend in tuple(self.ours):
            try:
                return self._counted(backend)
            except Exception as error:
                self._give_up(backend, error)
        raise RuntimeError("; ".join(self.failed.values()))

    def _counted(self, backend: str) -> dict[str, int]:
        work = self.work
        _, stats = tcm_kernels.fused_tcm_loss(
            work.emb,
            work.labels,
            work.ref,
            work.ref_labels,
            margin_plus=work.margin_plus,
            margin_minus=work.margin_minus,
            backend=backend,
            return_stats=True,
        )
        return {
            "positive_count": int(stats.positive_count),
            "negative_count": int(stats.negative_count),
        }

    def _give_up(self, backend: str, error: Exception) -> None:
        """Go on without this backend, if there is another; its error is what its record is missing for."""
        if len(self.ours) - len(self.failed.keys() & self.ours.keys()) <= 1:
            raise error
        self.failed[backend] = cells.first_line(error)
        self._drop(self.ours[backend], cells.not_measured(self.failed[backend]))

    def _check(self, stats: dict[str, int]) -> accuracy.Truth:
        """Fill `errors` and `wrong`; drop the opponents, and backends, that turn out not to run."""
        self.log("truth")
        if memory.fits(accuracy.truth_bytes(self.case), self.case.device):
            truth = accuracy.dense_truth(self.work)
        else:
            truth = accuracy.sampled_truth(self.work, **stats)
        backends = {name: backend for backend, name in self.ours.items()}
        for name, _, _ in self._everyone():
            if name in self.refusals:
                continue
            self.log(f"checking {name}")
            try:
                (value,) = self.runs[name, "forward"]()
                value_again, gradient = self.runs[name, "forward+backward"]()
                both = truth.errors(value, gradient), truth.errors(value_again, gradient)
            except Exception as error:  # whatever an opponent raises, it is that cell's reason
                if name in backends:
                    self._give_up(backends[name], error)
                else:
                    self._drop(name, cells.not_measured(cells.first_line(error)))
                continue
            errors = max(both, key=lambda errors: errors.loss or 0.0)
            if name not in backends and errors.gradient > accuracy.SOMETHING_ELSE:
                self._drop(name, cells.wrong(f"relative errors {errors}"))
                continue
            self.errors[name] = errors
        allowed = truth.tolerance(self.case.torch_dtype, self.errors.get(opponents.DENSE))
        for backend, name in self.ours.items():
            if name in self.errors and not accuracy.is_right(self.errors[name], allowed):
                self.failed[backend] = f"relative errors {self.errors[name]}, allowed {allowed}"
                self.wrong[name] = f"{self.case.title}: {self.failed[backend]}"
        return truth

    def _drop(self, name: str, refusal: Cell) -> None:
        self.refusals[name] = refusal
        self.runs = {key: run for key, run in self.runs.items() if key[0] != name}

    def _peaks(self, memory_of: Collection[str]) -> dict[str, Cell]:
        peaks = {}
        for name, competitor, backend in self._everyone():
            if name in self.refusals:
                peaks[name] = self.refusals[name]
                continue
            if competitor.name not in memory_of:
                peaks[name] = cells.not_measured("its memory was not asked for in this run")
                continue
            self.log(f"memory of {name}")
            # On a GPU its allocator counts, here and on the data that are there already.
            run = self.runs[name, "forward+backward"] if self.case.device == "cuda" else None
            measured = memory.peak(self.case, competitor.name, backend, run)
            status = {"status": "measured"}
            if measured.peak_bytes is None:
                status = cells.not_measured(measured.method)
            peaks[name] = status | dataclasses.asdict(measured)
        return peaks

    def _timed_runs(self) -> dict[Any, Run]:
        return {key: run for key, run in self.runs.items() if key[0] not in self.wrong}

    def _times(self, budget_s: float) -> tuple[dict[Any, interleave.Timing], dict[str, Cell]]:
        """Timings by callable, and the cells of U and of its allocating form."""
        callables: dict[Any, Callable[[], object]] = {}
        units: dict[str, Cell] = {}
        x, device = self.work.emb, self.case.device
        columns = x if self.work.ref is None else self.work.ref
        refusal = self._unit_refusal()
        if refusal is None:
            out = torch.empty(self.case.n, self.case.columns, dtype=x.dtype, device=device)
            callables[UNIT] = lambda: torch.mm(x, columns.T, out=out)
            callables[UNIT]()  # its pages are now in memory, and counted below
        else:
            units[UNIT] = refusal
        if device == "cpu":  # beside the output of U, if that is there
            refusal = refusal or cells.does_not_fit(self.case.matrix_bytes, 0, device, memory.EXACT_SHARE)
            if refusal is None:
                callables[UNIT_ALLOCATING] = lambda: torch.mm(x, columns.T)
            else:
                units[UNIT_ALLOCATING] = refusal
        callables |= self._timed_runs()
        timings = interleave.interleave(
            callables, unit=UNIT if UNIT in callables else None, budget_s=budget_s, device=device
        )
        units |= {name: cells.timed(timings[name]) for name in (UNIT, UNIT_ALLOCATING) if name in timings}
        gc.collect()
        return timings, units

    def _replays(self, budget_s: float) -> dict[Any, Cell]:
        """Cells of U and of what was timed, as CUDA-graph replays against U's replay, one after the other.

        A graph keeps all the memory of its call for itself: beside U's there is only one at a time.
        """
        x = self.work.emb
        columns = x if self.work.ref is None else self.work.ref
        out = torch.empty(self.case.n, self.case.columns, dtype=x.dtype, device=x.device)
        runs = self._timed_runs()
        made: dict[Any, Cell] = dict.fromkeys((UNIT, *runs), cells.not_measured("U cannot be captured"))
        most_rounds = 0
        with (
            contextlib.suppress(RuntimeError),
            graphs.captured(lambda: torch.mm(x, columns.T, out=out)) as unit,
        ):
            for key, run in runs.items():
                self.log(f"CUDA-graph replays of {', '.join(key)}")
                try:
                    with graphs.captured(run) as replay:
                        timings = interleave.interleave(
                            {UNIT: unit, key: replay},
                            unit=UNIT,
                            budget_s=budget_s / len(runs),
                            device=self.case.device,
                        )
                except Exception as error:  # whatever keeps it from being captured is that cell's reason
                    made[key] = cells.not_measured(f"cannot be captured: {cells.first_line(error)}")
                    self.failed |= {
                        backend: f"as a CUDA graph: {cells.first_line(error)}"
                        for backend, name in self.ours.items()
                        if name == key[0]
                    }
                    continue
                made[key] = cells.timed(timings[key])
                if timings[UNIT].seconds.count > most_rounds:
                    made[UNIT], most_rounds = cells.timed(timings[UNIT]), timings[UNIT].seconds.count
        return made

    def _cell(self, name: str, step: str, timings: dict[Any, interleave.Timing]) -> Cell:
        if name in self.refusals:
            return self.refusals[name]
        if name in self.wrong:
            return cells.wrong(self.wrong[name])
        return cells.timed(timings[name, step])


def _is_short(unit: Cell | None, device: str) -> bool:
    """Whether launches are a good part of what was timed."""
    if device != "cuda" or unit is None or unit["status"] != "measured":
        return False
    return unit["seconds"]["median"] < graphs.SHORT_S


def _said(backend: str, what: str) -> str | None:
    """What a backend says of itself ("simd_name", "screening_name"), where it says so."""
    name = getattr(dispatch.module(backend), what, None)
    return name() if name else None
