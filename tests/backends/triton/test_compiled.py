"""The Triton kernels as the compiler sees them, for chips that need not be here.

Every kernel is compiled as the backend would launch it, for every chip, dtype and a range of dimensions, and
held against what the chip has: registers (nothing in local memory), shared memory, and matrix instructions of
the types that the method counts on.
"""

from __future__ import annotations

import json
from typing import Any

import gpu_settings
import pytest
from compiling_python import python

pytest.importorskip("triton", reason="triton is not installed")

# Bytes of shared memory that a block can have, by compute capability; rows of the table for 8.x serve 8.6,
# 8.9 and 12.x as well, which have 99 KiB.
SHARED = {80: 99 * 1024, 90: 227 * 1024, 100: 227 * 1024}
CASES = "bfloat16", "float16", "float32"
# What multiplies 8-bit integers, and floating-point numbers of 16 and 19 bits.
INTEGER = {80: {"IMMA"}, 90: {"IGMMA"}, 100: {"IMMA", "UTCIMMA"}}
SMALL = {80: {"HMMA"}, 90: {"HMMA"}, 100: {"HMMA"}}  # its blocks of 16 rows are too small for warp groups
FLOATING = {80: {"HMMA"}, 90: {"HGMMA"}, 100: {"HMMA", "UTCHMMA"}}


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    path = tmp_path_factory.mktemp("triton") / "report"
    python("tests/support/triton_launches.py", str(path))
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert {report["chip"] for report in found} == set(SHARED)
    return found


def _where(report: dict[str, Any]) -> str:
    return f"{report['kernel']} for sm_{report['chip']}, {report['case']}, {report['options']}"


@pytest.mark.slow
def test_nothing_is_kept_in_local_memory(reports: list[dict[str, Any]]) -> None:
    """A spill costs more than most of what these kernels do."""
    spilled = [
        f"{_where(report)}: {report['stack']} bytes, {report['registers']} registers"
        for report in reports
        if report["chip"] in (80, 90) and report["stack"] + report["local"] > 0
    ]
    assert not spilled, "\n".join(spilled)


@pytest.mark.slow
def test_shared_memory_is_what_the_chip_has(reports: list[dict[str, Any]]) -> None:
    too_much = [
        f"{_where(report)}: {report['shared']} bytes"
        for report in reports
        if report["shared"] > SHARED[report["chip"]]
    ]
    assert not too_much, "\n".join(too_much)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kernel", "instructions"),
    [
        ("probe_kernel", INTEGER),
        ("sweep_kernel", INTEGER),
        ("dense_tiles_kernel", FLOATING),
        ("patterns_kernel", FLOATING),
        ("small_kernel", SMALL),
    ],
)
def test_products_use_matrix_units(
    reports: list[dict[str, Any]], kernel: str, instructions: dict[int, set[str]]
) -> None:
    of_kernel = [report for report in reports if report["kernel"] == kernel]
    assert {report["chip"] for report in of_kernel} == set(SHARED)
    if instructions is not INTEGER:  # products of codes are the same for all dtypes
        assert {report["case"].split(",")[0] for report in of_kernel} == set(CASES)
    for report in of_kernel:
        assert instructions[report["chip"]] & set(report["matrix"]), f"{_where(report)}: {report['matrix']}"


@pytest.fixture(scope="module")
def reports_of_settings(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    path = tmp_path_factory.mktemp("triton-settings") / "report"
    python("tests/support/triton_launches.py", str(path), "settings")
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("name", gpu_settings.COMPILED)
def test_what_tests_on_a_gpu_run_in_small_tiles_compiles_and_fits(
    name: str, reports_of_settings: list[dict[str, Any]]
) -> None:
    """Registers may spill there: it is the paths that those tests are about, and not their time."""
    setting = gpu_settings.TRITON[name]
    found = [report for report in reports_of_settings if report["case"].startswith(f"{name}, ")]
    kernels = {report["kernel"] for report in found}
    assert ("small_kernel" in kernels) == (not setting.screening)
    assert ("sweep_kernel" in kernels) == (setting.screening == "int8")
    assert ("lists_kernel" in kernels) == bool(setting.screening)
    for report in found:
        assert report["shared"] <= SHARED[report["chip"]], _where(report)
        constants = report["constants"]
        if setting.tile is not None:
            assert constants.get("TILE", setting.tile) == setting.tile
        if setting.list_most is not None:
            assert constants.get("LIST_MOST", setting.list_most) == setting.list_most


COUNT = """
import torch
from benchmarks.harness.launches import forward_and_backward, recorded
alone = [(4064, None), (2049, None), (4096, None), (5003, None)]
small = [(64, None), (65, None), (2048, None)]
small_pairs = [(64, 80), (65, 80), (17, 2048)]
for shapes in (alone, [(2049, 2048), (2049, 4096), (5003, 3007)], small, small_pairs):
    keys = [{x.key for x in recorded(forward_and_backward(n, 96, torch.float32, m))} for n, m in shapes]
    for shape, later in zip(shapes[1:], keys[1:]):
        for key in sorted(later ^ keys[0]):
            print(shape, key)
"""


@pytest.mark.slow
def test_no_number_of_rows_compiles_a_kernel_again() -> None:
    again = python("-c", COUNT)
    assert not again, again


LAUNCHES = """
import json
import sys
sys.path.insert(0, "tests/support")
from triton_launches import counted
print(json.dumps([counted(n, 64) for n in (1024, 4096, 32768)]))
"""


@pytest.mark.slow
def test_a_call_takes_few_launches() -> None:
    """In one launch, on one super-tile, and on three; views and allocations are not counted."""
    for (launches, ops, backward), most in zip(json.loads(python("-c", LAUNCHES)), (2, 12, 25), strict=True):
        assert launches + len(ops) <= most, f"{launches} launches beside {ops}"
        assert launches >= most // 2, "launches were not recorded"
        assert backward == 1


@pytest.fixture(scope="module")
def specialised(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    path = tmp_path_factory.mktemp("triton-specialised") / "report"
    python("tests/support/triton_specialisation.py", str(path))
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_kernels_are_compiled_for_what_triton_would_compile_them_for(
    specialised: list[dict[str, Any]],
) -> None:
    """Also of the members of named tuples: what these tests see is what a GPU would run."""
    assert len({launch["kernel"] for launch in specialised}) == 11
    for launch in specialised:
        assert launch["ours"] == launch["triton"], launch["kernel"]


@pytest.mark.slow
def test_the_place_of_a_super_tile_compiles_no_kernel_anew(specialised: list[dict[str, Any]]) -> None:
    """A pointer's alignment, or a number, that changes from super-tile to super-tile would."""
    of_many = [launch for launch in specialised if launch["rows"] == 70000]
    sweeps = [json.dumps(launch["triton"]) for launch in of_many if launch["kernel"] == "sweep_kernel"]
    assert len(sweeps) > 3
    assert len(set(sweeps)) <= 2, "one on the diagonal, one beside it"
