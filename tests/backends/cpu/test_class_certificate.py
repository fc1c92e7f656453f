"""One code for a class: its certificate holds for every member of the class and every column."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from coded_rows import CODINGS, Codes, around, direction, generator
from torch import Tensor
from torch.nn.functional import normalize

from tcm_kernels import dispatch

REASON = dispatch.why_not_here("cpu")
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"cpu backend: {REASON}")

FORMS = (*CODINGS, "mean")  # what stands for a class: a code, or a row of the compute dtype
DTYPES = (torch.float32, torch.float64)


def opposite(d: int) -> Tensor:
    return direction(d, 1) * torch.tensor([1.0, -1.0, 1.0, -1.0])[:, None]


def denormal_mean(d: int) -> Tensor:
    return torch.cat([opposite(d)[:, 1:], torch.full((4, 1), 1e-39)], dim=1)


def one_huge_component(d: int) -> Tensor:
    rows = torch.full((5, d), 0.45 / 127, dtype=torch.float64)
    rows[:, 0] = 1.0
    rows[4, d // 2] = 0.9
    return normalize(rows)


CLASSES = {
    "one_outlier": lambda d: torch.cat([direction(d, 1).expand(7, d), direction(d, 2)[None]]),
    "opposite": opposite,
    "denormal_mean": denormal_mean,
    "one_huge_component": one_huge_component,
    "identical": lambda d: direction(d, 3).expand(3, d),
    "a_block_of_identical": lambda d: direction(d, 4).abs().expand(511, d),
    "alone": lambda d: direction(d, 5)[None],
    "too_short_for_a_code": lambda d: torch.tensor([1e-33, 2e-33, 3e-33]).double()[:, None].expand(3, d),
    "tight": lambda d: around(direction(d, 6), 4, 0.23, 7),
}


def encode_class(rows: Tensor, form: str) -> tuple[Tensor, Tensor, float]:
    """The code of a class, what it stands for, and its certified error."""
    d = rows.shape[1]
    dtype, limit = CODINGS.get(form, (rows.dtype, 0))
    code = torch.full((1, d if form == "mean" else -(-d // 64) * 64), 99, dtype=dtype)
    scale, error = torch.empty(1), torch.empty(1)
    torch.ops.tcm_kernels._cpu_encode_class(rows.contiguous(), limit, code, scale, error)
    assert not code[:, d:].any(), "padding must not add to a product"
    code = code[:, :d].contiguous()
    return code, code[0].double() * (scale.double() if dtype == torch.int8 else 1.0), float(error)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("d", [1, 3, 64, 129, 1000])
@pytest.mark.parametrize("rows", CLASSES.values(), ids=CLASSES)
def test_the_certificate_of_a_class_holds_for_every_member_and_column(rows, d, dtype, form):
    unit = rows(d).to(dtype)
    code, shared, error = encode_class(unit, form)
    rest = unit.double() - shared
    assert error >= rest.norm(dim=1).max()
    # Columns along what the code leaves out of a member are where the bound is met.
    columns = torch.cat([rest, -rest, unit.double(), torch.randn(50, d, generator=generator(8)).double()])
    columns = normalize(columns[-200:]).to(dtype)
    bound = torch.full((len(columns),), error)
    if form == "mean":  # in three orders of summation, because the certificate has to hold for any
        terms = columns * code
        estimate = torch.stack([columns @ code[0], terms.cumsum(1)[:, -1], terms.flip(1).cumsum(1)[:, -1]])
    else:
        codes = Codes(columns, form)
        estimate = codes.stands_for @ shared
        bound = error + codes.errors + error * codes.errors
    if form == "bfloat16":  # whose products are rounded
        products = torch.empty(1, len(columns), dtype=torch.int32)
        torch.ops.tcm_kernels._cpu_multiply_codes(code, codes.stands_for.bfloat16(), products)
        estimate = products[0] * 2.0**-22
    for member in unit.unique(dim=0):  # against products that are rounded later than float64, where possible
        exact = columns.numpy().astype(np.longdouble) @ member.numpy()
        off = (torch.from_numpy(exact.astype(np.float64)) - estimate.double()).abs()
        assert (off <= bound + 1e-18 * d).all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_certificate_of_a_class_is_not_vacuous(dtype, form):
    unit = CLASSES["tight"](512).to(dtype)
    cosines = (unit @ unit.T)[~torch.eye(4, dtype=torch.bool)]
    assert 0.94 < cosines.min() < cosines.max() < 0.96
    _, shared, error = encode_class(unit, form)
    farthest = (unit.double() - shared).norm(dim=1).max()
    rounding = 2.0**-9 if form == "bfloat16" else 0.0  # half of that of a product
    assert farthest + rounding <= error <= 1.001 * farthest + 1.1 * rounding
    assert farthest <= 1.03 * (unit.double() - unit.double().mean(0)).norm(dim=1).max()
