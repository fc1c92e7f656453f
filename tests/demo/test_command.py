"""The demo as its user meets it, whatever the data: exit codes, messages, and what is left behind."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest

from tcm_kernels import demo, files
from tcm_kernels.demo import command
from tcm_kernels.demo.glyphs.processes import ProcessError

for package in ("matplotlib", "pytorch_metric_learning", "sklearn", "tqdm"):
    pytest.importorskip(package, reason=f"{package} is not installed: pip install 'tcm-kernels[demo]'")


def run_demo(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    demo.add_arguments(parser)
    return demo.main(parser.parse_args(arguments))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--steps", "0"], "--steps"),
        (["--processes", "0"], "--processes"),
        (["--epochs", "0", "--data", "digits"], "--epochs"),
        (["--epochs", "-1", "--data", "digits"], "--epochs"),
        (["--epochs", "5"], "--epochs"),
        (["--steps", "5", "--data", "digits"], "--steps"),
        (["--processes", "2", "--data", "digits"], "--processes"),
        (["--runs", "0"], "--runs"),
        (["--seed", "-1"], "--seed"),
        (["--seed", str(2**32)], "--seed"),
        (["--seed", str(2**32 - 2)], "--seed"),
        (["--backend", "abacus"], "--backend"),
    ],
)
def test_bad_argument_is_named_and_writes_nothing(
    arguments: list[str], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run_demo("--out", str(out), *arguments) == 2
    output, message = capsys.readouterr()
    assert output == ""
    assert f"argument {named}: " in message
    assert arguments[1] in message
    assert message.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize("arguments", [["--steps", "many"], ["--data", "faces"]])
def test_what_cannot_be_read_exits_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        run_demo(*arguments)
    assert exit_.value.code == 2


def test_out_that_is_a_file_is_refused_before_the_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "file"
    out.write_text("mine")
    assert run_demo("--out", str(out)) == 2
    assert "argument --out: " in capsys.readouterr().err
    assert out.read_text() == "mine"


@pytest.mark.parametrize("data", ["glyphs", "digits"])
def test_missing_packages_are_named_with_the_cure(
    data: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("sklearn", "tqdm"):
        monkeypatch.setitem(sys.modules, module, None)
    assert run_demo("--data", data, "--out", str(tmp_path / "out")) == 2
    message = capsys.readouterr().err
    assert message == "tcm-kernels: demo needs scikit-learn, tqdm: pip install 'tcm-kernels[demo]'\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("data", ["glyphs", "digits"])
def test_ctrl_c_exits_with_130_and_leaves_no_file(
    data: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(getattr(command, data), "run", interrupt)
    assert run_demo("--data", data, "--out", str(tmp_path)) == 130
    assert "interrupted" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_died_exits_with_1_and_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def die(*_: object) -> None:
        raise ProcessError("a process ended with code -9")

    monkeypatch.setattr(command.glyphs, "run", die)
    assert run_demo("--out", str(tmp_path)) == 1
    assert capsys.readouterr().err == "tcm-kernels: a process ended with code -9\n"
    assert list(tmp_path.iterdir()) == []


def test_results_that_cannot_be_written_exit_with_1(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(command.glyphs, "run", lambda *_: ("found", {"results.json": b"{}"}))
    monkeypatch.setattr(command, "write_atomically", fail)
    assert run_demo("--out", str(tmp_path)) == 1
    output, message = capsys.readouterr()
    assert output == "found\n"  # three minutes' work, if only for the eye
    assert f"cannot write to {tmp_path}: No space left on device" in message


def test_failed_write_keeps_the_old_file_and_leaves_no_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    path = tmp_path / "results.json"
    path.write_bytes(b"old")
    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        files.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_an_earlier_run_left_does_not_stand_beside_another_ones_numbers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("utilities.png", "report-with-tcm.html", "similarities.png", "results.json", "notes.txt"):
        (tmp_path / name).write_text("old")
    monkeypatch.setattr(command.glyphs, "run", lambda *_: ("", {"results.json": b"{}", "utilities.png": b""}))
    assert run_demo("--out", str(tmp_path)) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "results.json", "utilities.png"]
    assert (tmp_path / "notes.txt").read_text() == "old"


def test_results_are_written_after_all_else_and_before_anything_is_printed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    done: list[str] = []
    monkeypatch.setattr(command, "write_atomically", lambda path, _: done.append(path.name))
    monkeypatch.setattr("builtins.print", lambda *text, **_: done.append("printed"))
    monkeypatch.setattr(command.glyphs, "run", lambda *_: ("", {"results.json": b"{}", "utilities.png": b""}))
    assert run_demo("--out", str(tmp_path)) == 0
    assert done[:3] == ["utilities.png", "results.json", "printed"]


@pytest.mark.parametrize(
    ("backend", "device"),
    [("auto", "cpu"), ("cpu", "cpu"), ("torch", "cpu"), ("triton", "cuda"), ("cuda", "cuda")],
)
def test_beside_a_gpu_the_cpu_is_taken_unless_the_backend_has_none(
    backend: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command.torch.cuda, "is_available", lambda: True)
    chosen: list[str] = []
    monkeypatch.setattr(command.dispatch, "choose", lambda _, device, __: chosen.append(device))
    on_gpu = lambda name, device, _: "a GPU only" if name in ("triton", "cuda") and device == "cpu" else None  # noqa: E731
    monkeypatch.setattr(command.dispatch, "why_not", on_gpu)
    assert command._device(backend) == device
    assert chosen == [device]
