"""What the loss costs of a step of the study's training: the record, and what is said of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

for package in ("matplotlib", "pytorch_metric_learning", "scipy", "tqdm"):
    pytest.importorskip(package, reason=f"{package} is not installed: pip install 'tcm-kernels[demo]'")

from quality_in_miniature import TINY, few_classes  # noqa: E402, F401  # fixtures

from benchmarks.harness import opponents, result_files  # noqa: E402
from benchmarks.quality import step_time  # noqa: E402
from benchmarks.quality.losses import BASES  # noqa: E402
from tcm_kernels.demo.glyphs.training import GlyphStudent  # noqa: E402
from tcm_kernels.demo.repeatable import one_thread  # noqa: E402


class TestStepTime:
    def test_a_record_has_the_ratio_of_whole_steps(
        self, few_classes: None, tmp_path: Path, capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        right = step_time.measure

        def small(base: str, *_: object, **__: object) -> dict:
            return right(base, TINY, learnt=1, batch_size=64, budget_s=0.1)

        monkeypatch.setattr(step_time, "measure", small)
        with one_thread():
            assert step_time.main(["--out", str(tmp_path)]) == 0
        content = result_files.load(tmp_path / "step-time.json")
        for record in content["records"]:
            assert 0 < record["hard_density"] <= 1
            assert record["ratio_to_base_alone"][opponents.OURS]["median"] > 0  # on a busy machine no more
        assert len(capsys.readouterr().out.splitlines()) == 2 + len(step_time.MEASURED)
        (figure,) = step_time.figures_to_reach(tmp_path)
        assert all(BASES[base].title in figure.found for base in step_time.MEASURED)

    @pytest.mark.parametrize(
        ("median", "quartiles", "reached"),
        [(1.01, 0.02, True), (1.049, 0.02, False), (1.06, 0.0, False), (1.05, 0.0, True)],
    )
    def test_the_goal_is_reached_where_the_whole_interval_is_under_it(
        self, median: float, quartiles: float, reached: bool, tmp_path: Path
    ) -> None:
        ratio = {"median": median, "q1": median - quartiles, "q3": median + quartiles, "count": 100}
        records = [{"base": "supcon", "ratio_to_base_alone": {opponents.OURS: ratio}}]
        result_files.write_json(tmp_path / "step-time.json", result_files.stamped("step-time", 1, records))
        (figure,) = step_time.figures_to_reach(tmp_path)
        assert figure.reached == reached

    def test_where_nothing_was_measured_nothing_is_said(self, tmp_path: Path) -> None:
        assert step_time.figures_to_reach(tmp_path) == []

    def test_a_step_that_is_measured_leaves_the_network_as_it_is(
        self, few_classes: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        students = []

        class Kept(GlyphStudent):
            def __init__(self, *arguments: object) -> None:
                super().__init__(*arguments)
                students.append(self)

        monkeypatch.setattr(step_time, "GlyphStudent", Kept)
        learnt = {}

        def interleave(steps: dict, **_: object) -> dict:
            before = [x.clone() for x in students[0].network.parameters()]
            for step in steps.values():
                step()
            learnt["same"] = all(map(torch.equal, before, students[0].network.parameters()))
            return {}

        monkeypatch.setattr(step_time.interleave, "interleave", interleave)
        step_time.measure("supcon", TINY, learnt=2, batch_size=64, budget_s=0.1)
        assert learnt["same"]
