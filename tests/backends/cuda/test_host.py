"""Host arithmetic of the CUDA backend: order of tiles, workspace and addresses, at any size."""

from __future__ import annotations

import ctypes
import itertools

import cuda_emulator
import pytest
import torch

from tcm_kernels.backends import cuda
from tcm_kernels.backends.gpu.plan import plan_of

cuda_emulator.skip_module_unless_here(beside_a_gpu=True)

POOL = 64 * 2**20
MILLION = 2**20
HEAD = ("bytes", "zeroed", "partials")
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


def workspace(
    rows: int, columns: int | None, dim: int, *, pool: int = POOL
) -> tuple[dict[str, int], dict[str, tuple[int, int]]]:
    """Numbers of the workspace of a screened forward, and first byte and size of each of its arrays."""
    out = (ctypes.c_int64 * 64)()
    c64 = ctypes.c_int64
    is_self = columns is None
    columns = rows if columns is None else columns
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TCM_KERNELS_GPU_POOL_MIB", str(pool / 2**20))
        patch.setenv("TCM_KERNELS_GPU_SCREENING", "int8")
        made = plan_of(
            rows, columns, dim, is_self=is_self, need_columns=True, tile=cuda.TILE, multiprocessors=132
        )
    cuda_emulator.probes().probe_workspace(
        c64(rows), c64(columns), c64(dim), is_self, made.screened, made.by_column, made.edge,
        c64(made.programs), c64(len(made.parts)), out,
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
@pytest.mark.parametrize("pool", [2**20, POOL])
def test_arrays_lie_in_the_workspace_side_by_side(shape: tuple[int, int | None, int], pool: int) -> None:
    numbers, arrays = workspace(*shape, pool=pool)
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
    numbers, _ = workspace(n, None, dim)
    assert numbers["bytes"] <= 0.5 * 4 * n * dim + POOL + 2**20


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
