"""Every path of the kernels of both GPU backends, in every setting of gpu_settings.py, against the reference.

On a GPU they run there; without one, on Triton's interpreter and the emulator of a GPU.
"""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from agreement import assert_agrees, run
from cases import Case
from engines import Engine, interprets_triton
from gpu_settings import CUDA, TRITON, Setting, inputs_of

from tcm_kernels import dispatch

ON_GPU = torch.cuda.is_available()
pytestmark = [
    pytest.mark.no_cover,
    pytest.mark.usefixtures("poisoned_memory"),
    # Gradients of rows of zeros are beyond float16, in which numpy, unlike a GPU, finds something to say.
    pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning"),
]


def _why_not(backend: str) -> str | None:
    if ON_GPU:
        return dispatch.why_not(backend, "cuda", torch.float32)
    if backend == "cuda":
        return importlib.import_module(
            "cuda_emulator"
        ).why_not()  # which needs setuptools: not every GPU has it
    return None if interprets_triton() else "triton is not installed"


def _runs() -> list[Any]:
    runs = []
    for name, setting in (*TRITON.items(), *CUDA.items()):
        reason = _why_not(setting.backend)
        marks = [pytest.mark.gpu] if ON_GPU else []
        if reason is not None:
            marks.append(pytest.mark.skip(reason=f"backend {setting.backend}: {reason}"))
        for case in inputs_of(setting):
            runs.append(pytest.param(setting, case, marks=marks, id=f"{setting.backend}-{name}-{case.id}"))
    return runs


@pytest.mark.parametrize(("setting", "case"), _runs())
def test_every_setting_gives_the_loss(
    setting: Setting, case: Case, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if setting.backend == "cuda" and not ON_GPU:
        request.getfixturevalue("cuda_on_cpu")
    setting.apply(monkeypatch)
    inputs = case.build("cuda" if ON_GPU else "cpu")
    assert_agrees(run(Engine(setting.backend, inputs.emb.device.type), inputs), inputs)
