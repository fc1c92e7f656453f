"""Figures of the study in README and the documentation, each beside the name of the rows that it comes from.

    python -m benchmarks.quality.quotes          put the figures in their places
    python -m benchmarks.quality.quotes --check  exit 1 if a document shows others

A figure stands between two comments that a reader of the page does not see:

    <!--study random-0/supcon opis change-->-17 % (-20 to -14)<!--/study-->

The first names a split and a base loss, which are the first two parts of the key of every run behind it in
runs.csv; a measure, a column there; and what is told of it:

    without              the mean over the seeds of the base alone
    with                 the same with TCM, tuned; `with default` at weight 1, `with alone` for TCM alone
    change               the mean paired difference and its interval, of OPIS and spreads in percent of the
                         mean without TCM, of shares in points; also `change default`
    at-equal-recall      the same where both have the same Recall@1
    at-equal-tar         or the same TAR at FAR 1e-3

`<!--study random-0/supcon settings-->` gives weight and margins that were chosen, `<!--study hoped 2-->` what
came of the second figure that was hoped for. A test runs the check.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import ROOT
from benchmarks.result_files import FOLDER

from . import plan, summary
from .measures import MEASURES
from .plan import Arm
from .records import Records
from .summary import Compared
from .table import change_text, matched_text, settings_text, value_text

DOCUMENTS = (ROOT / "README.md", ROOT / "docs" / "recipe.md")
_QUOTE = re.compile(r"(<!--study ([^>]+?)-->)(.*?)(<!--/study-->)", re.DOTALL)
_ARMS: dict[str, Arm] = {"tuned": "tcm", "default": "tcm_default", "alone": "alone"}
_ACCURACIES = {"at-equal-recall": "recall_at_1", "at-equal-tar": "tar_at_1e-3"}


class QuoteError(ValueError):
    """A document quotes what the study does not have; the message names it."""


def updated(text: str, rows: Sequence[Compared]) -> str:
    """A document with its figures in place."""
    hoped = [figure.found for figure in summary.figures_to_reach(rows)]
    return _QUOTE.sub(lambda found: f"{found[1]}{quote(found[2], rows, hoped)}{found[4]}", text)


def quote(named: str, rows: Sequence[Compared], hoped: Sequence[str]) -> str:
    """The figure of a name as above.

    Args:
        named: what stands in the comment, without "study".
        rows: the base losses that the study has.
        hoped: what came of each figure that was hoped for.

    Raises:
        QuoteError: there is no such figure.
    """
    match named.split():
        case ["hoped", number] if number.isdigit() and 1 <= int(number) <= len(hoped):
            return hoped[int(number) - 1]
        case [place, "settings"]:
            return settings_text(_row(place, rows))
        case [place, measure, form, *arm] if measure in MEASURES and len(arm) <= 1:
            return _of_measure(_row(place, rows), measure, form, _ARMS.get(arm[0] if arm else "tuned"), named)
        case _:
            raise QuoteError(f"no such figure: {named!r}")


def _row(place: str, rows: Sequence[Compared]) -> Compared:
    for row in rows:
        if place == f"{row.split}/{row.base}":
            return row
    raise QuoteError(f"the study has no {place!r}")


def _of_measure(row: Compared, measure: str, form: str, arm: Arm | None, named: str) -> str:
    if arm in row.arms:
        if form == "without":
            return value_text(row.arms["base"].mean(measure), measure)
        if form == "with":
            return value_text(row.arms[arm].mean(measure), measure)
        if form == "change":
            return change_text(row, measure, arm)
        if form in _ACCURACIES:
            return matched_text(row.matched(measure, _ACCURACIES[form], arm))
    raise QuoteError(f"no such figure: {named!r}")


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality.quotes", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--check", action="store_true", help="change nothing, exit 1 if figures differ")
    parser.add_argument("documents", nargs="*", type=Path, default=list(DOCUMENTS), metavar="FILE")
    options = parser.parse_args(arguments)
    rows = summary.compared(Records(FOLDER / "quality"), plan.FULL)
    differ = False
    for document in options.documents:
        before = document.read_text(encoding="utf-8")
        after = updated(before, rows)
        differ |= before != after
        if not options.check:
            document.write_text(after, encoding="utf-8")
    return int(options.check and differ)


if __name__ == "__main__":
    sys.exit(main())
