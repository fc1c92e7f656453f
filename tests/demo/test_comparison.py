"""What the demo says of its numbers: every word follows from them."""

from __future__ import annotations

import json

import pytest

from tcm_kernels.demo import comparison
from tcm_kernels.demo.comparison import Meaning, Spread

RECALL = Meaning("Recall", "a share", higher_is_better=True, is_consistency=False)
OPIS = Meaning("OPIS", "a variance", higher_is_better=False, is_consistency=True)


@pytest.mark.parametrize(
    ("changes", "higher_is_better", "verdict"),
    [
        pytest.param([0.10, 0.11, 0.12], True, "better", id="up is good"),
        pytest.param([0.10, 0.11, 0.12], False, "worse", id="up is bad"),
        pytest.param([-0.10, -0.11, -0.12], False, "better", id="down is good"),
        pytest.param([-0.10, 0.11, 0.02], True, "within the spread", id="signs differ"),
        pytest.param([0.0, 0.0, 0.0], True, "within the spread", id="nothing changed"),
        pytest.param([0.10, 0.11], True, "too few runs", id="two runs"),
        pytest.param([0.10], True, "too few runs", id="one run"),
    ],
)
def test_verdict_follows_from_the_numbers(changes: list[float], higher_is_better: bool, verdict: str) -> None:
    meanings = {"tested": Meaning("Tested", "a sentence", higher_is_better, is_consistency=False)}
    runs = [({"tested": 0.5}, {"tested": 0.5 + change}) for change in changes]
    comparisons = comparison.compare(meanings, runs)
    assert comparisons["tested"].verdict == verdict
    printed = comparison.text("On something", meanings, comparisons, len(runs))
    assert verdict in printed
    assert ("no conclusion" in printed) == (verdict == "too few runs")


def test_changes_are_taken_seed_by_seed() -> None:
    runs = [({"opis": 0.1}, {"opis": 0.08}), ({"opis": 0.5}, {"opis": 0.48}), ({"opis": 0.9}, {"opis": 0.88})]
    found = comparison.compare({"opis": OPIS}, runs)["opis"]
    assert found.change.mean == pytest.approx(-0.02)
    assert found.change.deviation == pytest.approx(0, abs=1e-12)
    assert found.without_tcm.deviation == pytest.approx(0.4)
    assert found.verdict == "better"


def test_a_measure_of_consistency_is_told_in_percent_too_and_the_conclusion_names_it() -> None:
    meanings = {"recall": RECALL, "opis": OPIS}
    runs = [
        ({"recall": 0.7, "opis": 0.004 + i / 1e4}, {"recall": 0.7, "opis": 0.003 + i / 1e4}) for i in range(3)
    ]
    printed = comparison.text("On something", meanings, comparison.compare(meanings, runs), 3)
    assert "-0.00100 ± 0.00000 (-24%)" in printed
    assert "Consistency between classes: better with TCM in OPIS." in printed
    assert "Everything else: no effect beyond the spread in Recall." in printed
    assert "3 runs: mean ± standard deviation" in printed


def test_a_measure_that_a_run_lacks_is_told_with_the_reason() -> None:
    meanings = {"recall": RECALL, "opis": OPIS}
    runs = [({"recall": 0.7, "opis": 0.1}, {"recall": 0.7}), *[({"recall": 0.7, "opis": 0.1},) * 2] * 2]
    comparisons = comparison.compare(meanings, runs)
    assert comparisons["opis"] == comparison.Comparison(None, None, None, "not measured")
    printed = comparison.text("On something", meanings, comparisons, 3, {"opis": "all are alike"})
    assert "OPIS is not measured: all are alike" in printed
    assert "Consistency between classes: not measured in OPIS." in printed
    content = json.loads(comparison.as_json({}, meanings, comparisons, []))
    assert content["measures"]["opis"]["change"] is None
    assert content["measures"]["opis"]["verdict"] == "not measured"


def test_a_change_counts_where_its_interval_leaves_out_0() -> None:
    """With three seeds Student's t at 95 % is 4.303: a mean of 2.48 deviations."""
    meanings = {"recall": RECALL}
    for mean, verdict in ((2.4, "within the spread"), (2.6, "better")):
        changes = [mean - 1, mean, mean + 1]  # of deviation 1
        runs = [({"recall": 0.0}, {"recall": change}) for change in changes]
        assert comparison.compare(meanings, runs)["recall"].verdict == verdict


def test_what_is_not_finite_is_null_in_json() -> None:
    content = json.loads(comparison.as_json({}, {}, {}, [{"loss": float("nan"), "of": [float("inf"), 1.0]}]))
    assert content["runs"] == [{"loss": None, "of": [None, 1.0]}]


@pytest.mark.parametrize(
    ("spread", "shown"),
    [
        (Spread(0.696, 0.007), "0.696 ± 0.007"),
        (Spread(0.0743, 0.0006), "0.0743 ± 0.0006"),
        (Spread(0.00464, 0.00007), "0.00464 ± 0.00007"),
        (Spread(0.0, 0.01), "0.000 ± 0.010"),
        (Spread(0.0, 0.0), "0.000 ± 0.000"),
        (Spread(0.5, None), "0.500"),
        (Spread(0.003, None), "0.0030"),
    ],
)
def test_a_spread_shows_the_digits_that_say_something(spread: Spread, shown: str) -> None:
    assert str(spread) == shown


def test_json_has_every_measure_with_both_sides_change_and_verdict() -> None:
    comparisons = comparison.compare({"opis": OPIS}, [({"opis": 0.4}, {"opis": 0.3})] * 3)
    content = json.loads(comparison.as_json({"steps": 5}, {"opis": OPIS}, comparisons, [{"seed": 0}]))
    assert content["settings"] == {"steps": 5}
    assert content["runs"] == [{"seed": 0}]
    assert set(content["measures"]["opis"]) == {
        "title", "meaning", "without_tcm", "with_tcm", "change", "verdict",
    }  # fmt: skip
    assert content["measures"]["opis"]["with_tcm"] == {
        "mean": pytest.approx(0.3),
        "deviation": pytest.approx(0),
    }
