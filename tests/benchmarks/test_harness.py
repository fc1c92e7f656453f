"""The benchmark frame: densities, records and tables; wrong results get no time."""

from __future__ import annotations

import contextlib
import json
import types
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from checkout import ROOT

import tcm_kernels
from benchmarks.harness import (
    accuracy,
    environment,
    graphs,
    measure,
    memory,
    opponents,
    result_files,
    stages,
    sweeps,
    table,
    workload,
)
from benchmarks.harness.workload import Case
from benchmarks.suites import grid
from tcm_kernels import dispatch
from tcm_kernels.backends import cpu

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

    @pytest.mark.parametrize("count", [1, 2, 700, 998, 999])
    @pytest.mark.parametrize("equal", [False, True], ids=["all different", "many equal"])
    def test_halving_finds_the_order_statistic_that_sorting_finds(self, count: int, equal: bool) -> None:
        values = torch.randn(999, generator=torch.Generator().manual_seed(count))
        values[::7] *= 1e-30
        if equal:
            values = (values * 3).round() / 3
        found = workload._kth_largest_by_halves(values, count)
        assert found == values.sort(descending=True).values[count - 1].item()

    @pytest.mark.parametrize("count", [1, 400, 998])
    def test_as_many_values_are_above_the_margin_as_are_asked_for(self, count: int) -> None:
        values = torch.rand(999, generator=torch.Generator().manual_seed(count))
        above, below = values.sort(descending=True).values[count - 1 : count + 1].tolist()
        margin = workload._margin_of_largest(values.clone(), count)
        assert int((values >= margin).sum()) == count
        assert margin == pytest.approx((above + below) / 2, abs=1e-7)

    def test_a_margin_amid_equal_values_is_their_value(self) -> None:
        assert workload._margin_of_largest(torch.tensor([0.75, 0.5, 0.5, 0.25]), 2) == 0.5

    def test_margins_of_very_many_columns_are_read_off_fewer_rows(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        looked_at = []
        monkeypatch.setattr(
            workload, "_margin_of_largest", lambda values, count: looked_at.append(len(values)) or 0.5
        )
        for most in (2**27, 2000 * 100):
            monkeypatch.setattr(workload, "MOST_SAMPLED_PAIRS", most)
            workload.make(Case(2000, 32, density=1e-2))
        # Positives and negatives: each pair of the first 512 rows, or of the first 100, once.
        pairs = [sum(1999 - row for row in range(rows)) for rows in (512, 100)]
        assert [sum(looked_at[:2]), sum(looked_at[2:])] == pairs

    @pytest.mark.parametrize("n", [8192, 65536])
    def test_committed_records_have_the_margins_that_are_chosen_today(self, n: int) -> None:
        content = result_files.load(result_files.FOLDER / "cpu-intel-xeon-2-threads.json")
        case = next(case for case in sweeps.SWEEPS["batches"] if (case.n, case.device) == (n, "cpu"))
        (there,) = [each for each in content["records"] if result_files.title(each) == case.title]
        work = workload.make(case)
        expected = (there["margins"]["plus"], there["margins"]["minus"])
        assert (work.margin_plus, work.margin_minus) == pytest.approx(expected, abs=1e-6)

    @pytest.mark.parametrize("kind", ["clusters", "correlated", "spectrum", "sorted"])
    def test_data_for_a_gpu_are_made_on_it(self, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """On a device of tensors without values, which mix with those of a CPU as badly as a GPU's."""

        class Torch:
            def __getattr__(self, name: str) -> object:
                generator = types.SimpleNamespace(device=torch.device("meta"))  # it has none of its own
                if name == "Generator":
                    return lambda device: types.SimpleNamespace(manual_seed=lambda _: generator)
                real = getattr(torch, name)
                if name not in ("randn", "rand", "randperm"):
                    return real
                return lambda *size, **where: real(*size, device=where["device"])

        monkeypatch.setattr(workload, "torch", Torch())
        work = workload.make(Case(64, 16, m=32, kind=kind, device="meta", margins=(0.9, 0.5)))
        places = {x.device.type for x in (work.emb, work.labels, work.ref, work.ref_labels)}
        assert places == {"meta"}

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
        assert row.count("|") == len(table.COLUMNS) + 1
        assert "× U [" in row
        assert "left out of this run" in text


@pytest.mark.skipif(dispatch.why_not_here("cpu") is not None, reason="needs the C++ extension")
class TestTwoBackends:
    """Measured in the same rounds, beside the same opponents."""

    BACKENDS = ("cpu", "torch")

    def bench(self) -> measure.Bench:
        return measure.Bench(TINY, self.BACKENDS, without=SLOW_TO_MAKE)

    def test_each_has_a_record_with_the_same_unit_and_opponents(self) -> None:
        bench = self.bench()
        bench.measure(budget_s=0.2, memory_of=())
        cpu_record, torch_record = (bench.records[name] for name in self.BACKENDS)
        assert (cpu_record["backend"], torch_record["backend"]) == self.BACKENDS
        assert cpu_record["measured_beside"] == ["torch"]
        assert cpu_record["units"] == torch_record["units"]
        ours = [each["competitors"].pop(opponents.OURS)["steps"] for each in (cpu_record, torch_record)]
        assert cpu_record["competitors"] == torch_record["competitors"]
        assert ours[0]["forward"]["seconds"] != ours[1]["forward"]["seconds"]
        assert not bench.failed

    def test_they_take_turns(self, monkeypatch: pytest.MonkeyPatch) -> None:
        names = []
        monkeypatch.setattr(
            measure.interleave, "interleave", lambda callables, **_: names.extend(callables) or {}
        )
        bench = self.bench()
        with pytest.raises(KeyError):  # there are no times
            bench.measure(budget_s=0.1, memory_of=())
        assert [name for name in names if name[0].startswith(opponents.OURS)] == [
            (name, step) for name in (opponents.OURS, "tcm_kernels, torch") for step in workload.STEPS
        ]

    @pytest.mark.parametrize("broken", BACKENDS)
    def test_one_that_raises_costs_the_other_nothing(
        self, broken: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        right = tcm_kernels.fused_tcm_loss

        def loss(*args: object, backend: str, **kwargs: object) -> object:
            if backend == broken:
                raise RuntimeError("an illegal memory access")
            return right(*args, backend=backend, **kwargs)

        monkeypatch.setattr(tcm_kernels, "fused_tcm_loss", loss)
        bench = self.bench()
        bench.measure(budget_s=0.1, memory_of=())
        (survivor,) = bench.records
        assert survivor != broken
        assert bench.failed == {broken: "RuntimeError: an illegal memory access"}
        cell = bench.records[survivor]["competitors"][opponents.OURS]["steps"]["forward+backward"]
        assert cell["status"] == "measured"

    def test_one_that_is_wrong_has_a_record_without_a_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        right = tcm_kernels.fused_tcm_loss

        def loss(emb: torch.Tensor, *args: object, backend: str, **kwargs: object) -> object:
            slip = 1e-3 * emb.roll(1, dims=0) if backend == "torch" else 0
            return right(emb + slip, *args, backend=backend, **kwargs)

        monkeypatch.setattr(tcm_kernels, "fused_tcm_loss", loss)
        bench = self.bench()
        bench.measure(budget_s=0.1, memory_of=())
        assert "relative errors" in bench.failed["torch"]
        status = {
            name: each["competitors"][opponents.OURS]["steps"]["forward"]["status"]
            for name, each in bench.records.items()
        }
        assert status == {"cpu": "measured", "torch": "wrong result"}

    def test_one_that_cannot_run_here_is_left_out_with_its_reason(self) -> None:
        bench = measure.Bench(TINY, ("torch", "cuda"), without=SLOW_TO_MAKE)
        assert list(bench.ours) == ["torch"]
        assert "cuda" in bench.failed["cuda"]

    def test_the_table_has_a_row_for_each(self) -> None:
        bench = self.bench()
        bench.measure(budget_s=0.1, memory_of=())
        text = table.markdown({"slug": "a-device", "records": list(bench.records.values())})
        assert f"| {TINY.title} (`cpu`" in text
        assert f"| {TINY.title} (`torch`)" in text


class Graphs:
    """Stands for `graphs.captured`: counts how many are there at once, and what was captured."""

    def __init__(self, refused: object = None) -> None:
        self.there: list[object] = []
        self.most, self.captured, self.refused = 0, [], refused

    @contextlib.contextmanager
    def __call__(self, run: Callable[[], object]) -> Iterator[Callable[[], object]]:
        if run is self.refused:
            raise RuntimeError("operation not permitted when stream is capturing")
        self.captured.append(run)
        self.there.append(run)
        self.most = max(self.most, len(self.there))
        try:
            yield run
        finally:
            self.there.remove(run)


class TestReplays:
    def test_one_graph_is_there_beside_that_of_u_and_everyone_is_replayed(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake = Graphs()
        monkeypatch.setattr(graphs, "captured", fake)
        bench = measure.Bench(TINY, "torch", without=SLOW_TO_MAKE)
        cells = bench._replays(budget_s=0.2)
        assert fake.most == 2
        assert not fake.there
        assert fake.captured[1:] == list(bench.runs.values())
        assert cells.keys() == {measure.UNIT, *bench.runs}
        assert all(cell["status"] == "measured" for cell in cells.values())
        assert all(cell["ratio_to_unit"]["median"] > 0 for cell in cells.values())

    def test_what_cannot_be_captured_says_so_and_keeps_no_other_from_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bench = measure.Bench(TINY, "torch", without=SLOW_TO_MAKE)
        key = (opponents.OURS, "forward")
        monkeypatch.setattr(graphs, "captured", Graphs(refused=bench.runs[key]))
        cells = bench._replays(budget_s=0.2)
        assert cells.pop(key)["reason"].startswith("cannot be captured: RuntimeError: operation not")
        assert all(cell["status"] == "measured" for cell in cells.values())
        assert "as a CUDA graph" in bench.failed["torch"]

    def test_a_record_of_short_calls_has_replays(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(graphs, "captured", Graphs())
        monkeypatch.setattr(measure, "_is_short", lambda unit, device: True)
        record = measure.Bench(TINY, "torch", without=SLOW_TO_MAKE).measure(budget_s=0.1, memory_of=())
        assert record["units"][measure.UNIT_REPLAYED]["status"] == "measured"
        cells = record["competitors"]
        assert cells[opponents.OURS]["replays"]["forward"]["status"] == "measured"
        assert cells[opponents.COMPILED]["replays"]["forward"]["reason"] == "left out of this run"

    def test_a_graph_is_gone_with_its_results_and_its_memory_at_the_end(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        done = []
        results = [torch.zeros(3) for _ in range(graphs.WARM_UP_CALLS + 1)]
        captured_result = weakref.ref(results[0])  # that of the last call

        class Graph:
            def replay(self) -> None:
                done.append("replay" if captured_result() is not None else "replay into nothing")

            def reset(self) -> None:
                done.append("reset" if captured_result() is None else "reset beside its results")

        stream = types.SimpleNamespace(wait_stream=lambda other: None)
        cuda = types.SimpleNamespace(
            Stream=lambda: stream,
            current_stream=lambda: stream,
            stream=contextlib.nullcontext,
            synchronize=lambda: None,
            CUDAGraph=Graph,
            graph=contextlib.nullcontext,
            empty_cache=lambda: done.append("empty_cache"),
        )
        monkeypatch.setattr(graphs, "torch", types.SimpleNamespace(cuda=cuda))
        with graphs.captured(results.pop) as replay:
            replay()
        assert done == ["replay", "reset", "empty_cache"]

    @pytest.mark.parametrize(("unit_s", "expected"), [(1.5e-3, True), (6e-3, False)])
    def test_calls_of_u_below_five_milliseconds_are_compared_as_replays(
        self, unit_s: float, expected: bool
    ) -> None:
        unit = {"status": "measured", "seconds": {"median": unit_s}}
        assert measure._is_short(unit, "cuda") is expected
        assert not measure._is_short(unit, "cpu")


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
        assert table.words(cell) == "does not fit (needs ~1.14 GB)"

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
        assert grid.main([*arguments, *left_out, "--out", str(tmp_path)]) == 0
        json_path, markdown_path = sorted(tmp_path.iterdir())
        results = json.loads(json_path.read_text(encoding="utf-8"))
        assert [record["case"]["title"] for record in results["records"]] == [TINY.title]
        assert markdown_path.read_text(encoding="utf-8") == table.markdown(results)
        assert str(ROOT) not in json_path.read_text(encoding="utf-8")

    def test_a_filter_that_matches_nothing_lists_the_cases(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert grid.main(["--cases", "N=7 ", "--device", "cpu", "--out", str(tmp_path)]) == 2
        assert sweeps.QUICK_LOOK[0].title in capsys.readouterr().out
        assert not list(tmp_path.iterdir())
