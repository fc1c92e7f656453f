"""Which cases are measured: sweeps, each of which varies one thing and holds the others.

Where a sweep does not vary it, the hard density is 1e-3, that of a model that has begun to learn. Cases are
float32 on a CPU; those on a GPU, most of them bfloat16, have sweeps of their own.

A case may belong to several sweeps, which then share its record: it is known by its title. To measure
something new, add a line.
"""

from __future__ import annotations

from collections.abc import Collection

from benchmarks.harness import digits
from benchmarks.harness.workload import Case

QUICK_LOOK = (
    # Small batches with most of their positives hard, which makes them denser.
    Case(256, 128, density=1e-2),
    Case(1024, 128, density=4e-3),
    Case(2048, 128, density=1e-3),
    Case(8192, 512, density=1e-3, seed=1),  # with seed 0 a pair is 1e-8 from a margin
    Case(65536, 128, density=1e-3),
    Case(8192, 512, device="cuda", dtype="bfloat16"),
    Case(8192, 512, device="cuda"),
    Case(32768, 512, device="cuda", dtype="bfloat16"),
    Case(32768, 512, device="cuda"),
    Case(131072, 128, device="cuda", dtype="bfloat16"),
)
"""What `pytest benchmarks/` measures."""

TINY = (
    Case(96, 16, density=2e-2),
    Case(64, 16, m=160, density=2e-2),
)
"""What `benchmarks.suites.grid --quick` measures, to see that everything works."""


def _density(density: float) -> Case:
    return Case(8192, 512, density=density, seed=1 if density == 1e-3 else 0)


def _samples_a_class(per_class: int) -> Case:
    return Case(8192, 512, per_class=per_class, density=1e-3, seed=1 if per_class == 4 else 0)


def _training(epoch: int) -> Case:
    n = 8192
    return Case(n, digits.D, per_class=n // digits.CLASSES, kind="demo", margins=digits.MARGINS, epoch=epoch)


def _on_gpu(n: int, d: int, density: float = 1e-3, dtype: str = "bfloat16") -> Case:
    return Case(n, d, density=density, dtype=dtype, device="cuda")


SWEEPS = {
    "batches": (*QUICK_LOOK, Case(16384, 512, density=1e-3)),
    "density": tuple(_density(density) for density in (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 0.5, 1.0)),
    "N": tuple(Case(2**log_n, 128, density=1e-3) for log_n in range(8, 17)),
    "D": tuple(Case(4096, d, density=1e-3) for d in (64, 128, 256, 512, 1024, 2048)),
    "samples a class": tuple(_samples_a_class(per_class) for per_class in (2, 4, 16, 64, 512)),
    "kinds": (
        _density(1e-3),  # clusters
        Case(8192, 512, kind="correlated", margins=(0.9, 0.5)),
        Case(8192, 512, kind="spectrum", density=3e-3),
    ),
    "GPU, small batches": (
        _on_gpu(256, 128, 1e-2),
        _on_gpu(512, 128, 5e-3),
        _on_gpu(1024, 128, 4e-3),
        _on_gpu(2048, 128),
        _on_gpu(2048, 128, dtype="float32"),
    ),
    # The first is what is profiled.
    "GPU, headline": tuple(
        _on_gpu(n, d) for n, d in ((32768, 512), (16384, 512), (16384, 128), (8192, 1024))
    ),
    "GPU, large shapes": tuple(_on_gpu(n, d) for n, d in ((131072, 512), (1048576, 128))),
    "GPU, density": (
        *(_on_gpu(32768, 512, density) for density in (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 0.5, 1.0)),
        *(_on_gpu(32768, 512, density, "float32") for density in (1e-3, 1e-2, 0.5, 1.0)),
    ),
    "training": tuple(_training(epoch) for epoch in (0, 1, digits.LAST_EPOCH // 2, digits.LAST_EPOCH)),
}
"""By name."""


def cases(names: Collection[str] = tuple(SWEEPS)) -> list[Case]:
    """The cases of these sweeps, in the order of SWEEPS, each once."""
    chosen = {case.title: case for name, sweep in SWEEPS.items() if name in names for case in sweep}
    return list(chosen.values())


def titles(name: str) -> list[str]:
    """The titles of a sweep's cases, by which its records are found."""
    return [case.title for case in SWEEPS[name]]
