"""One case, one record: make the data, check the results, measure memory, times, and our stages.

The order matters. Correctness comes first, because a wrong result gets no time. Memory is measured in
processes of its own while this one holds little. Times come last, all callables in the same rounds;
where ours spends its own is looked at after that, on calls that no ratio is made of.

A cell of the record that has no figure has a status and a reason instead: "does not fit" (decided from
stated bytes before running, never by crashing), "not measured", or "wrong result".
"""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor

import tcm_kernels
from benchmarks import accuracy, environment, graphs, interleave, memory, opponents, stages, workload
from benchmarks.workload import STEPS, Case
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
    """A case with its data, its callables and, after `measure`, its record.

    Attributes:
        runs: by (competitor, step), what can be timed here.
        refusals: by competitor, the cell that says why it cannot.
        wrong: None, or in words how our result differs from the truth.
    """

    def __init__(
        self,
        case: Case,
        backend: str = "auto",
        without: Collection[str] = (),
        log: Callable[[str], None] = lambda _: None,
    ):
        """Make the data and the callables; `without` names opponents to leave out, `log` gets phases."""
        self.case = case
        self.without = without
        self.backend = dispatch.choose(backend, case.device, case.torch_dtype)
        self.log = log
        self.work = workload.make(case)
        self.runs: dict[tuple[str, str], Run] = {}
        self.refusals: dict[str, Cell] = {}
        self.errors: dict[str, accuracy.Errors] = {}
        self.wrong: str | None = None
        self.record: dict[str, Any] = {}
        for competitor in opponents.COMPETITORS:
            refusal = self._refusal(competitor)
            if refusal is not None:
                self.refusals[competitor.name] = refusal
                continue
            made = opponents.steps(competitor.loss(self.work, self.backend), self.work.emb)
            self.runs |= {(competitor.name, step): run for step, run in made.items()}

    def measure(self, *, budget_s: float, memory_of: Collection[str] = EVERYONE) -> dict[str, Any]:
        """Fill and return `record`; takes about `budget_s` seconds for the times, and more for the rest.

        `memory_of` names the competitors whose memory is measured: on a CPU a new process each, in which
        torch is loaded again, and torch.compile compiles again.
        """
        stats = self._stats()
        truth = self._check(stats)
        peaks = self._peaks(memory_of)
        self.log("times")
        timings, units = self._times(budget_s)
        replays = self._replays(budget_s) if _is_short(units.get(UNIT), self.case.device) else {}
        self.log("stages")
        profile = _wrong(self.wrong) if self.wrong else stages.profile(self.work, self.backend)
        cells = {}
        for competitor in opponents.COMPETITORS:
            name = competitor.name
            steps = {step: self._cell(name, step, timings) for step in STEPS}
            errors = self.errors.get(name)
            cells[name] = {
                "steps": steps,
                "memory": peaks[name],
                "error": dataclasses.asdict(errors) if errors else None,
            }
            if replays:
                cells[name]["replays"] = {step: replays.get((name, step), steps[step]) for step in STEPS}
        if replays:
            units[UNIT_REPLAYED] = replays[UNIT]
        hard = stats["positive_count"] + stats["negative_count"]
        self.record = {
            "schema": SCHEMA,
            "case": dataclasses.asdict(self.case) | {"title": self.case.title},
            "environment": environment.describe(self.case.device),
            "backend": self.backend,
            "backend_simd": _said(self.backend, "simd_name"),
            "backend_screening": _said(self.backend, "screening_name"),
            "labels": {"samples_per_class": self.case.per_class, "order": "shuffled"},
            "margins": {"plus": self.work.margin_plus, "minus": self.work.margin_minus},
            "hard_pairs": stats,
            "ordered_pairs": self.case.pairs,
            "hard_density": hard / self.case.pairs,
            "checked": truth.checked,
            "share_of_hard_pairs_at_a_margin": truth.band_share,
            "units": units,
            "competitors": cells,
            "stages": profile,
        }
        return self.record

    def _refusal(self, competitor: opponents.Competitor) -> Cell | None:
        if competitor.name in self.without:
            return _not_measured("left out of this run")
        missing = competitor.why_not_here()
        if missing is not None:
            return _not_measured(missing)
        held = 0  # ours comes before U, U comes before the opponents
        if competitor.name != opponents.OURS and self._unit_refusal() is None:
            held = self.case.matrix_bytes
        return _does_not_fit(competitor.bytes_needed(self.case), held, self.case.device)

    def _unit_refusal(self) -> Cell | None:
        ours = opponents.named(opponents.OURS).bytes_needed(self.case)
        return _does_not_fit(self.case.matrix_bytes, ours, self.case.device, memory.EXACT_SHARE)

    def _stats(self) -> dict[str, int]:
        work = self.work
        _, stats = tcm_kernels.fused_tcm_loss(
            work.emb,
            work.labels,
            work.ref,
            work.ref_labels,
            margin_plus=work.margin_plus,
            margin_minus=work.margin_minus,
            backend=self.backend,
            return_stats=True,
        )
        return {
            "positive_count": int(stats.positive_count),
            "negative_count": int(stats.negative_count),
        }

    def _check(self, stats: dict[str, int]) -> accuracy.Truth:
        """Fill `errors` and `wrong`; drop the opponents that turn out not to run."""
        self.log("truth")
        if memory.fits(accuracy.truth_bytes(self.case), self.case.device):
            truth = accuracy.dense_truth(self.work)
        else:
            truth = accuracy.sampled_truth(self.work, **stats)
        for competitor in opponents.COMPETITORS:
            name = competitor.name
            if name in self.refusals:
                continue
            self.log(f"checking {name}")
            try:
                (value,) = self.runs[name, "forward"]()
                value_again, gradient = self.runs[name, "forward+backward"]()
            except Exception as error:  # whatever an opponent raises, it is that cell's reason
                if name == opponents.OURS:
                    raise
                first_line = (str(error).splitlines() or [""])[0][:200]
                self._drop(name, _not_measured(f"{type(error).__name__}: {first_line}"))
                continue
            both = truth.errors(value, gradient), truth.errors(value_again, gradient)
            errors = max(both, key=lambda errors: errors.loss or 0.0)
            if name != opponents.OURS and errors.gradient > accuracy.SOMETHING_ELSE:
                self._drop(name, _wrong(f"relative errors {errors}"))
                continue
            self.errors[name] = errors
        ours = self.errors[opponents.OURS]
        allowed = truth.tolerance(self.case.torch_dtype, self.errors.get(opponents.DENSE))
        if not accuracy.is_right(ours, allowed):
            self.wrong = f"{self.case.title}: relative errors {ours}, allowed {allowed}"
        return truth

    def _drop(self, name: str, refusal: Cell) -> None:
        self.refusals[name] = refusal
        self.runs = {key: run for key, run in self.runs.items() if key[0] != name}

    def _peaks(self, memory_of: Collection[str]) -> dict[str, Cell]:
        peaks = {}
        for competitor in opponents.COMPETITORS:
            name = competitor.name
            if name in self.refusals:
                peaks[name] = self.refusals[name]
                continue
            if name not in memory_of:
                peaks[name] = _not_measured("its memory was not asked for in this run")
                continue
            self.log(f"memory of {name}")
            measured = memory.peak(self.case, name, self.backend)
            status = {"status": "measured"}
            if measured.peak_bytes is None:
                status = _not_measured(measured.method)
            peaks[name] = status | dataclasses.asdict(measured)
        return peaks

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
            refusal = refusal or _does_not_fit(self.case.matrix_bytes, 0, device, memory.EXACT_SHARE)
            if refusal is None:
                callables[UNIT_ALLOCATING] = lambda: torch.mm(x, columns.T)
            else:
                units[UNIT_ALLOCATING] = refusal
        callables |= {
            key: run for key, run in self.runs.items() if not (self.wrong and key[0] == opponents.OURS)
        }
        timings = interleave.interleave(
            callables, unit=UNIT if UNIT in callables else None, budget_s=budget_s, device=device
        )
        units |= {name: _timed(timings[name]) for name in (UNIT, UNIT_ALLOCATING) if name in timings}
        gc.collect()
        return timings, units

    def _replays(self, budget_s: float) -> dict[Any, Cell]:
        """Cells of U and of what was timed, as CUDA-graph replays against U's replay."""
        self.log("CUDA-graph replays")
        x = self.work.emb
        columns = x if self.work.ref is None else self.work.ref
        out = torch.empty(self.case.n, self.case.columns, dtype=x.dtype, device=x.device)
        wanted: dict[Any, Callable[[], object]] = {UNIT: lambda: torch.mm(x, columns.T, out=out)}
        wanted |= {
            key: run for key, run in self.runs.items() if not (self.wrong and key[0] == opponents.OURS)
        }
        callables, cells = {}, {}
        for key, run in wanted.items():
            try:
                callables[key] = graphs.captured(run)
            except Exception as error:  # whatever keeps it from being captured is that cell's reason
                if key == UNIT or key[0] == opponents.OURS:
                    raise
                first_line = (str(error).splitlines() or [""])[0][:200]
                cells[key] = _not_measured(f"cannot be captured: {type(error).__name__}: {first_line}")
        timings = interleave.interleave(callables, unit=UNIT, budget_s=budget_s, device=self.case.device)
        return cells | {key: _timed(timing) for key, timing in timings.items()}

    def _cell(self, name: str, step: str, timings: dict[Any, interleave.Timing]) -> Cell:
        if name in self.refusals:
            return self.refusals[name]
        if name == opponents.OURS and self.wrong:
            return _wrong(self.wrong)
        return _timed(timings[name, step])


def _is_short(unit: Cell | None, device: str) -> bool:
    """Whether launches are a good part of what was timed."""
    if device != "cuda" or unit is None or unit["status"] != "measured":
        return False
    return unit["seconds"]["median"] < graphs.SHORT_S


def _timed(timing: interleave.Timing) -> Cell:
    return {
        "status": "measured",
        "seconds": dataclasses.asdict(timing.seconds),
        "ratio_to_unit": dataclasses.asdict(timing.ratio) if timing.ratio else None,
    }


def _not_measured(reason: str) -> Cell:
    return {"status": "not measured", "reason": reason}


def _wrong(reason: str) -> Cell:
    return {"status": "wrong result", "reason": reason}


def _does_not_fit(needed: int, held: int, device: str, share: float = memory.SAFE_SHARE) -> Cell | None:
    """None where `needed` bytes fit beside `held` bytes, else the cell that says so."""
    if memory.fits(needed + held, device, share):
        return None
    return {
        "status": "does not fit",
        "needed_bytes": needed,
        "available_bytes": memory.available_bytes(device),
        "usable_share": share,
    }


def _said(backend: str, what: str) -> str | None:
    """What a backend says of itself ("simd_name", "screening_name"), where it says so."""
    name = getattr(dispatch.module(backend), what, None)
    return name() if name else None
