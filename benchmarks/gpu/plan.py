"""The plan by value: which steps there are, in which order, how long each may take, and what each leaves.

Nothing here runs or looks at anything. `first` is what `make gpu` runs, `rest` what a later call runs:
whatever has no record yet, as far as it fits. What a step leaves are keys; those without a record in the
results files are what is missing, so that a plan follows from the files alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable
from pathlib import Path

from benchmarks.gpu.machine import Machine
from benchmarks.harness import opponents, sweeps
from benchmarks.harness.result_files import Key
from benchmarks.suites import histogram, training_step

WHOLE_S = 570  # the machine may be taken away after ten minutes
GRACE_S = 20  # between SIGINT, at which a step should say what it has, and SIGKILL
CASE_LIMIT_S = 60  # of a case of a sweep: a kernel that hangs costs no other case
TEST_LIMIT_S = 60  # of a test, compiling included

HEADLINE = "GPU, headline"
SMALL = "GPU, small batches"
DENSITIES = "GPU, density"
LARGE = "GPU, large shapes"


@dataclasses.dataclass(frozen=True)
class Step:
    """A command, and what is known of it beforehand.

    Attributes:
        name: by which it is asked for.
        command: what is run, in the checkout.
        limit_s: seconds until SIGINT; GRACE_S later it is gone in any case.
        leaves: keys of the records that it makes.
        files: names of the files that it writes among the results.
        why_not: why it cannot run on this machine, or None.
        goes_on: whether the command takes `--again` after its process has died.
    """

    name: str
    command: tuple[str, ...]
    limit_s: int
    leaves: tuple[Key, ...]
    files: tuple[str, ...] = ()
    why_not: str | None = None
    goes_on: bool = False

    @property
    def whole_s(self) -> int:
        """Seconds that it takes at most."""
        return self.limit_s + GRACE_S


@dataclasses.dataclass(frozen=True)
class Known:
    """What results files say: keys that have a record, and names of steps that were begun at least once."""

    keys: frozenset[Key] = frozenset()
    tried: frozenset[str] = frozenset()

    def missing(self, step: Step) -> tuple[Key, ...]:
        """What the step leaves and has not left yet."""
        return tuple(key for key in step.leaves if key not in self.keys)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a call runs.

    Attributes:
        steps: whose limits fit into the time.
        if_time: what follows, each where its limit still fits.
        left: what is left to another call, or cannot run here.
    """

    steps: tuple[Step, ...]
    if_time: tuple[Step, ...] = ()
    left: tuple[Step, ...] = ()

    @property
    def whole_s(self) -> int:
        """Seconds that it takes at most."""
        return sum(step.whole_s for step in self.steps)


def first(machine: Machine, results: Path) -> Plan:
    """What `make gpu` runs."""
    return Plan(_first_steps(machine, results), left=_rest_steps(machine, results))


def rest(machine: Machine, results: Path, known: Known) -> Plan:
    """The build, which a bare machine needs, and what has no record.

    What was never begun comes first: a step that takes too long must not keep the others from running. What
    does not fit if every step takes all its time, may fit once they have run.
    """
    build, *others = (*_first_steps(machine, results), *_rest_steps(machine, results))
    wanted = [_only_missing(step) for step in others if known.missing(step)]
    wanted.sort(key=lambda step: step.name in known.tried)
    can_run = [step for step in wanted if step.why_not is None]
    left = tuple(step for step in wanted if step.why_not is not None)
    chosen, if_time, whole_s = [], [], build.whole_s
    for step in can_run:
        fits = whole_s + step.whole_s <= WHOLE_S
        (chosen if fits else if_time).append(step)
        whole_s += step.whole_s if fits else 0
    return Plan((build, *chosen) if chosen else (), tuple(if_time), left)


def after_first(machine: Machine, results: Path) -> Known:
    """What is known after a complete `make gpu`."""
    return Known(frozenset(key for step in _first_steps(machine, results) for key in step.leaves))


def every(machine: Machine, results: Path) -> tuple[Step, ...]:
    """All steps, in order."""
    return (*_first_steps(machine, results), *_rest_steps(machine, results))


def named(machine: Machine, results: Path, names: Collection[str]) -> Plan:
    """These steps only, in the order of the plan."""
    return Plan(tuple(step for step in every(machine, results) if step.name in names))


def _first_steps(machine: Machine, results: Path) -> tuple[Step, ...]:
    return (
        _build(machine),
        _tests(machine),
        _sanitizer(machine, "memcheck", 50),
        _sweep(machine, results, "headline", HEADLINE, 115, budget_s=3),
        _profile(machine, results),
        # Compiling the dense loss for each of them would take as long as all the rest of the step.
        _sweep(machine, results, "small batches", SMALL, 40, budget_s=2, without=[opponents.COMPILED]),
    )


def _rest_steps(machine: Machine, results: Path) -> tuple[Step, ...]:
    # Compiling the dense loss again for every density would take longer than all the rest.
    fast = [opponents.COMPILED]
    return (
        _sweep(machine, results, "densities", DENSITIES, 125, budget_s=3, without=fast),
        _histogram(machine, results),
        _sanitizer(machine, "racecheck", 45),
        _sanitizer(machine, "initcheck", 45),
        _sweep(machine, results, "large shapes", LARGE, 60, budget_s=5, without=fast),
        _training_step(machine, results),
    )


def _build(machine: Machine) -> Step:
    """For this GPU and no other."""
    only = ("env", f"TORCH_CUDA_ARCH_LIST={machine.chip}") if machine.chip else ()
    command = (*only, machine.python, "setup.py", "build_ext", "--inplace")
    why_not = None if "c++" in machine.tools else "there is no C++ compiler"
    return Step("build", command, 65, (("build",),), why_not=why_not)


def _tests(machine: Machine) -> Step:
    """Those that need a GPU; the others run everywhere."""
    at_once = ("-n", "8", "--maxschedchunk", "4") if "xdist" in machine.tools else ()
    command = (machine.python, "-m", "pytest", "tests", "-m", "gpu", "-q", "--tb=short", *at_once)
    command += ("-p", "benchmarks.gpu.pytest_log", "--test-limit", str(TEST_LIMIT_S))
    command += ("-p", "no:cacheprovider", "--continue-on-collection-errors", "--durations=10")
    return Step("tests", command, 140, (("tests",),))


def _sanitizer(machine: Machine, tool: str, limit_s: int) -> Step:
    """Every tensor in memory of its own: inside a caching allocator's block nothing is out of bounds."""
    command = ("env", "PYTORCH_NO_CUDA_MEMORY_CACHING=1", machine.program("compute-sanitizer"))
    command += ("--tool", tool, "--print-limit", "40", "--error-exitcode", "9")
    command += (machine.python, "-m", "benchmarks.gpu.kernels", "small", *_backends(machine.backends[::-1]))
    return Step(tool, command, limit_s, ((tool,),), why_not=_why_not(machine, "compute-sanitizer"))


def _sweep(
    machine: Machine,
    results: Path,
    name: str,
    sweep: str,
    limit_s: int,
    *,
    budget_s: float,
    without: Iterable[str] = (),
) -> Step:
    command = (machine.python, "-m", "benchmarks.suites.grid", "--device", "cuda", "--sweep", sweep)
    command += (*_backends(machine.backends), *(word for name in without for word in ("--without", name)))
    command += ("--budget", str(budget_s), "--case-limit", str(CASE_LIMIT_S), "--out", str(results))
    leaves = tuple((title, backend) for title in sweeps.titles(sweep) for backend in machine.backends)
    files = (f"{machine.slug}.json", f"{machine.slug}.md")
    return Step(name, command, limit_s, leaves, files, _why_not(machine), goes_on=True)


def _profile(machine: Machine, results: Path) -> Step:
    command = (machine.python, "-m", "benchmarks.gpu.profile", "--ncu", machine.program("ncu"))
    command += (*_backends(machine.backends), "--out", str(results / f"{machine.slug}.json"))
    leaves = tuple(("profile", backend) for backend in machine.backends)
    files = (f"{machine.slug}.json", f"{machine.slug}.md")
    return Step("profile", command, 40, leaves, files, _why_not(machine, "ncu"))


def _histogram(machine: Machine, results: Path) -> Step:
    command = (machine.python, "-m", "benchmarks.suites.histogram", "--device", "cuda", "--budget", "8")
    path = histogram.path(results, machine.slug)
    leaves = tuple(("histogram", histogram.title(n)) for n in histogram.SIZES["cuda"])
    files = (path.name, path.with_suffix(".png").name)
    return Step("histogram", (*command, "--out", str(results)), 50, leaves, files)


def _training_step(machine: Machine, results: Path) -> Step:
    command = (machine.python, "-m", "benchmarks.suites.training_step", "--device", "cuda", "--budget", "4")
    leaves = tuple(
        ("training step", training_step.key(batch_size, epoch))
        for epoch in training_step.EPOCHS
        for batch_size in training_step.BATCH_SIZES
    )
    files = (training_step.path(results, machine.slug).name,)
    why_not = None if "sklearn" in machine.tools else "scikit-learn is not installed"
    return Step("training step", (*command, "--out", str(results)), 40, leaves, files, why_not)


def _only_missing(step: Step) -> Step:
    """The step for a machine to which its results came along."""
    takes_it = len(step.leaves) > 1
    return dataclasses.replace(step, command=(*step.command, "--missing")) if takes_it else step


def _backends(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(word for name in names for word in ("--backend", name))


def _why_not(machine: Machine, *programs: str) -> str | None:
    if not machine.backends:
        return "neither triton nor a CUDA compiler is here"
    missing = [name for name in programs if name not in machine.tools]
    return f"{' and '.join(missing)} is not installed" if missing else None
