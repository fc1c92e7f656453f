"""`tcm-kernels evaluate` and `calibrate` as their users meet them: files, messages, exit codes."""

from __future__ import annotations

import importlib
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tcm_kernels import cli
from tcm_kernels.evaluation import Evaluation, class_curves, opis, threshold_spread
from tcm_kernels.evaluation.commands import calibrate, common
from tcm_kernels.evaluation.curves import ClassCurves
from tcm_kernels.evaluation.embeddings import UnusableFileError, read_embeddings

for package in ("matplotlib", "sklearn", "tqdm"):
    pytest.importorskip(package, reason=f"{package} is not installed: pip install 'tcm-kernels[evaluation]'")


def clusters(n: int = 400, classes: int = 20, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    centres = generator.normal(size=(classes, 16))
    return (centres[labels] + 0.7 * generator.normal(size=(n, 16))).astype(np.float32), labels


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    emb, labels = clusters()
    np.savez(tmp_path / "emb.npz", embeddings=emb, labels=labels, groups=labels % 3)
    return tmp_path / "emb.npz"


def run(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TestEvaluate:
    def test_prints_the_numbers_of_the_library(self, npz: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("evaluate", npz) == 0
        printed = capsys.readouterr().out
        found = opis(class_curves(*clusters()))
        assert f"{found.value:.3g}" in printed
        for title in ("OPIS", "EER", "ROC-AUC", "TAR at FAR 0.01", "Threshold", "FRR gap", "Most rejected"):
            assert title in printed
        spread = threshold_spread(class_curves(*clusters()), far=0.01)
        assert f"{spread.relative:.3g} ({spread.relative_interval[0]:.3g} to" in printed

    def test_writes_json_counts_and_a_report(self, npz: Path, tmp_path: Path) -> None:
        written = [tmp_path / name for name in ("out.json", "out.npz", "out.html")]
        assert run("evaluate", npz, "--json", written[0], "--curves", written[1], "--report", written[2]) == 0
        content = json.loads(written[0].read_text(encoding="utf-8"))
        assert content["opis"]["value"] == opis(class_curves(*clusters())).value
        assert content["at_threshold"]["classes"] == list(range(20))
        assert (ClassCurves.load(written[1]).positives == class_curves(*clusters()).positives).all()
        page = written[2].read_text(encoding="utf-8")
        assert page.count("data:image/png") == 6
        assert left_in(tmp_path) == ["emb.npz", "out.html", "out.json", "out.npz"]

    def test_files_are_written_also_where_nobody_reads_what_is_printed(
        self, npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def gone(*_: object) -> str:
            raise BrokenPipeError

        monkeypatch.setattr(Evaluation, "text", gone)
        monkeypatch.setattr("os.dup2", lambda *_: None)  # of the stdout that pytest holds
        assert run("evaluate", npz, "--json", tmp_path / "out.json") == 141
        assert (tmp_path / "out.json").exists()

    def test_the_same_counts_whatever_the_kind_of_file(self, tmp_path: Path) -> None:
        emb, labels = clusters()
        np.savez(tmp_path / "a.npz", x=emb, y=labels)
        np.save(tmp_path / "b.npy", emb)
        np.save(tmp_path / "labels.npy", labels)
        torch.save({"emb": torch.from_numpy(emb), "labels": torch.from_numpy(labels)}, tmp_path / "c.pt")
        for file, more in (("a.npz", []), ("b.npy", ["--labels", tmp_path / "labels.npy"]), ("c.pt", [])):
            out = tmp_path / f"{file}.json"
            assert run("evaluate", tmp_path / file, *more, "--json", out) == 0
        contents = {(tmp_path / f"{file}.json").read_text() for file in ("a.npz", "b.npy", "c.pt")}
        assert len(contents) == 1

    def test_a_gallery_and_groups(self, npz: Path, tmp_path: Path) -> None:
        emb, labels = clusters(seed=0)
        np.savez(tmp_path / "gallery.npz", embeddings=emb, labels=labels, groups=labels % 3)
        out = tmp_path / "out.json"
        options = ["--ref", tmp_path / "gallery.npz", "--self-offset", 0, "--groups", "--json", out]
        assert run("evaluate", npz, *options) == 0
        content = json.loads(out.read_text())
        assert content["grouped"] is True
        assert content["at_threshold"]["classes"] == [0, 1, 2]
        assert content["positive_pairs"] == 400 * 19  # no sample with itself

    def test_rows_that_are_not_finite_are_named_and_refused_unless_dropped(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        emb, labels = clusters()
        emb[[7, 11]] = np.nan
        np.savez(tmp_path / "emb.npz", embeddings=emb, labels=labels)
        out = tmp_path / "out.json"
        assert run("evaluate", tmp_path / "emb.npz", "--json", out) == 2
        error = capsys.readouterr().err
        assert "2 of 400 rows are not finite: rows 7 (class 7), 11 (class 11)" in error
        assert "--drop-nonfinite" in error
        assert not out.exists()
        assert run("evaluate", tmp_path / "emb.npz", "--json", out, "--drop-nonfinite") == 0
        assert "2 rows that are not finite left out" in capsys.readouterr().out
        keep = np.isfinite(emb).all(axis=1)
        expected = opis(class_curves(emb[keep], labels[keep])).value
        assert json.loads(out.read_text())["opis"]["value"] == expected

    def test_a_target_that_the_data_cannot_support_is_said_plainly(
        self, npz: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run("evaluate", npz, "--threshold-far", "1e-7") == 0
        assert "10,000,000" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            pytest.param(np.zeros(400, np.int64), "class", id="one class only"),
            pytest.param(np.arange(400), "class", id="all singletons"),
        ],
    )
    def test_data_without_both_kinds_of_pairs_is_refused(
        self, labels: np.ndarray, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        np.savez(tmp_path / "emb.npz", embeddings=clusters()[0], labels=labels)
        outputs = ["--json", tmp_path / "out.json", "--report", tmp_path / "out.html"]
        assert run("evaluate", tmp_path / "emb.npz", *outputs) == 2
        assert message in capsys.readouterr().err
        assert left_in(tmp_path) == ["emb.npz"]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--far", "0", "0.1"], "argument --far: got 0.0, expected a rate in (0, 1)"),
            (["--far", "0.1", "1.5"], "argument --far: got 1.5"),
            (["--threshold-far", "1"], "argument --threshold-far: got 1.0"),
            (["--epsilon", "60"], "argument --epsilon: got 60.0, expected percent in (0, 50]"),
            (["--bins", "0"], "argument --bins: got 0, expected 1 to 30,000"),
            (["--bins", "40000"], "argument --bins: got 40000"),
            (["--margins", "2", "0"], "argument --margins: got 2.0"),
            (["--backend", "abacus"], "got 'abacus', expected one of 'auto', 'cpu'"),
            (["--self-offset", "0"], "need --ref"),
        ],
    )
    def test_what_cannot_be_asked_for_is_refused(
        self, options: list[str], message: str, npz: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run("evaluate", npz, *options) == 2
        assert message in capsys.readouterr().err

    def test_a_gpu_that_is_not_there_is_refused(
        self, npz: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert run("evaluate", npz, "--device", "cuda") == 2
        assert "torch finds no CUDA device" in capsys.readouterr().err

    def test_a_folder_that_is_not_there_is_noticed_before_the_work(
        self, npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(common, "class_curves", None)  # the work
        assert run("evaluate", npz, "--json", tmp_path / "nowhere" / "out.json") == 2
        assert "cannot write to" in capsys.readouterr().err

    def test_a_full_disk_exits_with_1_and_leaves_no_half_file(
        self, npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.replace", fail)
        assert run("evaluate", npz, "--json", tmp_path / "out.json") == 1
        assert "No space left on device" in capsys.readouterr().err
        assert left_in(tmp_path) == ["emb.npz"]

    @pytest.mark.parametrize(
        "error",
        [
            MemoryError(),
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        ],
    )
    def test_tables_that_do_not_fit_are_said_to_need_fewer_bins(
        self, error: Exception, npz: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(common, "class_curves", full)
        assert run("evaluate", npz) == 2
        assert "not enough memory for the counts" in capsys.readouterr().err

    def test_interrupted_exits_with_130(self, npz: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(common, "class_curves", interrupted)
        assert run("evaluate", npz) == 130


class TestFiles:
    def test_text_labels_are_classes(self, tmp_path: Path) -> None:
        emb, labels = clusters()
        names = np.array([f"class <b>{label}</b>" for label in labels])
        np.savez(tmp_path / "emb.npz", embeddings=emb, labels=names)
        assert (read_embeddings(tmp_path / "emb.npz").labels == names).all()

    def test_npy_and_pt_are_mapped_and_not_read(self, tmp_path: Path) -> None:
        emb, labels = clusters()
        np.save(tmp_path / "emb.npy", emb)
        np.save(tmp_path / "labels.npy", labels)
        found = read_embeddings(tmp_path / "emb.npy", tmp_path / "labels.npy")
        maps = Path("/proc/self/maps")
        if not maps.exists():
            pytest.skip("tells of its mappings on Linux only")
        assert str(tmp_path / "emb.npy") in maps.read_text()
        assert torch.equal(found.emb, torch.from_numpy(emb))

    def test_nothing_is_unpickled(self, tmp_path: Path) -> None:
        class Trap:
            def __reduce__(self) -> tuple[Any, ...]:
                return (Path.touch, (tmp_path / "sprung",))

        emb, _ = clusters()
        np.savez(tmp_path / "a.npz", embeddings=emb, labels=np.array([Trap()] * 400, dtype=object))
        np.save(tmp_path / "b.npy", np.array([Trap()], dtype=object), allow_pickle=True)
        torch.save({"emb": torch.from_numpy(emb), "labels": Trap()}, tmp_path / "c.pt")
        (tmp_path / "d.pt").write_bytes(pickle.dumps(Trap()))
        for name in "a.npz", "b.npy", "c.pt", "d.pt":
            with pytest.raises(UnusableFileError, match=name):
                read_embeddings(tmp_path / name)
        assert not (tmp_path / "sprung").exists()

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("emb.npz", b"", "is not a .npz file"),
            ("emb.npz", b"PK\x03\x04 half a zip", "is not a .npz file"),
            ("emb.npy", b"\x93NUMPY", "is not a .npy file"),
            ("emb.pt", b"not torch", "is not a .pt file"),
            ("emb.csv", b"1,2", "expected a file ending in .npz, .npy, .pt, .pth"),
        ],
    )
    def test_another_kind_of_file_is_refused(
        self, name: str, content: bytes, message: str, tmp_path: Path
    ) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UnusableFileError, match=message):
            read_embeddings(tmp_path / name, tmp_path / name)

    def test_a_file_that_is_not_there_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UnusableFileError, match=r"cannot be read: No such file"):
            read_embeddings(tmp_path / "emb.npz")

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            (
                {"labels": np.zeros(3, int)},
                "has no embeddings: expected one of .* found 'labels'",
            ),
            ({"emb": np.zeros((3, 2))}, "has no labels: .*--labels"),
            ({"emb": np.zeros((3, 2)), "labels": np.zeros(2, int)}, "2 labels for 3 embeddings"),
            ({"emb": np.zeros((3, 2)), "labels": np.zeros(3)}, "labels: got dtype float64"),
            ({"emb": np.zeros(3), "labels": np.zeros(3, int)}, r"embeddings of shape \(3,\)"),
            ({"emb": np.zeros((3, 2), int), "labels": np.zeros(3, int)}, "expected floats"),
            (
                {"emb": np.zeros((3, 2), "U1"), "labels": np.zeros(3, int)},
                "embeddings: got an array",
            ),
        ],
    )
    def test_wrong_arrays_are_refused(self, arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
        np.savez(tmp_path / "emb.npz", **arrays)
        with pytest.raises(UnusableFileError, match=message):
            read_embeddings(tmp_path / "emb.npz")


class TestCalibrate:
    @pytest.mark.parametrize("method", calibrate.METHODS)
    def test_writes_a_calibration_and_applies_it(
        self, method: str, npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        calibration = importlib.import_module("tcm_kernels.evaluation.calibration")
        saved, out = tmp_path / "calibration.json", tmp_path / "probabilities.npy"
        assert run("calibrate", npz, "--out", saved, "--method", method) == 0
        before, after = (float(line.split()[2]) for line in capsys.readouterr().out.splitlines()[-3:-1])
        assert after < before
        similarities = np.linspace(-1, 1, 7).reshape(1, 7)
        np.save(tmp_path / "s.npy", similarities)
        assert run("calibrate", tmp_path / "s.npy", "--apply", saved, "--out", out) == 0
        assert np.array_equal(np.load(out), calibration.Calibration.load(saved)(similarities))

    def test_bad_priors_and_files_are_refused(
        self, npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "out.json"
        assert run("calibrate", npz, "--out", out, "--prior", "1") == 2
        assert "argument --prior: got 1.0" in capsys.readouterr().err
        (tmp_path / "wrong.json").write_text("{}")
        assert run("calibrate", npz, "--out", out, "--apply", tmp_path / "wrong.json") == 2
        assert "wrong.json" in capsys.readouterr().err
        assert not out.exists()
