"""How long the first call of a backend takes in a new process, where nothing has been compiled yet.

Measured within that process and after the device has started: two starts of a process differ by more than
what is to be measured.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from checkout import ROOT

CALLS = """
import sys, time, torch, tcm_kernels
backend, device, rows, dim = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
wait = torch.cuda.synchronize if device == "cuda" else lambda: None
emb = torch.randn(rows, dim, device=device).bfloat16().requires_grad_()
labels = torch.arange(rows, device=device) // 4
for _ in range(2):
    wait()
    begin = time.perf_counter()
    tcm_kernels.fused_tcm_loss(emb, labels, backend=backend).backward()
    wait()
    print(time.perf_counter() - begin)
"""


def seconds(
    backend: str, device: str, *, cache: Path, rows: int = 8192, dim: int = 512
) -> tuple[float, float]:
    """Of the first forward and backward, and of the second.

    cache: an empty folder, so that Triton finds nothing that was compiled before.
    """
    paths = filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))
    environment = os.environ | {"TRITON_CACHE_DIR": str(cache), "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        [sys.executable, "-c", CALLS, backend, device, str(rows), str(dim)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    first, second = map(float, done.stdout.split())
    return first, second
