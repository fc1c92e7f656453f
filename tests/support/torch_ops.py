"""Counts the torch ops of a call: beside kernels of ours, they are what a short call costs on a GPU."""

from __future__ import annotations

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

ALLOCATIONS = ("aten.empty", "aten.new_empty", "aten.empty_like", "aten.empty_strided", "aten.detach")


class Counted(TorchDispatchMode):
    """Names of the torch ops that do something on the device: views, allocations and our own are left out."""

    def __init__(self) -> None:
        super().__init__()
        self.ops: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func.overloadpacket)
        if not name.startswith("tcm_kernels") and not func.is_view and name not in ALLOCATIONS:
            self.ops.append(name)
        return func(*args, **(kwargs or {}))
