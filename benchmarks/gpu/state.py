"""What results files know of the steps: what has a record, how steps went, and why something has none.

The device's file has three sections beside its records: "steps", how each went the last time; "profile",
the profiler's counters by backend; and "not measured" (attempts.py), with every key of the plan that has no
record anywhere and the reason. Histogram and training step have files of their own, whose gaps stand there,
too.
"""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Iterable
from pathlib import Path

from benchmarks.gpu.plan import Known, Step
from benchmarks.gpu.runner import FAILED, NOT_RUN, PASSED, Outcome
from benchmarks.harness import attempts, environment, measure, result_files
from benchmarks.harness.result_files import Key, Results
from benchmarks.suites import grid, histogram, training_step

STEPS, PROFILE = "steps", "profile"
NOT_REACHED = "not reached: the call ended before"
AT_REST = "left to STEPS=rest"
_TO_BE_EXPLAINED = (NOT_REACHED, AT_REST, grid.NOT_BEGUN, grid.NOT_ENDED)


def path(results: Path, slug: str) -> Path:
    """The device's file."""
    return results / f"{slug}.json"


def files(results: Path, slug: str) -> tuple[Path, ...]:
    """All that a device has that is made of records and goes on from call to call."""
    return (path(results, slug), histogram.path(results, slug), training_step.path(results, slug))


def bring(results: Path, slug: str) -> None:
    """Go on with the files that came with the sources, where the folder of results has none."""
    results.mkdir(parents=True, exist_ok=True)
    for there, here in zip(files(result_files.FOLDER, slug), files(results, slug), strict=True):
        if there.exists() and not here.exists():
            shutil.copyfile(there, here)


def known(results: Path, slug: str) -> Known:
    """What the files say.

    Of a step without records of its own its outcome is the record, if it came to its end. One that was
    stopped or has crashed is only known as tried.
    """
    content = _content(results, slug)
    outcomes = content.get(STEPS, {})
    keys: set[Key] = {result_files.key(record) for record in content["records"]}
    keys |= {(PROFILE, backend) for backend in content.get(PROFILE, {})}
    keys |= {(name,) for name, step in outcomes.items() if step["outcome"] in (PASSED, FAILED)}
    counted = result_files.load_if_there(histogram.path(results, slug)) or {"records": ()}
    keys |= {("histogram", result_files.title(record)) for record in counted["records"]}
    trained = result_files.load_if_there(training_step.path(results, slug))
    keys |= {("training step", key) for key in training_step.keys(trained)}
    tried = {name for name, step in outcomes.items() if step["outcome"] != NOT_RUN}
    return Known(frozenset(keys), frozenset(tried))


def begin(results: Path, slug: str, now: Iterable[Step], later: Iterable[Step]) -> None:
    """Say of everything without a record why it has none, in case nobody comes to say so later."""
    content = _content(results, slug)
    there = known(results, slug)
    for steps, usual in ((now, NOT_REACHED), (later, AT_REST)):
        for step in steps:
            reason = step.why_not or usual
            said = attempts.entries(content)  # earlier reasons are better ones
            content = attempts.noted(content, [key for key in there.missing(step) if key not in said], reason)
            outcomes = content.get(STEPS, {})
            if step.name not in outcomes:
                content[STEPS] = outcomes | {step.name: _as_json(Outcome(NOT_RUN, reason, 0.0))}
    grid.write(path(results, slug), attempts.settled(content, there.keys))


def end(results: Path, slug: str, step: Step, outcome: Outcome) -> None:
    """How the step went, also as the reason for what it has not left."""
    for unfinished in results.glob(".*.tmp"):  # a step that was killed while it wrote
        unfinished.unlink()
    content = _content(results, slug)
    before = content.get(STEPS, {})
    if outcome.kind != NOT_RUN or before.get(step.name, {}).get("outcome", NOT_RUN) == NOT_RUN:
        content[STEPS] = before | {step.name: _as_json(outcome)}
        grid.write(path(results, slug), content)
    there = known(results, slug)
    content = attempts.settled(content, there.keys)
    reasons = attempts.entries(content)
    for key in there.missing(step):
        reason = reasons.get(key, {}).get("reason", "")
        if step.goes_on and reason and not reason.startswith(_TO_BE_EXPLAINED):
            continue  # the step has said more than its outcome does
        said = f"{reason}, " if reason in (grid.NOT_BEGUN, grid.NOT_ENDED) else ""
        content = attempts.noted(content, [key], f"{said}{step.name} {outcome}")
    grid.write(path(results, slug), content)


def not_measured(results: Path, slug: str) -> list[str]:
    """A line a key, with its reason."""
    entries = attempts.entries(_content(results, slug))
    return [f"{', '.join(key)}: {entry['reason']}" for key, entry in entries.items()]


def _content(results: Path, slug: str) -> Results:
    there = path(results, slug)
    return result_files.load_if_there(there) or result_files.stamped(slug, measure.SCHEMA, [])


def _as_json(outcome: Outcome) -> dict[str, object]:
    return {
        "outcome": outcome.kind,
        "detail": outcome.detail,
        "seconds": round(outcome.seconds, 1),
        "ended": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": environment.commit(),
    }
