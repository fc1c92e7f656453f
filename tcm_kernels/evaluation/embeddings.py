"""Embeddings and their labels from a file, for the command line.

    .npz   arrays `embeddings` and `labels`, and `groups` where there are any
    .npy   the embeddings alone, mapped and not read as a whole; the labels are in a file of their own
    .pt    a dict of tensors with the same names, mapped, too

Common other names (emb, features, y, ...) are understood. Nothing is unpickled: an array of Python objects or
a tensor file with code in it is refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..backends.numerics import rows_not_finite
from .counting import as_labels, as_tensor

NAMES = {
    "embeddings": ("embeddings", "emb", "embedding", "features", "x"),
    "labels": ("labels", "label", "y", "targets", "classes", "ids"),
    "groups": ("groups", "group", "domains", "domain"),
    "similarities": ("similarities", "similarity", "scores", "s"),
}
"""What an array may be called, by what it is."""

_SHOWN = 5


class UnusableFileError(ValueError):
    """A file that cannot be read or does not hold what is asked for; the message says which and why."""


@dataclasses.dataclass(frozen=True)
class Embedded:
    """Embeddings of one file.

    Attributes:
        path: where they came from.
        emb: (N, D) floats on the CPU, perhaps mapped from the file.
        labels: (N,) int64 or text.
        groups: (N,) int64 or text, None where the file has none.
        dropped: how many rows were left out because they are not finite.
    """

    path: Path
    emb: Tensor
    labels: npt.NDArray[Any]
    groups: npt.NDArray[Any] | None
    dropped: int = 0


def read_embeddings(path: Path, labels: Path | None = None, *, drop_nonfinite: bool = False) -> Embedded:
    """Embeddings and labels of a file; `labels` names another file that has the labels.

    Raises:
        UnusableFileError: unreadable, of another kind, without the arrays needed, of wrong shapes, or with
            rows that are not finite unless `drop_nonfinite` leaves those out.
    """
    arrays = _arrays(path)
    emb = _embeddings(path, _find(path, arrays, "embeddings"))
    if labels is None:
        found = _find(path, arrays, "labels", hint="; name a file that holds them with --labels")
        of_labels = path
    else:
        found, of_labels = _find(labels, _arrays(labels), "labels"), labels
    named = {"labels": (of_labels, found)}
    if groups := _known(arrays, "groups"):
        named["groups"] = (path, arrays[groups])
    columns = {}
    for name, (file, values) in named.items():
        try:
            columns[name] = as_labels(name, values)
        except (TypeError, ValueError) as error:
            raise UnusableFileError(f"{file}: {error}") from None
        if len(columns[name]) != len(emb):
            raise UnusableFileError(
                f"{file}: {len(columns[name])} {name} for {len(emb)} embeddings, expected one each"
            )
    embedded = Embedded(path, emb, columns["labels"], columns.get("groups"))
    return _finite(embedded, drop_nonfinite)


def read_similarities(path: Path) -> npt.NDArray[np.float64]:
    """Similarities of any shape from a file. Raises UnusableFileError."""
    values = _find(path, _arrays(path), "similarities")
    array = values.double().numpy() if isinstance(values, Tensor) else values
    if array.dtype.kind not in "fiu":
        raise UnusableFileError(f"{path}: similarities of dtype {array.dtype}, expected numbers")
    return array.astype(np.float64)


def _finite(embedded: Embedded, drop: bool) -> Embedded:
    wrong = rows_not_finite(embedded.emb)
    if len(wrong) == 0:
        return embedded
    if not drop:
        shown = ", ".join(f"{int(i)} (class {embedded.labels[i]})" for i in wrong[:_SHOWN])
        more = ", ..." if len(wrong) > _SHOWN else ""
        raise UnusableFileError(
            f"{embedded.path}: {len(wrong)} of {len(embedded.emb)} rows are not finite: rows {shown}{more}; "
            "--drop-nonfinite leaves them out"
        )
    keep = np.ones(len(embedded.emb), dtype=bool)
    keep[wrong.numpy()] = False
    return dataclasses.replace(
        embedded,
        emb=embedded.emb[torch.from_numpy(keep)],
        labels=embedded.labels[keep],
        groups=None if embedded.groups is None else embedded.groups[keep],
        dropped=len(wrong),
    )


def _embeddings(path: Path, values: Any) -> Tensor:
    try:
        emb = as_tensor("embeddings", values)
    except TypeError as error:
        raise UnusableFileError(f"{path}: {error}") from None
    if emb.dim() != 2 or not emb.is_floating_point():
        raise UnusableFileError(
            f"{path}: embeddings of shape {tuple(emb.shape)} and dtype {emb.dtype}, expected floats (N, D)"
        )
    return emb


def _known(arrays: Mapping[str, Any], what: str) -> str | None:
    """The name under which a file has it."""
    return next((name for name in NAMES[what] if name in arrays), None)


def _find(path: Path, arrays: Mapping[str, Any], what: str, hint: str = "") -> Any:
    if list(arrays) == [""]:  # a file of one array without a name
        if what == "labels" and hint:
            raise UnusableFileError(f"{path}: holds one array, the embeddings, but no labels{hint}")
        return arrays[""]
    name = _known(arrays, what)
    if name is None:
        there = ", ".join(repr(name) for name in arrays) or "nothing"
        names = ", ".join(repr(name) for name in NAMES[what])
        raise UnusableFileError(f"{path}: has no {what}: expected one of {names}, found {there}{hint}")
    return arrays[name]


def _arrays(path: Path) -> Mapping[str, Any]:
    """The arrays or tensors of a file by name; one without a name is called ""."""
    readers = {".npz": _npz, ".npy": _npy, ".pt": _pt, ".pth": _pt}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UnusableFileError(f"{path}: expected a file ending in {', '.join(readers)}")
    try:
        return reader(path)
    except UnusableFileError:
        raise
    except OSError as error:
        raise UnusableFileError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # whatever a broken file makes numpy, zipfile or torch say
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UnusableFileError(f"{path}: is not a {path.suffix} file of arrays: {reason}") from None


def _npz(path: Path) -> Mapping[str, Any]:
    # Opened here: numpy leaves a file open that turns out to be none of its own.
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise UnusableFileError(f"{path}: holds a single array; call it {path.with_suffix('.npy').name}")
        wanted = {name for names in NAMES.values() for name in names}
        return {name: file[name] if name in wanted else None for name in file.files}


def _npy(path: Path) -> Mapping[str, Any]:
    return {"": np.load(path, allow_pickle=False, mmap_mode="c")}


def _pt(path: Path) -> Mapping[str, Any]:
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    if isinstance(content, Tensor):
        return {"": content}
    if isinstance(content, Mapping):
        return {str(name): value for name, value in content.items()}
    raise UnusableFileError(
        f"{path}: holds a {type(content).__name__}, expected a tensor or a dict of tensors"
    )
