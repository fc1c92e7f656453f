"""`make gpu`: run the plan on this machine, or show it.

    python -m benchmarks.gpu                                        build, tests, headline shapes, ...
    python -m benchmarks.gpu --steps rest                           what has no record yet
    python -m benchmarks.gpu --step tests --step headline           these steps only
    python -m benchmarks.gpu --dry-run                              what would be run, for how long at most

Uses the Python that runs it, with its torch and its Triton; nothing is downloaded. Each step is a process
of its own, and what one does wrong does not keep the next from running. FOLDER receives the device's one
file and its table, histogram and training step, and the log. The exit status is 1 if a step failed.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu import machine, plan, report, runner, state
from benchmarks.gpu.log import CappedLog
from benchmarks.gpu.machine import Machine
from benchmarks.gpu.plan import Plan
from benchmarks.harness import attempts, result_files

FIRST, REST = "first", "rest"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    begin = time.monotonic()
    options = _parser().parse_args(arguments)
    results = options.results.resolve()
    here = machine.here()
    if here is None and not options.dry_run:
        print("make gpu needs a CUDA device, and torch.cuda.is_available() is False")
        return 2
    names = [step.name for step in plan.every(here or machine.COMPLETE, results)]
    unknown = set(options.step or ()) - set(names)
    if unknown:
        print(f"--step: there is no {', '.join(sorted(unknown))} here; there are {', '.join(names)}")
        return 2
    if here is None or options.dry_run:
        print(_shown(_chosen(options, here, results)))
        return 0
    state.bring(results, here.slug)
    return _run(_chosen(options, here, results), results, here, begin, is_new=_is_new(options))


def log_path(results: Path, slug: str) -> Path:
    """Where the output of all calls goes."""
    return results / f"log-{slug}.txt"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--results", type=Path, default=result_files.FOLDER, metavar="FOLDER", help="default: %(default)s"
    )
    parser.add_argument("--steps", choices=(FIRST, REST), default=FIRST, help="which part of the plan")
    parser.add_argument("--step", action="append", metavar="NAME", help="only this step; may be repeated")
    parser.add_argument("--dry-run", action="store_true", help="show the plan, run nothing")
    return parser


def _is_new(options: argparse.Namespace) -> bool:
    return options.steps == FIRST and not options.step


def _chosen(options: argparse.Namespace, here: Machine | None, results: Path) -> Plan:
    at = here or machine.COMPLETE
    if options.step:
        return plan.named(at, results, options.step)
    if options.steps == FIRST:
        return plan.first(at, results)
    if here is None:  # then there is no file of it: what follows on a complete first call
        return plan.rest(at, results, plan.after_first(at, results))
    has_file = state.path(results, at.slug).exists()
    return plan.rest(at, results, state.known(results if has_file else result_files.FOLDER, at.slug))


def _shown(chosen: Plan) -> str:
    """A line a step; what is run only if time is left, is not among them."""
    lines = [f"{step.name}: {step.whole_s} s" for step in chosen.steps]
    return "\n".join([*lines, f"total: {chosen.whole_s} s"])


def _run(chosen: Plan, results: Path, here: Machine, begin: float, *, is_new: bool) -> int:
    # A process in the background may have inherited that SIGINT is ignored, and would hand that on to the
    # steps.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    state.begin(results, here.slug, (*chosen.steps, *chosen.if_time), chosen.left)
    outcomes = {}
    with CappedLog(log_path(results, here.slug), append=not is_new) as log:
        for step in (*chosen.steps, *chosen.if_time):
            left_s = plan.WHOLE_S - (time.monotonic() - begin)
            if step in chosen.if_time and left_s < step.whole_s:
                continue
            outcome = runner.run(
                step,
                left_s,
                log,
                grace_s=plan.GRACE_S,
                tries_left=lambda step=step: _tries_left(results, here.slug, step.leaves),
            )
            outcomes[step.name] = outcome
            state.end(results, here.slug, step, outcome)
            log.write(f"== {step.name}: {outcome}\n")
        content = result_files.load(state.path(results, here.slug))
        text = report.text(content, state.not_measured(results, here.slug), outcomes, f"{results} has it all")
        log.write(f"\n{text}\n")
    print(f"\n{text}")
    can_run = {step.name for step in (*chosen.steps, *chosen.if_time) if step.why_not is None}
    passed = {name for name, outcome in outcomes.items() if outcome.kind == runner.PASSED}
    return 0 if can_run & outcomes.keys() <= passed else 1


def _tries_left(results: Path, slug: str, keys: Sequence[result_files.Key]) -> int:
    return attempts.tries_left(result_files.load_if_there(state.path(results, slug)), keys)


if __name__ == "__main__":
    sys.exit(main())
