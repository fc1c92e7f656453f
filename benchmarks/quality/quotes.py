"""Figures of the study in README and the documentation, each beside the name of the rows that it comes from.

    python -m benchmarks.quality.quotes          put the figures in their places
    python -m benchmarks.quality.quotes --check  exit 1 if a document shows others

A figure stands between two comments (benchmarks/harness/quoted.py):

    <!--study random-0/supcon opis change-->-17 % (-20 to -14)<!--/study-->

The name gives a split and a base loss, which are the first two parts of the key of every run behind it in
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

import dataclasses
import sys
from collections.abc import Mapping, Sequence

from benchmarks import ROOT
from benchmarks.harness import quoted
from benchmarks.harness.quoted import QuoteError
from benchmarks.harness.result_files import FOLDER

from . import summary
from .measures import MEASURES
from .plan import FULL, Arm, Size
from .records import Records, Row
from .summary import Compared
from .table import change_text, matched_text, settings_text, value_text

KIND = "study"
DOCUMENTS = (ROOT / "README.md", ROOT / "docs" / "recipe.md")
_ARMS: dict[str, Arm] = {"tuned": "tcm", "default": "tcm_default", "alone": "alone"}
_ACCURACIES = {"at-equal-recall": "recall_at_1", "at-equal-tar": "tar_at_1e-3"}


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


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    study = Study.of(Records(FOLDER / "quality"), FULL)
    return quoted.main(
        "benchmarks.quality.quotes", __doc__, KIND, lambda name: quote(name, study), DOCUMENTS, arguments
    )


if __name__ == "__main__":
    sys.exit(main())
