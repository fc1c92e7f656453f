"""The benchmark's cases, and its files: what is measured, merged and kept."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))  # benchmarks is not installed; it is found in the checkout

from benchmark_records import record  # noqa: E402

from benchmarks import digits, measure, result_files, run, sweeps, table  # noqa: E402
from benchmarks.workload import Case  # noqa: E402

FIRST, SECOND, THIRD = (Case(n, 16, density=2e-2) for n in (40, 50, 60))


def made_up(case: Case, backends: list[str]) -> tuple[list[dict], dict[str, str]]:
    """What `run._measure` returns, without measuring."""
    return [record(case) | {"backend": backend} for backend in backends], {}


def on_cpu(sweep: str) -> list[Case]:
    return [case for case in sweeps.SWEEPS[sweep] if case.device == "cpu"]


class TestSweeps:
    def test_a_title_means_one_case(self) -> None:
        every = {case for sweep in sweeps.SWEEPS.values() for case in sweep}
        assert len({case.title for case in every}) == len(every)

    @pytest.mark.parametrize("name", sweeps.SWEEPS)
    def test_no_case_stands_twice_in_a_sweep(self, name: str) -> None:
        assert len(set(sweeps.titles(name))) == len(sweeps.SWEEPS[name])

    def test_a_case_of_two_sweeps_is_measured_once(self) -> None:
        together = sweeps.cases(("density", "samples a class"))
        assert len(together) == len(sweeps.SWEEPS["density"]) + len(sweeps.SWEEPS["samples a class"]) - 1

    def test_every_case_on_a_cpu_is_float32(self) -> None:
        assert {case.dtype for case in sweeps.cases() if case.device == "cpu"} == {"float32"}

    def test_cases_on_a_gpu_have_the_shapes_that_are_promised(self) -> None:
        of_shapes = sweeps.cases(("GPU, headline", "GPU, large shapes"))
        shapes = {(case.n, case.d) for case in of_shapes}
        assert {(16384, 128), (8192, 1024), (16384, 512), (131072, 512), (2**20, 128)} <= shapes
        small = {(case.n, case.d) for case in sweeps.SWEEPS["GPU, small batches"]}
        assert small == {(n, 128) for n in (256, 512, 1024, 2048)}
        densities = {case.density for case in sweeps.SWEEPS["GPU, density"] if case.dtype == "bfloat16"}
        assert densities == {1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 0.5, 1.0}

    def test_densities_reach_from_nearly_none_to_all(self) -> None:
        assert {case.density for case in on_cpu("density")} == {1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 0.5, 1.0}
        assert {(case.n, case.d) for case in on_cpu("density")} == {(8192, 512)}

    def test_batches_double_from_256_to_65536(self) -> None:
        assert [case.n for case in on_cpu("N")] == [256 * 2**k for k in range(9)]
        assert {(case.d, case.density) for case in on_cpu("N")} == {(128, 1e-3)}

    def test_dimensions_double_from_64_to_2048(self) -> None:
        assert [case.d for case in on_cpu("D")] == [64, 128, 256, 512, 1024, 2048]
        assert {case.n for case in on_cpu("D")} == {4096}

    def test_samples_a_class_are_few_to_many(self) -> None:
        assert [case.per_class for case in on_cpu("samples a class")] == [2, 4, 16, 64, 512]
        assert {(case.n, case.d) for case in on_cpu("samples a class")} == {(8192, 512)}

    def test_kinds_are_all_there_and_a_large_batch_of_large_dimension(self) -> None:
        assert {case.kind for case in on_cpu("kinds")} == {"clusters", "correlated", "spectrum"}
        assert (16384, 512) in {(case.n, case.d) for case in on_cpu("batches")}

    def test_training_goes_from_before_the_first_epoch_to_the_last(self) -> None:
        epochs = [case.epoch for case in on_cpu("training")]
        assert epochs[:2] == [0, 1]
        assert 1 < epochs[2] < epochs[3] == digits.LAST_EPOCH
        assert {(case.n, case.d, case.margins) for case in on_cpu("training")} == {(8192, 32, digits.MARGINS)}

    def test_every_sweep_has_a_heading_in_the_table(self) -> None:
        assert table.DESCRIPTIONS.keys() == sweeps.SWEEPS.keys()


class TestFiles:
    def test_merging_replaces_by_title_and_keeps_the_rest(self) -> None:
        old = {"written": "then", "records": [record(FIRST, ours=0.9), record(SECOND, ours=0.9)]}
        new = {"written": "now", "records": [record(FIRST, ours=0.1), record(THIRD, ours=0.1)]}
        merged = result_files.merged(old, new, order=[THIRD.title, FIRST.title])
        assert merged["written"] == "now"
        assert [result_files.title(each) for each in merged["records"]] == [
            THIRD.title,
            FIRST.title,
            SECOND.title,
        ]
        ratios = [
            each["competitors"]["tcm_kernels"]["steps"]["forward"]["ratio_to_unit"]["median"]
            for each in merged["records"]
        ]
        assert ratios == pytest.approx([0.1, 0.1, 0.9])

    def test_an_interrupted_write_leaves_the_old_file_and_no_other(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "results.json"
        result_files.write_json(path, {"records": ["old"]})

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("os.replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            result_files.write_json(path, {"records": ["new"]})
        assert result_files.load(path) == {"records": ["old"]}
        assert list(tmp_path.iterdir()) == [path]

    def test_records_of_two_commits_are_both_named_in_the_table(self) -> None:
        other = record(SECOND)
        other["environment"] = other["environment"] | {"commit": {"hash": "fedcba9876543210", "dirty": True}}
        text = table.markdown({"slug": "x", "records": [record(FIRST), other]})
        assert "- commit: 0123456789ab (1 cases); fedcba987654 with local changes (1 cases)" in text


class TestRun:
    @pytest.fixture(autouse=True)
    def nothing_is_measured(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Every case gets a made-up record; the grid is three small cases in two sweeps."""
        monkeypatch.setattr(sweeps, "SWEEPS", {"N": (FIRST, SECOND), "D": (SECOND, THIRD)})
        monkeypatch.setattr(sweeps.cases, "__defaults__", (("N", "D"),))
        monkeypatch.setattr(run, "_measure", lambda case, backends, options: made_up(case, backends))
        monkeypatch.delenv(run.SCREENING, raising=False)

    def run(self, folder: Path, *arguments: str) -> int:
        return run.main(["--device", "cpu", "--out", str(folder), *arguments])

    def titles(self, folder: Path) -> list[str]:
        (path,) = folder.glob("*.json")
        return [result_files.title(each) for each in json.loads(path.read_text(encoding="utf-8"))["records"]]

    def put(self, folder: Path, *cases: Case) -> None:
        old = result_files.stamped(run.slug("cpu"), measure.SCHEMA, [record(case) for case in cases])
        result_files.write_json(folder / f"{run.slug('cpu')}.json", old)

    def test_everything_is_measured_unless_a_sweep_is_named(self, tmp_path: Path) -> None:
        assert self.run(tmp_path) == 0
        assert self.titles(tmp_path) == [FIRST.title, SECOND.title, THIRD.title]

    def test_one_sweep_keeps_the_records_of_the_others(self, tmp_path: Path) -> None:
        old = Case(70, 16, density=2e-2)
        self.put(tmp_path, THIRD, old)
        assert self.run(tmp_path, "--sweep", "N") == 0
        assert self.titles(tmp_path) == [FIRST.title, SECOND.title, THIRD.title, old.title]

    def test_a_complete_run_drops_cases_that_no_sweep_has(self, tmp_path: Path) -> None:
        self.put(tmp_path, Case(70, 16, density=2e-2))
        assert self.run(tmp_path) == 0
        assert self.titles(tmp_path) == [FIRST.title, SECOND.title, THIRD.title]

    def test_an_interrupted_run_keeps_what_it_has_and_what_there_was(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def measured_until_the_second(case: Case, backends: list[str], options: object) -> tuple:
            if case == SECOND:
                raise KeyboardInterrupt
            return made_up(case, backends)

        self.put(tmp_path, THIRD)
        monkeypatch.setattr(run, "_measure", measured_until_the_second)
        with pytest.raises(KeyboardInterrupt):
            self.run(tmp_path)
        assert self.titles(tmp_path) == [FIRST.title, THIRD.title]
        (markdown,) = tmp_path.glob("*.md")
        assert FIRST.title in markdown.read_text(encoding="utf-8")

    def test_another_screening_has_files_of_its_own(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(run.SCREENING, "full")
        assert self.run(tmp_path) == 0
        (path,) = tmp_path.glob("*.json")
        assert path.stem.endswith("-threads-full-precision-screening")

    def test_cases_that_cannot_be_measured_here_are_left_out_and_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def why_not(case: Case) -> str | None:
            return "needs scikit-learn" if case == FIRST else None

        monkeypatch.setattr(run.workload, "why_not_here", why_not)
        assert self.run(tmp_path) == 0
        assert self.titles(tmp_path) == [SECOND.title, THIRD.title]
        assert f"left out: {FIRST.title}: needs scikit-learn" in capsys.readouterr().err
