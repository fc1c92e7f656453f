"""Everything that only a machine with a GPU can tell, in one command: build, tests, benchmark, profile.

    python -m benchmarks.gpu --results FOLDER      or:  make gpu RESULTS=FOLDER
    python -m benchmarks.gpu --results FOLDER --step tests --step benchmark     these steps only

The `cuda` backend is measured like the one that `auto` takes, into files of its own, and its kernels are run
under compute-sanitizer where that is installed.

Uses the Python that runs it, with its torch and its Triton; nothing is downloaded. Each step is a process
of its own with a time limit, and what one step does wrong does not keep the next from running. FOLDER
receives `<device>.json` and `<device>.md` as `benchmarks.run` writes them, `histogram-<device>.json` as
`benchmarks.histogram` does, `profile.csv` where Nsight Compute is there, and `log.txt` with all output; a
short table comes last. The exit status is 1 if a step failed.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, TextIO

import torch

from benchmarks import opponents, result_files, workload
from benchmarks.run import slug

ROOT = Path(__file__).parent.parent
WHOLE_S = 570.0  # the machine may be taken away after ten minutes
OF_CUDA = ["--backend", "cuda", "--without", opponents.COMPILED]  # the others' figures are those of `auto`
SANITIZERS = ("memcheck", "racecheck", "initcheck")

# The kernels worth a profile, on the case that the figures are about.
PROFILED = (
    "import torch; from benchmarks import opponents, workload; "
    "work = workload.make(workload.Case(32768, 512, device='cuda', dtype='bfloat16', density=1e-3)); "
    "loss = opponents.named(opponents.OURS).loss(work, 'auto'); "
    "run = opponents.steps(loss, work.emb)['forward+backward']; run(); torch.cuda.synchronize(); "
    "torch.cuda.cudart().cudaProfilerStart(); run(); torch.cuda.synchronize()"
)


# Every kernel of the `cuda` backend, on matrices that a sanitizer gets through in seconds.
SANITIZED = (
    "import os, torch, tcm_kernels\n"
    "for screening in ('int8', 'full'):\n"
    "    os.environ['TCM_KERNELS_GPU_SCREENING'] = screening\n"
    "    for dtype in (torch.bfloat16, torch.float16, torch.float32):\n"
    "        for n, d, minus in ((300, 72, 0.3), (300, 33, -1.0)):\n"
    "            emb = torch.randn(n, d, device='cuda').to(dtype).requires_grad_()\n"
    "            labels = torch.arange(n, device='cuda') // 4\n"
    "            tcm_kernels.fused_tcm_loss(emb, labels, margin_minus=minus, backend='cuda').backward()\n"
    "from tcm_kernels.evaluation import class_curves\n"
    "for dtype in (torch.bfloat16, torch.float16, torch.float32):\n"
    "    for groups, bins in ((40, 2000), (300, 30)):\n"
    "        emb = torch.randn(300, 33, device='cuda').to(dtype)\n"
    "        class_curves(emb, torch.arange(300) % groups, bins=bins, backend='cuda')\n"
    "torch.cuda.synchronize()\n"
)


@dataclasses.dataclass(frozen=True)
class Step:
    """A command, and how many seconds it may take at most."""

    name: str
    command: Sequence[str]
    limit_s: float


def steps(results: Path, budget_s: float) -> list[Step]:
    """What is run on this machine, in order."""
    python = sys.executable
    measure = [python, "-m", "benchmarks.run", "--device", "cuda", "--budget", str(budget_s)]
    measure += ["--out", str(results)]
    tests = [python, "-m", "pytest", "tests", "-q", "--tb=short", "--maxfail=50", "--durations=10"]
    wanted = [
        Step("tests", tests, 240),
        Step("benchmark", [*measure, "--sweep", "GPU, shapes", "--sweep", "GPU, small batches"], 200),
        # Compiling the dense loss again for every density would take longer than all the rest.
        Step("densities", [*measure, "--sweep", "GPU, density", "--without", opponents.COMPILED], 150),
    ]
    if shutil.which("c++") is not None:  # without it, the pure-Python package has the Triton kernels, too
        build = [python, "setup.py", "build_ext", "--inplace"]
        wanted.insert(0, Step("build", [*_for_this_gpu(), *build], 150))
    ncu = shutil.which("ncu")
    if ncu is not None:
        # The clocks are left as they are: the machine may be shared.
        profile = [ncu, "--clock-control", "none", "--profile-from-start", "off", "--set", "basic", "--csv"]
        profile += ["--log-file", str(results / "profile.csv"), python, "-c", PROFILED]
        wanted.insert(-1, Step("profile", profile, 60))
    wanted += [
        Step("cuda", [*measure, *OF_CUDA, "--sweep", "GPU, shapes"], 150),
        Step("cuda densities", [*measure, *OF_CUDA, "--sweep", "GPU, density"], 150),
        Step(
            "histogram",
            [
                python,
                "-m",
                "benchmarks.histogram",
                "--device",
                "cuda",
                "--budget",
                "10",
                "--out",
                str(results),
            ],
            120,
        ),
    ]
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is not None:
        for tool in SANITIZERS:
            command = [sanitizer, "--tool", tool, "--error-exitcode", "9", python, "-c", SANITIZED]
            wanted.append(Step(tool, command, 120))
    return wanted


def _for_this_gpu() -> list[str]:
    """What to put before a build, so that it compiles for no other GPU."""
    if torch.version.cuda is None:
        return []
    chip = ".".join(map(str, torch.cuda.get_device_capability()))
    return ["env", f"TORCH_CUDA_ARCH_LIST={'9.0a' if chip == '9.0' else chip}"]


def run(step: Step, left_s: float, log: TextIO) -> str:
    """Run a step with its output shown and logged; returns "passed" or what went wrong."""
    limit_s = min(step.limit_s, left_s)
    if limit_s <= 0:
        return "not run: no time left"
    log.write(f"\n== {step.name}: {' '.join(step.command)}\n")
    log.flush()
    begin = time.monotonic()
    process = subprocess.Popen(
        step.command,
        cwd=ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    copier = threading.Thread(target=_copy, args=(process.stdout, log))
    copier.start()
    timed_out = False
    try:
        process.wait(limit_s)
    except subprocess.TimeoutExpired:
        timed_out = True
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    copier.join()
    if process.stdout is not None:
        process.stdout.close()
    took_s = time.monotonic() - begin
    if timed_out:
        return f"stopped after {limit_s:.0f} s"
    return (
        f"passed in {took_s:.0f} s" if process.returncode == 0 else f"FAILED with status {process.returncode}"
    )


def _copy(output: IO[str] | None, log: TextIO) -> None:
    assert output is not None
    for line in output:
        for to in (sys.stdout, log):
            to.write(line)
            to.flush()


def table(path: Path) -> list[str]:
    """One line a case of a results file: our ratios to U, beside dense PyTorch's; a second of replays."""
    lines = []
    for record in result_files.load(path)["records"]:
        cells = [record["competitors"][name] for name in (opponents.OURS, opponents.DENSE)]
        title = result_files.title(record)[:72]
        lines.append(f"{title:<72} {_ratios([cell['steps'] for cell in cells])}")
        if all("replays" in cell for cell in cells):
            lines.append(f"{'    as CUDA-graph replays':<72} {_ratios([cell['replays'] for cell in cells])}")
    return lines


def _ratios(of_competitors: Sequence[dict[str, Any]]) -> str:
    texts = []
    for of_steps in of_competitors:
        for step in workload.STEPS:
            ratio = of_steps[step].get("ratio_to_unit")
            texts.append(f"{ratio['median']:8.3f}" if ratio else f"{of_steps[step]['status'][:8]:>8}")
    return " ".join(texts)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--budget", type=float, default=5.0, metavar="S", help="seconds of timing a case")
    parser.add_argument("--step", action="append", metavar="NAME", help="only this step; may be repeated")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("make gpu needs a CUDA device, and torch.cuda.is_available() is False")
        return 2
    wanted = steps(options.results.resolve(), options.budget)
    names = [step.name for step in wanted]
    unknown = set(options.step or ()) - set(names)
    if unknown:
        print(f"--step: there is no {', '.join(sorted(unknown))} here; there are {', '.join(names)}")
        return 2
    options.results.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    outcomes = {}
    with (options.results / "log.txt").open("w") as log:
        for step in wanted:
            if options.step and step.name not in options.step:
                continue
            outcomes[step.name] = run(step, WHOLE_S - (time.monotonic() - begin), log)
    for backend in ("auto", "cuda"):
        path = options.results / f"{slug('cuda', backend)}.json"
        if path.exists():
            print(f"\nbackend {backend}, ratios to U: ours forward, forward+backward; dense PyTorch's")
            print("\n".join(table(path)))
    print()
    for name, outcome in outcomes.items():
        print(f"{name:<15} {outcome}")
    return 0 if all(outcome.startswith("passed") for outcome in outcomes.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
