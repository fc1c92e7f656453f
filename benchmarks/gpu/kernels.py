"""Calls of our kernels to look at: for the profiler at the headline case, for sanitizers at small sizes.

    python -m benchmarks.gpu.kernels headline --backend triton
    python -m benchmarks.gpu.kernels small --backend cuda --backend triton

Each call is announced: when a sanitizer is stopped, the output shows how far it came.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence

import torch

import tcm_kernels
from benchmarks.harness import opponents, sweeps, workload
from tcm_kernels import dispatch
from tcm_kernels.evaluation import class_curves

ROWS = 300  # some tiles of 128, the last of them not full
SCREENING = "TCM_KERNELS_GPU_SCREENING"
SCREENINGS = ("", "int8", "full")
SHAPES = ((72, 0.3), (33, -1.0))  # D, m-: lists and patterns; every pair hard, D not a multiple of anything
COUNTED = ((40, 2000), (300, 30))  # classes, bins: counters in global and in shared memory
DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def small(backend: str, device: str) -> Iterator[tuple[str, Callable[[], object]]]:
    """Calls that take every kernel of the backend once, with what each of them is.

    Triton compiles its kernels for each dtype and shape, which takes longer than running them: one of each.
    """
    dtypes, shapes = (DTYPES, SHAPES) if backend != "triton" else (DTYPES[:1], SHAPES[:1])
    for screening in SCREENINGS:
        for dtype in dtypes:
            for d, margin_minus in shapes:
                yield (
                    f"{backend}: {ROWS} x {d} {dtype}, screening {screening or 'its choice'}",
                    lambda s=screening, t=dtype, d=d, m=margin_minus: _loss(backend, device, s, t, d, m),
                )
    if backend in dispatch.HISTOGRAM_BACKENDS:
        for dtype in dtypes:
            for classes, bins in COUNTED:
                yield (
                    f"{backend}: histogram of {classes} classes in {bins} bins, {dtype}",
                    lambda t=dtype, c=classes, b=bins: _curves(backend, device, t, c, b),
                )


def _loss(
    backend: str, device: str, screening: str, dtype: torch.dtype, d: int, margin_minus: float
) -> torch.Tensor:
    os.environ[SCREENING] = screening
    emb = torch.randn(ROWS, d, device=device).to(dtype).requires_grad_()
    labels = torch.arange(ROWS, device=device) // 4
    loss = tcm_kernels.fused_tcm_loss(emb, labels, margin_minus=margin_minus, backend=backend)
    loss.backward()
    return loss.detach()


def _curves(backend: str, device: str, dtype: torch.dtype, classes: int, bins: int) -> object:
    emb = torch.randn(ROWS, 33, device=device).to(dtype)
    return class_curves(emb, torch.arange(ROWS) % classes, bins=bins, backend=backend)


def headline(backend: str) -> None:
    """One forward and backward of the headline case, between the marks that start and stop a profiler."""
    work = workload.make(sweeps.SWEEPS["GPU, headline"][0])
    run = opponents.steps(opponents.named(opponents.OURS).loss(work, backend), work.emb)["forward+backward"]
    run()  # compiles
    torch.cuda.synchronize()
    torch.cuda.cudart().cudaProfilerStart()
    run()
    torch.cuda.synchronize()
    torch.cuda.cudart().cudaProfilerStop()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu.kernels", description=__doc__.splitlines()[0]
    )
    parser.add_argument("what", choices=("headline", "small"))
    parser.add_argument("--backend", action="append", required=True, choices=dispatch.BACKENDS)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args(arguments)
    for backend in options.backend:
        if options.what == "headline":
            headline(backend)
            continue
        for name, call in small(backend, options.device):
            print(name, flush=True)
            call()
            if options.device == "cuda":
                torch.cuda.synchronize()
    return 0


if __name__ == "__main__":
    sys.exit(main())
