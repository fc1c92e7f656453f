"""Collecting the tests builds nothing: compilers that fail cost the tests that need them, and no others."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import ROOT


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources, with the C++ kernel but without the CUDA module, and compilers that fail."""
    copy = tmp_path_factory.mktemp("checkout")
    for folder in ("tcm_kernels", "tests", "benchmarks"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("_cuda.*", "__pycache__"))
    for path in ROOT.iterdir():
        if path.name != "build" and not path.name.startswith(".") and not (copy / path.name).exists():
            (copy / path.name).symlink_to(path)
    for name in ("nvcc", "g++", "c++", "clang++"):
        compiler = copy / "bin" / name
        compiler.parent.mkdir(exist_ok=True)
        compiler.write_text("#!/bin/sh\necho this compiler is broken >&2\nexit 1\n")
        compiler.chmod(0o755)
    return copy


def _pytest(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "PATH": os.pathsep.join((str(checkout / "bin"), os.environ.get("PATH", ""))),
        "PYTHONPATH": str(checkout),
    }
    for name in ("CUDA_HOME", "CXX", "TCM_KERNELS_NO_CUDA", "PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER"):
        environment.pop(name, None)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--assert=plain", *arguments]
    return subprocess.run(
        command, cwd=checkout, env=environment, capture_output=True, text=True, check=False, timeout=300
    )


@pytest.mark.slow
def test_every_file_of_tests_is_collected(checkout: Path) -> None:
    done = _pytest(checkout, "--collect-only", "tests")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    collected = set(re.findall(r"^tests/([\w/]+)\.py::", done.stdout, re.MULTILINE))
    assert "package/test_build" in collected
    assert len(collected) > 50


@pytest.mark.slow
def test_an_nvcc_without_a_cuda_module_is_one_test_that_fails(checkout: Path) -> None:
    """A broken nvcc is no nvcc that could have built it; a whole one is."""
    says = "case $1 in --version) echo 'release 13.0, V';; *) exit 1;; esac"
    (checkout / "bin/nvcc").write_text(f"#!/bin/sh\n{says}\n")
    done = _pytest(
        checkout,
        "tests/backends/cuda/test_binary.py",
        "tests/package/test_build.py",
        "-k",
        "binary or installed",
    )
    assert done.returncode == 1
    failed = re.findall(r"^FAILED (\S+)", done.stdout, re.MULTILINE)
    assert failed == ["tests/package/test_build.py::test_where_nvcc_is_installed_the_cuda_module_was_built"]
    assert "ERROR" not in done.stdout
