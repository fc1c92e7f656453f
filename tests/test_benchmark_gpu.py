"""`make gpu`, as far as it can be told without a GPU: its steps, their outcomes, its table."""

from __future__ import annotations

import io
import itertools
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))  # benchmarks is not installed; it is found in the checkout

from benchmark_records import cell, record  # noqa: E402

from benchmarks import gpu, measure, opponents, result_files, sweeps, table  # noqa: E402
from benchmarks.workload import STEPS, Case  # noqa: E402

CASE = Case(512, 128, density=1e-3)


def step(code: str, limit_s: float = 30.0) -> gpu.Step:
    return gpu.Step("a step", [sys.executable, "-c", code], limit_s)


def with_replays() -> dict:
    made = record(CASE)
    made["units"][measure.UNIT_REPLAYED] = cell(2e-6, 2e-6)
    for competitor in made["competitors"].values():
        competitor["replays"] = {name: cell(5e-6, 2e-6) for name in STEPS}
    return made


def test_without_a_gpu_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main(["--results", str(tmp_path / "new")]) == 2
    assert "needs a CUDA device" in capsys.readouterr().out
    assert not (tmp_path / "new").exists()


def test_a_step_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert gpu.main(["--results", str(tmp_path), "--step", "test"]) == 2
    assert "there is no test here; there are" in capsys.readouterr().out


def test_a_step_passes_fails_or_is_stopped(capsys: pytest.CaptureFixture[str]) -> None:
    log = io.StringIO()
    assert gpu.run(step("print('hello')"), 30, log).startswith("passed in")
    assert gpu.run(step("raise SystemExit(3)"), 30, log) == "FAILED with status 3"
    assert gpu.run(step("import time; time.sleep(60)", limit_s=0.5), 30, log) == "stopped after 0 s"
    assert gpu.run(step("print('too late')"), 0, log) == "not run: no time left"
    assert "hello" in log.getvalue()
    assert "hello" in capsys.readouterr().out
    assert "too late" not in log.getvalue().replace("print('too late')", "")


def test_its_sweeps_and_opponents_are_those_of_the_benchmark(tmp_path: Path) -> None:
    words = [word for wanted in gpu.steps(tmp_path, 5.0) for word in wanted.command]
    named = {after for option, after in itertools.pairwise(words) if option == "--sweep"}
    assert named == {name for name in sweeps.SWEEPS if name.startswith("GPU")}
    assert words[words.index("--without") + 1] == opponents.COMPILED
    assert [word for option, word in itertools.pairwise(words) if option == "--backend"] == ["cuda", "cuda"]


def test_the_table_has_ratios_and_a_line_of_replays(tmp_path: Path) -> None:
    path = tmp_path / "a-device.json"
    result_files.write_json(path, result_files.stamped("a-device", measure.SCHEMA, [with_replays()]))
    first, second = gpu.table(path)
    assert first.split()[-4:] == ["0.200", "0.200", "9.000", "9.000"]
    assert second.split()[-4:] == ["2.500"] * 4


def test_replays_are_a_section_of_the_markdown() -> None:
    text = table.markdown({"slug": "a-device", "records": [with_replays()]})
    assert "## As CUDA-graph replays" in text
    assert "5 µs, 2.5 × U" in text
    assert "replays" not in table.markdown({"slug": "a-device", "records": [record(CASE)]})
