"""Rows that are hard to code, and rows as the CPU's screening codes them."""

from __future__ import annotations

import torch
from torch.nn.functional import normalize

from tcm_kernels import dispatch

SLACK = 2e-6  # kSlack of csrc/common/certificate.h


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def half_steps(n: int, d: int) -> torch.Tensor:
    """Rows whose every component lies halfway between two codes, all on the same side: errors add up."""
    rows = torch.randint(-126, 127, (n, d), generator=generator(1)) + 0.4999
    rows[:, 0] = 127.0
    return rows


def one_large(n: int, d: int) -> torch.Tensor:
    """One component takes all the codes, the others are under half a step."""
    rows = torch.full((n, d), 0.45 / 127)
    rows[torch.arange(n), torch.arange(n) % d] = 1.0
    return rows


def all_equal(n: int, d: int) -> torch.Tensor:
    return torch.ones(n, d) * torch.where(torch.arange(n) % 2 == 0, 1.0, -1.0)[:, None]


def random(n: int, d: int) -> torch.Tensor:
    return torch.randn(n, d, generator=generator(2))


def sparse(n: int, d: int) -> torch.Tensor:
    return random(n, d) * (torch.rand(n, d, generator=generator(3)) < 0.1)


def wide_range(n: int, d: int) -> torch.Tensor:
    """Components from 1 down to denormal numbers, in one row."""
    return random(n, d) * 10.0 ** -(40 * torch.rand(n, d, generator=generator(4)))


ADVERSARIES = {f.__name__: f for f in (half_steps, one_large, all_equal, random, sparse, wide_range)}


# What rows are coded in: the dtype of the codes and the largest of int8.
CODINGS = {"int8": (torch.int8, 127), "int8 (7 bits)": (torch.int8, 64), "bfloat16": (torch.bfloat16, 0)}


class Codes:
    """Rows as screening codes them, and what it takes their similarities for; all in float64."""

    def __init__(self, rows: torch.Tensor, coding: str = "int8"):
        dtype, limit = CODINGS[coding]
        count, d = rows.shape
        codes = torch.full((count, -(-d // 64) * 64), 99, dtype=dtype)
        scales, errors = torch.empty(count), torch.empty(count)
        torch.ops.tcm_kernels._cpu_encode(rows.contiguous(), limit, codes, scales, errors)
        assert not codes[:, d:].any(), "padding must not add to a product"
        assert dtype != torch.int8 or (codes.abs() <= limit).all()
        self.stands_for = codes[:, :d].double() * (scales.double()[:, None] if dtype == torch.int8 else 1.0)
        self.errors = errors.double()
        products = torch.empty(count, count, dtype=torch.int32)
        if coding != "int8" or dispatch.module("cpu").screening_name() == "int8":
            torch.ops.tcm_kernels._cpu_multiply_codes(codes, codes, products)
        else:  # this processor's int8 products saturate
            products = (codes.double() @ codes.double().T).to(torch.int32)
        self.estimate = scales.double()[:, None] * scales.double() * products

    @property
    def bound(self) -> torch.Tensor:
        return self.errors[:, None] + self.errors + self.errors[:, None] * self.errors + SLACK


def direction(d: int, seed: int) -> torch.Tensor:
    return normalize(torch.randn(d, generator=generator(seed), dtype=torch.float64), dim=0)


def around(centre: torch.Tensor, count: int, spread: float, seed: int) -> torch.Tensor:
    """Rows whose cosines with each other are about 1 / (1 + spread²)."""
    noise = torch.randn(count, centre.shape[-1], generator=generator(seed), dtype=torch.float64)
    return normalize(centre + spread * normalize(noise))
