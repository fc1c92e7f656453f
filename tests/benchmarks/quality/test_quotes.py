"""Figures of the study in documents: that they are those of the records, and that wrong ones are refused."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import partial

import pytest

for package in ("matplotlib", "pytorch_metric_learning", "scipy", "tqdm"):
    pytest.importorskip(package, reason=f"{package} is not installed: pip install 'tcm-kernels[demo]'")

from quality_in_miniature import TINY, few_classes, walked  # noqa: E402, F401  # fixtures

from benchmarks.harness import quoted  # noqa: E402
from benchmarks.harness.result_files import FOLDER  # noqa: E402
from benchmarks.quality import quotes, summary  # noqa: E402
from benchmarks.quality.intervals import Difference  # noqa: E402
from benchmarks.quality.losses import BASES  # noqa: E402
from benchmarks.quality.plan import FULL  # noqa: E402
from benchmarks.quality.records import Records  # noqa: E402
from benchmarks.quality.summary import Matched  # noqa: E402
from benchmarks.quality.table import matched_text  # noqa: E402


@pytest.fixture(scope="module")
def study(walked: Records) -> quotes.Study:
    return quotes.Study.of(walked, TINY)


def updated(text: str, study: quotes.Study) -> str:
    return quoted.updated(text, quotes.KIND, partial(quotes.quote, study=study))


class TestMatchedText:
    def test_interval_and_change_are_in_percent_of_the_same_mean(self) -> None:
        change = Difference(-0.002, -0.003, -0.001, 5, "seeds")
        assert matched_text(Matched(change, -0.2, 0.01, 5, 5)) == "-20 % (-30 % to -10 %)"

    def test_a_mean_change_of_0_has_its_interval(self) -> None:
        change = Difference(0.0, -0.001, 0.001, 5, "seeds")
        assert matched_text(Matched(change, 0.0, 0.01, 5, 5)) == "+0 % (-10 % to +10 %)"

    def test_pairs_whose_curves_do_not_overlap_are_told(self) -> None:
        change = Difference(-0.002, -0.003, -0.001, 2, "seeds")
        assert matched_text(Matched(change, -0.2, 0.01, 2, 5)) == "-20 % (-30 % to -10 %), 2 of 5 pairs"
        assert matched_text(Matched(None, None, math.nan, 0, 5)) == "no overlap"


class TestQuotes:
    @pytest.mark.parametrize(
        ("named", "of"),
        [
            ("opis without", lambda row: f"{row.arms['base'].mean('opis'):.3g}"),
            ("opis with", lambda row: f"{row.arms['tcm'].mean('opis'):.3g}"),
            (
                "recall_at_1 with default",
                lambda row: f"{100 * row.arms['tcm_default'].mean('recall_at_1'):.1f}",
            ),
            ("recall_at_1 with alone", lambda row: f"{100 * row.arms['alone'].mean('recall_at_1'):.1f}"),
            ("recall_at_1 change", lambda row: f"{100 * row.change('recall_at_1').mean:+.1f} ("),
            ("opis change", lambda row: f"{100 * row.relative_change('opis'):+.0f} % ("),
            (
                "opis change default",
                lambda row: f"{100 * row.relative_change('opis', 'tcm_default'):+.0f} % (",
            ),
            ("settings", lambda row: f"{row.settings.tcm.trial.weight:g}, "),
        ],
    )
    def test_a_figure_is_that_of_its_rows(
        self, study: quotes.Study, named: str, of: Callable[[summary.Compared], str]
    ) -> None:
        found = updated(f"so <!--study random-0/smooth_ap {named}-->?<!--/study-->.", study)
        assert found.startswith(f"so <!--study random-0/smooth_ap {named}-->{of(study.rows[0])}")
        assert found.endswith("<!--/study-->.")
        assert updated(found, study) == found

    def test_what_was_hoped_for_is_told_as_it_came(self, study: quotes.Study) -> None:
        figures = summary.figures_to_reach(study.rows)
        assert quotes.quote("hoped random-0 2", study) == figures[1].found

    def test_a_single_run_is_quoted_by_its_key(self, study: quotes.Study) -> None:
        key = next(key for key in study.runs if "/tune/" in key)
        expected = f"{100 * study.runs[key][-1]['recall_at_1']:.1f}"
        assert quotes.quote(f"row {key} recall_at_1", study) == expected

    @pytest.mark.parametrize("form", ["at-equal-recall", "at-equal-tar"])
    def test_the_effect_at_equal_accuracy_is_that_of_the_curves(self, study: quotes.Study, form: str) -> None:
        accuracy = {"at-equal-recall": "recall_at_1", "at-equal-tar": "tar_at_1e-3"}[form]
        expected = matched_text(study.rows[0].matched("opis", accuracy))
        assert quotes.quote(f"random-0/smooth_ap opis {form}", study) == expected

    def test_all_that_is_wrong_is_told_at_once(self, study: quotes.Study) -> None:
        end = "<!--/study-->"
        text = f"<!--study hoped random-0 99-->1{end} and <!--study random-9/supcon settings-->2{end}"
        with pytest.raises(quoted.QuoteError, match=r"random-0 99.*random-9"):
            updated(text, study)

    @pytest.mark.parametrize(
        "text",
        [
            "<!--study hoped random-0 1-->1",
            "<!--study hoped random-0 1-->1<!--study hoped random-0 2-->2<!--/study-->",
        ],
    )
    def test_a_figure_without_an_end_is_refused(self, study: quotes.Study, text: str) -> None:
        with pytest.raises(quoted.QuoteError, match="without its <!--/study-->"):
            updated(text, study)

    @pytest.mark.parametrize("column", ["processor", "beauty"])
    def test_a_column_that_is_no_number_is_refused(self, study: quotes.Study, column: str) -> None:
        key = next(iter(study.runs))
        with pytest.raises(quoted.QuoteError, match=column):
            quotes.quote(f"row {key} {column}", study)

    @pytest.mark.parametrize(
        "named",
        [
            "random-0/smooth_ap",
            "random-0/smooth_ap opis",
            "random-0/smooth_ap opis gained",
            "random-0/smooth_ap beauty change",
            "random-0/smooth_ap opis change best",
            "random-9/smooth_ap opis change",
            "hoped random-0 99",
            "hoped random-0 1 defualt",
            "hoped 1",
            "row random-0/smooth_ap recall_at_1",
            "hoped random-0 0",
        ],
    )
    def test_a_figure_that_the_study_does_not_have_is_refused_by_name(
        self, study: quotes.Study, named: str
    ) -> None:
        with pytest.raises(quoted.QuoteError, match=re.escape(named.split(maxsplit=1)[0])):
            quotes.quote(named, study)


def test_documents_quote_the_study_as_its_records_have_it() -> None:
    """Mended by `python -m benchmarks.quality.quotes`."""
    assert quotes.main(["--check"]) == 0


def test_what_the_recipe_says_in_words_of_the_defaults_is_so() -> None:
    rows = [row for row in quotes.Study.of(Records(FOLDER / "quality"), FULL).rows if row.split == "random-0"]
    assert len(rows) == len(BASES)
    for row in rows:
        if row.base == "arcface":
            continue

        def changes(measure: str, row: summary.Compared = row) -> list[float]:
            base, default = row.arms["base"].final(measure), row.arms["tcm_default"].final(measure)
            return [after - before for before, after in zip(base, default, strict=True)]

        assert max(changes("opis")) < 0
        assert max(changes("spread_relative")) < 0
        assert min(changes("recall_at_1")) > -0.0045
        at_equal_recall = row.matched("spread_relative", "recall_at_1", "tcm_default").change
        assert at_equal_recall is not None
        assert at_equal_recall.sign < 0
