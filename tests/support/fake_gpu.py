"""The loss under torch.compile on a GPU that is not there: run as `python tests/support/fake_gpu.py REPORT`.

torch's fake tensors have a shape, a dtype and a device, but no data, and torch.compile traces with nothing
else. What is patched is torch: `torch.cuda` tells of one GPU, and fake_gpu.cpp lets autograd walk through its
graphs. What the package asks and decides is its own. Each case is compiled, forward and backward, and what
the graphs hold becomes one JSON object a case. A process of its own, because all that must happen before
torch is imported.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import itertools
import json
import os
import subprocess
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_suffix(".cpp")
DTYPES = ("float32", "bfloat16", "float16", "float64")
SIZES = (40, 56)
# Whether there is a reference set, and whether a graph is to serve every size.
WAYS = {
    "alone": (False, False),
    "alone, any size": (False, True),
    "with a reference set, any size": (True, True),
}


def build(to: Path) -> Path:
    """The library of fake_gpu.cpp for the torch of this Python, which is not imported for that."""
    spec = importlib.util.find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    torch_folder = Path(spec.origin).parent
    lib = torch_folder / "lib"
    to.mkdir(parents=True, exist_ok=True)
    library = to / "fake_gpu.so"
    command = [
        *("g++", "-std=c++20", "-O0", "-shared", "-fPIC", "-Wall", f"-isystem{torch_folder / 'include'}"),
        *("-o", str(library), str(SOURCE), f"-L{lib}", "-ltorch_cpu", "-lc10", f"-Wl,-rpath,{lib}"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"fake_gpu.cpp does not compile:\n{done.stderr}"
    return library


@contextlib.contextmanager
def without_stderr() -> Iterator[None]:
    """A torch that is built for CUDA says there that its own hooks are not taken."""
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def pretend(library: Path) -> None:
    """From here on torch has a GPU, of the compute capability of an H100."""
    gpu = ctypes.CDLL(str(library))
    with without_stderr():
        import torch  # noqa: PLC0415
    gpu.set_guard()
    import torch._subclasses.fake_tensor as fake  # noqa: PLC0415

    fake.init_gpu_context = lambda device: None  # a real tensor, to have CUDA started
    properties = types.SimpleNamespace(
        name="a fake GPU", major=9, minor=0, multi_processor_count=132, total_memory=80 * 2**30
    )
    answers: dict[str, Callable[..., Any]] = {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "is_current_stream_capturing": lambda: False,
        "get_device_capability": lambda device=None: (9, 0),
        "get_device_properties": lambda device=None: properties,
        "get_rng_state": lambda device="cuda": torch.zeros(16, dtype=torch.uint8),
        "set_rng_state": lambda state, device="cuda": None,
    }
    for name, answer in answers.items():
        setattr(torch.cuda, name, answer)
    torch.version.cuda = torch.version.cuda or "13.0"


class Graphs:
    """A backend of torch.compile that keeps the graphs it is given, and runs them as they are."""

    def __init__(self) -> None:
        from functorch.compile import make_boxed_func  # noqa: PLC0415
        from torch._dynamo.backends.common import aot_autograd  # noqa: PLC0415

        self.compiled = 0
        self.calls: list[
            tuple[str, ...]
        ] = []  # ops in the graphs, with precision of the forward, and backend

        def kept(graph: Any, _: Any) -> Any:
            for node in graph.graph.nodes:
                name = str(node.target)
                if name.startswith("tcm_kernels."):
                    self.calls.append((name.split(".")[1], *(x for x in node.args if isinstance(x, str))))
            return make_boxed_func(graph.forward)

        self._compile = aot_autograd(fw_compiler=kept, bw_compiler=kept)

    def __call__(self, graph: Any, inputs: Any) -> Any:
        self.compiled += 1
        return self._compile(graph, inputs)


def inputs(n: int, dtype: Any, with_ref: bool) -> tuple[list[Any], dict[str, int]]:
    """Fake tensors on the fake GPU."""
    import torch  # noqa: PLC0415

    def side(rows: int) -> list[Any]:
        emb = torch.empty(rows, 8, device="cuda", dtype=dtype, requires_grad=True)
        return [emb, torch.empty(rows, device="cuda", dtype=torch.int64)]

    return (side(n) + side(n + 9), {"self_offset": n % 7}) if with_ref else (side(n), {})


def step(loss: Callable[..., Any], n: int, dtype: Any, *, with_ref: bool = False) -> tuple[Any, list[Any]]:
    """Loss and gradients."""
    import torch  # noqa: PLC0415

    tensors, settings = inputs(n, dtype, with_ref)
    value = loss(*tensors, **settings)
    return value, list(torch.autograd.grad(value, tensors[::2]))


def described(x: Any) -> list[Any]:
    return [str(x.device), str(x.dtype).removeprefix("torch."), list(map(int, x.shape))]


def compiled_on_gpu(backend: str, dtype: str, with_ref: bool, dynamic: bool) -> dict[str, Any]:
    """What becomes of a forward and backward, for two sizes in turn."""
    import torch  # noqa: PLC0415
    from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: PLC0415

    import tcm_kernels  # noqa: PLC0415

    torch._dynamo.reset()
    graphs = Graphs()
    loss = functools.partial(tcm_kernels.fused_tcm_loss, backend=backend)
    compiled = torch.compile(loss, backend=graphs, fullgraph=True, dynamic=dynamic)
    found: dict[str, Any] = {"error": None, "results": []}
    with FakeTensorMode(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            for n in SIZES:
                value, grads = step(compiled, n, getattr(torch, dtype), with_ref=with_ref)
                found["results"].append([described(x) for x in (value, *grads)])
        except Exception as error:
            found["error"] = f"{type(error).__name__}: {error}"
    found["graphs"], found["calls"] = graphs.compiled, graphs.calls
    found["warnings"] = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
    return found


def precision_in_graphs(move: str) -> dict[str, Any]:
    """The precision in the graphs of a step that was compiled, and of one after torch's switch was moved."""
    import torch  # noqa: PLC0415
    from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: PLC0415

    import tcm_kernels  # noqa: PLC0415

    torch._dynamo.reset()
    graphs = Graphs()
    compiled = torch.compile(tcm_kernels.fused_tcm_loss, backend=graphs, fullgraph=True)
    before = torch.backends.cuda.matmul.fp32_precision
    with FakeTensorMode():
        for action in ("", move):
            exec(action, {"torch": torch})
            step(compiled, SIZES[0], torch.float32)
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.fp32_precision = before
    return {"calls": graphs.calls}


MOVES = {
    "fp32_precision": "torch.backends.cuda.matmul.fp32_precision = 'tf32'",
    "set_float32_matmul_precision": "torch.set_float32_matmul_precision('high')",
}


def asked_while_compiling() -> dict[str, Any]:
    """What is here, asked first by a graph, and then by everybody."""
    import torch  # noqa: PLC0415
    from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: PLC0415

    import tcm_kernels  # noqa: PLC0415

    graphs = Graphs()
    compiled = torch.compile(tcm_kernels.fused_tcm_loss, backend=graphs, fullgraph=True, dynamic=True)
    with FakeTensorMode():
        step(compiled, SIZES[0], torch.bfloat16)
        available = tcm_kernels.available_backends()
        step(compiled, SIZES[1], torch.bfloat16)
    return {"available": available, "graphs": graphs.compiled, "calls": graphs.calls}


def cases() -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """By name, what is to be found out, the first question first."""
    from tcm_kernels import dispatch  # noqa: PLC0415

    yield "asked while compiling", asked_while_compiling
    for backend, dtype, way in itertools.product(("auto", *dispatch.BACKENDS), DTYPES, WAYS):
        name = f"{backend}, {dtype}, {way}"
        yield name, functools.partial(compiled_on_gpu, backend, dtype, *WAYS[way])
    for name, move in MOVES.items():
        yield name, functools.partial(precision_in_graphs, move)


def main(report: str) -> None:
    """Write one JSON object a line: a case and what was found."""
    pretend(build(Path(report).parent))
    with open(report, "w") as out:
        for name, find in cases():
            out.write(json.dumps({"case": name} | find()) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
