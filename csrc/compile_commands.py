"""Writes compile_commands.json into the checkout: how clangd and other tools read the C++ and CUDA sources.

With the includes, definitions and standards that setup.py compiles with; nothing is built.
`make compile_commands.json` runs it.
"""

from __future__ import annotations

import importlib.util
import json
import sysconfig
from pathlib import Path
from types import ModuleType

from torch.utils import cpp_extension

ROOT = Path(__file__).resolve().parents[1]


def _setup() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tcm_setup", ROOT / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def commands() -> list[dict[str, object]]:
    """A command for each source, as the format wants them."""
    includes = [
        *(ROOT / "csrc", ROOT / "tests/support"),
        *(*cpp_extension.include_paths(), sysconfig.get_path("include")),
    ]
    common = [f"-DTORCH_TARGET_VERSION={_setup().TORCH_TARGET}", *(f"-I{path}" for path in includes)]
    languages = {
        ".cpp": ["c++", "-std=c++20"],
        ".cu": ["clang++", "-x", "cuda", "-std=c++20", "--cuda-gpu-arch=sm_90", "-nocudalib"],
    }
    return [
        {
            "directory": str(ROOT),
            "file": str(source.relative_to(ROOT)),
            "arguments": [*languages[source.suffix], *common, "-c", str(source.relative_to(ROOT))],
        }
        for folder in ("csrc", "tests")
        for source in sorted((ROOT / folder).rglob("*"))
        if source.suffix in languages
    ]


if __name__ == "__main__":
    (ROOT / "compile_commands.json").write_text(json.dumps(commands(), indent=1) + "\n", encoding="utf-8")
