"""Norms, codes and certified errors of the CUDA backend's `prepare`, on the emulator."""

from __future__ import annotations

import ctypes
import dataclasses

import cuda_emulator
import pytest
import torch
from coded_rows import generator
from cuda_screened import ROWS
from gpu_kernels import (
    assert_certificate_holds,
    assert_norms_of_normalize,
    assert_not_vacuous,
    wild_rows,
)

cuda_emulator.skip_module_unless_here(beside_a_gpu=True)


TILE = 128


@dataclasses.dataclass
class Prepared:
    """What `norms` and `codes` leave of one side: of its rows, but for `scale`, which is a tile's."""

    same_begin: torch.Tensor
    same_end: torch.Tensor
    inverse: torch.Tensor
    own_scale: torch.Tensor
    code: torch.Tensor
    scale: torch.Tensor
    error: torch.Tensor
    not_finite: torch.Tensor

    @property
    def scale_of_row(self) -> torch.Tensor:
        return self.scale.repeat_interleave(TILE)[: len(self.inverse)]


def prepared(
    emb: torch.Tensor, labels: torch.Tensor | None = None, others: torch.Tensor | None = None
) -> Prepared:
    """labels: of the rows, `others`: of the other side, sorted both."""
    n, d = emb.shape
    labels = torch.zeros(n, dtype=torch.int64) if labels is None else labels
    others = labels if others is None else others
    tiles = (n + TILE - 1) // TILE
    code_dim = (d + 63) // 64 * 64
    out = Prepared(
        *(torch.full((n,), -7, dtype=torch.int32) for _ in range(2)),
        *(torch.full((n,), torch.nan) for _ in range(2)),
        torch.full((tiles * TILE, code_dim), 99, dtype=torch.int8),
        *(torch.full((size,), torch.nan) for size in (tiles, tiles * TILE)),
        torch.zeros(1, dtype=torch.int32),
    )
    kind = [torch.float32, torch.float16, torch.bfloat16].index(emb.dtype)
    order = torch.arange(n)
    pointers = [ctypes.c_void_p(x.data_ptr()) for x in (emb, order, labels, others, *vars(out).values())]
    found = cuda_emulator.probes().probe_prepare(
        kind, pointers[0], n, d, code_dim, *pointers[1:4], len(others), *pointers[4:]
    )
    assert found.decode() == ""
    assert not out.code[n:].any(), "where there is no row, products are to be 0"
    assert not out.error[n:].any()
    return dataclasses.replace(out, code=out.code[:n], error=out.error[:n])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("d", [1, 3, 64, 100, 513])
@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_the_certificate_holds_for_every_pair(rows, d: int, dtype: torch.dtype) -> None:
    emb = rows(140, d).to(dtype)
    side = prepared(emb)
    assert_certificate_holds(emb, side.inverse, side.code, side.scale_of_row, side.error)


@pytest.mark.parametrize("d", [1, 3, 100, 513])
@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_the_rows_of_a_tile_share_the_largest_of_their_scales(rows, d: int) -> None:
    emb = rows(300, d)
    side = prepared(emb)
    unit = emb.double() * side.inverse.double()[:, None]
    own = (unit.abs().amax(dim=1) / 127).float()
    assert torch.equal(side.own_scale, own)
    for tile, scale in enumerate(side.scale):
        largest = own[tile * TILE : (tile + 1) * TILE].max()
        assert scale == (largest if largest >= 1e-6 else 0.0)


@pytest.mark.parametrize("d", [1, 3, 100, 513, 2000])
@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_no_error_is_larger_than_its_tiles_scale_says(rows, d: int) -> None:
    """For Ē_b stands in for each of them in the bound of a pair."""
    side = prepared(rows(300, d))
    at_most = 0.51 * side.scale_of_row.double()
    at_most = d**0.5 * at_most.clamp_min(128e-6)
    assert (side.error.double() <= at_most).all()


LABELS = {
    "one class": torch.zeros(300, dtype=torch.int64),
    "a class a row": torch.arange(300),
    "classes of any size": torch.randint(17, (300,), generator=generator(4)).sort().values,
    "large labels": torch.tensor([-(2**62), -1, 0, 0, 2**62]).repeat_interleave(60),
    "one row": torch.tensor([3]),
}


@pytest.mark.parametrize("name", LABELS)
@pytest.mark.parametrize("others", [None, 0, 1, 16, 17, 18, 289, 290, 2000])
def test_the_range_of_each_rows_class_is_found(name: str, others: int | None) -> None:
    """In one's own labels, and in others of every size at which a search takes one step more."""
    labels = LABELS[name]
    other_labels = labels
    if others is not None:
        chosen = torch.randint(len(labels), (others,), generator=generator(others))
        other_labels = (
            (labels[chosen] + torch.randint(-1, 2, (others,), generator=generator(9))).sort().values
        )
    side = prepared(torch.ones(len(labels), 1), labels, other_labels)
    assert torch.equal(side.same_begin.long(), torch.searchsorted(other_labels, labels))
    assert torch.equal(side.same_end.long(), torch.searchsorted(other_labels, labels, right=True))


def test_norms_are_those_of_normalize_and_the_rest_is_noticed() -> None:
    emb = wild_rows()
    side = prepared(emb)
    assert_norms_of_normalize(emb, side.inverse)
    assert side.not_finite == 0
    emb[7] = 3e38
    side = prepared(emb)
    assert side.own_scale[7] == 0
    assert not side.code[7].any()
    assert side.not_finite == 1
    assert side.inverse.isnan().nonzero().tolist() == [[7]]


def test_the_certificate_is_not_vacuous() -> None:
    """With the scale of their tile: rows of one kind have about the same."""
    assert_not_vacuous(prepared(torch.randn(100, 512, generator=generator(6))).error)
