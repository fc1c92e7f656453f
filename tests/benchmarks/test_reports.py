"""Pictures and README's figures, made from records that nobody measured."""

from __future__ import annotations

import dataclasses
import re
import struct
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'tcm-kernels[demo]'")

from benchmark_records import record

from benchmarks.harness import digits, opponents, quoted, result_files, sweeps
from benchmarks.reports import figures, readme

BOTH_OF = "competitors/{}/steps/forward+backward"


def results(*names: str) -> dict:
    """A file with the records of these sweeps."""
    records = [record(case) for case in sweeps.cases(names) if case.device == "cpu"]
    return {"slug": "a-device", "records": records}


class TestFigures:
    def test_two_pictures_of_the_stated_size_come_out(self, tmp_path: Path) -> None:
        path = tmp_path / "a-device.json"
        result_files.write_json(path, results("N", "density"))
        figures.main([str(path)])
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
        drawn, does_not_fit = figures.points(
            BOTH_OF.format(opponents.DENSE), picture, results("N")["records"]
        )
        assert drawn[:, 0].tolist() == [256 * 2**k for k in range(7)]
        assert does_not_fit == [32768, 65536]

    def test_cells_that_were_not_measured_give_no_point(self) -> None:
        picture = figures.FIGURES["ratio-over-density"]
        records = results("density")["records"]
        del records[0]["competitors"][opponents.COMPILED]
        records[1]["competitors"][opponents.COMPILED]["steps"]["forward+backward"] = {
            "status": "wrong result"
        }
        drawn, does_not_fit = figures.points(BOTH_OF.format(opponents.COMPILED), picture, records)
        assert drawn.shape == (len(records) - 2, 4)
        assert does_not_fit == []

    def test_the_caption_names_machine_torch_shape_dtype_and_every_commit(self) -> None:
        records = results("density")["records"]
        records[0]["environment"] = records[0]["environment"] | {"commit": None}
        caption = figures.caption(figures.FIGURES["ratio-over-density"], records)
        for word in ("A Processor", "2 threads", "torch 2.13.0", "D = 512", "float32", "not a git checkout"):
            assert word in caption
        assert "0123456789ab" in caption

    def test_a_file_that_is_not_there_is_named(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit, match="2"):
            figures.main([str(tmp_path / "none.json")])
        assert "none.json: not there" in capsys.readouterr().err


def as_files(content: dict, **others: dict) -> dict:
    """The files of README's figures, the first of them `content`."""
    return {"headline": content, **others}


HEADLINE_RATIO = f"headline {BOTH_OF.format('tcm_kernels')}"


class TestReadme:
    def test_of_several_backends_the_one_that_auto_takes_is_shown(self, tmp_path: Path) -> None:
        content = results("N", "density")
        slow = [record(case, ours=5.0) | {"backend": "torch"} for case in sweeps.cases(("N", "density"))]
        mixed = content | {"records": [*slow, *content["records"]]}
        for name in ("table", "cases", HEADLINE_RATIO):
            assert readme.figure(name, as_files(mixed)) == readme.figure(name, as_files(content))
        drawn = [figures.make(each, tmp_path / folder) for folder, each in (("a", mixed), ("b", content))]
        for of_mixed, of_plain in zip(*drawn, strict=True):
            assert of_mixed.read_bytes() == of_plain.read_bytes()

    def test_it_shows_its_rows_and_not_the_whole_grid(self) -> None:
        text = readme.rows(results(*sweeps.SWEEPS))
        rows = [line for line in text.splitlines() if line.startswith("| ") and " × " in line][1:]
        assert len(rows) == len(readme.ROWS)
        assert "digits untrained" in text
        assert f"digits after {digits.LAST_EPOCH} epochs" in text

    def test_the_headline_is_of_the_density_it_means(self) -> None:
        content = results("density")
        for each in content["records"]:
            ours = 0.25 if each["hard_density"] == 1e-3 else 0.75
            each["competitors"]["tcm_kernels"] = record(readme.HEADLINE, ours)["competitors"]["tcm_kernels"]
        assert readme.figure(HEADLINE_RATIO, as_files(content)) == "0.25"

    def test_a_file_without_the_headline_case_is_refused(self) -> None:
        with pytest.raises(quoted.QuoteError, match="no such record: 'headline'"):
            readme.figure(HEADLINE_RATIO, as_files(results("D")))

    def test_a_density_far_from_the_one_meant_is_another_case(self) -> None:
        content = {"records": [record(dataclasses.replace(readme.HEADLINE, density=1e-4))]}
        with pytest.raises(quoted.QuoteError, match="no such record: 'headline'"):
            readme.figure(HEADLINE_RATIO, as_files(content))

    def test_full_precision_is_only_what_was_screened_in_full_precision(self) -> None:
        name = HEADLINE_RATIO.replace("headline", "full-precision")
        records = [record(readme.HEADLINE, ours=0.5, screening="full-precision")]
        assert readme.figure(name, {"full-precision": {"records": records}}) == "0.5"
        with pytest.raises(quoted.QuoteError, match="full-precision"):
            readme.figure(name, {"full-precision": results("density")})

    def test_a_share_of_the_training_step_is_found_by_batch_size_and_epoch(self) -> None:
        records = [
            {"batch_size": 1024, "epoch": epoch, "share": {"tcm_kernels": {"median": 0.031 + epoch}}}
            for epoch in (0, 20)
        ]
        step = {"step": {"records": records}}
        assert readme.figure("step-1024-0 share/tcm_kernels", step) == "3%"
        with pytest.raises(quoted.QuoteError, match="step-4096-0"):
            readme.figure("step-4096-0 share/tcm_kernels", step)

    def test_a_case_that_does_not_fit_says_so_where_its_figure_would_stand(self) -> None:
        (line,) = (line for line in readme.rows(results("N")).splitlines() if line.startswith("| 65,536"))
        assert line.count("does not fit") == 3  # two times and the dense memory

    @pytest.mark.parametrize(
        "name",
        [
            "headline",
            "headline beauty",
            "headline case/n/of",
            "headline units",
            "headline units/U/seconds",
            "?",
        ],
    )
    def test_a_figure_that_no_file_has_is_refused_by_name(self, name: str) -> None:
        with pytest.raises(quoted.QuoteError, match=re.escape(name.split(maxsplit=1)[0])):
            readme.figure(name, as_files(results("density")))


class TestQuoted:
    def figure(self, name: str) -> str:
        if name == "wrong":
            raise quoted.QuoteError("no 'wrong'")
        return name.upper()

    def test_a_figure_may_fill_lines_and_other_kinds_are_left_alone(self) -> None:
        text = "<!--k a-->\nold\n<!--/k-->, <!--other b-->kept<!--/other-->"
        expected = "<!--k a-->A<!--/k-->, <!--other b-->kept<!--/other-->"
        assert quoted.updated(text, "k", self.figure) == expected

    def test_a_check_changes_nothing_and_names_what_differs(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        document = tmp_path / "a.md"
        document.write_text("<!--k a-->old<!--/k-->")
        run = partial(quoted.main, "module", "What it does.", "k", self.figure, [document])
        assert run(["--check"]) == 1
        assert "a.md: a: is 'old', the files have 'A'" in capsys.readouterr().err
        assert document.read_text() == "<!--k a-->old<!--/k-->"
        assert (run([]), run(["--check"])) == (0, 0)

    def test_a_document_with_a_wrong_figure_stays_as_it_was(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        document = tmp_path / "a.md"
        document.write_text("<!--k a-->old<!--/k--><!--k wrong--><!--/k-->")
        assert quoted.main("module", "What it does.", "k", self.figure, [document], []) == 1
        assert "no 'wrong'" in capsys.readouterr().err
        assert "old" in document.read_text()
