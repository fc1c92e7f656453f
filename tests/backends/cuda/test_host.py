"""Host arithmetic of the CUDA backend: order of tiles, super-tiles, workspace and addresses, at any size."""

from __future__ import annotations

import ctypes
import itertools

import cuda_emulator
import pytest
import torch

cuda_emulator.skip_module_unless_here(beside_a_gpu=True)

POOL = 64 * 2**20
MILLION = 2**20
AUTOMATIC, INT8, FULL = range(3)
HEAD = ("bytes", "zeroed", "programs", "partials", "parts", "edge", "screened", "by_column")
OF_SIDE = ("same_begin", "same_end", "inverse", "own_scale", "code", "error", "scale")
OF_COLUMNS = tuple(f"column_{name}" for name in OF_SIDE)
ARRAYS = (
    *("samples", "has_dense_tile", "not_finite", "sums", "counts"),
    *(f"row_{name}" for name in OF_SIDE),
    *OF_COLUMNS,
    *("directory", "row_bits", "column_bits", "block_sums"),
)


def walk(rows: int, columns: int, diagonal: bool, first: int, step: int) -> list[tuple[int, int]]:
    most = rows * columns
    out = [(ctypes.c_int * most)() for _ in range(2)]
    count = cuda_emulator.probes().probe_walk(
        rows, columns, int(diagonal), first, step, ctypes.c_int64(most), *out
    )
    return list(zip(out[0][:count], out[1][:count], strict=True))


@pytest.mark.parametrize("programs", [1, 3, 264])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 9), (9, 1), (8, 5), (17, 3), (20, 20), (31, 64)])
def test_programs_visit_every_tile_once(rows: int, columns: int, programs: int) -> None:
    visited = [tile for p in range(programs) for tile in walk(rows, columns, False, p, programs)]
    assert sorted(visited) == list(itertools.product(range(rows), range(columns)))


@pytest.mark.parametrize("programs", [1, 3, 264])
@pytest.mark.parametrize("tiles", [1, 2, 7, 8, 9, 20, 33])
def test_programs_visit_every_tile_on_and_above_the_diagonal_once(tiles: int, programs: int) -> None:
    visited = [tile for p in range(programs) for tile in walk(tiles, tiles, True, p, programs)]
    assert sorted(visited) == [(i, j) for i in range(tiles) for j in range(i, tiles)]


def test_tiles_that_are_taken_together_share_their_columns() -> None:
    """264 programs at once meet few rows and columns of tiles, so that codes stay in the L2 cache."""
    at_once = walk(256, 256, True, 0, 1)[5000:5264]
    assert len({i for i, _ in at_once}) <= 16
    assert len({j for _, j in at_once}) <= 40


def test_a_walk_through_half_a_million_tiles_misses_none() -> None:
    assert len(walk(1024, 1024, True, 0, 1)) == 1024 * 1025 // 2


def plan(
    rows: int,
    columns: int | None,
    dim: int,
    *,
    pool: int = POOL,
    need_columns: bool = True,
    screening: int = AUTOMATIC,
) -> tuple[dict[str, int], dict[str, tuple[int, int]]]:
    """The plan's numbers, and first byte and size of each array of its workspace."""
    out = (ctypes.c_int64 * 64)()
    c64 = ctypes.c_int64
    is_self = columns is None
    cuda_emulator.probes().probe_plan(
        c64(rows), c64(rows if columns is None else columns), c64(dim), is_self, need_columns,
        c64(pool), screening, 132, out,
    )  # fmt: skip
    numbers = dict(zip(HEAD, out, strict=False))
    places = list(out)[len(HEAD) :]
    arrays = {name: (places[2 * i], places[2 * i + 1]) for i, name in enumerate(ARRAYS)}
    return numbers, arrays


SHAPES = {
    "nothing": (0, None, 16),
    "one row": (1, None, 1),
    "a batch": (4096, None, 512),
    "rectangular": (5000, 20000, 100),
    "many": (131072, None, 512),
    "a million": (MILLION, None, 128),
    "a million against a million": (MILLION, MILLION, 64),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("pool", [1, 2**20, POOL])
def test_arrays_lie_in_the_workspace_side_by_side(shape: tuple[int, int | None, int], pool: int) -> None:
    numbers, arrays = plan(*shape, pool=pool, screening=INT8)
    if shape[1] is None:
        arrays = {name: at for name, at in arrays.items() if name not in OF_COLUMNS}
    spans = sorted((at, at + size) for at, size in arrays.values() if at >= 0 and size > 0)
    assert all(at % 256 == 0 for at, _ in spans)
    for (_, end), (begin, _) in itertools.pairwise(spans):
        assert end <= begin
    assert spans[-1][1] <= numbers["bytes"]
    cleared = ("samples", "has_dense_tile", "not_finite", "sums", "counts")
    assert max(sum(arrays[name]) for name in cleared) <= numbers["zeroed"]
    assert min(at for name, (at, _) in arrays.items() if name not in cleared and at >= 0) >= numbers["zeroed"]


@pytest.mark.parametrize(("n", "dim"), [(32768, 512), (131072, 512), (MILLION, 128)])
def test_memory_stays_within_the_budget(n: int, dim: int) -> None:
    """2.5 float32 buffers of the embeddings and 64 MiB, of which P and Q take two."""
    numbers, _ = plan(n, None, dim)
    assert numbers["bytes"] <= 0.5 * 4 * n * dim + POOL + 2**20


@pytest.mark.parametrize(("mib", "rows"), [(64, 16384), (16, 8192), (1e-6, 256), (1e9, 131072)])
def test_the_pool_decides_how_large_a_super_tile_is(mib: float, rows: int) -> None:
    numbers, _ = plan(MILLION, None, 128, pool=max(1, int(mib * 2**20)))
    assert numbers["edge"] * 128 == rows


def test_a_million_rows_take_the_upper_half_of_their_super_tiles() -> None:
    numbers, _ = plan(MILLION, None, 128)
    assert numbers["parts"] == 64 * 65 // 2
    assert numbers["by_column"], "super-tiles off the diagonal are read both ways"
    assert plan(MILLION, None, 128, need_columns=False)[0]["by_column"] == 0
    assert plan(16384, None, 128)[0]["by_column"] == 0
    assert plan(64, 64, 16)[0]["by_column"]


def test_small_matrices_and_endless_rows_are_not_screened() -> None:
    assert plan(2048, None, 64)[0]["screened"]
    assert not plan(2047, None, 64)[0]["screened"]
    assert plan(100, None, 64, screening=INT8)[0]["screened"]
    assert not plan(100000, None, 64, screening=FULL)[0]["screened"]
    assert plan(4096, None, 32768)[0]["screened"]
    assert not plan(4096, None, 32769)[0]["screened"], "products of such codes may not fit into 30 bits"
    assert not plan(4096, None, 0, screening=INT8)[0]["screened"], "there are no codes"


def test_addresses_of_bits_do_not_wrap_at_the_largest_super_tile() -> None:
    """131,072 rows and columns: 2 GiB of bits each way."""
    tiles = 1024
    out = torch.zeros(2, dtype=torch.int64)
    cuda_emulator.probes().probe_output(tiles, tiles, tiles - 1, tiles - 2, ctypes.c_void_p(out.data_ptr()))
    words = 4 * tiles
    assert out.tolist() == [
        (tiles - 1) * 128 * words + 4 * (tiles - 2),
        (tiles - 2) * 128 * words + 4 * (tiles - 1),
    ]
