"""The demo on digits: its files, that it can be repeated, and what it measures."""

from __future__ import annotations

import argparse
import itertools
import json
import struct
from pathlib import Path

import pytest
import torch

from tcm_kernels import demo
from tcm_kernels.demo.digits import figure, measures, training
from tcm_kernels.evaluation import class_curves, epsilon_opis, opis

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

for package in ("matplotlib", "pytorch_metric_learning", "sklearn", "tqdm"):
    pytest.importorskip(package, reason=f"{package} is not installed: pip install 'tcm-kernels[demo]'")


def run_demo(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    demo.add_arguments(parser)
    return demo.main(parser.parse_args(["--data", "digits", *arguments]))


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
