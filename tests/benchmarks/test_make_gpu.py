"""`make gpu`, as far as it can be told without a GPU: the plan by value, and the whole of it run to its end.

In the run the plan is the real one; its commands are replaced by one that writes made-up records as theirs do
and then passes, fails, hangs or crashes, and its limits are a twentieth.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import itertools
import json
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from benchmark_records import cell, record
from checkout import ROOT

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import machine, plan, pytest_log, report, runner, state
from benchmarks.gpu.plan import Known
from benchmarks.gpu.runner import Outcome
from benchmarks.harness import attempts, measure, opponents, result_files, sweeps, table
from benchmarks.harness.workload import STEPS, Case
from benchmarks.suites import histogram, training_step

SLUG = "cuda-a-gpu"
MACHINE = dataclasses.replace(machine.COMPLETE, python=sys.executable, slug=SLUG, chip="9.0a")
FIRST = ["build", "tests", "memcheck", "headline", "profile", "small batches"]
REST = ["densities", "histogram", "racecheck", "initcheck", "large shapes", "training step"]
NOTHING_BUT_TRITON = dataclasses.replace(MACHINE, tools=frozenset({"triton"}))


def names(steps: tuple[plan.Step, ...]) -> list[str]:
    return [step.name for step in steps]


def step(name: str, at: machine.Machine = MACHINE) -> plan.Step:
    return next(each for each in plan.every(at, Path("/results")) if each.name == name)


def all_keys(*of: str) -> frozenset[result_files.Key]:
    return frozenset(key for name in of for key in step(name).leaves)


class TestPlan:
    def test_the_first_call_is_in_the_order_of_the_issue(self) -> None:
        first = plan.first(MACHINE, Path("/results"))
        assert names(first.steps) == FIRST
        assert names(first.left) == REST

    def test_a_call_after_it_builds_and_runs_the_rest(self) -> None:
        rest = plan.rest(MACHINE, Path("/results"), plan.after_first(MACHINE, Path("/results")))
        assert names(rest.steps) == ["build", *REST]
        assert rest.if_time == rest.left == ()

    @pytest.mark.parametrize(
        "chosen",
        [
            plan.first(MACHINE, Path("/results")),
            plan.rest(MACHINE, Path("/results"), plan.after_first(MACHINE, Path("/results"))),
            plan.rest(MACHINE, Path("/results"), Known()),
            plan.rest(
                MACHINE, Path("/results"), Known(all_keys("tests", "memcheck"), frozenset({"headline"}))
            ),
        ],
        ids=["first", "rest", "rest of nothing", "rest of a little"],
    )
    def test_what_it_may_take_fits_into_570_seconds_with_every_wait(self, chosen: plan.Plan) -> None:
        assert sum(step.limit_s + 20 for step in chosen.steps) == chosen.whole_s <= 570
        assert len(chosen.steps) > 1

    def test_a_plan_is_a_value(self) -> None:
        assert plan.first(MACHINE, Path("/results")) == plan.first(MACHINE, Path("/results"))
        assert hash(plan.first(MACHINE, Path("/results")))

    def test_what_has_a_record_is_not_run_again(self) -> None:
        known = Known(all_keys(*FIRST, *REST) - all_keys("histogram"))
        assert names(plan.rest(MACHINE, Path("/results"), known).steps) == ["build", "histogram"]
        assert plan.rest(MACHINE, Path("/results"), Known(all_keys(*FIRST, *REST))).steps == ()

    def test_one_case_of_one_backend_without_a_record_is_a_reason_to_run_its_step(self) -> None:
        one = (sweeps.titles("GPU, density")[3], "cuda")
        rest = plan.rest(MACHINE, Path("/results"), Known(all_keys(*FIRST, *REST) - {one}))
        assert names(rest.steps) == ["build", "densities"]
        assert rest.steps[1].command == (*step("densities").command, "--missing")

    def test_what_failed_before_comes_after_what_was_never_begun(self) -> None:
        tried = frozenset({"tests", "headline"})
        known = Known(all_keys(*FIRST) - all_keys(*tried), tried)
        rest = plan.rest(MACHINE, Path("/results"), known)
        assert names(rest.steps) == ["build", *REST]
        assert names(rest.if_time) == ["tests", "headline"]

    def test_both_backends_are_measured_in_the_same_rounds(self) -> None:
        for name in ("headline", "small batches", "densities", "large shapes"):
            command = " ".join(step(name).command)
            assert "--backend triton --backend cuda" in command
            assert {backend for _, backend in step(name).leaves} == {"triton", "cuda"}

    def test_headline_shapes_are_measured_beside_dense_pytorch_and_torch_compile(self) -> None:
        assert "--without" not in step("headline").command

    def test_sweeps_are_those_of_the_benchmark(self) -> None:
        wanted = [word for each in plan.every(MACHINE, Path("/r")) for word in each.command]
        named = {after for option, after in itertools.pairwise(wanted) if option == "--sweep"}
        assert named == {name for name in sweeps.SWEEPS if name.startswith("GPU")}

    @pytest.mark.parametrize("name", [*FIRST[2:], *REST])
    def test_commands_are_understood_by_what_they_call(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By their parsers, with what may be added to them; nothing is run."""
        understood = argparse.ArgumentParser.parse_args

        def parsed(parser: argparse.ArgumentParser, arguments: list[str]) -> None:
            understood(parser, arguments)
            raise InterruptedError("enough")

        monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parsed)
        command = step(name).command
        module, *arguments = command[command.index("-m") + 1 :]
        arguments += ["--missing"] if len(step(name).leaves) > 1 else []
        arguments += [runner.AGAIN] if step(name).goes_on else []
        with pytest.raises(InterruptedError):
            importlib.import_module(module).main(arguments)

    def test_the_tests_are_those_that_need_a_gpu_and_results_come_first(self) -> None:
        command = " ".join(step("tests").command)
        assert "-m pytest tests -m gpu" in command
        assert " -n 8 " in command
        ranks = [pytest_log.rank(stem) for stem in ("test_against_reference", "test_of_tomorrow", "test_gpu")]
        assert ranks[0] < ranks[1] < ranks[2]

    @pytest.mark.parametrize("stem", [*pytest_log.RIGHT_FIRST, *pytest_log.RIGHT_LAST])
    def test_files_of_tests_that_are_put_in_order_are_there(self, stem: str) -> None:
        assert len(list((ROOT / "tests").rglob(f"{stem}.py"))) == 1

    def test_what_a_machine_lacks_is_the_reason_why_a_step_is_not_run(self) -> None:
        reasons = {each.name: each.why_not for each in plan.every(NOTHING_BUT_TRITON, Path("/results"))}
        assert reasons["build"] == "there is no C++ compiler"
        assert reasons["profile"] == "ncu is not installed"
        assert reasons["racecheck"] == "compute-sanitizer is not installed"
        assert reasons["headline"] is None
        assert "-n" not in step("tests", NOTHING_BUT_TRITON).command
        assert {backend for _, backend in step("headline", NOTHING_BUT_TRITON).leaves} == {"triton"}

    def test_a_complete_run_leaves_at_most_eight_files_and_no_folder(self) -> None:
        files = {name for each in plan.every(MACHINE, Path("/results")) for name in each.files}
        files |= {path.name for path in state.files(Path("/results"), SLUG)}
        files.add(gpu.log_path(Path("/results"), SLUG).name)
        assert len(files) <= 8
        assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in files)


class TestCommandLine:
    def test_without_a_gpu_it_says_so(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert gpu.main(["--results", str(tmp_path / "new")]) == 2
        assert "needs a CUDA device" in capsys.readouterr().out
        assert not (tmp_path / "new").exists()

    def test_a_step_that_is_not_there_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(machine, "here", lambda: MACHINE)
        assert gpu.main(["--results", str(tmp_path), "--step", "test"]) == 2
        assert "there is no test here; there are build, tests, memcheck" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [((), FIRST), (("--steps", "rest"), ["build", *REST])],
        ids=["first", "rest"],
    )
    def test_a_dry_run_needs_neither_a_gpu_nor_a_folder(
        self, arguments: tuple[str, ...], expected: list[str]
    ) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.gpu", "--dry-run", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        *steps, total = done.stdout.splitlines()
        found = [re.fullmatch(r"(.+): (\d+) s", line) for line in steps]
        assert [line[1] for line in found] == expected
        assert total == f"total: {sum(int(line[2]) for line in found)} s"
        assert sum(int(line[2]) for line in found) <= 570

    def test_make_passes_the_part_and_the_folder_on(self) -> None:
        make = ["make", "-n", "gpu", "STEPS=rest", "RESULTS=somewhere", "PYTHON=python3"]
        said = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert 'python3 -m benchmarks.gpu --results "somewhere" --steps "rest"' in said


# What every step is in the run below: it writes the records that the test has made for it, or half of them if
# it does not come to its end.
FAKE = """
import json, os, signal, sys, time
folder, name, ending, *words = sys.argv[1:]
made = json.load(open(os.path.join(folder, "made.json")))[name]
print("this is", name, *words, flush=True)
if "--missing" in words:
    print("only what is missing")
ends = ending == "passes" or "--again" in words
what = lambda record: [record.get(name) for name in ("case", "backend", "epoch", "batch_size")]
for file, addition in made.items():
    path = os.path.join(folder, "results", file)
    content = json.load(open(path)) if os.path.exists(path) else {"slug": file[:-5], "records": []}
    there = [what(record) for record in content["records"]]
    new = [record for record in addition.get("records", []) if what(record) not in there]
    content["records"] += new if ends else new[: len(new) // 2]
    if ends and "profile" in addition:
        content["profile"] = addition["profile"]
    json.dump(content, open(path, "w"))
    if name == "histogram":
        open(path[:-5] + ".png", "wb").write(b"PNG")
if ending == "fails":
    print("Traceback: in", name)
    sys.exit(1)
if ending == "crashes":
    print("about to crash", flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)
if ending == "hangs":
    try:
        time.sleep(100)
    except KeyboardInterrupt:
        print("this is all that", name, "has", flush=True)
        raise
"""


def made_up(results: Path) -> dict[str, dict[str, dict]]:
    """By step and file, what a step writes that is measured."""
    device = f"{SLUG}.json"
    made: dict[str, dict[str, dict]] = {}
    for each in plan.every(MACHINE, results):
        made[each.name] = {}
        if each.goes_on:
            sweep = each.command[each.command.index("--sweep") + 1]
            records = [
                record(case) | {"backend": backend}
                for case in sweeps.SWEEPS[sweep]
                for backend in MACHINE.backends
            ]
            made[each.name] = {device: {"records": records}}
    kernel = {"kernel": "sweep_kernel", "duration, µs": 12.0, "stalls": {"wait": 1.0}}
    made["profile"] = {device: {"profile": {backend: [kernel] for backend in MACHINE.backends}}}
    sizes = [{"case": {"title": histogram.title(n)}} for n in histogram.SIZES["cuda"]]
    made["histogram"] = {histogram.path(results, SLUG).name: {"records": sizes}}
    rows = [
        {"batch_size": size, "epoch": epoch}
        for epoch in training_step.EPOCHS
        for size in training_step.BATCH_SIZES
    ]
    made["training step"] = {training_step.path(results, SLUG).name: {"records": rows}}
    return made


@pytest.fixture
def play(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """`main` on the real plan, with commands that end as asked; gives its status and what it printed."""
    results = tmp_path / "results"
    results.mkdir()
    Path(tmp_path, "made.json").write_text(json.dumps(made_up(results)), encoding="utf-8")
    Path(tmp_path, "fake.py").write_text(textwrap.dedent(FAKE), encoding="utf-8")
    endings: dict[str, str] = {}

    def replaced(real: Callable[..., tuple[plan.Step, ...]]) -> Callable[..., tuple[plan.Step, ...]]:
        def steps(*at: object) -> tuple[plan.Step, ...]:
            fake = (sys.executable, f"{tmp_path}/fake.py", str(tmp_path))
            return tuple(
                dataclasses.replace(
                    each,
                    command=(*fake, each.name, endings.get(each.name, "passes")),
                    limit_s=each.limit_s / 20,
                )
                for each in real(*at)
            )

        return steps

    monkeypatch.setattr(machine, "here", lambda: MACHINE)
    monkeypatch.setattr(plan, "GRACE_S", 2)
    monkeypatch.setattr(plan, "_first_steps", replaced(plan._first_steps))
    monkeypatch.setattr(plan, "_rest_steps", replaced(plan._rest_steps))
    monkeypatch.setattr(result_files, "FOLDER", tmp_path / "sources")

    def call(*arguments: str, **ends: str) -> tuple[int, str]:
        endings.clear()
        endings.update({name.replace("_", " "): ending for name, ending in ends.items()})
        status = gpu.main(["--results", str(results), *arguments])
        return status, capfd.readouterr().out

    return call


def content_of(tmp_path: Path) -> dict:
    return result_files.load(tmp_path / "results" / f"{SLUG}.json")


class TestRunToItsEnd:
    def test_a_pass_a_failure_a_time_out_and_a_crash_and_a_second_call_for_the_rest(
        self, tmp_path: Path, play: Callable[..., tuple[int, str]]
    ) -> None:
        status, said = play(tests="fails", memcheck="crashes", headline="hangs")
        assert status == 1

        # What happened is said by name, in the table at the end and in the file.
        outcomes = {name: each["outcome"] for name, each in content_of(tmp_path)["steps"].items()}
        assert outcomes == dict.fromkeys(REST, "not run") | {
            "build": "passed",
            "tests": "FAILED",
            "memcheck": "CRASHED",
            "headline": "TIMED OUT",
            "profile": "passed",
            "small batches": "passed",
        }
        end = said[said.rindex("Ratios to U") :]
        assert len(end) <= 12_000
        for line in ("tests +FAILED with status 1", "memcheck +CRASHED with SIGSEGV", "profile +passed in"):
            assert re.search(line, end)
        timed_out = f"TIMED OUT after {step('headline').limit_s:.0f} s (SIGINT)"
        assert re.search(f"headline +{re.escape(timed_out)}", end)

        # The steps' last words are there, and their measurements: half of the headline's, all small batches.
        log = Path(tmp_path, "results", f"log-{SLUG}.txt").read_text(encoding="utf-8")
        for words in ("Traceback: in tests", "about to crash", "this is all that headline has"):
            assert words in said
            assert words in log
        keys = [result_files.key(each) for each in content_of(tmp_path)["records"]]
        headline = step("headline").leaves
        assert len(set(keys)) == len(keys) == len(headline) // 2 + len(step("small batches").leaves)

        # Everything else has a reason instead.
        reasons = {key: entry["reason"] for key, entry in attempts.entries(content_of(tmp_path)).items()}
        every = {key for each in plan.every(MACHINE, tmp_path) for key in each.leaves}
        done = {*keys, ("build",), ("tests",), ("profile", "triton"), ("profile", "cuda")}
        assert reasons.keys() == every - done
        assert reasons[headline[-1]] == f"headline {timed_out}"
        assert reasons["memcheck",].startswith("memcheck CRASHED with SIGSEGV")
        assert reasons["histogram", "N=200000, D=512"] == "left to STEPS=rest"

        # The second call: on a bare machine, to which the files of the first have come with the sources.
        brought(tmp_path / "results", tmp_path / "sources")
        status, said = play("--steps", "rest")
        assert status == 0
        assert [name for name in re.findall(r"^== ([a-z ]+): /", said, re.M)] == [
            *("build", *REST),  # and, since time was left, what was stopped or had crashed
            *("memcheck", "headline"),
        ]
        assert said.count("only what is missing") == 5
        keys = [result_files.key(each) for each in content_of(tmp_path)["records"]]
        assert len(keys) == len(set(keys))
        assert set(keys) == {
            key for each in plan.every(MACHINE, tmp_path) if each.goes_on for key in each.leaves
        }
        assert state.known(tmp_path / "results", SLUG).keys >= every
        assert attempts.SECTION not in content_of(tmp_path)

        # All that is left behind can be carried off.
        left = list(Path(tmp_path, "results").rglob("*"))
        assert 1 <= len(left) <= 8
        assert all(path.is_file() and path.stat().st_size <= 16 * 2**20 for path in left)
        assert f"{SLUG}.json" in {path.name for path in left}

        # Nothing is missing now: a third call has nothing to do.
        status, said = play("--steps", "rest")
        assert status == 0
        assert "== " not in said

    def test_a_step_that_is_asked_for_runs_alone_although_it_has_a_record(
        self, tmp_path: Path, play: Callable[..., tuple[int, str]]
    ) -> None:
        for _ in range(2):
            status, said = play("--step", "densities", "--step", "build")
            assert status == 0
            assert re.findall(r"^== ([a-z ]+): /", said, re.M) == ["build", "densities"]

    def test_a_step_whose_process_died_goes_on_with_what_it_did_not_come_to(
        self, tmp_path: Path, play: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(runner, "WORTH_S", 0)
        status, said = play("--step", "headline", headline="crashes")
        assert status == 1
        assert re.search(r"headline +CRASHED with SIGSEGV after \d s, went on: CRASHED with SIGSEGV", said)
        assert state.known(tmp_path / "results", SLUG).missing(step("headline")) == ()

    def test_no_time_left_is_a_reason(
        self, tmp_path: Path, play: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(plan, "WHOLE_S", 1)
        status, said = play("--step", "headline")
        assert "not run: no time was left" in said
        assert status == 1
        reasons = {entry["reason"] for entry in attempts.entries(content_of(tmp_path)).values()}
        assert reasons == {"headline not run: no time was left"}


def brought(there: Path, here: Path) -> None:
    """What comes back from a machine is put where results are kept, and the machine is gone."""
    there.rename(here)
    there.mkdir()


def with_replays(case: Case) -> dict:
    made = record(case)
    made["units"][measure.UNIT_REPLAYED] = cell(2e-6, 2e-6)
    for competitor in made["competitors"].values():
        competitor["replays"] = {name: cell(5e-6, 2e-6) for name in STEPS}
    return made


class TestReport:
    CASE = Case(512, 128, density=1e-3)

    def test_a_line_a_case_with_both_backends_and_one_of_replays(self) -> None:
        records = [with_replays(self.CASE) | {"backend": backend} for backend in ("triton", "cuda")]
        records[1]["competitors"][opponents.OURS]["steps"] = {name: cell(3e-6, 1e-5) for name in STEPS}
        _, heading, steps, replays = report.table({"records": records})
        assert heading.split() == ["U", "triton", "cuda", "dense", "PyTorch", "torch.compile"]
        assert steps.split()[-8:] == ["0.200", "0.200", "0.300", "0.300", "9.000", "9.000", "6.000", "6.000"]
        assert replays.split()[-8:] == ["2.500"] * 8

    def test_a_backend_without_a_record_has_no_figure(self) -> None:
        records = [record(self.CASE) | {"backend": "cuda"}]
        other = Case(1024, 128, density=1e-3)
        records += [record(other) | {"backend": backend} for backend in ("triton", "cuda")]
        lines = report.table({"records": records})
        assert lines[2].split()[-6:-4] == ["-", "-"]

    def test_however_much_there_is_it_fits_and_ends_with_all_outcomes(self) -> None:
        cases = [Case(n, 128, density=1e-3) for n in range(1000, 1100)]  # more than there are
        records = [with_replays(case) | {"backend": name} for case in cases for name in MACHINE.backends]
        outcomes = {name: Outcome("FAILED", "with status 1 after 100 s", 100.0) for name in FIRST + REST}
        lines = ["a reason that is quite long " * 20] * 100
        text = report.text({"records": records}, lines, outcomes, "the folder")
        assert len(text) <= report.MOST_CHARACTERS
        assert text.startswith("Ratios to U")
        *_, end = text.split("\n\n")
        assert [line.split("  ")[0] for line in end.splitlines()] == [*outcomes, "the folder"]
        assert text.count("more lines, in the file") == 2  # of the table, and of what is not measured

    def test_replays_profile_and_steps_are_sections_of_the_markdown(self) -> None:
        kernel = {"kernel": "sweep_kernel", "duration, µs": 12.5, "stalls": {"wait": 1.25, "barrier": 0.5}}
        text = table.markdown(
            {
                "slug": "a-device",
                "records": [with_replays(self.CASE)],
                "profile": {"cuda": [kernel]},
                "steps": {"tests": {"outcome": "passed", "detail": "in 3 s", "ended": "now"}},
            }
        )
        assert "## As CUDA-graph replays" in text
        assert "5 µs, 2.5 × U" in text
        assert "| `cuda` | sweep_kernel | 12.5 | not measured |" in text
        assert "wait 1.25, barrier 0.5" in text
        assert "| tests | passed | in 3 s | now |" in text
        plain = table.markdown({"slug": "a-device", "records": [record(self.CASE)]})
        assert "replays" not in plain
        assert "make gpu" not in plain

    def test_the_signal_numbers_of_a_shell_are_crashes_too(self) -> None:
        assert runner._outcome(128 + signal.SIGSEGV, None, 10, 1).kind == "CRASHED"
        assert runner._outcome(-signal.SIGABRT, None, 10, 1).detail.startswith("with SIGABRT")
        assert runner._outcome(2, None, 10, 1).kind == "FAILED"


def test_what_a_machine_offers_is_found_also_beside_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(machine.environment, "slug", lambda device: SLUG)
    monkeypatch.setattr(machine, "CUDA", tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CUDA_HOME", raising=False)
    for program in ("nvcc", "ncu"):
        Path(tmp_path, program).touch(mode=0o755)
    here = machine.here()
    assert (here.slug, here.chip) == (SLUG, "9.0a")
    assert here.tools & set(machine.PROGRAMS) == {"nvcc", "ncu"}
    assert here.program("ncu") == str(tmp_path / "ncu")
    assert step("profile", here).why_not is None
    assert step("memcheck", here).why_not == "compute-sanitizer is not installed"
