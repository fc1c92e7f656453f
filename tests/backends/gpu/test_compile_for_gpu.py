"""torch.compile on a GPU, where there is none: what the graphs of a forward and backward hold.

fake_gpu.py does the compiling, in a process of its own. On a GPU, test_compile.py runs on it instead.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from compiling_python import python
from fake_gpu import DTYPES, MOVES, SIZES, WAYS

from tcm_kernels import dispatch
from tcm_kernels.backends.gpu.machine import constant_in_graphs

if torch.cuda.is_available():
    pytest.skip("there is a GPU here: test_compile.py runs on it", allow_module_level=True)
if shutil.which("g++") is None:
    pytest.skip("g++, which builds the fake GPU, is not installed", allow_module_level=True)

pytestmark = pytest.mark.slow
GPU_DTYPES = {"float32", "bfloat16", "float16"}
TAKES = {"triton": GPU_DTYPES, "cuda": GPU_DTYPES, "torch": set(DTYPES), "cpu": set()}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    path = tmp_path_factory.mktemp("fake-gpu") / "report"
    python("tests/support/fake_gpu.py", str(path))
    return {line.pop("case"): line for line in map(json.loads, path.read_text().splitlines())}


def _expected(backend: str, dtype: str, available: list[str]) -> str | None:
    """The backend that runs it, or None."""
    takers = [name for name in dispatch.BACKENDS if name in available and dtype in TAKES[name]]
    return next(iter(takers), None) if backend == "auto" else backend if backend in takers else None


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", ["auto", *dispatch.BACKENDS])
def test_every_backend_compiles_to_one_graph_or_says_why_not(
    backend: str, dtype: str, way: str, found: dict[str, dict[str, Any]]
) -> None:
    case = found[f"{backend}, {dtype}, {way}"]
    available = found["asked while compiling"]["available"]
    expected = _expected(backend, dtype, available)
    if expected is None:
        assert f"backend '{backend}' cannot run torch.{dtype} embeddings on cuda: it " in case["error"]
        assert case["graphs"] == 0
        return
    assert case["error"] is None
    assert case["warnings"] == []
    with_ref, any_size = WAYS[way]
    assert case["graphs"] == (1 if any_size else len(SIZES))
    both = [["pair_sums", "highest", expected], ["pair_sums_backward", expected]]
    assert case["calls"] == both * case["graphs"]
    loss = ["cuda:0", "float64" if dtype == "float64" else "float32", []]
    for n, result in zip(SIZES, case["results"], strict=True):
        rows = (n, n + 9) if with_ref else (n,)
        assert result == [loss, *(["cuda:0", dtype, [m, 8]] for m in rows)]


def test_what_is_here_may_be_asked_first_by_a_graph(found: dict[str, dict[str, Any]]) -> None:
    """And the answer, once it is known, must not compile the graph again."""
    case = found["asked while compiling"]
    assert {"triton", "torch"} <= set(case["available"])
    assert case["graphs"] == 1
    assert {backend for *_, backend in case["calls"]} == {"triton"}


@pytest.mark.parametrize("move", MOVES)
def test_a_graph_follows_the_switch_for_float32_products(move: str, found: dict[str, dict[str, Any]]) -> None:
    """The answer is constant in a graph, but torch compiles anew where its switch has moved."""
    precisions = [strings[0] for op, *strings in found[move]["calls"] if op == "pair_sums"]
    assert precisions == ["highest", "high"]


def test_constants_of_graphs_are_marked_as_torch_marks_them() -> None:
    def ours() -> str:
        return "an answer"

    def theirs() -> str:
        return "an answer"

    assert vars(constant_in_graphs(ours)) == vars(torch.compiler.assume_constant_result(theirs)) != {}


IMPORT = """
import sys, torch

def refuse(*args, **kwargs):
    raise AssertionError("asked at import")

torch.version.cuda = torch.version.cuda or "13.0"
for name in ("_lazy_init", "is_available", "device_count", "get_device_capability", "current_device"):
    setattr(torch.cuda, name, refuse)
import tcm_kernels
assert "torch._dynamo" not in sys.modules, "importing the package imports the compiler"
try:
    tcm_kernels.available_backends()
except AssertionError as error:
    assert str(error) == "asked at import"
else:
    raise SystemExit("nobody asks at all")
"""


def test_importing_the_package_asks_no_gpu_and_imports_no_compiler(tmp_path: Path) -> None:
    script = tmp_path / "import.py"
    script.write_text(IMPORT)
    python(str(script))
