"""The study of what TCM adds: its losses, searches, intervals and records, and a run in miniature."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

for package in ("matplotlib", "pytorch_metric_learning", "scipy", "tqdm"):
    pytest.importorskip(package, reason=f"{package} is not installed: pip install 'tcm-kernels[demo]'")

from quality_in_miniature import TINY, few_classes, walked  # noqa: E402, F401  # fixtures

from benchmarks.quality import (  # noqa: E402
    __main__,
    chain,
    data,
    matched,
    measures,
    plan,
    report,
    running,
    summary,
    tuning,
)
from benchmarks.quality.intervals import difference  # noqa: E402
from benchmarks.quality.losses import BASES, SmoothAPLoss  # noqa: E402
from benchmarks.quality.plan import Size, Trial  # noqa: E402
from benchmarks.quality.records import Records  # noqa: E402
from tcm_kernels import evaluation  # noqa: E402
from tcm_kernels.evaluation.retrieval import recall_at_1  # noqa: E402

BASE = Trial("random-0", "smooth_ap", "base", "tune", 100, 4e-3, 1e-2)


def clusters(classes: int = 30, samples: int = 8, dimension: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(classes, dimension, generator=generator)
    spread = torch.rand(classes, 1, generator=generator)
    labels = torch.arange(classes).repeat_interleave(samples)
    noise = torch.randn(len(labels), dimension, generator=generator)
    return centres[labels] + spread[labels] * noise, labels


class TestLosses:
    def test_smooth_ap_is_one_minus_the_smooth_average_precision_anchor_by_anchor(self) -> None:
        emb, labels = clusters(5, 3)
        unit = torch.nn.functional.normalize(emb.double())
        s = (unit @ unit.T).tolist()

        def ahead(i: int, q: int, p: int) -> float:
            return 1 / (1 + math.exp(-(s[i][q] - s[i][p]) / 0.1))

        precisions = []
        for i in range(len(labels)):
            others = [j for j in range(len(labels)) if j != i]
            positives = [j for j in others if labels[j] == labels[i]]
            ranks = [
                (1 + sum(ahead(i, q, p) for q in positives if q != p))
                / (1 + sum(ahead(i, q, p) for q in others if q != p))
                for p in positives
            ]
            precisions.append(sum(ranks) / len(ranks))
        found = SmoothAPLoss(temperature=0.1)(emb.double(), labels)
        assert found.item() == pytest.approx(1 - sum(precisions) / len(precisions), abs=1e-12)

    def test_smooth_ap_without_positives_is_zero_with_a_gradient(self) -> None:
        emb = torch.randn(4, 3, requires_grad=True)
        loss = SmoothAPLoss()(emb, torch.arange(4))
        loss.backward()
        assert loss.item() == 0
        assert torch.equal(emb.grad, torch.zeros(4, 3))

    @pytest.mark.parametrize("base", BASES)
    def test_every_base_loss_has_a_finite_gradient(self, base: str) -> None:
        emb, labels = clusters(6, 4)
        emb.requires_grad_()
        BASES[base].make(6, emb.shape[1])(emb, labels).backward()
        assert emb.grad.isfinite().all()
        assert emb.grad.any()


class TestMeasures:
    def test_they_are_those_of_the_package_where_every_class_is_drawn_once(self) -> None:
        emb, labels = clusters()
        found = measures.measure(emb, labels).value
        curves = evaluation.class_curves(emb, labels)
        assert found["opis"] == pytest.approx(evaluation.opis(curves, draws=0).value, rel=1e-12)
        strict = evaluation.opis(curves, far=(1e-3, 1e-2), draws=0).value
        assert found["opis_strict"] == pytest.approx(strict, rel=1e-12)
        assert found["epsilon_opis"] == pytest.approx(
            evaluation.epsilon_opis(curves, draws=0).value, rel=1e-12
        )
        spread = evaluation.threshold_spread(curves, draws=0)
        assert found["spread"] == pytest.approx(spread.deviation, rel=1e-9)
        assert found["spread_relative"] == pytest.approx(spread.relative, rel=1e-9)
        assert found["spread_decades"] == pytest.approx(spread.decades, rel=1e-9)
        for far, name in ((1e-2, "tar_at_1e-2"), (1e-3, "tar_at_1e-3")):
            assert found[name] == pytest.approx(evaluation.tar_at_far(curves, far).tar, rel=1e-12)
        rejected = np.sort(evaluation.error_rates(curves, spread.threshold).false_reject)
        assert found["worst_decile_frr"] == pytest.approx(rejected[-3:].mean(), rel=1e-12)

    def test_recall_counts_rows_whose_nearest_other_row_is_of_their_class(self) -> None:
        emb, labels = clusters()
        unit = torch.nn.functional.normalize(emb.double())
        similarity = (unit @ unit.T).fill_diagonal_(-2)
        expected = (labels[similarity.argmax(dim=1)] == labels).double().mean().item()
        assert measures.measure(emb, labels).value["recall_at_1"] == pytest.approx(expected)
        assert recall_at_1(emb, labels) == pytest.approx(expected)

    def test_a_draw_is_the_measure_of_classes_with_their_multiplicities(self) -> None:
        utility = np.random.default_rng(0).random((20, 7))
        weights = measures.multiplicities(20)
        drawn = [utility[np.repeat(np.arange(20), weight.astype(int))] for weight in weights]
        expected = [rows.var(axis=0).mean() for rows in drawn]
        np.testing.assert_allclose(measures._opis(utility, weights), expected, rtol=1e-12)
        gaps = []
        for rows in drawn:
            ranked = rows[rows.mean(axis=1).argsort(kind="stable")]
            gaps.append(((ranked[-2:].mean(axis=0) - ranked[:2].mean(axis=0)) ** 2).mean())
        np.testing.assert_allclose(measures._epsilon_opis(utility, weights), gaps, rtol=1e-12)

    def test_every_run_on_the_same_classes_draws_the_same(self) -> None:
        assert np.array_equal(measures.multiplicities(50), measures.multiplicities(50))
        assert (measures.multiplicities(50).sum(axis=1) == 50).all()

    def test_what_a_collapsed_network_does_not_have_is_missing_and_the_rest_is_there(self) -> None:
        emb, labels = clusters()
        found = measures.measure(1000 + emb / 1000, labels).value  # every similarity within one bin
        assert set(found) == {"recall_at_1"}


def valley(trial: Trial) -> float:
    """Best at a weight of 100, with a slope towards 1 on the other side of 10."""
    return {0.1: 3.0, 0.3: 4.0, 1.0: 5.0, 3.0: 2.0, 10.0: 1.0, 30.0: 6.0, 100.0: 9.0, 300.0: 8.0}[
        trial.weight
    ]


class TestSearch:
    def climb(
        self, score: Callable[[Trial], float], line: tuple, start: Trial, trials: int = 20
    ) -> tuning.Tuned:
        return tuning.search((start,), (line,), lambda trial: (score(trial),), trials)

    def test_it_goes_on_outwards_while_the_best_stands_at_the_edge(self) -> None:
        line = ("learning_rate", plan.LEARNING_RATES)
        found = self.climb(lambda t: -abs(math.log(t.learning_rate / 1.6e-2)), line, BASE)
        assert found.trial.learning_rate == 1.6e-2
        assert [t.learning_rate for t in found.tried] == [4e-3, 8e-3, 1.6e-2, 3.2e-2]
        assert found.open_ends == ()

    def test_it_turns_round_where_upwards_brought_nothing(self) -> None:
        line = ("learning_rate", plan.LEARNING_RATES)
        found = self.climb(lambda t: -t.learning_rate, line, BASE)
        assert found.trial.learning_rate == plan.LEARNING_RATES[0]
        assert found.open_ends == ("learning_rate",), "the line's last value may not be the best there is"

    def test_it_keeps_to_its_number_of_trials_and_says_that_it_was_cut_off(self) -> None:
        line = ("learning_rate", plan.LEARNING_RATES)
        found = self.climb(lambda t: t.learning_rate, line, BASE, trials=3)
        assert len(found.tried) == 3
        assert found.trial.learning_rate == 1.6e-2
        assert found.open_ends == ("learning_rate",)

    def test_the_weight_is_found_beyond_a_valley(self) -> None:
        rows = {}

        def evaluate(trial: Trial) -> dict[str, float]:
            rows[trial] = trial
            return {"recall_at_1": 0.5, "opis": -valley(trial) if trial.arm == "tcm" else 1.0}

        found = tuning.tune_tcm(BASE, evaluate, trials=10)
        assert found.trial.weight == 100.0
        assert found.trial.arm == "tcm"
        assert found.trial.learning_rate == BASE.learning_rate

    def test_what_costs_recall_is_not_chosen_however_consistent_it_is(self) -> None:
        def evaluate(trial: Trial) -> dict[str, float]:
            if trial.arm == "base":
                return {"recall_at_1": 0.8, "opis": 0.01}
            # Ever more consistent with the weight, and 0.6 points less accurate from 10 on.
            return {"recall_at_1": 0.8 if trial.weight < 10 else 0.794, "opis": 0.01 / trial.weight}

        assert tuning.tune_tcm(BASE, evaluate, trials=10).trial.weight == 3.0

    def test_where_everything_costs_recall_the_most_accurate_is_taken(self) -> None:
        def evaluate(trial: Trial) -> dict[str, float]:
            return {"recall_at_1": 0.8 if trial.arm == "base" else 0.7 - trial.weight / 1000, "opis": 0.0}

        assert tuning.tune_tcm(BASE, evaluate, trials=10).trial.weight == 0.1

    def test_base_and_tcm_may_take_as_many_trials(self) -> None:
        counted: dict[str, set[Trial]] = {"base": set(), "tcm": set()}

        def evaluate(trial: Trial) -> dict[str, float]:
            counted[trial.arm].add(trial)
            better = trial.learning_rate + trial.weight + trial.margin_minus
            return {"recall_at_1": better, "opis": -better}

        settings = chain.choose("random-0", "supcon", plan.FULL, evaluate)
        assert len(settings.base.tried) <= plan.TRIALS
        assert len(settings.tcm.tried) <= plan.TRIALS


class TestIntervals:
    def test_seeds_give_students_t(self) -> None:
        found = difference([1.0, 2.0, 3.0], [1.5, 2.6, 3.7])
        half = 4.302653 * 0.1 / math.sqrt(3)  # the t quantile of two degrees of freedom, from a table
        assert (found.mean, found.low, found.high) == pytest.approx((0.6, 0.6 - half, 0.6 + half), abs=1e-6)
        assert (found.by, found.sign) == ("seeds", 1)

    def test_classes_decide_where_they_are_less_sure(self) -> None:
        generator = np.random.default_rng(0)
        shared = generator.normal(size=100)
        before = [shared, shared]
        after = [shared + generator.normal(size=100), shared + generator.normal(size=100)]
        found = difference([0.0, 0.0], [0.1, 0.11], before, after)
        assert found.by == "classes"
        # What both arms share cancels draw by draw; the mean of two independent changes has 1/√2 of the rest.
        assert (found.high - found.low) / 2 == pytest.approx(1.96 / math.sqrt(2), rel=0.2)
        assert found.sign == 0

    def test_one_pair_without_draws_says_nothing(self) -> None:
        found = difference([1.0], [2.0])
        assert (found.sign, found.by) == (0, "nothing")


class TestMatched:
    CURVE = ({"a": 0.2, "m": 10.0}, {"a": 0.4, "m": 6.0}, {"a": 0.6, "m": 5.0})

    def test_the_curve_is_linear_between_its_stops(self) -> None:
        assert matched.at(self.CURVE, "a", 0.3, "m") == pytest.approx(8.0)
        assert matched.at(self.CURVE, "a", 0.6, "m") == 5.0
        assert matched.at(self.CURVE, "a", 0.7, "m") is None

    def test_a_stop_without_the_measure_is_left_out(self) -> None:
        curve = ({"a": 0.1, "m": None}, *self.CURVE)
        assert matched.at(curve, "a", 0.15, "m") is None
        assert matched.at(curve, "a", 0.3, "m") == pytest.approx(8.0)

    def test_the_end_with_tcm_is_held_against_the_bases_curve(self) -> None:
        with_tcm = ({"a": 0.1, "m": 9.0}, {"a": 0.5, "m": 4.0})
        assert matched.matched_pair(self.CURVE, with_tcm, "a", "m") == pytest.approx((5.5, 4.0))

    def test_where_the_base_never_gets_that_far_its_end_is_held_against_the_other_curve(self) -> None:
        with_tcm = ({"a": 0.5, "m": 4.0}, {"a": 0.7, "m": 2.0})
        assert matched.matched_pair(self.CURVE, with_tcm, "a", "m") == pytest.approx((5.0, 3.0))

    def test_curves_that_do_not_overlap_have_no_answer(self) -> None:
        with_tcm = ({"a": 0.8, "m": 4.0}, {"a": 0.9, "m": 2.0})
        assert matched.matched_pair(self.CURVE, with_tcm, "a", "m") is None


def a_run(trial: Trial, opis: float = 0.01, step: int = 3) -> list[dict]:
    common = {"key": trial.key, **dataclasses.asdict(trial), "step": step, "processor": "of a test"}
    values = dict.fromkeys(measures.MEASURES, 0.5) | {"opis": opis}
    return [{**common, "classes": "validation", **values, "training_seconds": 1.5, "gradient_ratio": None}]


class TestRecords:
    def test_what_was_appended_is_read_back(self, tmp_path: Path) -> None:
        records = Records(tmp_path / "made")
        draws = {name: np.arange(float(measures.DRAWS)) for name in measures.MEASURES}
        records.append(a_run(BASE), measures.Measured({}, draws))
        (row,) = records.runs()[BASE.key]
        assert (row["seed"], row["opis"], row["gradient_ratio"], row["classes"]) == (
            100,
            0.01,
            None,
            "validation",
        )
        assert np.array_equal(records.draws()[BASE.key]["opis"], draws["opis"])

    def test_of_a_run_that_was_made_twice_the_later_one_counts(self, tmp_path: Path) -> None:
        records = Records(tmp_path)
        records.append(a_run(BASE, opis=0.01), None)
        records.append(a_run(BASE, opis=0.02), None)
        (row,) = records.runs()[BASE.key]
        assert row["opis"] == 0.02

    def test_a_line_cut_short_is_left_out_and_does_not_spoil_the_next(self, tmp_path: Path) -> None:
        records = Records(tmp_path)
        records.append(a_run(BASE), None)
        with records.runs_path.open("a") as file:
            file.write("random-0/half a li")
        other = dataclasses.replace(BASE, seed=101)
        records.append(a_run(other), None)
        assert set(records.runs()) == {BASE.key, other.key}

    def test_another_file_is_refused_by_name(self, tmp_path: Path) -> None:
        (tmp_path / "runs.csv").write_text("a,b\n1,2\n")
        with pytest.raises(ValueError, match=r"runs\.csv: no column key"):
            Records(tmp_path).runs()

    def test_a_key_tells_runs_apart_by_everything_they_depend_on(self) -> None:
        tcm = dataclasses.replace(BASE, arm="tcm", weight=3.0)
        variants = [
            BASE,
            tcm,
            *(dataclasses.replace(tcm, **{name: value}) for name, value in {
                "split": "script", "base": "supcon", "purpose": "judge", "seed": 1, "learning_rate": 1e-3,
                "weight_decay": 1.0, "weight": 10.0, "margin_plus": 0.8, "margin_minus": 0.4,
            }.items()),
        ]  # fmt: skip
        assert len({trial.key for trial in variants}) == len(variants)


class TestStudyInMiniature:
    def test_runs_that_choose_are_measured_on_validation_classes_alone(self, walked: Records) -> None:
        for rows in walked.runs().values():
            classes = [row["classes"] for row in rows]
            assert "test" not in classes or rows[0]["purpose"] == "judge"

    def test_every_arm_has_its_seeds_and_every_seed_its_stops(self, walked: Records) -> None:
        (found,) = summary.compared(walked, TINY)
        assert set(found.arms) == {"base", "tcm", "tcm_default", "alone"}
        for runs in found.arms.values():
            assert [[row["step"] for row in curve] for curve in runs.curves] == [[2, 3], [2, 3]]
            assert all(set(draws) == set(measures.MEASURES) for draws in runs.draws)

    def test_walking_again_runs_nothing(self, walked: Records, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(running, "run", lambda *_: pytest.fail("a run was made twice"))
        chain.walk("random-0", "smooth_ap", TINY, walked, lambda _: None)

    def test_a_seed_begun_on_another_processor_is_run_again_as_a_whole(
        self, walked: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        records = Records(tmp_path)
        lines = walked.runs_path.read_text().splitlines(keepends=True)
        lost = next(key for key, rows in walked.runs().items() if "/tcm/judge/seed1/" in key)
        kept = [line for line in lines if not line.startswith(lost)]
        records.runs_path.write_text("".join(kept).replace(running.cpu_model(), "another"))
        made = []

        def run(trial: Trial, size: Size) -> tuple[list[dict], measures.Measured]:
            made.append((trial.arm, trial.seed))
            return a_run(trial), measures.Measured({}, {})

        monkeypatch.setattr(running, "run", run)
        chain.walk("random-0", "smooth_ap", TINY, records, lambda _: None)
        assert {seed for _, seed in made} == {1}
        assert [arm for arm, _ in made][:2] == ["base", "tcm"]

    def test_looking_at_a_student_changes_nothing_of_it(self, few_classes: None) -> None:
        samples = data.load("random-0", TINY).train
        student = running.start(BASE, 70)
        before = {name: x.clone() for name, x in student.network.state_dict().items()}
        look = running._look(student, BASE, samples)
        assert all(torch.equal(before[name], x) for name, x in student.network.state_dict().items())
        assert look["gradient_ratio"] > 0
        assert 0 <= look["hard_negative_share"] <= 1

    def test_the_report_has_its_tables_pictures_and_numbers(self, walked: Records, tmp_path: Path) -> None:
        written = {path.name: path.read_bytes() for path in report.write(walked, TINY, tmp_path)}
        assert set(written) == {
            "study.md", "study.html", "summary.json", "opis-random-0.png", "spread-random-0.png",
            "opis-default-random-0.png", "spread-default-random-0.png",
        }  # fmt: skip
        (found,) = summary.compared(walked, TINY)
        assert f"{found.arms['alone'].mean('recall_at_1'):.3f}".encode() in written["study.md"]
        assert b"Smooth-AP" in written["study.html"]
        assert written["study.html"].count(b"data:image/png;base64,") == 4

    def test_changes_are_those_of_the_records(self, walked: Records) -> None:
        (found,) = summary.compared(walked, TINY)
        rows = walked.runs()
        final = {
            arm: [of[-1]["opis"] for key, of in rows.items() if f"smooth_ap/{arm}/judge" in key]
            for arm in ("base", "tcm")
        }
        change = found.change("opis")
        assert change.mean == pytest.approx(np.mean(final["tcm"]) - np.mean(final["base"]), abs=1e-12)
        assert change.low < change.mean < change.high


class TestGlyphs:
    def test_records_of_other_glyphs_are_refused_and_stay(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = tmp_path / "records"
        data.check_same_glyphs(folder)
        data.check_same_glyphs(folder)  # the same
        here = data.load_alphabet()
        others = dataclasses.replace(here, characters=here.characters[::-1])
        monkeypatch.setattr(data, "load_alphabet", lambda: others)
        assert __main__.main(["--size", "smoke", "--results", str(folder)]) == 1
        assert "has records of other glyphs" in capsys.readouterr().err
        assert [path.name for path in folder.iterdir()] == ["glyphs.sha256"]
