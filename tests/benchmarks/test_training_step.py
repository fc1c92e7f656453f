"""The benchmark on the demo's training: its embeddings, and the share of a step that the loss takes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

for package in ("pytorch_metric_learning", "sklearn"):
    pytest.importorskip(package, reason=f"{package} is not installed: pip install 'tcm-kernels[demo]'")

from benchmarks.harness import digits, opponents, result_files, workload  # noqa: E402
from benchmarks.harness.workload import Case  # noqa: E402
from benchmarks.suites import training_step  # noqa: E402
from tcm_kernels.demo.digits import training  # noqa: E402
from tcm_kernels.demo.repeatable import one_thread  # noqa: E402


def demo(epoch: int | None, n: int = 300) -> Case:
    return Case(n, digits.D, kind="demo", margins=digits.MARGINS, epoch=epoch)


@pytest.fixture(autouse=True)
def _one_thread():
    """As many cores as a test machine has to spare."""
    with one_thread():
        yield


class TestWorkload:
    def test_the_same_case_gives_the_same_data_also_when_trained_anew(self) -> None:
        first = workload.make(demo(1))
        digits.student.cache_clear()
        second = workload.make(demo(1))
        assert torch.equal(first.emb, second.emb)
        assert torch.equal(first.labels, second.labels)

    def test_it_has_the_demos_classes_margins_and_dimension_in_random_order(self) -> None:
        work = workload.make(demo(0))
        assert work.emb.shape == (300, 32)
        assert (work.margin_plus, work.margin_minus) == (training.MARGIN_PLUS, training.MARGIN_MINUS)
        assert work.labels.unique().tolist() == list(range(digits.CLASSES))
        assert not torch.equal(work.labels, work.labels.sort().values)
        assert not work.emb.requires_grad

    def test_more_rows_than_images_are_moved_differently(self) -> None:
        work = workload.make(demo(0, n=1000))
        assert len(work.emb.unique(dim=0)) == 1000
        assert work.labels.bincount().min() > 1000 / digits.CLASSES * 0.9

    def test_training_makes_hard_positives_rarer(self) -> None:
        def hard_positives(epoch: int) -> int:
            work = workload.make(demo(epoch))
            unit = torch.nn.functional.normalize(work.emb)
            same = work.labels[:, None] == work.labels[None, :]
            return int((same & (unit @ unit.T <= work.margin_plus)).sum())

        assert hard_positives(1) < hard_positives(0) / 2

    def test_training_for_it_keeps_the_callers_random_state(self) -> None:
        before = torch.get_rng_state()
        digits.student.cache_clear()
        workload.make(demo(0))
        assert torch.equal(torch.get_rng_state(), before)

    @pytest.mark.parametrize(
        "case",
        [
            pytest.param(demo(None), id="no epoch"),
            pytest.param(Case(300, 16, kind="demo", epoch=0), id="another dimension"),
            pytest.param(Case(300, digits.D, m=100, kind="demo", epoch=0), id="a reference set"),
        ],
    )
    def test_what_the_demo_cannot_be_is_refused(self, case: Case) -> None:
        with pytest.raises(ValueError, match="the demo has an epoch, 32 dimensions, no reference set"):
            workload.make(case)

    def test_missing_packages_are_a_reason(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "sklearn", None)
        assert "needs scikit-learn" in workload.why_not_here(demo(0))


class TestTrainingStep:
    @pytest.fixture(autouse=True)
    def short(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(training_step, "EPOCHS", (0,))

    def test_shares_lie_between_nothing_and_the_whole_step(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        arguments = ["--batch-size", "64", "--budget", "1", "--out", str(tmp_path)]
        assert training_step.main(arguments) == 0
        (path,) = tmp_path.iterdir()
        assert path.name.startswith("training-step-cpu-")
        content = result_files.load(path)
        assert content["environment"]["threads"] == torch.get_num_threads()
        (record,) = content["records"]
        assert (record["batch_size"], record["epoch"]) == (64, 0)
        assert 0 < record["hard_density"] <= 1
        for name in (opponents.OURS, opponents.DENSE):
            share = record["share"][name]  # on a busy machine not even surely above 0
            assert share["q1"] <= share["median"] <= share["q3"] < 1
            assert record["seconds"][name]["count"] >= 5
        assert json.loads(path.read_text(encoding="utf-8")) == content
        table = capsys.readouterr().out.splitlines()
        assert len(table) == 2
        assert "hard pairs" in table[0]

    def test_steps_leave_the_network_as_it_is(self) -> None:
        student = digits.student(0, seed=0)
        before = [parameter.detach().clone() for parameter in student.network.parameters()]
        training_step.measure(32, 0, budget_s=0.1, backend="torch")
        after = list(digits.student(0, seed=0).network.parameters())
        assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))

    def test_the_share_follows_from_the_ratio(self) -> None:
        share = training_step._share(training_step.Summary(2.0, 1.0, 4.0, 9))
        assert share == training_step.Summary(0.5, 0.0, 0.75, 9)

    def run(self, folder: Path, *arguments: str) -> int:
        return training_step.main(["--budget", "0.1", "--out", str(folder), *arguments])

    def rows(self, folder: Path) -> list[str]:
        (path,) = folder.iterdir()
        return training_step.keys(result_files.load(path))

    def test_a_second_run_keeps_the_rows_of_the_first_and_measures_what_is_missing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert self.run(tmp_path, "--batch-size", "48") == 0
        measured = []
        right = training_step.measure
        monkeypatch.setattr(
            training_step, "measure", lambda *a, **options: measured.append(a) or right(*a, **options)
        )
        assert self.run(tmp_path, "--batch-size", "32", "--batch-size", "48", "--missing") == 0
        assert measured == [(32, 0)]
        assert self.rows(tmp_path) == [training_step.key(size, 0) for size in (32, 48)]

    def test_a_row_that_raises_costs_no_other(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        right = training_step.measure

        def measure(batch_size: int, epoch: int, **options: object) -> dict:
            if batch_size == 32:
                raise RuntimeError("out of memory")
            return right(batch_size, epoch, **options)

        monkeypatch.setattr(training_step, "measure", measure)
        assert self.run(tmp_path, "--batch-size", "32", "--batch-size", "48") == 1
        assert self.rows(tmp_path) == [training_step.key(48, 0)]

    def test_without_pytorch_metric_learning_the_base_loss_is_another_and_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        digits.student.cache_clear()
        monkeypatch.setitem(sys.modules, "pytorch_metric_learning", None)
        assert self.run(tmp_path, "--batch-size", "48") == 0
        (path,) = tmp_path.iterdir()
        assert result_files.load(path)["settings"]["base_loss"] == "ProxySoftmax"
        assert isinstance(digits.student(0, seed=0).base_loss, training_step.ProxySoftmax)
        digits.student.cache_clear()

    def test_a_step_on_a_gpu_learns_what_a_step_of_the_demo_learns(self) -> None:
        """From the same images, moved alike: the steps differ in when that happens."""
        first, second = (training_step._on("cpu", digits.student(0, seed=0)) for _ in range(2))
        training_step._step_on_gpu(first, 64, None)()
        training_step._step(second, 64, None)()
        assert any(
            not torch.equal(after, before)
            for after, before in zip(
                first.network.parameters(), digits.student(0, seed=0).network.parameters(), strict=True
            )
        )
        for one, other in zip(first.network.parameters(), second.network.parameters(), strict=True):
            torch.testing.assert_close(one, other)

    def test_a_student_on_another_device_has_all_of_itself_there(self) -> None:
        """Its optimiser's state included, also when it has stepped before; the original stays."""
        original = digits.student(1, seed=0)
        there = training_step._on("meta", original)
        state = [x for each in there.optimizer.state.values() for x in each.values() if x.dim() > 0]
        assert state
        held = [*there.network.parameters(), *there.network.buffers(), *there.base_loss.parameters(), *state]
        assert {x.device.type for x in held} == {"meta"}
        assert {x.device.type for x in original.network.parameters()} == {"cpu"}
        grouped = {id(x) for group in there.optimizer.param_groups for x in group["params"]}
        assert grouped == {id(x) for x in (*there.network.parameters(), *there.base_loss.parameters())}
