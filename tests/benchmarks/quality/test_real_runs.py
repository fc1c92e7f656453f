"""Runs of the study on miniature data sets: measures and records, and whole studies as a user starts them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

for package in ("pytorch_metric_learning", "PIL", "scipy", "tqdm"):
    pytest.importorskip(package, reason=f"{package} is not installed: pip install 'tcm-kernels[demo]'")
if sys.version_info < (3, 11):
    pytest.importorskip("tomli", reason="tomli is not installed: pip install 'tcm-kernels[bench]'")

import miniature_data_sets as miniature  # noqa: E402
from checkout import ROOT  # noqa: E402
from miniature_data_sets import load  # noqa: E402
from miniature_settings import written  # noqa: E402

from benchmarks.quality.measures import MEASURES  # noqa: E402
from benchmarks.quality.real import __main__ as command  # noqa: E402
from benchmarks.quality.real import config, images, measuring, records, table, train  # noqa: E402
from benchmarks.quality.real.images import ClassBalancedBatches  # noqa: E402
from benchmarks.quality.real.ranks import Ranks  # noqa: E402
from tcm_kernels import fused_tcm_loss  # noqa: E402
from tcm_kernels.evaluation import (  # noqa: E402
    class_curves,
    epsilon_opis,
    error_rates,
    opis,
    tar_at_far,
    threshold_spread,
)

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
TEST_CLASSES = tuple(range(101, 111))


def some(n: int, classes: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings in loose clusters, and labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    centres = torch.randn(classes, 8, generator=torch.Generator().manual_seed(99))
    return centres[labels] + torch.randn(n, 8, generator=generator), labels


class TestMeasuring:
    @pytest.mark.parametrize("with_gallery", [False, True])
    def test_the_other_measures_are_those_of_the_package(self, with_gallery: bool) -> None:
        emb, labels = some(120, 20)
        gallery = some(100, 20, seed=1) if with_gallery else None
        found = measuring.measure(emb, labels, gallery)
        assert list(found) == list(MEASURES)
        assert found.reasons == {}
        curves = class_curves(emb, labels, *(gallery or ()))
        frr = error_rates(curves, tar_at_far(curves, 1e-2).threshold).false_reject
        assert found["opis"] == pytest.approx(opis(curves, far=(1e-2, 1e-1), draws=0).value, rel=1e-12)
        assert found["opis_strict"] == pytest.approx(opis(curves, far=(1e-3, 1e-2), draws=0).value, rel=1e-12)
        assert found["epsilon_opis"] == pytest.approx(epsilon_opis(curves, draws=0).value, rel=1e-12)
        assert found["tar_at_1e-3"] == pytest.approx(tar_at_far(curves, 1e-3).tar, rel=1e-12)
        assert found["tar_at_1e-2"] == pytest.approx(tar_at_far(curves, 1e-2).tar, rel=1e-12)
        spread = threshold_spread(curves, draws=0)
        assert found["spread_relative"] == pytest.approx(spread.relative, rel=1e-9)
        assert found["spread_decades"] == pytest.approx(spread.decades, rel=1e-9)
        assert found["worst_decile_frr"] == pytest.approx(sum(sorted(frr)[-2:]) / 2)

    def test_too_few_pairs_give_none_with_the_reason(self) -> None:
        found = measuring.measure(*some(12, 3))  # 48 pairs of two classes
        assert found["recall_at_1"] is not None
        assert [name for name, value in found.items() if value is None] == list(found.reasons)
        assert found.reasons["tar_at_1e-3"] == (
            "a false-accept rate of 0.001 needs at least 1,000 distinct other-class pairs, got 48"
        )
        assert set(found.reasons) == set(MEASURES) - {"recall_at_1"}

    @pytest.mark.parametrize(
        ("emb", "labels"),
        [
            pytest.param(torch.ones(1, 4), torch.zeros(1, dtype=torch.int64), id="one image"),
            pytest.param(torch.ones(0, 4), torch.zeros(0, dtype=torch.int64), id="no image"),
            pytest.param(torch.full((9, 4), torch.nan), torch.arange(9), id="not finite"),
        ],
    )
    def test_nothing_to_measure_is_no_crash(self, emb: torch.Tensor, labels: torch.Tensor) -> None:
        found = measuring.measure(emb, labels)
        assert set(found.values()) == {None}
        assert set(found.reasons) == set(MEASURES)

    def test_one_class_has_recall_and_nothing_about_thresholds(self) -> None:
        found = measuring.measure(torch.randn(9, 4), torch.zeros(9, dtype=torch.int64))
        assert found["recall_at_1"] == 1
        assert {value for name, value in found.items() if name != "recall_at_1"} == {None}


class TestRecords:
    def test_what_was_appended_is_loaded_and_a_line_cut_short_makes_room(self, tmp_path: Path) -> None:
        path = tmp_path / "made" / "a.jsonl"
        assert records.load(path) == {}
        records.append(path, {"key": "a", "x": 1.5})
        with path.open("ab") as file:
            file.write(b'{"key": "b", "x":')
        assert list(records.load(path)) == ["a"]
        records.append(path, {"key": "c"})
        assert list(records.load(path)) == ["a", "c"]
        assert path.read_text() == '{"key": "a", "x": 1.5}\n{"key": "c"}\n'

    @pytest.mark.parametrize("line", ["garbage", "[1]", '{"x": 1}', ""])
    def test_a_whole_line_that_is_no_record_is_named(self, line: str, tmp_path: Path) -> None:
        path = tmp_path / "a.jsonl"
        path.write_text(f'{{"key": "a"}}\n{line}\n')
        with pytest.raises(records.RecordsError) as raised:
            records.load(path)
        assert str(raised.value) == f"{path}, line 2: is not a record; move the file away"

    def test_equal_settings_have_equal_keys_in_any_order(self) -> None:
        assert records.key({"a": 1, "b": [2]}) == records.key({"b": [2], "a": 1})
        assert records.key({"a": 1}) != records.key({"a": 2})

    def test_the_table_compares_seeds_that_both_arms_have(self) -> None:
        def record(arm: str, seed: int, recall: float, value: float | None) -> dict[str, Any]:
            measures = dict.fromkeys(MEASURES, value) | {"recall_at_1": recall}
            reasons = {"opis": "too few pairs"} if value is None else {}
            return {"arm": arm, "seed": seed, "measures": measures, "reasons": reasons}

        shown = [record("base", 0, 0.5, 0.2), record("tcm", 0, 0.6, 0.1), record("base", 1, 0.7, 0.3),
                 record("tcm", 1, 0.6, None), record("base", 2, 0.9, 0.3)]  # fmt: skip
        lines = table.text(shown).splitlines()
        count = len(MEASURES)
        width = 2 + max(len(measure.title) for measure in MEASURES.values())
        cells = {line[:width].strip(): line[width:].split("  ") for line in lines[1 : 1 + count]}
        assert [x.strip() for x in cells["Recall@1"] if x] == [
            "0.7000 ± 0.2000", "0.6000 ± 0.0000", "+0.0000 ± 0.1414", "1 of 2",
        ]  # fmt: skip
        assert [x.strip() for x in cells["OPIS, FAR 1e-2..1e-1"] if x] == [
            "0.2667 ± 0.0577", "0.1000", "-0.1000", "1 of 1",
        ]  # fmt: skip
        assert lines[1 + count] == "Runs: 3 of base, 2 of base + TCM; seeds in both: 2."
        assert lines[2 + count :] == ["OPIS, FAR 1e-2..1e-1 is not defined: too few pairs"]


@pytest.fixture(autouse=True)
def _one_thread(restored_threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many cores as a test machine has to spare; no ranks but those that a test starts."""
    torch.set_num_threads(1)
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def birds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Large enough for every measure: 60 test images of 10 classes, 1,620 pairs of two."""
    return miniature.cub(tmp_path_factory.mktemp("cub"), (1, 2, 3, 100, *TEST_CLASSES), per_class=6)


def study(settings: Path, root: Path, out: Path, *more: str) -> int:
    arguments = (str(settings), "--root", str(root), "--out", str(out), "--device", "cpu")
    return command.main([*arguments, *(() if "--workers" in more else ("--workers", "0")), *more])


def found(out: Path, name: str = "cub") -> list[dict[str, Any]]:
    return list(records.load(out / f"quality-real-{name}.jsonl").values())


def repeatable(record: dict[str, Any]) -> dict[str, Any]:
    """A record without what depends on the time of day."""
    left_out = ("training_seconds", "written", "environment")
    return {name: value for name, value in record.items() if name not in left_out}


class TestStudy:
    def test_both_arms_are_recorded_and_compared(
        self, birds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "out"
        assert study(written(tmp_path), birds, out) == 0
        runs = found(out)
        assert [(run["arm"], run["seed"]) for run in runs] == [("base", 0), ("tcm", 0)]
        for run in runs:
            assert list(run["measures"]) == list(MEASURES)
            assert set(run["reasons"]) <= {"opis_strict"}  # too few pairs to tell such low rates apart
            assert all(0 <= value <= 1 for value in run["measures"].values() if value is not None)
            assert run["environment"]["torch"] == torch.__version__
            assert run["settings"]["data"] == {
                "train_images": 24, "train_classes": 4, "test_images": 60, "test_classes": 10,
            }  # fmt: skip
            assert run["settings"]["ours"]["steps"] == 4
        assert runs[0]["settings"]["paper"] is None
        assert runs[1]["settings"]["paper"] == {"margin_plus": 0.9, "margin_minus": 0.5, "tcm_weight": 1.0}
        assert runs[0]["measures"] != runs[1]["measures"]
        output, errors = capsys.readouterr()
        assert output.startswith("CUB-200-2011, small, ProxyAnchorLoss\n")
        assert all(how.title in output for how in MEASURES.values())
        assert "One pair shows no more than that it runs." in output
        assert "warning: CUB-200-2011: got 24 training images of 4 classes" in errors
        assert "step/s" not in errors  # no progress bar where nobody watches

    def test_what_is_there_is_not_run_again_and_other_margins_share_the_base(
        self, birds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        arms = []
        original = train.train
        monkeypatch.setattr(train, "train", lambda *a, **k: (arms.append(a[2:4]), original(*a, **k))[1])
        assert study(written(tmp_path), birds, tmp_path, "--steps", "1", "--arm", "base") == 0
        assert study(written(tmp_path), birds, tmp_path, "--steps", "1") == 0
        assert study(written(tmp_path), birds, tmp_path, "--steps", "1", "--seeds", "0", "1") == 0
        assert arms == [("base", 0), ("tcm", 0), ("base", 1), ("tcm", 1)]
        assert study(written(tmp_path, margin_plus="0.8"), birds, tmp_path, "--steps", "1") == 0
        assert arms[4:] == [("tcm", 0)]
        assert study(written(tmp_path), birds, tmp_path, "--steps", "2", "--arm", "tcm") == 0
        assert arms[5:] == [("tcm", 0)]
        assert len(found(tmp_path)) == 6

    def test_a_killed_study_goes_on_and_ends_with_the_records_of_one_that_was_not(
        self, birds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Killed in the second arm, while a network of the user's counts its steps; a half line is left."""
        (tmp_path / "mortal.py").write_text(MORTAL)
        monkeypatch.syspath_prepend(str(tmp_path))
        settings = written(tmp_path, backbone='"mortal:make"')
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.quality.real", str(settings), "--root", str(birds), "--out",
             str(tmp_path / "killed"), "--device", "cpu", "--workers", "0"],
            cwd=ROOT, env=environment(tmp_path, DIES_AT="6"), capture_output=True, text=True, timeout=120,
            check=False,
        )  # fmt: skip
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert [run["arm"] for run in found(tmp_path / "killed")] == ["base"]
        with (tmp_path / "killed" / "quality-real-cub.jsonl").open("ab") as file:
            file.write(b'{"schema": 1, "key": "5')
        assert study(settings, birds, tmp_path / "killed") == 0
        assert study(settings, birds, tmp_path / "whole") == 0
        resumed, whole = (list(map(repeatable, found(tmp_path / name))) for name in ("killed", "whole"))
        assert resumed == whole
        assert len(whole) == 2

    def test_in_shop_compares_queries_with_the_gallery(self, tmp_path: Path) -> None:
        root = miniature.in_shop(tmp_path / "data", train=4, test=12, per_class=8)
        assert study(written(tmp_path, "in_shop"), root, tmp_path, "--workers", "1") == 0
        runs = found(tmp_path, "in_shop")
        assert [run["arm"] for run in runs] == ["base", "tcm"]
        for run in runs:
            counts = run["settings"]["data"]
            assert (counts["test_images"], counts["gallery_images"], counts["test_classes"]) == (48, 48, 12)
            assert set(run["reasons"]) <= {"opis_strict"}  # too few pairs to tell such low rates apart

    def test_too_few_pairs_are_null_in_the_record_and_said_under_the_table(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        root = miniature.cub(tmp_path / "data", (1, 2, 3, 101, 102))
        assert study(written(tmp_path), root, tmp_path, "--arm", "tcm") == 0
        (line,) = (tmp_path / "quality-real-cub.jsonl").read_text().splitlines()
        assert json.loads(line)["measures"]["opis"] is None
        needs = "needs at least 100 distinct other-class pairs, got 16"
        assert (
            f"OPIS, FAR 1e-2..1e-1 is not defined: a false-accept rate of 0.01 {needs}"
            in capsys.readouterr().out
        )

    def test_amp_runs_the_network_in_bfloat16_and_the_losses_in_float32(
        self, birds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen = set()
        original = train.fused_tcm_loss

        def looked_at(emb: torch.Tensor, *more: Any, **settings: Any) -> Any:
            seen.add((emb.dtype, torch.is_autocast_enabled("cpu")))
            return original(emb, *more, **settings)

        monkeypatch.setattr(train, "fused_tcm_loss", looked_at)
        assert study(written(tmp_path), birds, tmp_path, "--amp") == 0
        assert study(written(tmp_path), birds, tmp_path) == 0
        assert seen == {(torch.float32, False)}
        runs = found(tmp_path)
        assert [run["settings"]["amp"] for run in runs] == ["bfloat16", "bfloat16", None, None]
        # The first embeddings differ by the rounding of bfloat16, not by more.
        losses = [run["last_step"]["base_loss"] for run in runs]
        assert losses[0] != losses[2]
        assert losses[0] == pytest.approx(losses[2], rel=0.1)

    def test_arms_start_from_the_same_weights_and_see_the_same_batches(
        self, birds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data, settings = load("cub", birds), config.read(written(tmp_path))
        seen: list[list[torch.Tensor]] = []
        original = train.Learner.forward

        def looked_at(self: train.Learner, shown: torch.Tensor, labels: torch.Tensor) -> Any:
            if self not in learners:
                learners.append(self)
                seen.append([parameter.detach().clone() for parameter in self.parameters()])
            seen[-1] += [shown.clone(), labels.clone()]
            return original(self, shown, labels)

        learners: list[train.Learner] = []
        monkeypatch.setattr(train.Learner, "forward", looked_at)
        before = torch.get_rng_state()
        alone = Ranks(0, 1, torch.device("cpu"))
        networks = [train.train(settings, data, arm, 5, alone).network for arm in train.ARMS]
        assert torch.equal(torch.get_rng_state(), before)
        assert len(seen[0]) > 20
        assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))
        weights = [next(iter(network.parameters())) for network in networks]
        assert not torch.equal(*weights)

    def test_a_training_that_diverges_says_so(
        self, birds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert study(written(tmp_path, learning_rate="1e30"), birds, tmp_path) == 1
        message = capsys.readouterr().err
        assert "is nan, the training has diverged; try a lower learning_rate" in message
        assert "Traceback" not in message
        assert found(tmp_path) == []

    @pytest.mark.parametrize("workers", ["0", "1"])
    def test_a_broken_image_is_named_without_a_traceback(
        self, workers: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        root = miniature.cub(tmp_path / "data", (1, 2, 3, 101))
        broken = Path(load("cub", root).test.paths[1])
        broken.write_bytes(b"<html>")
        assert study(written(tmp_path), root, tmp_path, "--workers", workers) == 1
        message = capsys.readouterr().err.splitlines()[-1]
        assert message.startswith(f"benchmarks.quality.real: {broken}: cannot be read as an image (")
        assert found(tmp_path) == []

    @pytest.mark.parametrize(
        ("changes", "more", "said"),
        [
            ({}, ("--root", "/nowhere"), "CUB-200-2011: missing file /nowhere/CUB_200_2011/images.txt"),
            ({"steps": "0"}, (), "[ours] steps: got 0"),
            ({}, ("--steps", "0"), "--steps: got 0, expected at least 1"),
            ({}, ("--seeds", "-1"), "--seeds: got -1, expected at least 0"),
            ({}, ("--workers", "-1"), "--workers: got -1, expected at least 0"),
            ({}, ("--amp", "float16"), "--amp: got float16 on the CPU, expected bfloat16"),
            ({}, ("--backbone", "big"), "backbone: got 'big', expected small, timm:<model> or"),
            ({}, ("--split-list", "/x"), "--split-list: got /x, expected none"),
            ({"base_loss": '"Nothing"'}, (), "base_loss: got 'Nothing', expected one of"),
            ({"classes_per_batch": "5"}, (), "classes_per_batch: got 5, expected 1 to 4"),
        ],
    )
    def test_what_cannot_be_run_is_named_before_any_training(
        self, changes: dict[str, str], more: tuple[str, ...], said: str, birds: Path, tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        assert study(written(tmp_path, **changes), birds, tmp_path, *more) == 2
        message = capsys.readouterr().err
        assert said in message
        assert "Traceback" not in message
        assert found(tmp_path) == []

    def test_ctrl_c_exits_with_130(
        self, birds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def interrupt(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(train, "train", interrupt)
        assert study(written(tmp_path), birds, tmp_path) == 130
        assert "what is finished stays" in capsys.readouterr().err


MORTAL = """
import os, signal, torch
from torch import nn
from benchmarks.quality.real.backbones import small

steps = 0

class Mortal(nn.Module):
    def __init__(self, embedding_size):
        super().__init__()
        self.network = small(embedding_size)

    def forward(self, images):
        global steps
        steps += self.training
        if str(steps) == os.environ.get("DIES_AT"):
            os.kill(os.getpid(), signal.SIGKILL)
        if str(steps) == os.environ.get("FAILS_AT") and os.environ["RANK"] == "1":
            raise RuntimeError("rank 1 has had enough")
        if steps == 6 and self.training and "GRADIENTS_TO" in os.environ:  # those of step 5 are still there
            gradients = {name: x.grad for name, x in self.network.named_parameters()}
            torch.save(gradients, os.environ["GRADIENTS_TO"] + f"/{os.environ['RANK']}.pt")
        return self.network(images)

def make(embedding_size):
    return Mortal(embedding_size)
"""


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Of a process that finds the package that is tested here, and modules in a folder."""
    path = os.pathsep.join((str(folder), str(ROOT), os.environ.get("PYTHONPATH", "")))
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"} | more


def on_two_ranks(folder: Path, settings: Path, root: Path, **more: str) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d",
                "--rdzv-endpoint=localhost:0", "-m", "benchmarks.quality.real"]  # fmt: skip
    options = ["--root", str(root), "--out", str(folder), "--device", "cpu", "--workers", "0"]
    return subprocess.run(
        [*launcher, str(settings), *options],
        cwd=ROOT, env=environment(folder, **more), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def gradients(settings: config.Config, data: Any, rank: int) -> dict[str, torch.Tensor]:
    """Of base + TCM over the first batch of one of two ranks, by parameter of the network."""
    ours = settings.ours
    sampler = ClassBalancedBatches(
        data.train.labels,
        ours.classes_per_batch,
        ours.images_per_class,
        seed=0,
        steps=1,
        rank=rank,
        world_size=2,
    )
    (batch,) = images.training_batches(data.train, ours.shape, sampler, workers=0, pin=False)
    with train._seeded(0, torch.device("cpu")):
        learner = train._learner(settings, data.train.classes, None)
    emb, base = learner.train()(*batch)
    (base + fused_tcm_loss(emb, batch[1])).backward()
    return {name: x.grad for name, x in learner.network.network.named_parameters()}


class TestTwoRanks:
    def test_one_record_is_written_for_each_arm_and_gradients_are_the_mean_of_the_ranks_own(
        self, birds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Those of the first step of base + TCM, against each rank's batch alone, averaged by hand."""
        (tmp_path / "mortal.py").write_text(MORTAL)
        monkeypatch.syspath_prepend(str(tmp_path))
        path = written(tmp_path, backbone='"mortal:make"')
        done = on_two_ranks(tmp_path, path, birds, GRADIENTS_TO=str(tmp_path))
        assert done.returncode == 0, done.stderr
        runs = found(tmp_path)
        assert [(run["arm"], run["settings"]["ranks"]) for run in runs] == [("base", 2), ("tcm", 2)]
        assert len((tmp_path / "quality-real-cub.jsonl").read_text().splitlines()) == 2
        assert done.stdout.count("Recall@1") == 1
        settings, data = config.read(path), load("cub", birds)
        alone = [gradients(settings, data, rank) for rank in (0, 1)]
        for rank in (0, 1):
            together = torch.load(tmp_path / f"{rank}.pt")
            assert together.keys() == alone[0].keys()
            for name, gradient in together.items():
                mean = (alone[0][name] + alone[1][name]) / 2
                torch.testing.assert_close(gradient, mean, rtol=1e-3, atol=1e-5)
        assert any(not torch.allclose(alone[0][name], alone[1][name], rtol=0.1) for name in alone[0])

    def test_a_rank_that_fails_ends_the_others(self, birds: Path, tmp_path: Path) -> None:
        (tmp_path / "mortal.py").write_text(MORTAL)
        done = on_two_ranks(tmp_path, written(tmp_path, backbone='"mortal:make"'), birds, FAILS_AT="2")
        assert done.returncode == 1
        assert "rank 1 has had enough" in done.stderr
        assert found(tmp_path) == []
