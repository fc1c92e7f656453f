"""How much memory the loss takes: a little more than its inputs, never anything like N x N."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tcm_kernels import dispatch

MIB = 2**20
N, D = 65_536, 128

# A fresh process, because the high-water mark of a process never sinks. The first call loads libraries and
# starts threads, which is not the loss's doing; it is of another size, so that it leaves no buffers to reuse.
MEASURE = f"""
import json, resource, sys, torch, tcm_kernels
emb = torch.randn({N} // 4, {D}).repeat_interleave(4, dim=0).add_(torch.randn({N}, {D}), alpha=0.3)
labels = torch.arange({N}) // 4
small = torch.randn(600, {D}, requires_grad=True)
tcm_kernels.fused_tcm_loss(small, torch.arange(600) // 4, backend=sys.argv[1]).backward()
emb.requires_grad_()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
loss, stats = tcm_kernels.fused_tcm_loss(emb, labels, backend=sys.argv[1], return_stats=True)
loss.backward()
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
unit = 1 if sys.platform == "darwin" else 1024
print(json.dumps({{
    "bytes": (after - before) * unit,
    "negatives": int(stats.negative_count),
    "positives": int(stats.positive_count),
    "finite": bool(emb.grad.isfinite().all()),
}}))
"""


@pytest.mark.slow
def test_65536_rows_stay_below_300_mib() -> None:
    """The float32 similarity matrix would take 16 GiB, the gradient alone takes 32 MiB."""
    reason = dispatch.why_not_here("cpu")
    if reason is not None:
        pytest.skip(f"backend cpu: {reason}")
    pytest.importorskip("resource", reason="needs the resource module of Unix to read the memory's peak")
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, "cpu"], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["finite"]
    assert found["positives"] > 0
    assert found["negatives"] / (N * N) < 1e-2, "clustered rows of this size are meant to be sparse"
    assert found["bytes"] < 300 * MIB, f"{found['bytes'] / MIB:.0f} MiB beyond the inputs"
