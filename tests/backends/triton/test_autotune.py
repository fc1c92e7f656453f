"""Autotuning of the Triton kernels: what is timed, chosen and kept. The interpreter does the timing."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from agreement import assert_agrees, run
from cases import Case
from engines import Engine, interprets_triton

if not interprets_triton():
    pytest.skip("the kernels run on a GPU here, or triton is not installed", allow_module_level=True)

import triton

autotune, configs, forward, tiles = (
    importlib.import_module(f"tcm_kernels.backends.triton.{name}")
    for name in ("autotune", "configs", "forward", "tiles")
)
Config, Configs = configs.Config, configs.Configs
TABLE_ROW = configs.configs_for(9, 2, 512)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(autotune, "_known", {})


def seconds_by(cost: Callable[[Config], float]) -> Callable[[str, Configs], float]:
    return lambda kernel, row: cost(getattr(row, kernel))


def never(kernel: str, row: Configs) -> float:
    raise AssertionError("this is known and must not be timed")


def test_the_fastest_of_each_kernel_is_taken() -> None:
    found = autotune.tuned("a chip", TABLE_ROW, seconds_by(lambda config: abs(config.num_stages - 3.9)))
    assert found.sweep.num_stages == 4
    assert found.dense_tiles.num_stages == 4
    assert found.patterns.num_stages == 3


def test_the_table_stands_where_nothing_is_faster() -> None:
    assert autotune.tuned("a chip", TABLE_ROW, lambda kernel, row: 1.0) == TABLE_ROW


def test_what_does_not_fit_the_chip_is_passed_over() -> None:
    def cost(config: Config) -> float:
        if config.num_stages > 3:
            raise RuntimeError("out of shared memory")
        return -config.num_stages

    found = autotune.tuned("a chip", TABLE_ROW, seconds_by(cost))
    assert {config.num_stages for config in found} == {3}


def test_results_are_kept_for_the_next_process(monkeypatch: pytest.MonkeyPatch) -> None:
    found = autotune.tuned("a chip", TABLE_ROW, seconds_by(lambda config: -config.num_stages))
    other = autotune.tuned("another", TABLE_ROW, lambda kernel, row: 1.0)
    assert autotune.tuned("a chip", TABLE_ROW, never) == found
    monkeypatch.setattr(autotune, "_known", {})
    assert autotune.tuned("a chip", TABLE_ROW, never) == found
    assert autotune.tuned("another", TABLE_ROW, never) == other
    assert [path.name for path in autotune.cache_file().parent.iterdir()] == ["triton-configs.json"]


@pytest.mark.parametrize("content", ["", "[1]", "{", '{"a chip": {"sweep": 3}}', '{"a chip": 1}'])
def test_a_file_that_is_something_else_is_replaced(content: str) -> None:
    path = autotune.cache_file()
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.warns(UserWarning, match="is not what autotuning has written"):
        autotune.tuned("a chip", TABLE_ROW, lambda kernel, row: 1.0)
    assert list(json.loads(path.read_text())) == ["a chip"]


def test_a_folder_that_cannot_be_written_is_a_warning() -> None:
    autotune.cache_file().parent.write_text("a file where the folder would be")
    with pytest.warns(UserWarning, match="tcm_kernels"):
        found = autotune.tuned("a chip", TABLE_ROW, lambda kernel, row: 1.0)
    assert found == TABLE_ROW


def test_the_environment_variable_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TCM_KERNELS_TRITON_AUTOTUNE", "yes")
    with pytest.raises(ValueError, match="TCM_KERNELS_TRITON_AUTOTUNE: got 'yes', expected '0' or '1'"):
        autotune.is_asked_for()


def test_a_call_that_asks_for_it_is_tuned_once_and_right(monkeypatch: pytest.MonkeyPatch) -> None:
    timed = []

    def do_bench(call: Callable[[], object], return_mode: str) -> float:
        assert return_mode == "median"
        begin = time.perf_counter()
        call()
        timed.append(time.perf_counter() - begin)
        return timed[-1]

    monkeypatch.setenv("TCM_KERNELS_TRITON_AUTOTUNE", "1")
    monkeypatch.setenv("TCM_KERNELS_GPU_SCREENING", "int8")
    monkeypatch.setattr(triton.testing, "do_bench", do_bench)
    monkeypatch.setattr(tiles, "TILE", 32)
    monkeypatch.setattr(forward, "TUNING_ROWS", 8)
    few = {name: candidates[:1] for name, candidates in autotune.CANDIDATES.items()}
    monkeypatch.setattr(autotune, "CANDIDATES", few)
    inputs = Case(n=20, d=24).build()
    assert_agrees(run(Engine("triton", "cpu"), inputs), inputs)
    assert len(timed) == 6
    assert_agrees(run(Engine("triton", "cpu"), inputs), inputs)
    assert len(timed) == 6
    (key,) = json.loads(autotune.cache_file().read_text())
    assert f"Triton {triton.__version__}, {torch.float32}, highest, D=24" in key
