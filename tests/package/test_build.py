"""How setup.py finds the CUDA compiler, for which GPUs it builds, and what it leaves where that fails.

What comes of it is in tests/backends/cuda/test_binary.py.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from checkout import ROOT

import tcm_kernels


@pytest.fixture
def setup() -> ModuleType:
    pytest.importorskip("setuptools")
    spec = importlib.util.spec_from_file_location("tcm_setup", ROOT / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def an_nvcc(tmp_path: Path, gpus: str, version: str) -> str:
    """A compiler that only says what it is."""
    path = tmp_path / "toolkit" / "bin" / "nvcc"
    path.parent.mkdir(parents=True)
    listed = "\\n".join(f"compute_{gpu}" for gpu in gpus.split())
    path.write_text(
        "#!/bin/sh\n"
        f"case $1 in --list-gpu-arch) printf '{listed}\\n';; --version) echo 'release {version}, V';; "
        "--dryrun) echo '#$ TOP=/nowhere' >&2;; esac\n"
    )
    path.chmod(0o755)
    return str(path)


NEW, OLD = "75 80 86 87 89 90 100 103 110 120 121", "70 75 80 86 87 89 90"


@pytest.mark.parametrize(
    ("asked", "gpus", "expected"),
    [
        ("9.0a", NEW, "90a"),
        ("8.0;8.6+PTX", NEW, "80 86+"),
        ("7.5 9.0", NEW, "90"),
        ("Hopper", NEW, "90+"),
        ("Ampere;12.0f", NEW, "80 86+ 120f"),
    ],
)
def test_it_compiles_for_the_gpus_that_are_asked_for(
    asked: str,
    gpus: str,
    expected: str,
    setup: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", asked)
    flags = []
    for name in expected.split():
        chip = name.removesuffix("+")
        codes = f"[sm_{chip},compute_{chip}]" if name.endswith("+") else f"sm_{chip}"
        flags.append(f"-gencode=arch=compute_{chip},code={codes}")
    assert setup.gpu_flags(an_nvcc(tmp_path, gpus, "13.0")) == flags


@pytest.mark.parametrize(
    ("gpus", "expected"),
    [
        (
            NEW,
            ["80,code=[sm_80,sm_86,compute_80]", "90a,code=[sm_90a]", "100,code=[sm_100,sm_120,compute_100]"],
        ),
        (OLD, ["80,code=[sm_80,sm_86,compute_80]", "90a,code=[sm_90a]"]),
    ],
)
def test_by_default_it_compiles_for_all_gpus_that_nvcc_knows(
    gpus: str, expected: list[str], setup: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
    flags = [f"-gencode=arch=compute_{chips}" for chips in expected]
    assert setup.gpu_flags(an_nvcc(tmp_path, gpus, "13.0")) == flags


@pytest.mark.parametrize("asked", ["7.5", "native", "9"])
def test_gpus_that_it_cannot_compile_for_are_refused(
    asked: str, setup: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", asked)
    with pytest.raises(SystemExit, match=f"TORCH_CUDA_ARCH_LIST: got '{asked}', expected"):
        setup.gpu_flags(an_nvcc(tmp_path, NEW, "13.0"))


def test_cuda_home_decides_which_compiler_it_is(
    setup: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvcc = an_nvcc(tmp_path, NEW, "12.8")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "toolkit"))
    assert setup.find_nvcc() == nvcc
    assert setup.nvcc_version(nvcc) == (12, 8)
    assert setup.cuda_library_folder(nvcc) == Path("/nowhere/lib64")


@pytest.mark.parametrize("variable", ["TCM_KERNELS_NO_CUDA", "TCM_KERNELS_NO_EXTENSIONS"])
def test_the_cuda_kernels_can_be_left_out(
    variable: str, setup: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("c++") is None:
        pytest.skip("there is no C++ compiler")
    monkeypatch.setenv(variable, "1")
    monkeypatch.chdir(ROOT)
    names = [module.name for module in setup.extensions().get("ext_modules", [])]
    assert names == (["tcm_kernels._cpu"] if variable == "TCM_KERNELS_NO_CUDA" else [])


def test_an_old_compiler_leaves_them_out_with_a_word(
    setup: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if shutil.which("c++") is None:
        pytest.skip("there is no C++ compiler")
    an_nvcc(tmp_path, OLD, "11.8")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "toolkit"))
    monkeypatch.delenv("TCM_KERNELS_NO_CUDA", raising=False)
    monkeypatch.chdir(ROOT)
    assert [module.name for module in setup.extensions()["ext_modules"]] == ["tcm_kernels._cpu"]
    assert "need nvcc 12 or newer" in capsys.readouterr().out


def test_where_nvcc_is_installed_the_cuda_module_was_built(setup: ModuleType) -> None:
    if setup.is_set("TCM_KERNELS_NO_CUDA") or setup.usable_nvcc() is None:
        pytest.skip("there is no nvcc of a release that can build it")
    assert (Path(tcm_kernels.__file__).parent / "_cuda.abi3.so").exists(), (
        "nvcc is here, but it was not built"
    )


# As much of a project as setup.py reads: a module that is built in a second, and one that needs nvcc.
PROJECT = {
    "setup.py": (ROOT / "setup.py").read_text(),
    "tcm_kernels/__init__.py": "",
    "tcm_kernels/_cuda.abi3.so": "of an earlier build",
    "csrc/cpu/a.cpp": (
        "#include <Python.h>\n"
        'static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_cpu", nullptr, -1, nullptr};\n'
        'extern "C" __attribute__((visibility("default"))) PyObject* PyInit__cpu() '
        "{ return PyModule_Create(&definition); }\n"
    ),
    "csrc/cuda/a.cpp": "",
    "csrc/cuda/a.cu": "",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    pytest.importorskip("setuptools")
    if shutil.which("c++") is None:
        pytest.skip("there is no C++ compiler")
    for name, text in PROJECT.items():
        path = tmp_path / "project" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "project"


def _built(project: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    dropped = ("TCM_KERNELS_STRICT", "TCM_KERNELS_NO_CUDA", "TCM_KERNELS_NO_EXTENSIONS")
    inherited = {name: value for name, value in os.environ.items() if name not in dropped}
    return subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--inplace"],
        cwd=project,
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def a_failing_nvcc(tmp_path: Path, *, knows_its_version: bool) -> Path:
    """The toolkit's folder. It says what it is, or not even that, and compiles nothing."""
    nvcc = Path(an_nvcc(tmp_path, NEW, "13.0"))
    fails = "exit 1\n"
    nvcc.write_text(nvcc.read_text().replace("esac\n", f"*) {fails.strip()};; esac\n"))
    if not knows_its_version:
        nvcc.write_text(f"#!/bin/sh\n{fails}")
    return tmp_path / "toolkit"


@pytest.mark.parametrize("knows_its_version", [True, False], ids=["fails at a file", "fails at anything"])
def test_cuda_kernels_that_do_not_build_leave_the_cpp_kernel(
    knows_its_version: bool, project: Path, tmp_path: Path
) -> None:
    toolkit = a_failing_nvcc(tmp_path, knows_its_version=knows_its_version)
    done = _built(project, CUDA_HOME=str(toolkit))
    assert done.returncode == 0, done.stderr
    assert "WARNING: the CUDA kernels could not be built, and are left out" in done.stderr
    assert (project / "tcm_kernels/_cpu.abi3.so").stat().st_size > 0
    if knows_its_version:
        assert not (project / "tcm_kernels/_cuda.abi3.so").exists(), "kernels of other sources were left"


@pytest.mark.parametrize("knows_its_version", [True, False], ids=["fails at a file", "fails at anything"])
def test_a_strict_build_fails_where_the_cuda_kernels_do(
    knows_its_version: bool, project: Path, tmp_path: Path
) -> None:
    toolkit = a_failing_nvcc(tmp_path, knows_its_version=knows_its_version)
    done = _built(project, CUDA_HOME=str(toolkit), TCM_KERNELS_STRICT="1")
    assert done.returncode != 0
    assert "CalledProcessError" in done.stderr
