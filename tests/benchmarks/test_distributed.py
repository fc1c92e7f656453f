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
    assert distributed.main(["--competitor", "ring", "--budget", "0.1", "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("*.json")
    records = json.loads(path.read_text(encoding="utf-8"))["records"]
    assert [(record["competitor"], record["ranks"]) for record in records] == [
        ("one process", 1), ("ring", 2), ("ring", 4),
    ]  # fmt: skip
    for record in records:
        assert record["seconds"]["cpu"]["median"] >= record["seconds"]["kernel"]["median"] > 0
        assert record["over_one_process"]["wall"]["median"] > 0
        assert record["peak_bytes"] >= 0
    assert records[0]["over_one_process"]["cpu"]["median"] == 1.0
    assert "| ring | 4 |" in capsys.readouterr().out


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
