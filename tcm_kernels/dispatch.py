"""Which backend runs an input: the tables, the choice of "auto", and the reason where a backend cannot.

`_TABLE` lists all backends in order of preference: "auto" takes the first that takes the input. `_HISTOGRAMS`
lists those that also count similarities, for evaluation. A backend must have a row in `_TABLE`, which answers
what it can run; a row in `_HISTOGRAMS` alone does not work.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .backends import cpu, cuda, torch_pairs, torch_tiled, triton
from .backends.contract import Backend, HistogramBackend, PairListBackend

_TABLE: dict[str, Backend] = {
    "cpu": cpu,
    "triton": triton,
    "cuda": cuda,  # after triton until both have been measured on a GPU
    "torch": torch_tiled,
}

_HISTOGRAMS: dict[str, HistogramBackend] = {"cpu": cpu, "cuda": cuda, "torch": torch_tiled}

_PAIR_LISTS: dict[str, PairListBackend] = {"cpu": cpu, "torch": torch_pairs}

BACKENDS = tuple(_TABLE)
"""Names of all backends, in order of preference, whether or not they can run here."""

HISTOGRAM_BACKENDS = tuple(_HISTOGRAMS)
"""Names of the backends that count similarities, in order of preference."""

PAIR_LIST_BACKENDS = tuple(_PAIR_LISTS)
"""Names of the backends that take pairs one by one, in order of preference."""


def module(name: str) -> Backend:
    """The backend called `name`, one of BACKENDS; its functions are those of `contract.Backend`."""
    return _TABLE[name]


def histogram_module(name: str) -> HistogramBackend:
    """The backend called `name`, one of HISTOGRAM_BACKENDS, as a `contract.HistogramBackend`."""
    return _HISTOGRAMS[name]


def pair_list_module(name: str) -> PairListBackend:
    """The backend called `name`, one of PAIR_LIST_BACKENDS, as a `contract.PairListBackend`."""
    return _PAIR_LISTS[name]


def why_not_here(name: str) -> str | None:
    """None where backend `name` can run on this machine, else the reason and what to do."""
    return _TABLE[name].why_not_here()


def available_backends() -> list[str]:
    """Names of the backends that can run on this machine, in the order in which "auto" tries them."""
    return [name for name in BACKENDS if why_not_here(name) is None]


def why_not(name: str, device_type: str, dtype: torch.dtype) -> str | None:
    """None if backend `name` takes embeddings of this device type and dtype here, else the reason."""
    return why_not_here(name) or _TABLE[name].why_not(device_type, dtype)


def check_name(backend: str, names: Sequence[str] = BACKENDS) -> None:
    """Raise ValueError unless `backend` is "auto" or one of `names`."""
    if backend != "auto" and backend not in names:
        accepted = ", ".join(repr(name) for name in ("auto", *names))
        raise ValueError(f"backend: got {backend!r}, expected one of {accepted}")


def choose(backend: str, device_type: str, dtype: torch.dtype, names: Sequence[str] = BACKENDS) -> str:
    """The name of the backend, one of `names`, that runs embeddings of this device type and dtype.

    Raises ValueError for an unknown name, and RuntimeError with the reason where the backend asked for,
    or for "auto" each of them, cannot take these embeddings.
    """
    if backend == "auto":
        for name in names:
            # The input is checked first, because the machine is then often not asked at all.
            if _TABLE[name].why_not(device_type, dtype) is None and why_not_here(name) is None:
                return name
        why = "; ".join(f"{name}: {why_not(name, device_type, dtype)}" for name in names)
        raise RuntimeError(f"no backend runs {dtype} embeddings on {device_type} ({why})")
    check_name(backend, names)
    reason = why_not(backend, device_type, dtype)
    if reason is not None:
        raise RuntimeError(f"backend {backend!r} cannot run {dtype} embeddings on {device_type}: {reason}")
    return backend
