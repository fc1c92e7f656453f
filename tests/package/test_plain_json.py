"""Results as JSON: what any reader of JSON understands."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from tcm_kernels import plain_json


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (math.nan, None),
        (-math.inf, None),
        (np.float32(np.inf), None),
        (np.int64(3), 3),
        (np.array([[1.5, np.nan]]), [[1.5, None]]),
        ((1, "two", None), [1, "two", None]),
        ({"a": {"b": [math.inf]}}, {"a": {"b": [None]}}),
        (True, True),
    ],
)
def test_values_become_plain(value: Any, plain: Any) -> None:
    found = plain_json.plain(value)
    assert found == plain
    assert json.loads(plain_json.as_bytes(value)) == plain


def test_a_file_is_utf_8_as_people_read_it_and_ends_with_a_line() -> None:
    assert plain_json.as_bytes({"ε": "ж"}).decode() == '{\n  "ε": "ж"\n}\n'
