"""Builds the C++ extension; everything declarative is in pyproject.toml.

Without a C++ compiler, or with TCM_KERNELS_NO_EXTENSIONS=1, a pure-Python package is installed, which
runs through the `torch` backend. A build that is attempted and fails, fails the installation. The
extension uses libtorch's stable ABI and Python's limited API: one binary serves every torch >= 2.10 and
every Python >= 3.10.
"""

import os
import shutil
import sys
from pathlib import Path

from setuptools import setup

TORCH_TARGET = "0x020a000000000000"  # torch 2.10: the oldest whose stable ABI has all we call


def cxx_compiler() -> str | None:
    """The C++ compiler the build would use, or None."""
    asked = os.environ.get("CXX")
    names = [asked.split()[0]] if asked else ["cl"] if sys.platform == "win32" else ["c++", "g++", "clang++"]
    return next((path for path in map(shutil.which, names) if path), None)


def extensions() -> dict[str, object]:
    """Keyword arguments of setup() for the compiled part; none for a pure-Python package."""
    if os.environ.get("TCM_KERNELS_NO_EXTENSIONS", "0") not in ("", "0"):
        print("tcm_kernels: TCM_KERNELS_NO_EXTENSIONS is set, building without the C++ kernel")
        return {}
    if cxx_compiler() is None:
        asked = os.environ.get("CXX")
        if asked:
            sys.exit(f"tcm_kernels: the compiler asked for with CXX={asked} was not found")
        print("tcm_kernels: WARNING: no C++ compiler found, installing without the C++ kernel")
        return {}
    try:
        from torch.utils.cpp_extension import BuildExtension, CppExtension  # noqa: PLC0415
    except ImportError as error:
        sys.exit(
            f"tcm_kernels: torch is needed to build the C++ kernel ({error}); install torch first, or set "
            "TCM_KERNELS_NO_EXTENSIONS=1 for a pure-Python package"
        )
    unix = sys.platform != "win32"
    cpu = CppExtension(
        "tcm_kernels._cpu",
        sorted(str(path) for path in Path("csrc/cpu").glob("*.cpp")),
        depends=sorted(str(path) for path in Path("csrc").rglob("*.h")),
        define_macros=[("TORCH_TARGET_VERSION", TORCH_TARGET)],
        # -g0: the debug information of torch's headers would be most of the file.
        extra_compile_args=["-O3", "-g0", "-Wall", "-Wextra", "-Wno-unused-parameter", "-fvisibility=hidden"]
        if unix
        else ["/O2"],
        extra_link_args=["-Wl,-s"] if sys.platform == "linux" else [],
        py_limited_api=True,
    )
    return {
        "ext_modules": [cpu],
        "cmdclass": {"build_ext": BuildExtension},
        "options": {"bdist_wheel": {"py_limited_api": "cp310"}},
    }


setup(**extensions())
