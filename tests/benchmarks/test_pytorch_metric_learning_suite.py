"""The benchmark of listed pairs next to pytorch-metric-learning: its records, its table, what stops it."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("pytorch_metric_learning")

from checkout import ROOT

from benchmarks.harness import result_files
from benchmarks.harness.workload import Case
from benchmarks.suites import pytorch_metric_learning as suite
from benchmarks.suites.pytorch_metric_learning import CONTRASTIVE, LISTED, OURS, TCM, Setting

# The library's own classes are deprecated nowhere, but torch warns of what they call.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
SMALL = Case(48, 16, margins=suite.MARGINS, noise=0.9)
CASES = (
    Setting(SMALL, suite.ALL_PAIRS, (OURS, LISTED, TCM, CONTRASTIVE)),
    Setting(SMALL, suite.MULTI_SIMILARITY, (LISTED, TCM, CONTRASTIVE)),
    Setting(SMALL, suite.TRIPLET_MARGIN, (LISTED, TCM)),
    Setting(Case(96, 16, margins=suite.MARGINS), suite.ALL_PAIRS, (LISTED,), with_peak=True),
)


def test_every_competitor_is_timed_and_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(suite, "CASES", CASES)
    assert suite.main(["--budget", "0.2", "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.iterdir()
    assert path.name.startswith("pytorch-metric-learning-cpu-")
    records = json.loads(path.read_text(encoding="utf-8"))["records"]
    assert [(record["case"]["lister"], record["competitor"]) for record in records] == [
        (setting.lister, name) for setting in CASES for name in setting.competitors
    ]
    for record in records:
        assert record["seconds"]["median"] > 0
        assert record["seconds"]["count"] == record["over_ours"]["count"] > 0
        assert 0 < record["hard_density"] < 1
        assert record["loss"] > 0
        assert record["same_function"] == (record["case"]["lister"] != suite.TRIPLET_MARGIN)
        assert ("peak_bytes" in record) == (record["case"]["n"] == 96)
    for place in (0, 4, 7, 9):  # ours
        assert records[place]["over_ours"]["median"] == 1.0
    assert records[0]["case"]["pairs"] == records[1]["case"]["pairs"] == 48 * 47
    assert 0 < records[4]["case"]["pairs"] < 48 * 47
    assert records[9]["peak_bytes"] >= 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 2 + len(records)
    assert f"| 48 | 16 | all pairs | 2,256 | {records[0]['hard_density']:.2%} | {OURS} |" in printed[2]


def test_a_pair_of_two_triplets_counts_twice_with_theirs_and_once_with_ours():
    work = suite.workload.make(SMALL)
    triplets = suite.pairs_of(work, suite.TRIPLET_MARGIN)
    assert len(triplets) == 3
    anchors, positives, negatives = triplets
    each = (anchors, positives, anchors, negatives)
    ours, theirs = (suite.loss_of(name, work, triplets, suite.TRIPLET_MARGIN) for name in (LISTED, TCM))
    as_listed = suite.loss_of(LISTED, work, each, suite.TRIPLET_MARGIN)
    assert theirs(work.emb).item() == pytest.approx(as_listed(work.emb).item(), abs=suite.TOLERANCE)
    assert abs(theirs(work.emb).item() - ours(work.emb).item()) > suite.TOLERANCE


def test_values_that_differ_end_the_run(monkeypatch):
    right = suite.loss_of

    def loss_of(competitor, *given):
        loss = right(competitor, *given)
        return (lambda emb: loss(emb) + 2e-5) if competitor == TCM else loss

    monkeypatch.setattr(suite, "loss_of", loss_of)
    with pytest.raises(RuntimeError, match="not the same values"):
        suite.measure(CASES[0], budget_s=0.1)


def test_without_the_library_it_says_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(suite.importlib.util, "find_spec", lambda name: None)
    assert suite.main(["--out", str(tmp_path)]) == 2
    assert "pip install" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_the_page_shows_the_records():
    page = (ROOT / "docs/pytorch-metric-learning.md").read_text(encoding="utf-8")
    shown = page.partition("<!--speed-->\n")[2].partition("\n<!--/speed-->")[0]
    (path,) = result_files.FOLDER.glob("pytorch-metric-learning-*.json")
    assert shown == suite.text(result_files.load_if_there(path)).strip()
