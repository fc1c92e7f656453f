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

`<!--study random-0/supcon settings-->` gives weight and margins that were chosen;
`<!--study hoped random-0 2-->` and `hoped random-0 2 default` what came on that split of the second figure
that was hoped for; `<!--study row KEY recall_at_1-->` what a single run says at its end, of the classes that
it is for: of a run of a search those to choose by.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import ROOT
from benchmarks.harness.result_files import FOLDER

from . import summary
from .measures import MEASURES
from .plan import FULL, Arm, Size
from .records import Records, Row
from .summary import Compared
from .table import change_text, matched_text, settings_text, value_text

DOCUMENTS = (ROOT / "README.md", ROOT / "docs" / "recipe.md")
_OPEN, _CLOSE = "<!--study ", "<!--/study-->"
_QUOTE = re.compile(rf"({_OPEN}([^>]+?)-->)((?:(?!{_OPEN}).)*?)({_CLOSE})", re.DOTALL)
_ARMS: dict[str, Arm] = {"tuned": "tcm", "default": "tcm_default", "alone": "alone"}
_ACCURACIES = {"at-equal-recall": "recall_at_1", "at-equal-tar": "tar_at_1e-3"}


class QuoteError(ValueError):
    """A document quotes what the study does not have; the message names it."""


@dataclasses.dataclass(frozen=True)
class Study:
    """What can be quoted.

    Attributes:
        rows: the base losses that it has.
        runs: the rows of every run, by its key.
    """

    rows: Sequence[Compared]
    runs: Mapping[str, Sequence[Row]]

    @classmethod
    def of(cls, records: Records, size: Size) -> Study:
        """From the records."""
        return cls(summary.compared(records, size), records.runs())


def updated(text: str, study: Study) -> str:
    """A document with its figures in place.

    Raises:
        QuoteError: figures that there are not, all of them, or a comment without the one that closes it.
    """
    if len(_QUOTE.findall(text)) != text.count(_OPEN):
        raise QuoteError(f"a figure without its {_CLOSE}")
    wrong = []

    def put(found: re.Match[str]) -> str:
        try:
            return f"{found[1]}{quote(found[2], study)}{found[4]}"
        except QuoteError as error:
            wrong.append(str(error))
            return found[0]

    text = _QUOTE.sub(put, text)
    if wrong:
        raise QuoteError("; ".join(dict.fromkeys(wrong)))
    return text


def quote(named: str, study: Study) -> str:
    """The figure of a name as above, without "study".

    Raises:
        QuoteError: there is no such figure.
    """
    match named.split():
        case ["hoped", split, number, *arm] if number.isdigit() and [*arm, "tuned"][0] in _ARMS:
            of_split = [row for row in study.rows if row.split == split]
            hoped = summary.figures_to_reach(of_split, _ARMS[[*arm, "tuned"][0]])
            if 1 <= int(number) <= len(hoped):
                return hoped[int(number) - 1].found
        case ["row", key, column] if key in study.runs:
            value = study.runs[key][-1].get(column)
            if isinstance(value, float):
                return value_text(value, column)
        case [place, "settings"]:
            return settings_text(_row(place, study.rows))
        case [place, measure, form, *arm] if measure in MEASURES and len(arm) <= 1:
            of_place = _row(place, study.rows)
            return _of_measure(of_place, measure, form, _ARMS.get(arm[0] if arm else "tuned"), named)
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
    study = Study.of(Records(FOLDER / "quality"), FULL)
    failed = False
    for document in options.documents:
        before = document.read_text(encoding="utf-8")
        try:
            after = updated(before, study)
        except QuoteError as error:
            print(f"{document}: {error}", file=sys.stderr)
            failed = True
            continue
        if options.check:
            for old, new in zip(_QUOTE.findall(before), _QUOTE.findall(after), strict=True):
                if old != new:
                    print(f"{document}: {old[1]}: is {old[2]!r}, the study has {new[2]!r}", file=sys.stderr)
                    failed = True
        else:
            document.write_text(after, encoding="utf-8")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
