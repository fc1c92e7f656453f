"""The benchmark of evaluation: what it measures, its file, its picture, and what README makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'tcm-kernels[evaluation]'")

from benchmarks.reports import readme
from benchmarks.suites import histogram


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    arguments = ["--device", "cpu", "--n", "300", "--n", "200", "--budget", "0.2", "--out", str(folder)]
    assert histogram.main(arguments) == 0
    (path,) = folder.glob("*.json")
    return path


def test_the_unit_computes_every_similarity(monkeypatch: pytest.MonkeyPatch) -> None:
    computed = []
    product = torch.mm
    monkeypatch.setattr(torch, "mm", lambda x, y, out: computed.append(product(x, y, out=out).numel()))
    monkeypatch.setitem(histogram.TILE, "cpu", 64)
    emb, _ = histogram.embeddings(150, "cpu")
    histogram.tiled_product(emb)()
    assert sum(computed) == 150 * 150


def test_a_record_has_times_ratio_and_memory(written: Path) -> None:
    content = json.loads(written.read_text(encoding="utf-8"))
    assert {record["case"]["n"] for record in content["records"]} == {200, 300}
    for record in content["records"]:
        assert record["seconds"]["ours"]["median"] > 0
        assert 0 < record["ratio"]["q1"] <= record["ratio"]["median"] <= record["ratio"]["q3"]
        tables = 2 * 8 * record["case"]["classes"] * (histogram.BINS + 2)
        assert record["peak_bytes"] >= tables / 2  # what is not written of a table of zeros is not there
        assert record["environment"]["threads"] == torch.get_num_threads()


def test_a_second_run_keeps_the_records_of_the_first(written: Path) -> None:
    assert (
        histogram.main(["--device", "cpu", "--n", "100", "--budget", "0.1", "--out", str(written.parent)])
        == 0
    )
    content = json.loads(written.read_text(encoding="utf-8"))
    assert {record["case"]["n"] for record in content["records"]} == {100, 200, 300}


def test_it_draws_a_picture(written: Path) -> None:
    assert written.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_readme_tells_of_the_largest(written: Path) -> None:
    content = json.loads(written.read_text(encoding="utf-8"))
    files = {"histogram": content}
    assert readme.figure("histogram case/n", files) == "300"
    assert readme.figure("histogram matrix_bytes", files) == "360 kB"


def test_only_sizes_without_a_record_are_counted_if_asked(
    written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = []
    monkeypatch.setattr(histogram, "measure", lambda n, *_, **__: counted.append(n))
    before = written.read_bytes()
    arguments = ["--device", "cpu", "--n", "300", "--n", "200", "--missing", "--out", str(written.parent)]
    assert histogram.main(arguments) == 0
    assert counted == []
    assert written.read_bytes() == before


def test_a_size_that_cannot_be_counted_costs_no_other_and_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = histogram.measure

    def measure(n: int, device: str, **options: float) -> dict:
        if n == 50:
            raise RuntimeError("an illegal memory access")
        return right(n, device, **options)

    monkeypatch.setattr(histogram, "measure", measure)
    arguments = ["--device", "cpu", "--n", "50", "--n", "60", "--budget", "0.1", "--out", str(tmp_path)]
    assert histogram.main(arguments) == 1
    assert "RuntimeError: an illegal memory access" in capsys.readouterr().err
    (path,) = tmp_path.glob("*.json")
    content = json.loads(path.read_text(encoding="utf-8"))
    assert [record["case"]["title"] for record in content["records"]] == [histogram.title(60)]
