"""Backends times devices: what the shared tests run on. A new row in dispatch's table is picked up here."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
import quick_interpreter
import torch

from tcm_kernels import dispatch


@dataclasses.dataclass(frozen=True)
class Engine:
    """A backend on a device."""

    backend: str
    device: str

    def why_not(self, dtype: torch.dtype) -> str | None:
        return dispatch.why_not(self.backend, self.device, dtype)

    def skip_unless_it_takes(self, dtype: torch.dtype) -> None:
        reason = self.why_not(dtype)
        if reason is not None:
            pytest.skip(f"{self.backend} on {self.device}: {reason}")


def engines_of(names: Sequence[str]) -> list[Any]:
    """One parameter per backend of these and device it runs on; a skipped test for one that runs on none."""
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    parameters = []
    for name in names:
        reasons = {device: dispatch.why_not(name, device, torch.float32) for device in devices}
        if name in ("triton", "cuda") and devices == ["cpu"]:
            continue  # an interpreter and an emulator run them here, in tests/backends/triton and cuda
        usable = [device for device in devices if reasons[device] is None]
        for device in usable:
            marks = [pytest.mark.gpu] if device == "cuda" else []
            parameters.append(pytest.param(Engine(name, device), id=f"{name}-on-{device}", marks=marks))
        if not usable:
            skip = pytest.mark.skip(reason=f"backend {name}: {reasons[devices[-1]]}")
            parameters.append(pytest.param(None, id=name, marks=skip))
    return parameters


ENGINES = engines_of(dispatch.BACKENDS)


def interprets_triton() -> bool:
    """Whether this process runs Triton's kernels in its interpreter, as conftest.py asks without a GPU."""
    there = dispatch.why_not("triton", "cpu", torch.float32) is None
    if there:
        quick_interpreter.install()
    return there
