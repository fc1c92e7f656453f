"""The benchmark of the distributed loss: what it measures, and what README makes of it."""

from __future__ import annotations

import json

import pytest
import torch

if not torch.distributed.is_available():
    pytest.skip("torch has no torch.distributed", allow_module_level=True)

from benchmarks.harness.workload import Case
from benchmarks.reports import readme
from benchmarks.suites import distributed


def test_every_competitor_is_timed_and_its_memory_is_counted(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(distributed, "CASES", (Case(96, 16),))
    settings = ["--competitor", "ring", "--processes", "2", "--budget", "0.1", "--out", str(tmp_path)]
    assert distributed.main(settings) == 0
    (path,) = tmp_path.glob("*.json")
    records = json.loads(path.read_text(encoding="utf-8"))["records"]
    assert [(record["competitor"], record["ranks"]) for record in records] == [
        ("one process", 1), ("ring", 2),
    ]  # fmt: skip
    for record in records:
        assert record["seconds"]["cpu"]["median"] >= record["seconds"]["kernel"]["median"] > 0
        assert record["over_one_process"]["wall"]["median"] > 0
        assert record["peak_bytes"] >= 0
    assert records[0]["over_one_process"]["cpu"]["median"] == 1.0
    assert "| ring | 2 |" in capsys.readouterr().out


def test_a_batch_is_on_two_and_on_four_processes_and_others_have_small_ones_on_four():
    names = [(entry.name, entry.ranks) for entry in distributed.entries(Case(1024, 128))]
    assert names[:1] == [("one process", 1)]
    assert set(names[1:]) == {
        *((name, ranks) for name in distributed.OURS for ranks in (2, 4)),
        *((name, 4) for name in (distributed.DENSE, distributed.METRIC_LEARNING)),
    }
    assert {entry.name for entry in distributed.entries(Case(16384, 512))} == {
        "one process",
        *distributed.OURS,
    }


def test_of_a_round_the_slowest_rank_counts():
    entry = distributed.Entry("ring", 2)
    ranks = [{entry.title: {"cpu": [1.0, 5.0]}}, {entry.title: {"cpu": [2.0, 4.0]}}, {}]
    assert distributed.slowest(ranks, entry, "cpu") == [2.0, 5.0]


def test_a_rank_has_classes_of_its_own_and_no_row_is_left_out():
    work = distributed.workload.make(Case(96, 16))
    shares = [distributed.share_of(work, rank, 4) for rank in range(4)]
    assert sum(len(emb) for emb, _ in shares) == 96
    classes = [set(labels.tolist()) for _, labels in shares]
    assert len(set().union(*classes)) == sum(map(len, classes))


def test_readme_quotes_the_largest_batch():
    files = {"distributed": {"records": [
        {"case": {"n": n}, "competitor": "ring", "ranks": 4, "peak_bytes": 1000 * n} for n in (5, 70, 6)
    ]}}  # fmt: skip
    assert readme.figure("distributed-ring-4 case/n", files) == "70"
    with pytest.raises(readme.QuoteError):
        readme.figure("distributed-ring-3 case/n", files)
