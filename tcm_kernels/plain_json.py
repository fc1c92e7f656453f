"""Results as JSON: values of numpy become Python's, NaN and the infinities become null."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any


def plain(value: Any) -> Any:
    """The value in dicts, lists, strings, numbers and None only; NaN and the infinities become None."""
    if isinstance(value, Mapping):
        return {name: plain(each) for name, each in value.items()}
    if hasattr(value, "tolist"):  # arrays and scalars of numpy
        return plain(value.tolist())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_bytes(value: Any, indent: int = 2) -> bytes:
    """The value as the content of a JSON file."""
    text = json.dumps(plain(value), indent=indent, allow_nan=False, ensure_ascii=False)
    return f"{text}\n".encode()
