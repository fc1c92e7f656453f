"""What the loss accepts. Every error names the argument, what came, and what is accepted.

Only types, shapes, dtypes, layouts, devices and Python numbers are checked: reading a tensor's values would
make the host wait for a GPU.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

EMBEDDING_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
LABEL_DTYPES = (
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.uint16,
    torch.uint32,
    torch.uint64,
)


def check_listed(emb: Any, labels: Any, ref_emb: Any, ref_labels: Any, self_offset: Any, pairs: Any) -> None:
    """Check the inputs of a loss over listed pairs, for which labels are not needed."""
    check_embeddings("emb", emb)
    if labels is not None:
        check_labels("labels", labels, "emb", emb)
    if self_offset is not None:
        raise ValueError(
            f"self_offset: got {self_offset!r} with pairs, expected None: the list says which pairs count"
        )
    if ref_emb is not None and ref_emb is not emb:
        _check_reference_rows(ref_emb, emb)
        if ref_labels is not None:
            check_labels("ref_labels", ref_labels, "ref_emb", ref_emb)
    _check_pairs(pairs, emb)


def _check_pairs(pairs: Any, emb: Tensor) -> None:
    """Check for triplets (a, p, n) or pairs (a, p, b, n): vectors of integers, of one length in each pair."""
    accepted = "(anchors, positives, negatives) or (anchors, positives, anchors, negatives)"
    if not isinstance(pairs, (tuple, list)):
        raise TypeError(f"pairs: got {type(pairs).__name__}, expected a tuple {accepted}")
    if len(pairs) not in (3, 4):
        raise ValueError(f"pairs: got {len(pairs)} tensors, expected 3 or 4: {accepted}")
    for number, index in enumerate(pairs):
        name = f"pairs[{number}]"
        if not isinstance(index, Tensor):
            raise TypeError(f"{name}: got {type(index).__name__}, expected a vector of row numbers")
        if index.dtype not in LABEL_DTYPES or index.dtype == torch.uint64:
            raise TypeError(f"{name}: got dtype {index.dtype}, expected an integer dtype such as torch.int64")
        if index.dim() != 1:
            raise ValueError(f"{name}: got shape {tuple(index.shape)}, expected one dimension")
        if index.device != emb.device:
            raise ValueError(f"{name}: got device {index.device}, expected {emb.device} as emb has")
    lengths = [index.shape[0] for index in pairs]
    of_one_length = [(0, 1), (0, 2)] if len(pairs) == 3 else [(0, 1), (2, 3)]
    for one, other in of_one_length:
        if lengths[one] != lengths[other]:
            raise ValueError(
                f"pairs[{other}]: got {lengths[other]} numbers, expected {lengths[one]} as pairs[{one}] has"
            )


def check_inputs(emb: Any, labels: Any, ref_emb: Any, ref_labels: Any, self_offset: int | None) -> None:
    """Check embeddings, labels, reference set and offset, each alone and then against each other."""
    check_embeddings("emb", emb)
    check_labels("labels", labels, "emb", emb)
    if self_offset is not None and (ref_emb is None or ref_emb is emb):
        raise ValueError(
            f"self_offset: got {self_offset!r} without a ref_emb of its own; it says where the rows of "
            "emb stand in a reference set, and within a batch no sample is paired with itself anyway"
        )
    if ref_emb is None:
        if ref_labels is not None:
            raise ValueError("ref_emb: got None with ref_labels; expected both or neither")
        return
    if ref_emb is emb:
        if ref_labels is not None and ref_labels is not labels:
            raise ValueError(
                "ref_labels: ref_emb is the same tensor as emb, so its labels must be the same tensor as "
                "labels (or None); for other labels pass a copy of the embeddings"
            )
        return
    if ref_labels is None:
        raise ValueError("ref_labels: got None with ref_emb; expected one label per row of ref_emb")
    _check_reference_rows(ref_emb, emb)
    check_labels("ref_labels", ref_labels, "ref_emb", ref_emb)
    if (ref_labels.dtype == torch.uint64) != (labels.dtype == torch.uint64):
        raise TypeError(
            f"ref_labels: got dtype {ref_labels.dtype}, expected {labels.dtype} as labels has: torch.uint64 "
            "cannot be compared with other integers"
        )
    if self_offset is not None:
        _check_self_offset(self_offset, emb.shape[0], ref_emb.shape[0])


def _check_reference_rows(ref_emb: Any, emb: Tensor) -> None:
    """Check for embeddings that can be compared with emb."""
    check_embeddings("ref_emb", ref_emb)
    if ref_emb.shape[1] != emb.shape[1]:
        raise ValueError(
            f"ref_emb: got shape {tuple(ref_emb.shape)}, expected {emb.shape[1]} columns as emb has"
        )
    if ref_emb.dtype != emb.dtype:
        raise TypeError(f"ref_emb: got dtype {ref_emb.dtype}, expected {emb.dtype} as emb has")
    if ref_emb.device != emb.device:
        raise ValueError(f"ref_emb: got device {ref_emb.device}, expected {emb.device} as emb has")


def check_margin(name: str, margin: Any, emb: Tensor | None = None) -> None:
    """Check for a number in [-1, 1], or a 0-dim real tensor without gradient, whose value is not read."""
    if isinstance(margin, Tensor):
        if margin.requires_grad:
            raise ValueError(f"{name}: got a tensor that requires grad; margins are not trained")
        if margin.is_complex() or margin.dtype == torch.bool:
            raise TypeError(f"{name}: got dtype {margin.dtype}, expected a real 0-dim tensor or a float")
        if margin.dim() != 0:
            raise ValueError(f"{name}: got shape {tuple(margin.shape)}, expected a 0-dim tensor or a float")
        if emb is not None and margin.device not in (emb.device, torch.device("cpu")):
            raise ValueError(f"{name}: got device {margin.device}, expected {emb.device} or cpu")
        return
    value = _number(name, margin, "a float in [-1, 1] or a 0-dim tensor")
    if not -1.0 <= value <= 1.0:
        raise ValueError(f"{name}: got {margin!r}, expected a similarity in [-1, 1]")


def check_lambda(name: str, weight: Any) -> None:
    """Check for a finite number, at least 0."""
    value = _number(name, weight, "a float >= 0")
    if not (value >= 0.0 and value < math.inf):
        raise ValueError(f"{name}: got {weight!r}, expected a finite weight >= 0")


def _number(name: str, value: Any, accepted: str) -> float:
    if isinstance(value, (float, int)) and not isinstance(value, bool):
        return value
    raise TypeError(f"{name}: got {type(value).__name__}, expected {accepted}")


def check_embeddings(name: str, x: Any) -> None:
    """Check for a dense (rows, D) tensor of a floating dtype."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: got {type(x).__name__}, expected a (rows, D) torch.Tensor")
    if x.layout != torch.strided:
        raise TypeError(f"{name}: got a tensor of layout {x.layout}, expected a dense tensor")
    if x.dim() != 2:
        raise ValueError(f"{name}: got shape {tuple(x.shape)}, expected two dimensions (rows, D)")
    if x.dtype not in EMBEDDING_DTYPES:
        accepted = "float32, float64, float16 or bfloat16"
        raise TypeError(f"{name}: got dtype {x.dtype}, expected {accepted}")


def check_labels(name: str, y: Any, emb_name: str, emb: Tensor) -> None:
    """Check for one integer per row of the embeddings called `emb_name`, on their device."""
    if not isinstance(y, Tensor):
        raise TypeError(
            f"{name}: got {'None' if y is None else type(y).__name__}, expected a torch.Tensor with one "
            f"integer per row of {emb_name}"
        )
    if y.dtype not in LABEL_DTYPES:
        raise TypeError(f"{name}: got dtype {y.dtype}, expected an integer dtype such as torch.int64")
    if y.dim() != 1 or y.shape[0] != emb.shape[0]:
        raise ValueError(
            f"{name}: got shape {tuple(y.shape)}, expected ({emb.shape[0]},): one per row of {emb_name}"
        )
    if y.device != emb.device:
        raise ValueError(f"{name}: got device {y.device}, expected {emb.device} as {emb_name} has")


def _check_self_offset(self_offset: Any, n: int, m: int) -> None:
    if not isinstance(self_offset, (int, torch.SymInt)) or isinstance(self_offset, bool):
        raise TypeError(f"self_offset: got {type(self_offset).__name__}, expected an int or None")
    if self_offset < 0 or self_offset + n > m:
        raise ValueError(
            f"self_offset: got {self_offset}, expected 0 <= self_offset <= {m - n}: all {n} rows of emb "
            f"must lie within the {m} rows of ref_emb"
        )
