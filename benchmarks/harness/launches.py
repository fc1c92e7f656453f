"""The launches that the `triton` backend would make, recorded without running a kernel.

Tensors are in main memory and no GPU is asked for anything, so a chip that is not here can be compiled for.
Triton must not have been told to interpret: that is decided when its kernels are imported.
"""

from __future__ import annotations

import dataclasses
import unittest.mock
from collections.abc import Callable
from typing import Any

import torch

POINTERS = {
    torch.float32: "*fp32",
    torch.float64: "*fp64",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.int8: "*i8",
    torch.int32: "*i32",
    torch.int64: "*i64",
}


@dataclasses.dataclass(frozen=True)
class Launch:
    """A kernel, and what it would be compiled for."""

    kernel: Any  # triton.JITFunction
    signature: dict[str, Any]  # types, of a tuple's members in a tuple of its kind
    constants: dict[tuple[int, ...], Any]
    attributes: dict[tuple[int, ...], list[list[Any]]]
    options: dict[str, int]

    @property
    def name(self) -> str:
        """The kernel's."""
        return self.kernel.__name__

    @property
    def constants_by_name(self) -> dict[str, Any]:
        """What the kernel is compiled for, by the names of its parameters."""
        return {
            self.kernel.params[path[0]].name: value
            for path, value in self.constants.items()
            if len(path) == 1
        }

    @property
    def key(self) -> str:
        """Equal for two launches exactly where one compiled kernel serves both."""
        return repr((self.name, self.signature, self.constants, self.attributes, self.options))


def _launch(kernel: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Launch:
    names = [parameter.name for parameter in kernel.params]
    options = {name: value for name, value in kwargs.items() if name not in names}
    values = dict(zip(names, args, strict=False)) | {k: v for k, v in kwargs.items() if k in names}
    launch = Launch(kernel, {}, {}, {}, options)
    for index, parameter in enumerate(kernel.params):
        launch.signature[parameter.name] = _specialised(launch, parameter, values[parameter.name], (index,))
    return launch


def _specialised(launch: Launch, parameter: Any, value: Any, path: tuple[int, ...]) -> Any:
    """The type of an argument, or those of a tuple; its constants and attributes go into the launch.

    As triton specialises: pointers and integers by divisibility by 16, integers also by being 1. In a tuple
    that is all, whatever the parameter is not to be specialised on.
    """
    if isinstance(value, tuple):
        parts = (_specialised(launch, parameter, part, (*path, i)) for i, part in enumerate(value))
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    specialised = not parameter.do_not_specialize or len(path) > 1
    if parameter.is_constexpr or value is None or (specialised and isinstance(value, int) and value == 1):
        launch.constants[path] = value
        return "constexpr"
    if isinstance(value, torch.Tensor):
        any_alignment = parameter.do_not_specialize_on_alignment and len(path) == 1
        if specialised and not any_alignment and value.data_ptr() % 16 == 0:
            launch.attributes[path] = [["tt.divisibility", 16]]
        return POINTERS[value.dtype]
    assert isinstance(value, int), f"{launch.name}: {parameter.name} is {value!r}"
    if specialised and value % 16 == 0:
        launch.attributes[path] = [["tt.divisibility", 16]]
    return "i32" if -(2**31) <= value < 2**31 else "i64"


def recorded(call: Callable[[], object]) -> list[Launch]:
    """The launches that `call` would make."""
    import triton  # noqa: PLC0415

    launches: list[Launch] = []

    def run(kernel: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        launches.append(_launch(kernel, args, kwargs))

    with unittest.mock.patch.object(triton.JITFunction, "run", run):
        call()
    return launches


def problem_of(n: int, d: int, dtype: torch.dtype, m: int | None = None, precision: str = "highest") -> Any:
    """A problem of these shapes; labels and embeddings are of no interest."""
    from tcm_kernels.backends.contract import Problem  # noqa: PLC0415

    def labels(rows: int) -> torch.Tensor:
        return torch.arange(rows) // 4

    emb = torch.zeros(n, d, dtype=dtype)
    ref = None if m is None else torch.zeros(m, d, dtype=dtype)
    margins = torch.tensor([0.9, 0.5], dtype=torch.float64)
    return Problem(
        emb, labels(n), ref, None if m is None else labels(m), margins, None, True, m is not None, precision
    )


def forward_and_backward(
    n: int, d: int, dtype: torch.dtype, m: int | None = None, precision: str = "highest"
) -> Callable[[], object]:
    """A call of the backend with gradients."""
    from tcm_kernels.backends.triton import backward, forward, residual_bytes  # noqa: PLC0415

    problem = problem_of(n, d, dtype, m, precision)

    def call() -> None:
        _, _, residual = forward.pair_sums(problem, residual_bytes(problem.gradient_rows))
        backward.pair_sums_backward(problem.gradient_rows, torch.ones(2, dtype=torch.float64), residual)

    return call


def of_chip(chip: int) -> Any:
    """A context in which the backend chooses shapes of kernels for a compute capability, as 80 or 90."""
    from tcm_kernels.backends.triton import configs, forward  # noqa: PLC0415

    def for_chip(x: torch.Tensor, _: str) -> configs.Configs:
        return configs.configs_for(chip // 10, x.element_size(), x.shape[1])

    return unittest.mock.patch.object(forward, "_configs", for_chip)


def compiled(launch: Launch, chip: int) -> Any:
    """The kernel of a launch, compiled for a chip that need not be here."""
    import triton  # noqa: PLC0415
    from triton.backends.compiler import GPUTarget  # noqa: PLC0415
    from triton.compiler import ASTSource  # noqa: PLC0415

    source = ASTSource(
        fn=launch.kernel, signature=launch.signature, constexprs=launch.constants, attrs=launch.attributes
    )
    return triton.compile(source, target=GPUTarget("cuda", chip, 32), options=launch.options)
