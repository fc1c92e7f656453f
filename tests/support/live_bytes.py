"""The most memory that a call's tensors hold at once: Python allocates whatever the backends need."""

from __future__ import annotations

from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Follows the storages of results; `peak` is without workspaces of kernels and what was there before."""

    def __init__(self, *before: torch.Tensor) -> None:
        super().__init__()
        self.peak = 0
        self._before = {x.untyped_storage().data_ptr() for x in before}
        self._workspaces: set[int] = set()  # their sizes, as the kernel has said them
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if func.name().endswith("_workspace_bytes"):
            self._workspaces.add(int(found))
        for x in tree_leaves(found):
            if isinstance(x, torch.Tensor):
                self._follow(x.untyped_storage())
        return found

    def _follow(self, storage: torch.UntypedStorage) -> None:
        self._live = {key: entry for key, entry in self._live.items() if not entry[0].expired()}
        if storage.data_ptr() not in self._before and storage.nbytes() not in self._workspaces:
            reference = StorageWeakRef(storage)
            self._live[reference.cdata] = (reference, storage.nbytes())
        self.peak = max(self.peak, sum(size for _, size in self._live.values()))
