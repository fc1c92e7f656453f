"""The benchmark's cases, and its files: what is measured, merged and kept."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from benchmark_records import record
from checkout import ROOT

from benchmarks.harness import attempts, digits, measure, result_files, sweeps, table
from benchmarks.harness.workload import Case
from benchmarks.suites import grid

FIRST, SECOND, THIRD = (Case(n, 16, density=2e-2) for n in (40, 50, 60))


def made_up(case: Case, backends: list[str]) -> tuple[list[dict], dict[str, str]]:
    """What `grid._measure` returns, without measuring."""
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

    def test_records_of_two_backends_are_two_and_that_which_auto_prefers_stands_first(self) -> None:
        made = {
            backend: record(FIRST) | {"backend": backend} for backend in ("torch", "cuda", "triton", "cpu")
        }
        merged = result_files.merged(
            {"records": [made["torch"], made["cuda"]]},
            {"records": [made["triton"], made["cpu"], record(SECOND)]},
            order=[SECOND.title, FIRST.title],
        )
        assert [result_files.key(each) for each in merged["records"]] == [
            (SECOND.title, "cpu"),
            *((FIRST.title, backend) for backend in ("cpu", "triton", "cuda", "torch")),
        ]
        chosen = result_files.preferred(reversed(merged["records"]))
        assert [result_files.key(each) for each in chosen.values()] == [
            (FIRST.title, "cpu"),
            (SECOND.title, "cpu"),
        ]

    def test_what_a_file_has_beside_its_records_is_kept(self) -> None:
        old = {"slug": "x", "records": [], "steps": {"tests": "passed"}}
        assert result_files.merged(old, {"slug": "x", "records": []})["steps"] == {"tests": "passed"}

    @pytest.mark.parametrize(
        "path", sorted(result_files.FOLDER.glob("cpu-*.json")), ids=lambda path: path.stem
    )
    def test_committed_files_are_read_as_before_and_their_tables_are_up_to_date(self, path: Path) -> None:
        content = result_files.load(path)
        assert [result_files.key(each) for each in content["records"]] == [
            (result_files.title(each), "cpu") for each in content["records"]
        ]
        assert list(result_files.preferred(content["records"]).values()) == content["records"]
        assert path.with_suffix(".md").read_text(encoding="utf-8") == table.markdown(content)

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
        monkeypatch.setattr(grid, "_measure", lambda case, backends, options: made_up(case, backends))
        monkeypatch.delenv(grid.SCREENING, raising=False)

    def run(self, folder: Path, *arguments: str) -> int:
        return grid.main(["--device", "cpu", "--out", str(folder), *arguments])

    def titles(self, folder: Path) -> list[str]:
        (path,) = folder.glob("*.json")
        return [result_files.title(each) for each in json.loads(path.read_text(encoding="utf-8"))["records"]]

    def keys(self, folder: Path) -> list[result_files.Key]:
        (path,) = folder.glob("*.json")
        return [result_files.key(each) for each in result_files.load(path)["records"]]

    def reasons(self, folder: Path) -> dict[result_files.Key, str]:
        (path,) = folder.glob("*.json")
        return {key: entry["reason"] for key, entry in attempts.entries(result_files.load(path)).items()}

    def watched(
        self, monkeypatch: pytest.MonkeyPatch, first: Callable[[Case, list[str]], None] = lambda *_: None
    ) -> list[tuple[Case, list[str]]]:
        """What is measured from now on, each after `first` was called."""
        measured = []

        def measure_it(case: Case, backends: list[str], options: object) -> tuple:
            measured.append((case, backends))
            first(case, backends)
            return made_up(case, backends)

        monkeypatch.setattr(grid, "_measure", measure_it)
        return measured

    def put(self, folder: Path, *cases: Case) -> None:
        old = result_files.stamped(grid.slug("cpu"), measure.SCHEMA, [record(case) for case in cases])
        result_files.write_json(folder / f"{grid.slug('cpu')}.json", old)

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
        monkeypatch.setattr(grid, "_measure", measured_until_the_second)
        with pytest.raises(KeyboardInterrupt):
            self.run(tmp_path)
        assert self.titles(tmp_path) == [FIRST.title, THIRD.title]
        (markdown,) = tmp_path.glob("*.md")
        assert FIRST.title in markdown.read_text(encoding="utf-8")

    def test_another_screening_has_files_of_its_own(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(grid.SCREENING, "full")
        assert self.run(tmp_path) == 0
        (path,) = tmp_path.glob("*.json")
        assert path.stem.endswith("-threads-full-precision-screening")

    def test_cases_that_cannot_be_measured_here_are_left_out_and_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def why_not(case: Case) -> str | None:
            return "needs scikit-learn" if case == FIRST else None

        monkeypatch.setattr(grid.workload, "why_not_here", why_not)
        assert self.run(tmp_path) == 0
        assert self.titles(tmp_path) == [SECOND.title, THIRD.title]
        assert f"left out: {FIRST.title}: needs scikit-learn" in capsys.readouterr().err

    def test_two_backends_have_a_record_each_in_the_one_file(self, tmp_path: Path) -> None:
        assert self.run(tmp_path, "--backend", "cpu", "--backend", "torch") == 0
        assert self.keys(tmp_path) == [
            (case.title, backend) for case in (FIRST, SECOND, THIRD) for backend in ("cpu", "torch")
        ]

    def test_only_what_is_missing_is_measured(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.run(tmp_path, "--backend", "cpu", "--sweep", "N") == 0
        measured = self.watched(monkeypatch)
        assert self.run(tmp_path, "--backend", "cpu", "--backend", "torch", "--missing") == 0
        assert measured == [(FIRST, ["torch"]), (SECOND, ["torch"]), (THIRD, ["cpu", "torch"])]
        measured.clear()
        assert self.run(tmp_path, "--backend", "cpu", "--backend", "torch", "--missing") == 0
        assert measured == []

    def test_a_process_that_dies_leaves_reasons_and_the_next_goes_on_and_tries_backends_alone(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        both = ("--backend", "cpu", "--backend", "torch")

        def dies(case: Case, backends: list[str]) -> None:
            if case == SECOND and "torch" in backends:
                raise SystemExit("as if by a signal")

        measured = self.watched(monkeypatch, dies)
        with pytest.raises(SystemExit):
            self.run(tmp_path, *both)
        assert measured == [(FIRST, ["cpu", "torch"]), (SECOND, ["cpu", "torch"])]
        assert self.reasons(tmp_path) == {
            **{(SECOND.title, backend): grid.NOT_ENDED for backend in ("cpu", "torch")},
            **{(THIRD.title, backend): grid.NOT_BEGUN for backend in ("cpu", "torch")},
        }
        measured.clear()
        with pytest.raises(SystemExit):
            self.run(tmp_path, *both, "--again")
        assert measured == [(THIRD, ["cpu", "torch"]), (SECOND, ["cpu"]), (SECOND, ["torch"])]
        assert self.reasons(tmp_path) == {(SECOND.title, "torch"): grid.NOT_ENDED}
        measured.clear()
        assert self.run(tmp_path, *both, "--again") == 0  # twice is enough
        assert measured == []

        # In a later call what has failed comes last.
        assert self.run(tmp_path, *both, "--sweep", "N", "--again") == 0
        with pytest.raises(SystemExit):
            self.run(tmp_path, *both)
        assert measured[-1] == (SECOND, ["torch"])
        assert measured[:2] == [(FIRST, ["cpu", "torch"]), (SECOND, ["cpu"])]

    def test_a_case_that_raises_says_why_and_costs_no_other(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def raises(case: Case, backends: list[str]) -> None:
            if case == SECOND:
                raise RuntimeError("an illegal memory access")

        self.watched(monkeypatch, raises)
        assert self.run(tmp_path) == 1
        assert self.titles(tmp_path) == [FIRST.title, THIRD.title]
        reason = "RuntimeError: an illegal memory access"
        assert self.reasons(tmp_path) == {(SECOND.title, "cpu"): reason}
        assert "Traceback (most recent call last)" in capsys.readouterr().err
        (markdown,) = tmp_path.glob("*.md")
        assert f"- {SECOND.title}, cpu: {reason}" in markdown.read_text(encoding="utf-8")

    def test_one_backend_that_fails_leaves_the_others_record_and_its_reason(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def measured(case: Case, backends: list[str], options: object) -> tuple:
            return made_up(case, ["cpu"])[0], {"torch": "RuntimeError: no"} if "torch" in backends else {}

        monkeypatch.setattr(grid, "_measure", measured)
        assert self.run(tmp_path, "--backend", "cpu", "--backend", "torch", "--sweep", "N") == 1
        assert self.keys(tmp_path) == [(FIRST.title, "cpu"), (SECOND.title, "cpu")]
        assert self.reasons(tmp_path) == {
            (case.title, "torch"): "RuntimeError: no" for case in (FIRST, SECOND)
        }

    def test_after_a_fault_the_process_ends_and_says_what_it_has_not_come_to(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        on_gpu = [dataclasses.replace(case, device="cuda") for case in (FIRST, SECOND)]
        monkeypatch.setattr(sweeps, "SWEEPS", {"N": tuple(on_gpu), "D": ()})
        monkeypatch.setattr(grid.workload, "why_not_here", lambda case: None)
        monkeypatch.setattr(grid.environment, "slug", lambda device: "cuda-a-gpu")
        monkeypatch.setattr(grid, "_why_lost", lambda: "CUDA error: an illegal memory access")
        assert (
            grid.main(["--device", "cuda", "--backend", "cuda", "--out", str(tmp_path), "--sweep", "N"]) == 1
        )
        assert self.keys(tmp_path) == [(on_gpu[0].title, "cuda")]
        assert self.reasons(tmp_path) == {(on_gpu[1].title, "cuda"): grid.NOT_BEGUN}

    def test_a_case_that_takes_too_long_ends_its_process_and_shows_where(self, tmp_path: Path) -> None:
        code = "import sys, time; from benchmarks.suites import grid; "
        code += "grid._measure = lambda case, backends, options: time.sleep(100); grid.main(sys.argv[1:])"
        arguments = ["--quick", "--device", "cpu", "--case-limit", "1", "--out", str(tmp_path)]
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 1
        assert "Timeout (0:00:01)!" in done.stderr
        assert "in _measure_all" in done.stderr
        assert self.reasons(tmp_path)[sweeps.TINY[0].title, "cpu"] == grid.NOT_ENDED
