"""What a mechanism brings is measured in two processes, and the file says what was compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import ROOT
from benchmarks.harness import result_files
from benchmarks.harness.workload import Case
from benchmarks.suites import ablation
from tcm_kernels import dispatch

pytestmark = pytest.mark.skipif(dispatch.why_not_here("cpu") is not None, reason="needs the C++ extension")

TINY = Case(64, 16, density=0.05)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablation, "HEADLINE", TINY)


def test_a_mechanism_that_a_variable_switches_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without = {"TCM_KERNELS_CPU_SCREENING": "full"}
    monkeypatch.setitem(ablation.ABLATIONS, "codes", ablation.Ablation((Case(96, 32),), without=without))
    assert ablation.main(["codes", "--budget", "0", "--out", str(tmp_path)]) == 0
    content = json.loads((tmp_path / "ablation-codes.json").read_text())
    assert content["settings"]["variables"] == {"with": {}, "without": without}
    assert [record["case"]["n"] for record in content["records"]] == [96, 64]
    for record in content["records"]:
        assert record["without_over_with"]["median"] > 0
        assert record["seconds"].keys() == {"with", "without"}


def test_the_same_checkout_gives_the_same_bits(tmp_path: Path) -> None:
    arguments = ["nothing", "--without", str(ROOT), "--budget", "0", "--bitwise", "--out", str(tmp_path)]
    with pytest.raises(SystemExit):  # nothing would differ
        ablation.main(arguments)
    link = tmp_path / "checkout"
    link.mkdir()
    (link / "tcm_kernels").symlink_to(ROOT / "tcm_kernels")
    arguments[2] = str(link)
    assert ablation.main(arguments) == 0


def test_other_bits_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablation, "_same_bits", lambda running, folder: False)
    monkeypatch.setitem(
        ablation.ABLATIONS, "any", ablation.Ablation((), without={"TCM_KERNELS_CPU_ISA": "baseline"})
    )
    assert ablation.main(["any", "--budget", "0", "--bitwise", "--out", str(tmp_path)]) == 1


def test_bits_of_results_are_compared(tmp_path: Path) -> None:
    class Fixed:
        def __init__(self, *results: float) -> None:
            self.results = [torch.tensor(result) for result in results]

        def ask(self, order: str, path: str) -> None:
            torch.save(self.results, path)

    same = {"with": Fixed(1.0, 2.0), "without": Fixed(1.0, 2.0)}
    other = {"with": Fixed(1.0, 2.0), "without": Fixed(1.0, 2.0000002)}
    assert ablation._same_bits(same, tmp_path)
    assert not ablation._same_bits(other, tmp_path)


def test_a_side_that_dies_is_an_error_and_no_hang(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tcm_kernels.py").write_text("raise ImportError('built for another Python')")
    with pytest.raises(RuntimeError, match="ended with 1"):
        ablation.main(["any", "--without", str(tmp_path), "--budget", "0", "--out", str(tmp_path)])
    assert "built for another Python" in capfd.readouterr().err
    assert not list(tmp_path.glob("*.json"))


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("huge-pages", "huge pages"),
        ("prefix", "a prefix of the columns"),
        ("deferred-sums", "deferred sums"),
        ("7-bit-codes", "7-bit codes"),
        ("bfloat16-codes", "bfloat16 codes"),
    ],
)
def test_the_design_quotes_the_files_and_what_stays_pays(name: str, row: str) -> None:
    content = json.loads((result_files.FOLDER / f"ablation-{name}.json").read_text())
    *_, headline = ratios = [record["without_over_with"]["median"] for record in content["records"]]
    (line,) = (
        line
        for line in (ROOT / "docs/design.md").read_text(encoding="utf-8").splitlines()
        if line.startswith(f"| {row}")
    )
    assert line.split(" | ")[-2:] == [f"{max(ratios):.2f}", f"{headline:.2f} |"]
    assert max(ratios) >= ablation.WORTH_IT
    assert not content["settings"]["commits"]["with"]["dirty"]
