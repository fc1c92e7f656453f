"""Norms, codes and certified errors of the CUDA backend's `prepare`, on the CPU twin."""

from __future__ import annotations

import ctypes
import dataclasses

import cuda_twin
import pytest
import torch
from gpu_kernels import (
    assert_certificate_holds,
    assert_norms_of_normalize,
    assert_not_vacuous,
    wild_rows,
)
from test_screening import ADVERSARIES, generator

cuda_twin.skip_module_unless_here(beside_a_gpu=True)


@dataclasses.dataclass
class Prepared:
    """What `prepare` leaves of one side."""

    inverse: torch.Tensor
    code: torch.Tensor
    scale: torch.Tensor
    error: torch.Tensor
    extremes: torch.Tensor
    not_finite: torch.Tensor


def prepared(emb: torch.Tensor) -> Prepared:
    n, d = emb.shape
    code_dim = (d + 63) // 64 * 64
    out = Prepared(
        *(torch.full(shape, torch.nan) for shape in ((n,),)),
        torch.full((n, code_dim), 99, dtype=torch.int8),
        *(torch.full(shape, torch.nan) for shape in ((n,), (n,), ((n + 127) // 128, 3))),
        torch.zeros(1, dtype=torch.int32),
    )
    kind = [torch.float32, torch.float16, torch.bfloat16].index(emb.dtype)
    order = torch.arange(n)
    pointers = [ctypes.c_void_p(x.data_ptr()) for x in (emb, order, *vars(out).values())]
    found = cuda_twin.probes().probe_prepare(kind, pointers[0], n, d, code_dim, *pointers[1:])
    assert found.decode() == ""
    return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("d", [1, 3, 64, 100, 513])
@pytest.mark.parametrize("rows", ADVERSARIES.values(), ids=ADVERSARIES)
def test_the_certificate_holds_for_every_pair(rows, d: int, dtype: torch.dtype) -> None:
    emb = rows(140, d).to(dtype)
    side = prepared(emb)
    assert_certificate_holds(emb, side.inverse, side.code, side.scale, side.error)
    for tile, part in enumerate((slice(0, 128), slice(128, 140))):
        scale = side.scale[part]
        expected = torch.stack([side.error[part].max(), scale.max(), scale.min()])
        assert torch.equal(side.extremes[tile], expected)


def test_norms_are_those_of_normalize_and_the_rest_is_noticed() -> None:
    emb = wild_rows()
    side = prepared(emb)
    assert_norms_of_normalize(emb, side.inverse)
    assert side.not_finite == 0
    emb[7] = 3e38
    side = prepared(emb)
    assert side.not_finite == 1
    assert side.inverse.isnan().nonzero().tolist() == [[7]]


def test_the_certificate_is_not_vacuous() -> None:
    assert_not_vacuous(prepared(torch.randn(100, 512, generator=generator(6))).error)
