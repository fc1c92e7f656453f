"""Faults planted in the CUDA kernels' own source: the tests on the emulator must find each.

A fault is one replacement in a copy of the sources, which is built and run in a process of its own. What must
find it is either the emulator, which throws (a barrier, a bank conflict), or the comparison with the
reference.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cuda_emulator
import pytest
from checkout import ROOT

cuda_emulator.skip_module_unless_here()

# Lists, patterns, whole tiles and slices; screened and not; both ways round.
CHECK_LOSS = """
import os, sys
sys.path.insert(0, "tests/support")
from agreement import assert_agrees, run
from cases import Case
from engines import Engine
from tcm_kernels.backends.gpu import plan
plan.USELESS_FROM = 1.0
for screening, list_most in (("int8", 64), ("int8", 128 * 128), ("full", 8)):
    os.environ["TCM_KERNELS_GPU_SCREENING"] = screening
    plan.LIST_MOST = list_most
    for relation in ("self", "rectangular_with_self_offset"):
        for look, labels in (("random", "unbalanced"), ("clustered", "shuffled")):
            inputs = Case(relation=relation, n=140, d=70, look=look, labels=labels, extra=9).build()
            assert_agrees(run(Engine("cuda", "cpu"), inputs), inputs)
"""

# Margins where only the bound of a pair keeps it.
CHECK_SCREENING = """
import os, sys
from pathlib import Path
sys.path.insert(0, "tests/support")
import cuda_emulator
cuda_emulator.library = lambda: Path(os.environ["TCM_KERNELS_CUDA_EMULATOR"])
import torch
import cuda_screened
cuda_screened.assert_kept_where_errors_lie_along_each_other(96)
for rows in (cuda_screened.overshooting, *cuda_screened.ROWS.values()):
    cuda_screened.assert_kept_at_the_margin(rows, 96, torch.float32)
"""

# A row of more tiles than a warp looks at.
CHECK_DIRECTORY = """
import os, sys
sys.path.insert(0, "tests/support")
from agreement import assert_agrees, run
from cases import Case
from engines import Engine
from tcm_kernels.backends.gpu import plan
os.environ["TCM_KERNELS_GPU_SCREENING"] = "int8"
plan.USELESS_FROM, plan.LIST_MOST = 1.0, 128 * 128
inputs = Case(relation="rectangular_with_self_offset", n=3, d=8, look="random", extra=4450).build()
assert_agrees(run(Engine("cuda", "cpu"), inputs), inputs)
"""

# Groups of a few rows and of whole tiles; counters of 16 and of 32 bits, and more of one pair than 16 hold.
CHECK_HISTOGRAM = """
import os, sys
sys.path.insert(0, "tests/support")
import torch
from engines import Engine
from histogram_problems import assert_exact, exact_problem
for kib in (228, 100):
    os.environ["TCM_EMULATOR_SHARED_BYTES"] = str(kib * 1024)
    for relation in ("self", "rectangular_with_self_offset"):
        for grouping in ("of_labels", "few"):
            for bins in (3, 2000):
                problem = exact_problem(relation, 400, 20, grouping=grouping, bins=bins)
                assert_exact(Engine("cuda", "cpu"), problem)
problem = exact_problem("rectangular", 128, 4, grouping="one", bins=2000, extra=1100)
problem = problem._replace(emb=torch.ones(128, 4), ref=torch.ones(len(problem.ref), 4), hi=1.5)
assert_exact(Engine("cuda", "cpu"), problem)
"""


@dataclass(frozen=True)
class Fault:
    """What is written in place of what, in which file under csrc/cuda."""

    file: str
    right: str
    wrong: str
    check: str = CHECK_LOSS


FAULTS = {
    "the last entry of a row of the directory is left out": Fault(
        "lists.cuh",
        right="tile < direction_.other_tiles ?",
        wrong="tile + 1 < direction_.other_tiles ?",
    ),
    "of a warp's entries only the first eight are looked at": Fault(
        "lists.cuh",
        right="left_ &= left_ - 1;\n      const int tile",
        wrong="left_ = 0;\n      const int tile",
        check=CHECK_DIRECTORY,
    ),
    "the first entries of a row stand for all": Fault(
        "lists.cuh",
        right="entry_ = next_entry_;",
        wrong="",
        check=CHECK_DIRECTORY,
    ),
    "a list's partner is off by one": Fault(
        "lists.cuh",
        right="kWordBits + lowest_bit(taken);",
        wrong="kWordBits + lowest_bit(taken) + 1;",
    ),
    "a pattern's columns are off by one": Fault(
        "patterns.cuh",
        right="halves_by_sign(own << 7, own << 6,",
        wrong="halves_by_sign(own << 6, own << 5,",
    ),
    "a pattern's rows are off by one": Fault(
        "pattern_rows.cuh",
        right="const int position = first + row(u);",
        wrong="const int position = first + row(u) + 1;",
    ),
    "a barrier of the patterns is missing": Fault(
        "patterns.cuh",
        right="sync_block();  // the rows are there, and the other buffer is free\n",
        wrong="\n",
    ),
    "a barrier of the products is missing": Fault(
        "products.cuh",
        right="sync_block();  // this stage has come, and nobody reads the one before any more\n",
        wrong="\n",
    ),
    "copies are not waited for": Fault(
        "products.cuh",
        right="wait_copies<kMostStages - 2>();",
        wrong="wait_copies<kMostStages - 1>();",
    ),
    "rows in shared memory share banks": Fault(
        "tile_rows.cuh",
        right="(chunk ^ (line % kRowChunks))",
        wrong="chunk",
    ),
    "the bits of columns are not transposed": Fault(
        "tile_bits.cuh",
        right="const uint32_t word = transposed_bits(",
        wrong="const uint32_t word = uint32_t(",
    ),
    "the sweep forgets the columns' errors": Fault(
        "screen.cuh",
        right="offsets[t] = column_offset(errors[kTile + t], inverse);",
        wrong="offsets[t] = 0;",
        check=CHECK_SCREENING,
    ),
    "products do not begin at their offset": Fault(
        "screen.cuh",
        right="return pair.offset[odd];",
        wrong="return 0 * pair.offset[odd];",
        check=CHECK_SCREENING,
    ),
    "the sweep forgets the rows' errors": Fault(
        "screen.cuh",
        right="row_threshold(threshold_minus, errors[t],",
        wrong="row_threshold(threshold_minus, 0.0f * errors[t],",
        check=CHECK_SCREENING,
    ),
    "the sweep forgets the product of two errors": Fault(
        "screen.cuh",
        right="errors_at_most(of_column, root_dim)",
        wrong="0.0f * errors_at_most(of_column, root_dim)",
        check=CHECK_SCREENING,
    ),
    "the errors of the tile before are taken": Fault(
        "products.cuh",
        right="work.ask(stage, first_row, first_column);",
        wrong="work.ask(stage, first_row, first_column == 0 ? 0 : first_column - kTile);",
        check=CHECK_SCREENING,
    ),
    "rows have a scale of their own": Fault(
        "prepare.cuh",
        right="const float scale = scale_of_tile(side, position / kTile);",
        wrong="float scale = scale_of_tile(side, position / kTile);\n"
        "  if (position < side.n) scale = side.own_scale[position];",
        check=CHECK_SCREENING,
    ),
    "the range of a class is off by one": Fault(
        "prepare.cuh",
        right="at = least + (probe + 1) * step - 1;",
        wrong="at = least + (probe + 1) * step;",
    ),
    "the first tile of the diagonal is left out": Fault(
        "tiles.h",
        right="at.row <= at.column",
        wrong="(at.row <= at.column && at.column > 0)",
    ),
    "counters of 16 bits overflow": Fault(
        "histogram.cuh",
        right="} else if (passed == tile.most) {",
        wrong="} else if (passed == -1) {",
        check=CHECK_HISTOGRAM,
    ),
    "counters are written out while others count": Fault(
        "histogram.cuh",
        right="sync_block();\n    write_out(1);\n    sync_block();",
        wrong="write_out(1);\n    sync_block();",
        check=CHECK_HISTOGRAM,
    ),
    "pairs within a group count twice": Fault(
        "histogram.cuh",
        right="one_group ? pairs : pairs * sweep.weight",
        wrong="pairs * sweep.weight",
        check=CHECK_HISTOGRAM,
    ),
    "edges of bins are not asked": Fault(
        "bin_finder.cuh",
        right="if (farthest < finder.clear) return;",
        wrong="if (farthest < 1.0f) return;",
        check=CHECK_HISTOGRAM,
    ),
}


BUILD = ROOT / "build" / "cuda-faults"
SOURCE = BUILD / "source"


@pytest.fixture(scope="module")
def faultless() -> bytes:
    """The library of a copy of the sources."""
    sources = {
        file.relative_to(ROOT)
        for folder in ("csrc", "tests/support")
        for file in (ROOT / folder).rglob("*")
        if file.suffix in (".h", ".cuh", ".cu", ".cpp")
    }
    for file in sources:
        _write(SOURCE / file, (ROOT / file).read_text())
    for file in [file for file in SOURCE.rglob("*") if file.is_file()]:
        if file.relative_to(SOURCE) not in sources:
            file.unlink()
    return cuda_emulator.build(SOURCE, BUILD).read_bytes()


@contextlib.contextmanager
def _planted(fault: Fault) -> Iterator[None]:
    """The fault in the copy of the sources; afterwards the copy and its objects as they were.

    Objects as well: else what depends on the fault would be compiled twice, with it and without it again.
    """
    (path,) = (SOURCE / "csrc/cuda").rglob(fault.file)
    source = path.read_text()
    assert source.count(fault.right) == 1, f"{fault.file} has changed: {fault.right!r} is not there once"
    with tempfile.TemporaryDirectory(dir=BUILD) as kept:
        for file in (path, *BUILD.glob("*.o")):
            shutil.copy2(file, kept)
        path.write_text(source.replace(fault.right, fault.wrong))
        try:
            yield
        finally:
            shutil.copy2(Path(kept) / path.name, path)
            for file in BUILD.glob("*.o"):
                shutil.copy2(Path(kept) / file.name, file)


def _checked(library: Path, *checks: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "".join(checks)],
        env={**os.environ, "TCM_KERNELS_CUDA_EMULATOR": str(library)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_without_a_fault_nothing_is_found(faultless: bytes, tmp_path: Path) -> None:
    library = tmp_path / "faultless.so"
    library.write_bytes(faultless)
    done = _checked(library, CHECK_LOSS, CHECK_SCREENING, CHECK_DIRECTORY, CHECK_HISTOGRAM)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", FAULTS)
def test_the_emulator_or_the_comparison_finds(name: str, faultless: bytes, tmp_path: Path) -> None:
    with _planted(FAULTS[name]):
        library = Path(shutil.copy(cuda_emulator.build(SOURCE, BUILD), tmp_path))
    assert library.read_bytes() != faultless, "it was built without the fault"
    done = _checked(library, FAULTS[name].check)
    assert done.returncode != 0, "nothing was found"
    assert done.returncode < 0 or "AssertionError" in done.stderr or "kernel " in done.stderr, done.stderr


def _write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
