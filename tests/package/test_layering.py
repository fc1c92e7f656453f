"""The import rules of the design: they run one way, from the command line to the kernels, and in csrc too.

Read from the source with `ast`, so imports inside functions count too; a file that is new and not placed
in LEVELS fails until somebody decides where it belongs.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkout import ROOT

import tcm_kernels

PACKAGE = Path(tcm_kernels.__file__).parent
NAME = "tcm_kernels"

# What a module may import of the package: whatever has a smaller number. `margins` is planned;
# the name is kept here so that the day it arrives the rule already holds.
LEVELS = {
    "_version": 0,
    "stats": 0,
    "validation": 0,
    "files": 0,
    "plain_json": 0,
    "reference": 0,
    "backends": 1,
    "dispatch": 2,
    "ops": 3,
    "functional": 4,
    "margins": 4,
    "distributed": 5,
    "modules": 6,
    "evaluation": 6,
    "integrations": 7,
    "doctor": 7,
    "demo": 7,
    "cli": 8,
    "__main__": 9,
}
# __init__ shows the package's face: it may name what users import, and nothing of the command line.
NOT_IN_INIT = {"reference", "demo", "doctor", "cli", "__main__", "evaluation"}
EXTENSIONS = {"_cpu": "backends/cpu.py", "_cuda": "backends/cuda.py"}
SHARED = ("contract", "numerics", "order")  # what all backends share
ON_GPU = ("triton", "cuda", "gpu")  # what the backends share beside what all of them share
OPTIONAL = ("sklearn", "scipy", "matplotlib", "pytorch_metric_learning", "torchmetrics", "tqdm", "triton")

FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
# An include points into the same room of csrc, or into one with a smaller number on the same path.
ROOMS = {
    "common": 0,
    "cpu/simd": 1,
    "cpu": 2,  # the little of torch that the rooms above need
    "cpu/loss": 3,
    "cpu/histogram": 4,
    "cpu/binding": 5,
    "cuda/device": 1,
    "cuda/loss": 3,
    "cuda/histogram": 4,
    "cuda/binding": 5,
}
# Where the kernels meet what runs them in the tests, found through the include path of their build.
EMULATOR = ("cuda/device/device.h", "emulator/device.h")
CSRC = ROOT / "csrc"
SOURCES = sorted(
    path.relative_to(CSRC).as_posix()
    for path in CSRC.rglob("*")
    if path.suffix in (".h", ".cuh", ".cpp", ".cu")
)
# Likewise for benchmarks: what a room may import of the others has a smaller number.
BENCHMARKS = {"harness": 0, "suites": 1, "reports": 2, "sass": 1, "quality": 1, "gpu": 3}
TESTS = ROOT / "tests"
FILES_OF_TESTS = sorted(path.relative_to(TESTS).as_posix() for path in TESTS.rglob("*.py"))


def _imports(file: str) -> Iterator[str]:
    """Full dotted names of everything the file imports, also by importlib.import_module("...")."""
    package = [NAME, *Path(file).parent.parts]
    for node in ast.walk(ast.parse((PACKAGE / file).read_text(), filename=file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            assert isinstance(node.args[0], ast.Constant), f"{file} imports a module by a computed name"
            yield str(node.args[0].value)


def _inside(file: str) -> Iterator[list[str]]:
    """The imports of the package's own modules, as paths below the package."""
    for name in _imports(file):
        parts = name.split(".")
        if parts[0] == NAME and len(parts) > 1:
            yield parts[1:]


def _module(file: str) -> str:
    return Path(file).parts[0].removesuffix(".py")


@pytest.mark.parametrize("file", [file for file in FILES if file != "__init__.py"])
def test_imports_run_one_way(file: str) -> None:
    own = _module(file)
    assert own in LEVELS, f"{file}: decide where {own!r} stands, and say so in LEVELS"
    for target, *_ in _inside(file):
        if target in EXTENSIONS or target == own:
            continue  # compiled modules have a rule of their own below; siblings of one folder are free
        assert target in LEVELS, f"{file} imports {target}, which has no place in LEVELS"
        assert LEVELS[target] < LEVELS[own], f"{file} imports {target}, which stands above or beside it"


def test_the_package_itself_imports_only_its_public_face() -> None:
    for target, *_ in _inside("__init__.py"):
        assert target not in NOT_IN_INIT, f"importing {NAME} must not import {target}"


@pytest.mark.parametrize("file", [file for file in FILES if _module(file) == "backends"])
def test_a_backend_imports_no_other_backend_and_nothing_above(file: str) -> None:
    parts = Path(file).with_suffix("").parts[1:]
    if parts == ("__init__",):
        assert list(_inside(file)) == [], "importing the folder must not import any backend"
        return
    for target, *rest in _inside(file):
        if target in EXTENSIONS:
            assert EXTENSIONS[target] == file, f"{file} imports the extension of {EXTENSIONS[target]}"
        else:
            assert target == "backends", f"{file} imports {target}, from outside the backends"
            assert rest, f"{file} imports the folder of all backends"
            # The residual of `cpu` and `torch` has another layout than that of the GPU backends.
            if parts[0] == "torch_pairs":
                parts = ("torch_tiled",)  # another part of the backend `torch`
            common = (*SHARED, "gpu") if parts[0] in ON_GPU else (*SHARED, "residual")
            assert rest[0] in (*common, parts[0]), f"{file} imports another backend, {rest[0]}"


@pytest.mark.parametrize("file", FILES)
def test_compiled_modules_are_imported_by_their_backend_only(file: str) -> None:
    for target, *_ in _inside(file):
        assert EXTENSIONS.get(target, file) == file, f"only {EXTENSIONS[target]} may import {target}"


@pytest.mark.parametrize("file", FILES)
def test_nothing_in_the_package_imports_the_reference(file: str) -> None:
    """It is the truth in tests and benchmarks; a library that used it would be tested against itself."""
    assert all(target != "reference" for target, *_ in _inside(file))


@pytest.mark.parametrize("file", FILES)
def test_special_packages_are_imported_in_their_place_only(file: str) -> None:
    for name in _imports(file):
        if name.split(".")[0] == "triton":
            assert file.startswith("backends/triton"), f"{file} imports triton"
        if name.startswith("torch.distributed"):
            assert file.startswith("distributed/"), f"{file} imports torch.distributed"


@pytest.mark.parametrize("file", SOURCES)
def test_includes_run_one_way(file: str) -> None:
    room = Path(file).parent.as_posix()
    assert room in ROOMS, f"{file}: decide where {room!r} stands, and say so in ROOMS"
    for name in re.findall(r'^#include "(.+)"', (CSRC / file).read_text(), re.MULTILINE):
        if (file, name) == EMULATOR:
            continue
        target = Path(name if "/" in name else f"{room}/{name}")
        assert (CSRC / target).exists(), f"{file} includes {name}, which is not there"
        other = target.parent.as_posix()
        assert other == room or "/" in name, f"{file} includes {name} without its room"
        assert other == room or ROOMS[other] < ROOMS[room], f"{file} includes {name}, from above or beside it"
        assert other == "common" or other.split("/")[0] == room.split("/")[0], f"{file} includes {name}"


@pytest.mark.parametrize("room", BENCHMARKS)
def test_rooms_of_benchmarks_import_one_way(room: str) -> None:
    for path in (ROOT / "benchmarks" / room).rglob("*.py"):
        for name in re.findall(r"^\s*(?:from|import) benchmarks\.(\w+)", path.read_text(), re.MULTILINE):
            other = BENCHMARKS[name]
            assert name == room or other < BENCHMARKS[room], (
                f"{path.name} imports {name}, from above or beside it"
            )


def test_every_room_of_benchmarks_has_a_place() -> None:
    rooms = {path.parent.name for path in (ROOT / "benchmarks").glob("*/__init__.py")}
    assert rooms == set(BENCHMARKS)


@pytest.mark.parametrize("file", FILES_OF_TESTS)
def test_no_test_imports_another(file: str) -> None:
    """What several need is under tests/support, and knows of no test."""
    for node in ast.walk(ast.parse((TESTS / file).read_text(), filename=file)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            assert not name.rpartition(".")[2].startswith("test_"), f"{file} imports {name}"
            assert name.partition(".")[0] != "tests", f"{file} imports {name}"


def test_outside_of_support_there_are_tests_alone() -> None:
    others = [file for file in FILES_OF_TESTS if not Path(file).name.startswith("test_")]
    assert {file for file in others if not file.startswith("support/")} == {
        "conftest.py",
        "loss/listed_pairs/conftest.py",  # which has engines of its own
    }
    assert not [file for file in others if file.startswith("support/test_")]


def _loaded_by(*names: str) -> tuple[set[str], set[str]]:
    """What a fresh interpreter has imported after `import torch`, and what after these modules too."""
    code = f"import json, sys, torch; before = list(sys.modules); import {', '.join(names)}; "
    code += "print(json.dumps([before, list(sys.modules)]))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=PACKAGE.parent,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    before, after = json.loads(done.stdout)
    return set(before), set(after)


@pytest.fixture(scope="module")
def imported() -> tuple[set[str], set[str]]:
    return _loaded_by(NAME)


def test_importing_the_package_imports_nothing_but_torch(imported: tuple[set[str], set[str]]) -> None:
    """What `import torch` brings along is torch's; beyond that, the standard library and the package."""
    before, after = ({name.partition(".")[0] for name in names} for names in imported)
    assert sorted(after - before - set(sys.stdlib_module_names)) == [NAME]


@pytest.mark.parametrize("name", [*OPTIONAL, "torch._dynamo", f"{NAME}.reference"])
def test_importing_the_package_does_not_import(name: str, imported: tuple[set[str], set[str]]) -> None:
    """Held against what was loaded and not only the source: a helper might import it for us.

    torch's compiler is among them because it takes longer to import than everything else together.
    """
    before, after = imported
    if name in before:
        pytest.skip(f"torch itself imports {name}")
    assert name not in after


def test_evaluation_and_the_command_line_import_no_extra() -> None:
    before, after = _loaded_by(f"{NAME}.evaluation", f"{NAME}.cli")
    assert not (after - before) & set(OPTIONAL)
