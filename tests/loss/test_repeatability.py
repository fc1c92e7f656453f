"""The same bits from run to run, and whatever torch is told about precision elsewhere."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import torch
from agreement import Result, run
from cases import Case
from engines import Engine

import tcm_kernels

CASES = [
    Case(n=1030, d=100, labels="shuffled", look="clustered"),
    Case(n=700, d=40, labels="sorted", look="random", dtype=torch.bfloat16),
    Case(relation="rectangular", n=300, d=64, labels="shuffled", look="random", extra=500),
    Case(relation="rectangular_with_self_offset", n=130, d=33, look="collapsed", dtype=torch.float64),
]


def _assert_bitwise_equal(first: Result, second: Result) -> None:
    assert torch.equal(first.loss, second.loss)
    for name in ("positive_sum", "positive_count", "negative_sum", "negative_count"):
        assert torch.equal(getattr(first.stats, name), getattr(second.stats, name)), name
    assert torch.equal(first.grad_emb, second.grad_emb)
    if first.grad_ref is not None:
        assert second.grad_ref is not None
        assert torch.equal(first.grad_ref, second.grad_ref)


@pytest.mark.usefixtures("restored_threads")
@pytest.mark.parametrize("threads", [None, 1, 2], ids=["default_threads", "one_thread", "two_threads"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_every_run_gives_the_same_bits(engine: Engine, case: Case, threads: int | None) -> None:
    engine.skip_unless_it_takes(case.dtype)
    if threads is not None:
        torch.set_num_threads(threads)
    inputs = case.build(engine.device)
    first = run(engine, inputs)
    for _ in range(3):
        _assert_bitwise_equal(first, run(engine, inputs))


def _legacy_precision() -> str:
    """torch's older switch; reading it is an error once the newer one says something it has no word for."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return "not readable"


def _states() -> tuple[object, ...]:
    """Everything a kernel that protects itself from torch's switches might forget to put back."""
    return (
        _legacy_precision(),
        torch.backends.fp32_precision,
        torch.backends.mkldnn.matmul.fp32_precision,
        torch.backends.cuda.matmul.fp32_precision,
        torch.is_autocast_enabled("cpu"),
        torch.get_autocast_dtype("cpu"),
        torch.is_grad_enabled(),
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
    )


@contextlib.contextmanager
def _older_switch(precision: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision(), torch.backends.mkldnn.matmul.fp32_precision
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.mkldnn.matmul.fp32_precision = before[1]


@contextlib.contextmanager
def _newer_switch(precision: str) -> Iterator[None]:
    before = torch.backends.mkldnn.matmul.fp32_precision
    torch.backends.mkldnn.matmul.fp32_precision = precision
    try:
        yield
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = before


SETTINGS = {
    "autocast_to_bfloat16": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "autocast_to_float16": lambda: torch.autocast("cpu", dtype=torch.float16),
    "autocast_without_cache": lambda: torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False),
    "matmul_precision_high": lambda: _older_switch("high"),
    "matmul_precision_medium": lambda: _older_switch("medium"),
    "mkldnn_matmul_in_bf16": lambda: _newer_switch("bf16"),
    "mkldnn_matmul_in_tf32": lambda: _newer_switch("tf32"),
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("case", CASES[:1] + CASES[2:], ids=lambda case: case.id)
def test_precision_settings_change_no_bit_and_are_left_as_they_were(
    engine: Engine, case: Case, setting: str
) -> None:
    if engine.device != "cpu":
        pytest.skip(f"these are settings for CPU products, the engine runs on {engine.device}")
    engine.skip_unless_it_takes(case.dtype)
    inputs = case.build(engine.device)
    before = _states()
    expected = run(engine, inputs)
    assert _states() == before
    with SETTINGS[setting]():
        inside = _states()
        found = run(engine, inputs)
        assert _states() == inside, "the call changed a setting"
    _assert_bitwise_equal(expected, found)


def test_backward_under_autocast_changes_no_bit(engine: Engine) -> None:
    """The forward outside, the backward inside: the op cannot know, so its backend must not care."""
    inputs = CASES[0].build(engine.device)
    expected = run(engine, inputs)
    loss = tcm_kernels.fused_tcm_loss(*inputs.tensors, **inputs.settings, backend=engine.backend)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (grad,) = torch.autograd.grad(loss, inputs.emb)
    assert torch.equal(grad, expected.grad_emb)
