"""The demo as its user meets it: files, exit codes, messages; and the measures it reports."""

from __future__ import annotations

import argparse
import itertools
import json
import struct
import sys
from pathlib import Path

import pytest
import torch

from tcm_kernels import demo, files
from tcm_kernels.demo import figure, measures, report, training
from tcm_kernels.evaluation import class_curves, epsilon_opis, opis

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

for package in ("matplotlib", "pytorch_metric_learning", "sklearn", "tqdm"):
    pytest.importorskip(package, reason=f"{package} is not installed: pip install 'tcm-kernels[demo]'")


def run_demo(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    demo.add_arguments(parser)
    return demo.main(parser.parse_args(arguments))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "made" / "by the demo"
    assert run_demo("--epochs", "1", "--runs", "1", "--seed", "3", "--out", str(out)) == 0
    return out


def test_leaves_the_two_files_and_nothing_else(finished: Path) -> None:
    assert sorted(path.name for path in finished.iterdir()) == ["results.json", "similarities.png"]


def test_results_hold_settings_epochs_and_measures_within_range(finished: Path) -> None:
    results = json.loads((finished / "results.json").read_text())
    assert results["settings"]["epochs"] == 1
    assert results["settings"]["backend"] == "auto"
    assert [run["seed"] for run in results["runs"]] == [3]
    for side in ("without_tcm", "with_tcm"):
        trained = results["runs"][0][side]
        assert set(trained["measures"]) == set(measures.MEANINGS)
        assert all(0 <= value <= 1 for value in trained["measures"].values())
        (epoch,) = trained["epochs"]
        assert all(value >= 0 for value in epoch.values())
        assert epoch["hard_positive_share"] <= 1
        assert epoch["hard_negative_share"] <= 1
        assert epoch["recall_at_1"] == trained["measures"]["recall_at_1"]
        assert epoch["recall_at_1"] > 0.5  # one class in five is 0.2; raw pixels give more than 0.9
    for name, comparison in results["measures"].items():
        change = comparison["with_tcm"]["mean"] - comparison["without_tcm"]["mean"]
        assert comparison["change"]["mean"] == pytest.approx(change), name
        assert comparison["verdict"] == "too few runs"


def test_picture_is_a_png_of_the_stated_size(finished: Path) -> None:
    content = (finished / "similarities.png").read_bytes()
    assert content.startswith(PNG_SIGNATURE)
    width, height = struct.unpack(">II", content[16:24])
    assert (width, height) == tuple(round(side * figure.DPI) for side in figure.SIZE)
    assert len(content) > 10_000


def test_same_seed_gives_the_same_numbers_and_keeps_the_callers_random_state(
    finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = torch.get_rng_state()
    assert run_demo("--epochs", "1", "--runs", "1", "--seed", "3", "--out", str(tmp_path)) == 0
    assert torch.equal(torch.get_rng_state(), before)
    name = "results.json"
    assert (tmp_path / name).read_bytes() == (finished / name).read_bytes()
    output, errors = capfd.readouterr()
    assert "Seed 3, without TCM" in output
    assert "Seed 3, with TCM" in output
    assert "no conclusion" in output  # one run
    assert errors == ""  # no progress bar where nobody watches


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--epochs", "0"], "--epochs"),
        (["--epochs", "-1"], "--epochs"),
        (["--runs", "0"], "--runs"),
        (["--seed", "-1"], "--seed"),
        (["--seed", str(2**32)], "--seed"),
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


def test_argument_that_is_no_number_exits_with_2() -> None:
    with pytest.raises(SystemExit) as exit_:
        run_demo("--epochs", "many")
    assert exit_.value.code == 2


def test_out_that_is_a_file_is_refused_before_the_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "file"
    out.write_text("mine")
    assert run_demo("--out", str(out)) == 2
    assert "argument --out: " in capsys.readouterr().err
    assert out.read_text() == "mine"


def test_missing_packages_are_named_with_the_cure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("sklearn", "tqdm"):
        monkeypatch.setitem(sys.modules, module, None)
    assert run_demo("--out", str(tmp_path / "out")) == 2
    message = capsys.readouterr().err
    assert message == "tcm-kernels: demo needs scikit-learn, tqdm: pip install 'tcm-kernels[demo]'\n"
    assert not (tmp_path / "out").exists()


def test_ctrl_c_exits_with_130_and_leaves_no_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train_all", interrupt)
    assert run_demo("--out", str(tmp_path)) == 130
    assert "interrupted" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


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


def test_results_that_cannot_be_written_exit_with_1(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(demo, "write_atomically", fail)
    assert run_demo("--epochs", "1", "--runs", "1", "--out", str(tmp_path)) == 1
    assert f"cannot write to {tmp_path}: No space left on device" in capsys.readouterr().err


def test_split_is_open_world() -> None:
    digits = training.load_digits()
    assert digits.train_labels.unique().tolist() == [0, 1, 2, 3, 4]
    assert digits.unseen_labels.unique().tolist() == list(training.UNSEEN)
    assert len(digits.train_images) + len(digits.unseen_images) == 1797
    assert digits.train_images.shape[1:] == (1, 8, 8)
    assert digits.train_images.max() == 1


def test_measures_of_a_small_case_counted_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pair in a loop; at 30 % FAR, so that a few pairs are enough."""
    monkeypatch.setattr(measures, "FALSE_ACCEPT_RATE", 0.3)
    emb = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2] * 4)
    similarity = torch.nn.functional.cosine_similarity(emb[:, None].double(), emb[None].double(), dim=2)
    pairs = [(i, j) for i, j in itertools.permutations(range(12), 2)]
    same = [(i, j) for i, j in pairs if labels[i] == labels[j]]
    other = [(i, j) for i, j in pairs if labels[i] != labels[j]]
    falling = sorted((float(similarity[i, j]) for i, j in other), reverse=True)
    accepted = int(0.3 * len(other)) // 2 * 2  # a pair and its mirror image are equal
    threshold = (falling[accepted - 1] + falling[accepted]) / 2

    far = [sum(similarity[i, j] >= threshold for i, j in other if labels[i] == c) / 32 for c in range(3)]
    frr = [sum(similarity[i, j] < threshold for i, j in same if labels[i] == c) / 12 for c in range(3)]
    nearest = [max((j for j in range(12) if j != i), key=lambda j: similarity[i, j]) for i in range(12)]

    got = measures.measure(emb, labels)
    assert got.recall_at_1 == pytest.approx(sum(labels[nearest[i]] == labels[i] for i in range(12)) / 12)
    assert got.false_reject_rate == pytest.approx(sum(frr) / 3)
    assert got.worst_false_reject_rate == pytest.approx(max(frr))
    assert got.false_accept_gap == pytest.approx(max(far) - min(far))
    assert got.false_reject_gap == pytest.approx(max(frr) - min(frr))
    curves = class_curves(emb.double(), labels)
    assert got.opis == opis(curves, far=(0.1, 0.3), draws=0).value
    assert got.epsilon_opis == epsilon_opis(curves, far=(0.1, 0.3), draws=0).value


def test_perfectly_separated_classes_are_perfectly_consistent() -> None:
    labels = torch.arange(4).repeat_interleave(3)
    got = measures.measure(torch.eye(4)[labels], labels)
    assert got == measures.Measures(1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


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
def test_verdict_follows_from_the_numbers(
    changes: list[float], higher_is_better: bool, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(recall: float) -> training.Trained:
        found = measures.Measures(recall, *[0.5] * (len(measures.MEANINGS) - 1))
        return training.Trained([], found, torch.empty(0, 2))

    meaning = measures.Meaning("Tested", "a sentence", higher_is_better, is_consistency=False)
    monkeypatch.setitem(measures.MEANINGS, "recall_at_1", meaning)
    runs = [training.Run(seed, trained(0.5), trained(0.5 + change)) for seed, change in enumerate(changes)]
    comparisons = report.compare(runs)
    assert comparisons["recall_at_1"].verdict == verdict
    printed = report.text(comparisons, runs)
    assert verdict in printed
    assert ("no conclusion" in printed) == (verdict == "too few runs")
