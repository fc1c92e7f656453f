"""Faults planted in the CUDA kernels' own source: the tests on the emulator must find each.

All are in one copy of the sources, each beside what is right: an environment variable chooses the one that a
process runs with. What must find it is either the emulator, which throws (a barrier, a bank conflict), or the
comparison with the reference.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cuda_emulator
import pytest
from checkout import ROOT
from forks import Forks, forks

cuda_emulator.skip_module_unless_here()

# Lists, patterns, whole tiles and slices; screened and not; both ways round.
CHECK_LOSS = """
import os
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
import os
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
import os
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
    """What is done in place of what, in which file under csrc/cuda: an expression, or a statement.

    `source` is a piece that the file has once, with what is replaced between guillemets.
    """

    file: str
    source: str
    wrong: str
    check: str = CHECK_LOSS

    def plant(self, number: int, text: str) -> str:
        """The file's text, with right and wrong in it."""
        before, right, after = re.split("[«»]", self.source)
        assert text.count(before + right + after) == 1, f"{self.file} has changed: {self.source!r}"
        if right.endswith(";"):
            choice = f"if (planted({number})) {{ {self.wrong} }} else {{ {right} }}"
        else:
            choice = f"(planted({number}) ? ({self.wrong}) : ({right}))"
        return text.replace(before + right + after, before + choice + after)


FAULTS = {
    "the last entry of a row of the directory is left out": Fault(
        "lists.cuh",
        source="return «tile < direction_.other_tiles» ?",
        wrong="tile + 1 < direction_.other_tiles",
    ),
    "of a warp's entries only the first eight are looked at": Fault(
        "lists.cuh",
        source="«left_ &= left_ - 1;»\n      const int tile",
        wrong="left_ = 0;",
        check=CHECK_DIRECTORY,
    ),
    "the first entries of a row stand for all": Fault(
        "lists.cuh",
        source="«entry_ = next_entry_;»",
        wrong="",
        check=CHECK_DIRECTORY,
    ),
    "a list's partner is off by one": Fault(
        "lists.cuh",
        source="kWordBits + «lowest_bit(taken)»;",
        wrong="lowest_bit(taken) + 1",
    ),
    "a pattern's columns are off by one": Fault(
        "patterns.cuh",
        source="«halves_by_sign(own << 7, own << 6, k / 8)»",
        wrong="halves_by_sign(own << 6, own << 5, k / 8)",
    ),
    "a pattern's rows are off by one": Fault(
        "pattern_rows.cuh",
        source="const int position = «first + row(u)»;",
        wrong="first + row(u) + 1",
    ),
    "a barrier of the patterns is missing": Fault(
        "patterns.cuh",
        source="«sync_block();»  // the rows are there, and the other buffer is free\n",
        wrong="",
    ),
    "a barrier of the products is missing": Fault(
        "products.cuh",
        source="«sync_block();»  // this stage has come, and nobody reads the one before any more\n",
        wrong="",
    ),
    "copies are not waited for": Fault(
        "products.cuh",
        source="«wait_copies<kMostStages - 2>();»",
        wrong="wait_copies<kMostStages - 1>();",
    ),
    "rows in shared memory share banks": Fault(
        "tile_rows.cuh",
        source="«(chunk ^ (line % kRowChunks))»",
        wrong="chunk",
    ),
    "the bits of columns are not transposed": Fault(
        "tile_bits.cuh",
        source="const uint32_t word = «transposed_bits(rows_[thread_index() * kTileWords + c])»;",
        wrong="rows_[thread_index() * kTileWords + c]",
    ),
    "the sweep forgets the columns' errors": Fault(
        "screen.cuh",
        source="offsets[t] = «column_offset(errors[kTile + t], inverse)»;",
        wrong="0",
        check=CHECK_SCREENING,
    ),
    "products do not begin at their offset": Fault(
        "screen.cuh",
        source="return «pair.offset[odd]»;",
        wrong="0",
        check=CHECK_SCREENING,
    ),
    "the sweep forgets the rows' errors": Fault(
        "screen.cuh",
        source="row_threshold(threshold_minus, «errors[t]»,",
        wrong="0.0f",
        check=CHECK_SCREENING,
    ),
    "the sweep forgets the product of two errors": Fault(
        "screen.cuh",
        source="«errors_at_most(of_column, root_dim)», inverse)",
        wrong="0.0f",
        check=CHECK_SCREENING,
    ),
    "the errors of the tile before are taken": Fault(
        "products.cuh",
        source="work.ask(stage, first_row, «first_column»);",
        wrong="first_column == 0 ? 0 : first_column - kTile",
        check=CHECK_SCREENING,
    ),
    "rows have a scale of their own": Fault(
        "prepare.cuh",
        source="const float scale = «scale_of_tile(side, position / kTile)»;",
        wrong="position < side.n ? side.own_scale[position] : scale_of_tile(side, position / kTile)",
        check=CHECK_SCREENING,
    ),
    "the range of a class is off by one": Fault(
        "prepare.cuh",
        source="at = «least + (probe + 1) * step - 1»;",
        wrong="least + (probe + 1) * step",
    ),
    "the first tile of the diagonal is left out": Fault(
        "tiles.h",
        source="!part.diagonal || «at.row <= at.column»)",
        wrong="at.row <= at.column && at.column > 0",
    ),
    "counters of 16 bits overflow": Fault(
        "histogram.cuh",
        source="} else if («passed == tile.most») {",
        wrong="false",
        check=CHECK_HISTOGRAM,
    ),
    "counters are written out while others count": Fault(
        "histogram.cuh",
        source="«sync_block();»\n    write_out(1);\n    sync_block();",
        wrong="",
        check=CHECK_HISTOGRAM,
    ),
    "pairs within a group count twice": Fault(
        "histogram.cuh",
        source="«one_group ? pairs : pairs * sweep.weight»);",
        wrong="pairs * sweep.weight",
        check=CHECK_HISTOGRAM,
    ),
    "edges of bins are not asked": Fault(
        "bin_finder.cuh",
        source="if («farthest < finder.clear») return;",
        wrong="farthest < 1.0f",
        check=CHECK_HISTOGRAM,
    ),
}

# What the sources find there is `planted`. Whatever the compiler computes is computed without a fault.
PLANTED_H = """
#pragma once
#include <cstdlib>
#include <type_traits>

inline int planted_fault() {
  static const int number = [] {
    const char* chosen = std::getenv("TCM_PLANTED_FAULT");
    return chosen == nullptr ? -1 : std::atoi(chosen);
  }();
  return number;
}

constexpr bool planted(int number) { return !std::is_constant_evaluated() && planted_fault() == number; }
"""
BUILD = ROOT / "build" / "cuda-faults"
SOURCE = BUILD / "source"


@pytest.fixture(scope="module")
def with_all_faults() -> Path:
    """The library of a copy of the sources with every fault in it."""
    texts = {
        file: file.read_text()
        for folder in ("csrc", "tests/support")
        for file in (ROOT / folder).rglob("*")
        if file.suffix in (".h", ".cuh", ".cu", ".cpp")
    }
    for number, fault in enumerate(FAULTS.values()):
        (file,) = (ROOT / "csrc/cuda").rglob(fault.file)
        texts[file] = fault.plant(number, texts[file])
    header = SOURCE / "planted.h"
    texts = {SOURCE / file.relative_to(ROOT): text for file, text in texts.items()} | {header: PLANTED_H}
    for file in [file for file in SOURCE.rglob("*") if file.is_file() and file not in texts]:
        file.unlink()
    for file, text in texts.items():
        if not file.exists() or file.read_text() != text:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    return cuda_emulator.build(SOURCE, BUILD, f"-include {header}")


@pytest.fixture(scope="module")
def check(with_all_faults: Path) -> Iterator[Forks]:
    """Runs a check beside the library, which reads the number of the fault when it first comes to one."""
    with forks("cuda_screened", "histogram_problems", TCM_KERNELS_CUDA_EMULATOR=str(with_all_faults)) as one:
        yield one


def test_without_a_fault_nothing_is_found(check: Forks) -> None:
    check.output_of("".join((CHECK_LOSS, CHECK_SCREENING, CHECK_DIRECTORY, CHECK_HISTOGRAM)))


@pytest.mark.parametrize("name", FAULTS)
def test_the_emulator_or_the_comparison_finds(name: str, check: Forks) -> None:
    done = check.done(FAULTS[name].check, TCM_PLANTED_FAULT=str(list(FAULTS).index(name)))
    assert done.status != 0, "nothing was found"
    assert done.status < 0 or "AssertionError" in done.errors or "kernel " in done.errors, done.errors
