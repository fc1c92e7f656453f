"""The demo on glyphs: what it leaves behind, that it can be repeated, and that it is a run of the study."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import statistics
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import few_classes
import numpy as np
import pytest
import torch

for package in ("matplotlib", "pytorch_metric_learning", "scipy", "sklearn", "tqdm"):
    pytest.importorskip(package, reason=f"{package} is not installed: pip install 'tcm-kernels[demo]'")

from benchmarks.harness.result_files import FOLDER  # noqa: E402
from benchmarks.quality import data, running  # noqa: E402
from benchmarks.quality.plan import DEFAULT_MARGINS, FULL, Trial  # noqa: E402
from benchmarks.quality.records import Records  # noqa: E402
from tcm_kernels import demo  # noqa: E402
from tcm_kernels.demo.comparison import SIDES  # noqa: E402
from tcm_kernels.demo.glyphs import measures, paired  # noqa: E402
from tcm_kernels.demo.glyphs.paired import Settings, Task  # noqa: E402
from tcm_kernels.demo.glyphs.processes import run_all  # noqa: E402

STEPS = 12


@pytest.fixture(scope="module", autouse=True)
def of_few_classes() -> Iterator[None]:
    some = few_classes.split()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paired, "split", lambda: some)
        patch.setattr(data, "classes_of", lambda _: some)
        for drawn in (paired.seen, paired.unseen, data.load):
            drawn.cache_clear()
        yield
    for drawn in (paired.seen, paired.unseen, data.load):
        drawn.cache_clear()


def run_demo(out: Path, *arguments: str) -> int:
    parser = argparse.ArgumentParser()
    demo.add_arguments(parser)
    given = ["--steps", str(STEPS), "--runs", "1", "--seed", "3", "--processes", "1", "--out", str(out)]
    return demo.main(parser.parse_args([*given, *arguments]))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "made" / "by the demo"
    assert run_demo(out) == 0
    return out


def test_it_leaves_a_picture_both_reports_and_the_numbers(finished: Path) -> None:
    assert sorted(path.name for path in finished.iterdir()) == [
        "report-with-tcm.html", "report-without-tcm.html", "results.json", "utilities.png",
    ]  # fmt: skip
    assert (finished / "utilities.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_results_keep_their_shape(finished: Path) -> None:
    results = json.loads((finished / "results.json").read_text())
    assert results["settings"]["data"] == "glyphs"
    assert results["settings"]["steps"] == STEPS
    assert results["settings"]["classes_judged"] == 30
    assert set(results["measures"]) == set(measures.MEANINGS)
    for name in ("opis", "recall_at_1"):
        assert {"without_tcm", "with_tcm", "change", "verdict"} <= set(results["measures"][name])
    (of_seed,) = results["runs"]
    assert of_seed["seed"] == 3
    for side in SIDES:
        assert all(0 <= value <= 1 for value in of_seed[side]["measures"].values())
        assert [look["step"] for look in of_seed[side]["looks"]] == [STEPS]
        assert 0 < of_seed[side]["looks"][0]["hard_positive_share"] <= 1


def test_a_report_names_its_classes_and_shows_its_own_numbers(finished: Path) -> None:
    results = json.loads((finished / "results.json").read_text())
    for side, title in SIDES.items():
        page = (finished / f"report-{title.replace(' ', '-').lower()}.html").read_text(encoding="utf-8")
        assert f"Glyphs {title}, seed 3" in page
        assert f"{results['runs'][0][side]['measures']['opis']:.3g}" in page
        character = paired.alphabet().characters[paired.split().test[0]]
        assert unicodedata.name(character).capitalize() in page


def test_same_seed_gives_the_same_numbers_and_keeps_the_callers_random_state(
    finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = torch.get_rng_state()
    assert run_demo(tmp_path) == 0
    assert torch.equal(torch.get_rng_state(), before)
    name = "results.json"
    assert (tmp_path / name).read_bytes() == (finished / name).read_bytes()
    output, errors = capfd.readouterr()
    assert "3 without TCM" in output
    assert "3 with TCM" in output
    assert "no conclusion" in output  # one run
    assert errors == ""  # no progress bar where nobody watches, and no warning


def test_a_network_that_has_learnt_nothing_is_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def alike(settings: Settings, task: Task, tell: object) -> paired.Trained:
        emb = torch.ones(len(paired.unseen().labels), 4)
        found, reasons = measures.measure(emb, paired.unseen().labels)
        return paired.Trained(task, {}, found, reasons, emb.numpy())

    monkeypatch.setattr(paired, "train", alike)
    assert run_demo(tmp_path) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
    output = capsys.readouterr().out
    assert "OPIS is not measured: " in output
    assert "threshold spread is not measured: " in output


def test_both_trainings_of_a_seed_start_alike() -> None:
    first, again, other = (paired.student(seed).network.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(x, again[name]) for name, x in first.items())
    assert not all(torch.equal(x, other[name]) for name, x in first.items())


def trial(seed: int, with_tcm: bool) -> Trial:
    """The run of the study that a training of the demo is."""
    return Trial(
        split="random-0",
        base="supcon",
        arm="tcm" if with_tcm else "base",
        purpose="judge",
        seed=seed,
        learning_rate=paired.HOW.learning_rate,
        weight_decay=paired.HOW.weight_decay,
        weight=paired.TCM_WEIGHT if with_tcm else 0.0,
        margin_plus=paired.MARGIN_PLUS if with_tcm else DEFAULT_MARGINS[0],
        margin_minus=paired.MARGIN_MINUS if with_tcm else DEFAULT_MARGINS[1],
    )


OF_THE_STUDY = {"threshold_spread": "spread_relative", "tar_at_far": "tar_at_1e-3"}


@pytest.mark.parametrize("with_tcm", [False, True])
def test_a_training_is_a_run_of_the_study_bit_for_bit(with_tcm: bool) -> None:
    rows, _ = running.run(trial(5, with_tcm), dataclasses.replace(FULL, steps=STEPS, stops=(STEPS,)))
    row = rows[-1]
    assert row["classes"] == "test"
    told: list[paired.Progress] = []
    trained = paired.train(Settings(STEPS, "auto", "cpu", 1), Task(5, with_tcm), told.append)
    assert trained.measures == pytest.approx(
        {name: row[OF_THE_STUDY.get(name, name)] for name in trained.measures}, rel=1e-9
    )
    assert told[-1].look.base_loss == row["base_loss"]
    if with_tcm:
        assert told[-1].look.gradient_ratio == row["gradient_ratio"]


def test_the_study_has_the_demos_runs_and_holds_up_what_they_show() -> None:
    """Of the demo's own seeds, where the demo stops."""
    runs = Records(FOLDER / "quality").runs()

    def change(measure: str) -> float:
        found = [
            [
                next(row[measure] for row in runs[trial(seed, with_tcm).key]
                     if row["classes"] == "test" and row["step"] == paired.STEPS)
                for seed in (0, 1, 2)
            ]
            for with_tcm in (False, True)
        ]  # fmt: skip
        without, with_tcm = map(statistics.fmean, found)
        return with_tcm / without - 1

    assert change("opis") < -0.1
    assert change("opis_strict") < -0.1
    assert change("spread_relative") < -0.15
    assert change("recall_at_1") > -0.005


def test_tcm_makes_a_difference_of_the_second_training_alone() -> None:
    settings = Settings(STEPS, "auto", "cpu", 1)
    without, with_tcm = (paired.train(settings, Task(0, side), lambda _: None) for side in (False, True))
    assert not np.array_equal(without.unseen_emb, with_tcm.unseen_emb)
    again = paired.train(settings, Task(0, False), lambda _: None)
    assert np.array_equal(without.unseen_emb, again.unseen_emb)


def test_a_training_that_diverged_is_told_as_such() -> None:
    emb = torch.full((len(paired.unseen().labels), 4), torch.nan)
    found, reasons = measures.measure(emb, paired.unseen().labels)
    assert found == {}
    assert reasons == dict.fromkeys(measures.MEANINGS, "the training has diverged")


def test_where_same_class_pairs_are_no_more_similar_there_is_no_threshold_spread() -> None:
    labels = torch.arange(40) // 4
    emb = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    emb[1::2] = -emb[0::2]  # two of a class point one way, two the other: their mean similarity is negative
    found, reasons = measures.measure(emb, labels)
    assert "threshold_spread" not in found
    assert "no more similar" in reasons["threshold_spread"]


def test_in_processes_of_their_own_trainings_come_to_the_same() -> None:
    settings = Settings(1, "auto", "cpu", 2)
    told: list[paired.Progress] = []
    found = run_all(functools.partial(few_classes.train, settings), paired.tasks([0]), told.append, 2)
    assert [trained.task for trained in found] == paired.tasks([0])
    assert sorted(progress.task.with_tcm for progress in told) == [False, True]
    here = paired.train(settings, Task(0, True), lambda _: None)
    assert here.measures == found[1].measures
    assert np.array_equal(here.unseen_emb, found[1].unseen_emb)
