"""The benchmark frame: densities, records and tables; wrong results get no time."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))  # benchmarks is not installed; it is found in the checkout

from benchmarks import (  # noqa: E402
    accuracy,
    environment,
    measure,
    memory,
    opponents,
    run,
    stages,
    sweeps,
    table,
    workload,
)
from benchmarks.workload import Case  # noqa: E402
from tcm_kernels import dispatch  # noqa: E402
from tcm_kernels.backends import cpu  # noqa: E402

TINY = Case(48, 16, density=2e-2)
SLOW_TO_MAKE = [opponents.COMPILED, opponents.METRIC_LEARNING]


class TestWorkload:
    @pytest.mark.parametrize("density", [1e-3, 1e-2, 0.1, 0.5])
    @pytest.mark.parametrize("m", [None, 700], ids=["within the batch", "against a reference set"])
    def test_margins_reach_the_density_asked_for(self, density: float, m: int | None) -> None:
        bench = measure.Bench(Case(600, 32, m=m, density=density), "torch", without=SLOW_TO_MAKE)
        hard = sum(bench._stats().values())
        assert hard / bench.case.pairs == pytest.approx(density, rel=0.2)

    @pytest.mark.parametrize(("density", "hard"), [(0.0, 0), (1.0, 48 * 47)], ids=["none", "all"])
    def test_the_extremes_are_exact(self, density: float, hard: int) -> None:
        bench = measure.Bench(Case(48, 16, density=density), "torch", without=SLOW_TO_MAKE)
        assert sum(bench._stats().values()) == hard

    def test_a_density_that_is_no_share_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"density: got 1\.5"):
            workload.make(Case(48, 16, density=1.5))

    def test_sparse_cases_have_margins_like_the_defaults(self) -> None:
        work = workload.make(Case(2048, 128, density=1e-3))
        assert 0.8 < work.margin_plus < 0.95
        assert 0.4 < work.margin_minus < 0.6

    def test_the_same_case_gives_the_same_data(self) -> None:
        first, second = workload.make(TINY), workload.make(TINY)
        assert torch.equal(first.emb, second.emb)
        assert torch.equal(first.labels, second.labels)
        assert not torch.equal(first.labels, first.labels.sort().values)


class TestRecord:
    @pytest.fixture(scope="class")
    @classmethod
    def record(cls) -> dict:
        bench = measure.Bench(TINY, "torch", without=SLOW_TO_MAKE)
        return json.loads(json.dumps(bench.measure(budget_s=0.2, memory_of=())))

    def test_it_says_on_what_it_ran(self, record: dict) -> None:
        assert record["environment"].keys() >= {
            "device",
            "device_name",
            "driver",
            "torch",
            "triton",
            "python",
            "commit",
            "threads",
            "cpu_model",
            "cpu_capability",
            "cpu_int8_units",
        }
        assert record["backend"] == "torch"
        assert record["case"].keys() >= {"n", "m", "d", "dtype", "device"}
        assert record["labels"] == {"samples_per_class": 4, "order": "shuffled"}

    def test_density_and_hard_pairs_agree(self, record: dict) -> None:
        hard = sum(record["hard_pairs"].values())
        assert record["hard_density"] == pytest.approx(hard / (48 * 47))

    @pytest.mark.parametrize("step", workload.STEPS)
    @pytest.mark.parametrize("name", [opponents.OURS, opponents.DENSE])
    def test_measured_cells_hold_median_quartiles_and_the_ratio_to_u(
        self, record: dict, name: str, step: str
    ) -> None:
        cell = record["competitors"][name]["steps"][step]
        assert cell["status"] == "measured"
        for summary in (cell["seconds"], cell["ratio_to_unit"]):
            assert 0 < summary["q1"] <= summary["median"] <= summary["q3"]

    def test_both_forms_of_u_are_there(self, record: dict) -> None:
        assert record["units"].keys() == {measure.UNIT, measure.UNIT_ALLOCATING}

    def test_errors_are_those_of_rounding(self, record: dict) -> None:
        for name in (opponents.OURS, opponents.DENSE):
            assert record["competitors"][name]["error"]["gradient"] < 1e-5

    def test_a_backend_without_stages_says_so(self, record: dict) -> None:
        assert record["stages"]["status"] == "not measured"
        assert "'torch'" in record["stages"]["reason"]

    def test_cells_left_out_say_so(self, record: dict) -> None:
        cell = record["competitors"][opponents.COMPILED]["steps"]["forward"]
        assert cell == {"status": "not measured", "reason": "left out of this run"}

    def test_a_table_can_be_made_of_it(self, record: dict) -> None:
        text = table.markdown({"slug": "a-device", "records": [record]})
        row = next(line for line in text.splitlines() if TINY.title in line)
        assert row.count("|") == len(table.HEADINGS) + 1
        assert "× U [" in row
        assert "left out of this run" in text


@pytest.mark.skipif(dispatch.why_not_here("cpu") is not None, reason="needs the C++ extension")
class TestStages:
    def test_the_stages_of_a_forward_take_no_more_time_than_the_forward(self) -> None:
        parts = stages.call(workload.make(Case(600, 32, density=1e-2)), "cpu")
        assert list(parts) == [*cpu.STAGES, stages.CALLING, stages.BACKWARD]
        assert all(seconds >= 0 for seconds in parts.values())
        assert sum(parts[name] for name in cpu.STAGES) > 0

    def test_the_record_and_the_table_of_the_cpu_backend_have_them(self) -> None:
        bench = measure.Bench(TINY, "cpu", without=SLOW_TO_MAKE)
        record = json.loads(json.dumps(bench.measure(budget_s=0.05, memory_of=())))
        assert record["stages"]["status"] == "measured"
        assert record["stages"]["calls"] >= stages.FEWEST_CALLS
        assert record["backend_screening"] in ("int8", "full-precision")
        text = table.markdown({"slug": "a-device", "records": [record]})
        heading = next(line for line in text.splitlines() if line.startswith("| case") and "screen" in line)
        assert all(f" {part} " in heading for part in record["stages"]["seconds"])

    def test_a_wrong_result_gets_none(self) -> None:
        bench = measure.Bench(TINY, "cpu", without=SLOW_TO_MAKE)
        bench._check = lambda _: bench.wrong.update(tcm_kernels="off") or accuracy.dense_truth(bench.work)
        assert bench.measure(budget_s=0.05, memory_of=())["stages"]["status"] == "wrong result"


class TestRefusals:
    def test_what_does_not_fit_is_refused_before_it_runs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(memory, "available_bytes", lambda device: 2**29)
        bench = measure.Bench(Case(8192, 16, density=1e-2), "torch")
        cell = bench.refusals[opponents.DENSE]
        assert cell["status"] == "does not fit"
        assert (opponents.DENSE, "forward") not in bench.runs
        assert table._no_figure(cell) == "does not fit (needs ~1.14 GB)"

    def test_a_wrong_gradient_gets_no_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        right = opponents.named(opponents.OURS)

        def loss_with_a_slip(work: workload.Workload, backend: str) -> opponents.Loss:
            loss = right.loss(work, backend)
            return lambda emb: loss(emb + 1e-3 * emb.roll(1, dims=0))

        slipped = opponents.Competitor(opponents.OURS, loss_with_a_slip, right.bytes_needed)
        others = [c for c in opponents.COMPETITORS if c is not right]
        monkeypatch.setattr(opponents, "COMPETITORS", (slipped, *others))
        bench = measure.Bench(TINY, "torch", without=SLOW_TO_MAKE)
        record = bench.measure(budget_s=0.1, memory_of=())
        assert "relative errors" in bench.wrong[opponents.OURS]
        assert "relative errors" in bench.failed["torch"]
        cell = record["competitors"][opponents.OURS]["steps"]["forward+backward"]
        assert cell["status"] == "wrong result"
        assert "seconds" not in cell
        assert record["competitors"][opponents.DENSE]["steps"]["forward"]["status"] == "measured"

    def test_an_opponent_that_raises_is_not_measured_and_says_why(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(work: workload.Workload, backend: str) -> opponents.Loss:
            def loss(emb: torch.Tensor) -> torch.Tensor:
                raise RuntimeError("no compiler")

            return loss

        ours = opponents.named(opponents.OURS)
        monkeypatch.setattr(
            opponents, "COMPETITORS", (ours, opponents.Competitor("broken", broken, lambda case: 0))
        )
        record = measure.Bench(TINY, "torch").measure(budget_s=0.1, memory_of=())
        cell = record["competitors"]["broken"]["steps"]["forward"]
        assert cell == {"status": "not measured", "reason": "RuntimeError: no compiler"}

    def test_cuda_cases_say_what_they_need(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert "CUDA device" in workload.why_not_here(Case(8, 8, device="cuda"))
        assert workload.why_not_here(TINY) is None


class TestAccuracy:
    @pytest.mark.parametrize("m", [None, 90], ids=["within the batch", "against a reference set"])
    def test_sampled_rows_agree_with_the_dense_truth(self, m: int | None) -> None:
        bench = measure.Bench(Case(60, 16, m=m, density=0.1), "torch", without=SLOW_TO_MAKE)
        dense = accuracy.dense_truth(bench.work)
        sampled = accuracy.sampled_truth(bench.work, **bench._stats())
        assert dense.loss > 0
        torch.testing.assert_close(sampled.gradient, dense.gradient[sampled.rows])

    def test_nan_is_never_right(self) -> None:
        truth = accuracy.dense_truth(workload.make(TINY))
        errors = truth.errors(torch.tensor(float("nan")), truth.gradient * float("nan"))
        assert not accuracy.is_right(errors, truth.tolerance(torch.float32, dense=None))


class TestMemory:
    def test_peak_of_dense_pytorch_is_at_least_its_similarity_matrix(self) -> None:
        case = Case(1500, 16, density=1e-2)
        peak = memory.peak(case, opponents.DENSE, "torch")
        assert peak.peak_bytes is not None, peak.method
        estimate = opponents.named(opponents.DENSE).bytes_needed(case)
        assert case.matrix_bytes < peak.peak_bytes < 1.2 * estimate

    def test_available_memory_is_below_a_million_gigabytes(self) -> None:
        assert 0 < memory.available_bytes("cpu") < 1e15


class TestEnvironment:
    @pytest.mark.parametrize(
        ("model", "words"),
        [
            ("Intel(R) Xeon(R) Platinum 8488C CPU @ 2.40GHz", "intel-xeon-platinum-8488c"),
            ("AMD EPYC 7763 64-Core Processor", "amd-epyc-7763-64-core"),
        ],
    )
    def test_file_names_are_plain_words(
        self, monkeypatch: pytest.MonkeyPatch, model: str, words: str
    ) -> None:
        monkeypatch.setattr(environment, "cpu_model", lambda: model)
        assert environment.slug("cpu") == f"cpu-{words}-{torch.get_num_threads()}-threads"


class TestTable:
    def test_a_table_without_records_says_so(self) -> None:
        assert "No case was measured" in table.markdown({"slug": "x", "records": []})

    @pytest.mark.parametrize(("value", "text"), [(2.5, "2.5 s"), (0.0123, "12.3 ms"), (4.56e-6, "4.56 µs")])
    def test_seconds_have_a_fitting_unit(self, value: float, text: str) -> None:
        assert table.seconds(value) == text

    @pytest.mark.parametrize(("value", "text"), [(1.7e10, "17 GB"), (58e6, "58 MB"), (2048, "2.05 kB")])
    def test_sizes_have_a_fitting_unit(self, value: int, text: str) -> None:
        assert table.size(value) == text


class TestRun:
    def test_the_command_line_writes_json_and_markdown(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sweeps, "TINY", (TINY,))
        left_out = [word for name in SLOW_TO_MAKE for word in ("--without", name)]
        arguments = ["--quick", "--no-memory", "--budget", "0.1", "--device", "cpu", "--backend", "torch"]
        assert run.main([*arguments, *left_out, "--out", str(tmp_path)]) == 0
        json_path, markdown_path = sorted(tmp_path.iterdir())
        results = json.loads(json_path.read_text(encoding="utf-8"))
        assert [record["case"]["title"] for record in results["records"]] == [TINY.title]
        assert markdown_path.read_text(encoding="utf-8") == table.markdown(results)
        assert str(ROOT) not in json_path.read_text(encoding="utf-8")

    def test_a_filter_that_matches_nothing_lists_the_cases(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run.main(["--cases", "N=7 ", "--device", "cpu", "--out", str(tmp_path)]) == 2
        assert sweeps.QUICK_LOOK[0].title in capsys.readouterr().out
        assert not list(tmp_path.iterdir())
