"""Records as `benchmarks.harness.measure` makes them, without measuring, for tests of what reads them."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from benchmarks.harness import measure, opponents
from benchmarks.harness.workload import STEPS, Case

ENVIRONMENT = {
    "device_name": "A Processor",
    "driver": None,
    "cpu_model": "A Processor",
    "cpu_capability": "AVX512",
    "cpu_int8_units": ["avx512_vnni"],
    "threads": 2,
    "torch": "2.13.0",
    "triton": None,
    "python": "3.11.7",
    "commit": {"hash": "0123456789abcdef", "dirty": False},
}
DOES_NOT_FIT = {
    "status": "does not fit",
    "needed_bytes": 7 * 10**10,
    "available_bytes": 2 * 10**10,
    "usable_share": 0.75,
}


def cell(seconds: float, unit_s: float) -> dict[str, Any]:
    """A measured cell."""

    def summary(value: float) -> dict[str, float]:
        return {"median": value, "q1": 0.95 * value, "q3": 1.1 * value, "count": 9}

    return {"status": "measured", "seconds": summary(seconds), "ratio_to_unit": summary(seconds / unit_s)}


def record(case: Case, ours: float = 0.2, screening: str = "int8") -> dict[str, Any]:
    """Forward takes `ours` U, the dense loss 9 U, torch.compile's 6 U; neither fits from N=32768 on."""
    unit_s = 1e-11 * case.n**2 * case.d
    ratios = {opponents.OURS: ours, opponents.DENSE: 9.0, opponents.COMPILED: 6.0}
    competitors = {}
    for name in measure.EVERYONE:
        fits = name == opponents.OURS or case.n < 32768
        steps = {
            step: cell(ratios.get(name, 99.0) * unit_s, unit_s) if fits else DOES_NOT_FIT for step in STEPS
        }
        memory = {"status": "measured", "peak_bytes": 10**6} if fits else DOES_NOT_FIT
        competitors[name] = {"steps": steps, "memory": memory, "error": {"loss": 1e-7, "gradient": 1e-7}}
    made = {
        "schema": measure.SCHEMA,
        "case": dataclasses.asdict(case) | {"title": case.title},
        "environment": ENVIRONMENT,
        "backend": "cpu",
        "backend_screening": screening,
        "hard_density": case.density,
        "units": {measure.UNIT: cell(unit_s, unit_s)},
        "competitors": competitors,
        "stages": {"status": "measured", "calls": 9, "seconds": {"screen": 0.03, "backward": 0.01}},
    }
    return json.loads(json.dumps(made))
