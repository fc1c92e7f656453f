"""Autotuning on request: with TCM_KERNELS_TRITON_AUTOTUNE=1, configurations are timed instead of looked up.

Once per chip, version of Triton, dtype, precision and dimension: a minute or two at the first call, with a
line on stderr for each kernel. Results are kept in the file `tcm_kernels/triton-configs.json` of the user's
cache folder ($XDG_CACHE_HOME, or ~/.cache). A process reads it at its first call with such a combination, and
only if the variable is set: without it, and while a CUDA graph is captured, the table of configs.py is used.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .configs import Config, Configs

CANDIDATES = {
    "sweep": tuple(Config(*c) for c in itertools.product((64, 128), (4, 8), (2, 3, 4))),
    "dense_tiles": tuple(Config(*c) for c in itertools.product((16, 32, 64, 128), (8,), (2, 3, 4))),
    "patterns": tuple(Config(*c) for c in itertools.product((64, 128), (4, 8), (1, 2, 3))),
}
"""The candidates for each field of Configs."""

_known: dict[str, Configs] = {}


def is_asked_for() -> bool:
    """Whether TCM_KERNELS_TRITON_AUTOTUNE is "1"; raises ValueError unless it is that, "0" or not set."""
    asked = os.environ.get("TCM_KERNELS_TRITON_AUTOTUNE", "")
    if asked not in ("", "0", "1"):
        raise ValueError(f"TCM_KERNELS_TRITON_AUTOTUNE: got {asked!r}, expected '0' or '1'")
    return asked == "1"


def cache_file() -> Path:
    """The file in which results are kept."""
    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder) / "tcm_kernels" / "triton-configs.json"


def tuned(key: str, table_row: Configs, seconds: Callable[[str, Configs], float]) -> Configs:
    """The fastest configurations for `key`, which names chip, Triton, dtype, precision and dimension.

    `seconds` times a kernel (a field of Configs) with a row of configurations; a candidate for which it
    raises, because it does not fit the chip, is passed over. Tuning starts from `table_row` and replaces one
    field after the other; a field stays where no candidate is faster.
    """
    if key not in _known:
        found = _read().get(key)
        if found is None:
            found = _tune(key, table_row, seconds)
            _keep(key, found)
        _known[key] = found
    return _known[key]


def _tune(key: str, row: Configs, seconds: Callable[[str, Configs], float]) -> Configs:
    for kernel in Configs._fields:
        print(f"tcm_kernels: tuning {kernel} for {key}", file=sys.stderr, flush=True)
        timed = [(seconds(kernel, row), row), *_timed(kernel, row, seconds)]
        row = min(timed, key=lambda timing: timing[0])[1]
    return row


def _timed(
    kernel: str, row: Configs, seconds: Callable[[str, Configs], float]
) -> Iterator[tuple[float, Configs]]:
    for candidate in CANDIDATES[kernel]:
        other = row._replace(**{kernel: candidate})
        try:
            took_s = seconds(kernel, other)
        except Exception:
            continue
        yield took_s, other


def _read() -> dict[str, Configs]:
    """The content of the file; empty if it does not exist or, with a warning, if it is malformed."""
    path = cache_file()
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {
            key: Configs(**{field: Config(**row[field]) for field in Configs._fields})
            for key, row in content.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        warnings.warn(f"{path} is not what autotuning has written, and is replaced: {error!r}", stacklevel=2)
        return {}


def _keep(key: str, found: Configs) -> None:
    """Add a result to the file, which is replaced as a whole; warn if it cannot be written."""
    path = cache_file()
    known = _read() | {key: found}
    content = {
        name: {field: config._asdict() for field, config in row._asdict().items()}
        for name, row in known.items()
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
            json.dump(content, file, indent=1)
        Path(file.name).replace(path)
    except OSError as error:
        warnings.warn(f"what autotuning has found cannot be kept in {path}: {error}", stacklevel=2)
