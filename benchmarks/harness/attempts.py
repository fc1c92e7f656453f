"""What a results file says of cases that are not measured: how often each was tried, and why in vain.

An entry is there before its case is measured, so that a process that dies, hangs or is stopped leaves its
reason behind without doing anything. It says which try was the last, for whoever goes on:

    0   nobody has begun with it
    1   begun together with other backends, which may be to blame
    2   begun alone

A case is tried at most twice in a call, and what has failed before comes last: a kernel that brings its
process down costs no figure but its own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from benchmarks.harness.result_files import Key, Results, key

SECTION = "not measured"
WAITING, TOGETHER, ALONE = range(3)

Entry = dict[str, Any]


def entries(content: Results | None) -> dict[Key, Entry]:
    """By key, what is not measured: {"what": [...], "reason": ..., "tries": ...}."""
    return {tuple(entry["what"]): entry for entry in (content or {}).get(SECTION, ())}


def noted(content: Results, keys: Iterable[Key], reason: str, tries: int | None = None) -> Results:
    """The content with the reason why these are not measured; `tries` None keeps what stood there."""
    there = entries(content)
    for each in keys:
        before = there.get(each, {}).get("tries", WAITING)
        there[each] = {"what": list(each), "reason": reason, "tries": before if tries is None else tries}
    return _with(content, list(there.values()))


def anew(content: Results, keys: Iterable[Key], reason: str) -> Results:
    """The content at the beginning of a call: each of the keys waits, those that have failed before alone."""
    there = entries(content)
    for each in keys:
        before = there.get(each, {}).get("tries", WAITING)
        content = noted(content, [each], reason, min(before, TOGETHER))
    return content


def settled(content: Results, keys: Collection[Key]) -> Results:
    """The content without the entries of what is measured now."""
    left = [entry for what, entry in entries(content).items() if what not in keys]
    return _with(content, left)


def _with(content: Results, section: list[Entry]) -> Results:
    """No section at all where everything is measured."""
    others = {name: part for name, part in content.items() if name != SECTION}
    return others | ({SECTION: section} if section else {})


def without_record(content: Results | None, keys: Iterable[Key]) -> list[Key]:
    """Those of the keys that no record has."""
    there = {key(record) for record in (content or {"records": ()})["records"]}
    return [each for each in keys if each not in there]


def open_keys(content: Results | None, keys: Iterable[Key]) -> list[Key]:
    """Those of the keys with which this call should still try something."""
    there = entries(content)
    return [each for each in keys if each in there and there[each]["tries"] < ALONE]


def tries_left(content: Results | None, keys: Iterable[Key]) -> int:
    """How many tries of these keys this call still has."""
    there = entries(content)
    return sum(ALONE - there[each]["tries"] for each in open_keys(content, keys))


def queue(content: Results | None, keys: Sequence[Key]) -> list[list[Key]]:
    """The keys (title, backend) in the order of measuring, in groups that are measured in the same rounds.

    Untried ones first, all backends of a case together; then, one by one, what was begun before.
    """
    there = entries(content)
    together: dict[str, list[Key]] = {}
    alone = []
    for each in keys:
        if there.get(each, {}).get("tries", WAITING) == WAITING:
            together.setdefault(each[0], []).append(each)
        else:
            alone.append([each])
    return [*together.values(), *alone]
