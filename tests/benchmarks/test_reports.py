"""Pictures and README's figures, made from records that nobody measured."""

from __future__ import annotations

import dataclasses
import struct
from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'tcm-kernels[demo]'")

from benchmark_records import record

from benchmarks.harness import digits, opponents, result_files, sweeps
from benchmarks.harness.workload import Case
from benchmarks.reports import figures, readme


def results(*names: str) -> dict:
    """A file with the records of these sweeps."""
    records = [record(case) for case in sweeps.cases(names) if case.device == "cpu"]
    return {"slug": "a-device", "records": records}


class TestFigures:
    def test_two_pictures_of_the_stated_size_come_out(self, tmp_path: Path) -> None:
        path = tmp_path / "a-device.json"
        result_files.write_json(path, results("N", "density"))
        assert figures.main([str(path)]) == 0
        pictures = sorted(tmp_path.glob("*.png"))
        assert [picture.name for picture in pictures] == [
            "a-device-ratio-over-density.png",
            "a-device-time-over-n.png",
        ]
        for picture in pictures:
            content = picture.read_bytes()
            assert len(content) > 10_000
            size = struct.unpack(">II", content[16:24])
            assert size == tuple(round(side * figures.DPI) for side in figures.SIZE)

    def test_a_sweep_that_was_not_measured_gives_a_message_and_no_picture(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        written = figures.make(results("density"), tmp_path)
        assert [path.name for path in written] == ["a-device-ratio-over-density.png"]
        assert "time-over-n: left out, a-device has 0 case(s) of sweep 'N'" in capsys.readouterr().out

    def test_what_does_not_fit_gives_no_point_and_is_named(self) -> None:
        picture = figures.FIGURES["time-over-n"]
        drawn = figures.points(figures.DENSE, picture, results("N")["records"])
        assert drawn.x == [256 * 2**k for k in range(7)]
        assert drawn.does_not_fit == [32768, 65536]

    def test_cells_that_were_not_measured_give_no_point(self) -> None:
        picture = figures.FIGURES["ratio-over-density"]
        records = results("density")["records"]
        del records[0]["competitors"][opponents.COMPILED]
        records[1]["competitors"][opponents.COMPILED]["steps"]["forward+backward"] = {
            "status": "wrong result"
        }
        drawn = figures.points(figures.COMPILED, picture, records)
        assert len(drawn.x) == len(records) - 2
        assert drawn.does_not_fit == []

    def test_the_caption_names_machine_torch_shape_dtype_and_every_commit(self) -> None:
        records = results("density")["records"]
        records[0]["environment"] = records[0]["environment"] | {"commit": None}
        caption = figures._caption(figures.FIGURES["ratio-over-density"], records)
        for word in ("A Processor", "2 threads", "torch 2.13.0", "D = 512", "float32", "not a git checkout"):
            assert word in caption
        assert "0123456789ab" in caption

    def test_a_file_that_is_not_there_is_named(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert figures.main([str(tmp_path / "none.json")]) == 2
        assert "none.json: not there" in capsys.readouterr().err


class TestReadme:
    def test_of_several_backends_the_one_that_auto_takes_is_shown(self, tmp_path: Path) -> None:
        content = results("N", "density")
        slow = [record(case, ours=5.0) | {"backend": "torch"} for case in sweeps.cases(("N", "density"))]
        mixed = content | {"records": [*slow, *content["records"]]}
        assert readme.headline(mixed) == readme.headline(content)
        assert readme.measured(mixed) == readme.measured(content)
        for folder, drawn in (("mixed", mixed), ("plain", content)):
            figures.make(drawn, tmp_path / folder)
        for name in figures.FIGURES:
            paths = [figures.path(tmp_path / folder, "a-device", name) for folder in ("mixed", "plain")]
            assert paths[0].read_bytes() == paths[1].read_bytes()

    def test_it_shows_its_rows_and_not_the_whole_grid(self) -> None:
        text = readme.measured(results(*sweeps.SWEEPS))
        rows = [line for line in text.splitlines() if line.startswith("| ") and " × " in line][1:]
        assert len(rows) == len(readme.ROWS)
        assert "digits untrained" in text
        assert f"digits after {digits.LAST_EPOCH} epochs" in text

    def test_the_headline_is_of_the_density_it_means(self) -> None:
        content = results("density")
        for each in content["records"]:
            ours = 0.25 if each["hard_density"] == 1e-3 else 0.75
            each["competitors"]["tcm_kernels"] = record(readme.HEADLINE, ours)["competitors"]["tcm_kernels"]
        assert "take 0.25 of the time" in readme.headline(content)

    def test_a_file_without_the_headline_case_is_refused(self) -> None:
        with pytest.raises(ValueError, match="no record like 'N=8192 D=512"):
            readme.headline(results("D"))

    def test_a_density_far_from_the_one_meant_is_another_case(self) -> None:
        content = {"records": [record(dataclasses.replace(readme.HEADLINE, density=1e-4))]}
        assert readme.find(content, readme.HEADLINE) is None

    def test_screening_in_full_precision_is_named_where_it_was_used(self) -> None:
        records = [record(readme.HEADLINE, ours=0.5, screening="full-precision")]
        text = readme.measured(results("density"), full_precision={"records": records})
        assert "without 8-bit units" in text
        assert "0.5 U forward" in text
        same_as_before = readme.measured(results("density"), full_precision=results("density"))
        assert "without 8-bit units" not in same_as_before

    def test_the_training_step_is_a_sentence(self) -> None:
        shares = {opponents.OURS: {"median": 0.031}, opponents.DENSE: {"median": 0.42}}
        records = [{"batch_size": 1024, "epoch": epoch, "share": shares} for epoch in (0, 20)]
        text = readme.measured(results("density"), step={"records": records})
        assert "with 1,024 images, 3% before training and 3% after 20 epochs" in text
        assert "(written densely, 42% and 42%)" in text

    def test_without_other_files_it_says_nothing_of_them(self) -> None:
        text = readme.measured({"records": [record(Case(8192, 512, density=1e-3))]})
        assert "training step" not in text
        assert "8-bit" not in text
        assert "![" not in text
