"""Peak memory of one forward and backward, beyond the inputs; and how much memory there is.

On a GPU the caching allocator keeps the books. On a CPU nobody does, so a fresh process makes the
inputs, runs a small instance (libraries get loaded, thread pools and caches made), resets the kernel's
record of the largest resident set, runs the step once and reads the record. In a fresh process nothing
that an earlier measurement freed can be used again unseen.

    python -m benchmarks.harness.memory '{"case": {...}, "competitor": "tcm_kernels", ...}'   (the child)
"""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks import ROOT
from benchmarks.harness import opponents, workload
from benchmarks.harness.workload import Case

EXACT_SHARE = 0.85  # of the available memory, for sizes known exactly
SAFE_SHARE = 0.75  # of the available memory; the rest is for estimates that are a little low
CHILD_TIMEOUT_S = 300
FREED_AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""For a process: freed blocks go back to the system at once, so that the peak is of memory in use."""


@dataclasses.dataclass(frozen=True)
class PeakMemory:
    """What one forward and backward needs beyond its inputs; the gradient it returns is included.

    Attributes:
        peak_bytes: the peak, or None where it could not be measured.
        gradient_bytes: how much of it is the gradient of emb.
        method: how it was measured, or why it was not.
    """

    peak_bytes: int | None
    gradient_bytes: int
    method: str


def available_bytes(device: str) -> int:
    """Bytes that can still be allocated on the device: the smaller of machine and control group."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    bounds = []
    meminfo = _read("/proc/meminfo")
    if found := re.search(r"MemAvailable:\s+(\d+) kB", meminfo):
        bounds.append(int(found[1]) * 1024)
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        if _read(limit).strip().isdigit() and _read(used).strip().isdigit():
            bounds.append(int(_read(limit)) - int(_read(used)))
    if not bounds:  # not Linux
        bounds.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
    return max(0, min(bounds))


def fits(bytes_needed: int, device: str, share: float = SAFE_SHARE) -> bool:
    """Whether an allocation of this size is safe to try: at most `share` of what is available."""
    return bytes_needed <= share * available_bytes(device)


def peak(
    case: Case,
    competitor: str,
    backend: str,
    run: Callable[[], object] | None = None,
    step: str = "forward+backward",
) -> PeakMemory:
    """Measure the competitor (a name from `opponents.COMPETITORS`) on the case's data.

    Args:
        case: what is measured; its data are made anew on a CPU.
        competitor: its name.
        backend: of ours.
        run: on a GPU the step itself, which has run before: what it needs is counted where it lies.
        step: one of `workload.STEPS`.
    """
    if case.device == "cuda":
        assert run is not None
        peak_bytes, method = allocated_peak(run)
        return PeakMemory(peak_bytes, _gradient_bytes(case), method)
    task = {
        "case": dataclasses.asdict(case),
        "competitor": competitor,
        "backend": backend,
        "step": step,
        "threads": torch.get_num_threads(),
    }
    try:
        child = subprocess.run(
            [sys.executable, "-m", "benchmarks.harness.memory", json.dumps(task)],
            cwd=ROOT,
            env=os.environ | FREED_AT_ONCE,
            capture_output=True,
            text=True,
            timeout=CHILD_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return PeakMemory(None, _gradient_bytes(case), f"took longer than {CHILD_TIMEOUT_S} s")
    if child.returncode != 0:
        last_words = (child.stderr.strip().splitlines() or ["no message"])[-1][:200]
        return PeakMemory(
            None, _gradient_bytes(case), f"the measuring process ended with {child.returncode}: {last_words}"
        )
    return PeakMemory(**json.loads(child.stdout.splitlines()[-1]))


def allocated_peak(run: Callable[[], object]) -> tuple[int, str]:
    """Bytes that are allocated on the GPU at most while `run` runs, beyond those before; and how known."""
    torch.cuda.synchronize()
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before, "torch.cuda.max_memory_allocated"


def _peak_in_this_process(case: Case, competitor: str, backend: str, step: str) -> PeakMemory:
    run = _step(case, competitor, backend, step)
    if opponents.named(competitor).compiles:
        run()  # the compiler's own memory is not the step's
    else:
        small = dataclasses.replace(case, n=64, m=None if case.m is None else 64)
        _step(small, competitor, backend, step)()
    peak_bytes, method = resident_peak(run)
    return PeakMemory(peak_bytes, _gradient_bytes(case), method)


def resident_peak(run: Callable[[], object]) -> tuple[int, str]:
    """Bytes by which this process grows at most while it runs `run`, its result included; and how known."""
    gc.collect()
    _trim()
    if _reset_resident_peak():
        before, read, method = _status_bytes("VmRSS"), _resident_peak, "VmHWM, reset before the step"
    else:
        before, read, method = _max_rss(), _max_rss, "ru_maxrss; too low if loading needed more"
    result = run()
    peak_bytes = read() - before
    del result
    return peak_bytes, method


def _step(case: Case, competitor: str, backend: str, step: str) -> Callable[[], object]:
    work = workload.make(case)
    return opponents.steps(opponents.named(competitor).loss(work, backend), work.emb)[step]


def _gradient_bytes(case: Case) -> int:
    return case.n * case.d * case.torch_dtype.itemsize


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""


def _trim() -> None:
    """Give freed memory back to the system, where the C library can (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _reset_resident_peak() -> bool:
    """Set the kernel's VmHWM of this process to what is resident now; False where not allowed."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    except OSError:
        return False
    return _resident_peak() > 0


def _resident_peak() -> int:
    return _status_bytes("VmHWM")


def _status_bytes(field: str) -> int:
    found = re.search(rf"{field}:\s+(\d+) kB", _read("/proc/self/status"))
    return int(found[1]) * 1024 if found else 0


def _max_rss() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main() -> None:
    """The child: measure what the argument says, print a PeakMemory as JSON."""
    task = json.loads(sys.argv[1])
    torch.set_num_threads(task["threads"])
    measured = _peak_in_this_process(Case(**task["case"]), task["competitor"], task["backend"], task["step"])
    print(json.dumps(dataclasses.asdict(measured)))


if __name__ == "__main__":
    main()
