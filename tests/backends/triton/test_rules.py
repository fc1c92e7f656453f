"""The small parts of the Triton kernels, in the interpreter: rule, certificate, bits, the order of tiles."""

from __future__ import annotations

import dataclasses
import importlib
import re

import pytest
import torch
from agreement import run
from cases import Case
from checkout import ROOT
from coded_rows import ADVERSARIES, generator
from engines import Engine, interprets_triton
from gpu_kernels import (
    assert_certificate_holds,
    assert_no_pair_is_lost,
    assert_norms_of_normalize,
    assert_not_vacuous,
    wild_rows,
)

from tcm_kernels.backends.gpu import plan
from tcm_kernels.backends.order import LabelOrder
from tcm_kernels.backends.torch_tiled import thresholds_of

if not interprets_triton():
    pytest.skip("the kernels run on a GPU here, or triton is not installed", allow_module_level=True)

import triton
import triton.language as tl

pytestmark = pytest.mark.no_cover
bits, prepare, rules, tiles, totals = (
    importlib.import_module(f"tcm_kernels.backends.triton.{name}")
    for name in ("bits", "prepare", "rules", "tiles", "totals")
)
CERTIFICATE = (ROOT / "csrc/common/certificate.h").read_text()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("CODE_LIMIT", "kCodeLimit"),
        ("ROUND_UP", "kRoundUp"),
        ("ROUND_UP_TINY", "kRoundUpTiny"),
        ("SLACK", "kSlack"),
        ("SMALLEST_TILE_SCALE", "kSmallestTileScale"),
    ],
)
def test_the_certificate_has_the_constants_of_its_derivation(ours: str, theirs: str) -> None:
    found = re.search(rf"constexpr \w+ {theirs} = ([^;]+);", CERTIFICATE)
    assert found is not None
    assert eval(found[1].replace("f", "")) == getattr(getattr(rules, ours), "value", getattr(rules, ours))


@triton.jit
def thresholds_kernel(margins_ptr, out_ptr):
    plus, minus = rules.thresholds(margins_ptr)
    tl.store(out_ptr, plus)
    tl.store(out_ptr + 1, minus)


@pytest.mark.parametrize("margin", [0.9, 0.5, 0.3, 0.1, 0.0, 1e-40, -1e-40, -0.3, -0.9, 1.0, -1.0, 1 / 3])
def test_thresholds_lie_on_the_inner_side_of_the_margins(margin: float) -> None:
    margins = torch.tensor([margin, margin], dtype=torch.float64)
    out = torch.empty(2)
    thresholds_kernel[(1,)](margins, out)
    assert torch.equal(out, thresholds_of(margins, torch.float32))
    assert out[0].double() <= margin <= out[1].double()


@triton.jit
def bits_kernel(mask_ptr, rows_ptr, columns_ptr, counts_ptr, TILE: tl.constexpr):
    offs = tl.arange(0, TILE)
    mask = tl.load(mask_ptr + offs[:, None] * TILE + offs[None, :]) != 0
    for w in tl.static_range(TILE // 32):
        at = offs * (TILE // 32) + w
        of_rows = bits.word_of_rows(mask, w, TILE)
        tl.store(rows_ptr + at, of_rows)
        tl.store(columns_ptr + at, bits.word_of_columns(mask, w, TILE))
        tl.store(counts_ptr + at, bits.count(of_rows))


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.98, 1.0])
def test_bits_are_stored_by_row_and_by_column_and_counted(share: float) -> None:
    mask = (torch.rand(128, 128, generator=generator(1)) < share).to(torch.int32)
    rows, columns, counts = (torch.full((128, 4), 99, dtype=torch.int32) for _ in range(3))
    bits_kernel[(1,)](mask, rows, columns, counts, TILE=128)
    for found, expected in ((rows, mask), (columns, mask.T)):
        words = (expected.reshape(128, 4, 32).long() << torch.arange(32)).sum(dim=2)
        assert torch.equal(found.long() & 0xFFFFFFFF, words)
    assert torch.equal(counts, mask.view(128, 4, 32).sum(dim=2).to(torch.int32))


@triton.jit
def totals_kernel(x_ptr, out_ptr, TILE: tl.constexpr):
    offs = tl.arange(0, TILE)
    tl.store(out_ptr, totals.of_tile(tl.load(x_ptr + offs[:, None] * TILE + offs[None, :])))


def test_the_total_of_a_tile_is_its_sum() -> None:
    x = torch.rand(64, 64, generator=generator(3))
    out = torch.empty(1)
    totals_kernel[(1,)](x, out, TILE=64)
    assert float(out) == pytest.approx(float(x.double().sum()), rel=1e-6)


@triton.jit
def between_kernel(begin_ptr, end_ptr, out_ptr, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    tl.store(out_ptr + at, bits.between(tl.load(begin_ptr + at), tl.load(end_ptr + at)))


@pytest.mark.parametrize("begin", [-40, -1, 0, 1, 31, 32, 70])
def test_a_word_has_the_bits_of_a_range_of_columns(begin: int) -> None:
    end = torch.arange(-32, 96, dtype=torch.int32)
    out = torch.empty_like(end)
    between_kernel[(1,)](torch.full_like(end, begin), end, out, SIZE=128)
    expected = [sum(1 << c for c in range(max(begin, 0), min(int(e), 32))) for e in end]
    assert [int(x) & 0xFFFFFFFF for x in out] == expected


@triton.jit
def position_kernel(word, out_ptr):
    number = tl.arange(0, 32)
    tl.store(out_ptr + number, bits.position_of(word, number))


@pytest.mark.parametrize("word", [0, 1, -1, -(2**31), 0b1011, 0x7FFF0001, -0x12345678, 0x00010000])
def test_the_set_bits_of_a_word_are_found_by_their_number(word: int) -> None:
    out = torch.empty(32, dtype=torch.int32)
    position_kernel[(1,)](word, out)
    expected = [position for position in range(32) if word >> position & 1]
    assert out[: len(expected)].tolist() == expected
    assert out.max() < 32


@triton.jit(do_not_specialize=["row_tiles", "column_tiles"])
def order_kernel(at_ptr, row_tiles, column_tiles, DIAGONAL: tl.constexpr, BLOCK: tl.constexpr):
    t = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    t = tl.minimum(t, tiles.number_of_tiles(row_tiles, column_tiles, DIAGONAL) - 1)
    a, b = tiles.tile_at(t, row_tiles, column_tiles, DIAGONAL)
    tl.store(at_ptr + t, a * column_tiles + b)


def order_of_tiles(rows: int, columns: int, *, diagonal: bool) -> torch.Tensor:
    """Tile number t of those visited, as row * columns + column."""
    count = rows * (rows + 1) // 2 if diagonal else rows * columns
    at = torch.full((count,), -1, dtype=torch.int32)
    order_kernel[(triton.cdiv(count, 1024),)](at, rows, columns, DIAGONAL=diagonal, BLOCK=1024)
    return at


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 9), (9, 1), (8, 5), (17, 3), (20, 20)])
def test_every_tile_is_visited_once(rows: int, columns: int) -> None:
    at = order_of_tiles(rows, columns, diagonal=False)
    assert torch.equal(at.sort().values, torch.arange(rows * columns, dtype=torch.int32))


@pytest.mark.parametrize("edge", [*range(1, 41), 127, 128, 129])
def test_every_tile_on_and_above_the_diagonal_is_visited_once_and_no_other(edge: int) -> None:
    at = order_of_tiles(edge, edge, diagonal=True)
    above = torch.ones(edge, edge, dtype=torch.bool).triu().flatten().nonzero().flatten()
    assert torch.equal(at.sort().values.long(), above)


@pytest.mark.parametrize("diagonal", [False, True])
def test_tiles_that_follow_each_other_share_their_columns(diagonal: bool) -> None:
    """Groups of eight rows: what 64 tiles in a row read are 8 + 8 to 10 blocks of codes, and not 65."""
    at = order_of_tiles(96, 96, diagonal=diagonal)[1000:1064]
    assert len((at // 96).unique()) + len((at % 96).unique()) <= 18


@triton.jit
def range_kernel(labels_ptr, m, wanted_ptr, begin_ptr, end_ptr, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    begin, end = prepare.range_of_label(labels_ptr, m, tl.load(wanted_ptr + at))
    tl.store(begin_ptr + at, begin)
    tl.store(end_ptr + at, end)


@pytest.mark.parametrize("m", [0, 1, 2, 3, 7, 8, 9, 64, 100])
@pytest.mark.parametrize("spread", [1, 3, 1000])
def test_the_range_of_a_label_is_found_among_sorted_labels(m: int, spread: int) -> None:
    labels = torch.randint(-spread, spread, (m,), generator=generator(m)).sort().values
    if m > 2:
        labels[0], labels[-1] = -(2**63), 2**63 - 1
    wanted = torch.cat((labels, torch.randint(-spread - 2, spread + 2, (128 - m,), generator=generator(1))))
    begin, end = torch.empty(128, dtype=torch.int32), torch.empty(128, dtype=torch.int32)
    range_kernel[(1,)](labels, m, wanted, begin, end, SIZE=128)
    assert torch.equal(begin.long(), torch.searchsorted(labels, wanted))
    assert torch.equal(end.long(), torch.searchsorted(labels, wanted, right=True))


def coded(rows: torch.Tensor) -> prepare.Side:
    n = torch.arange(len(rows))
    return prepare.prepare(rows, LabelOrder(n, n, None), n, codes=True)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize(
    ("d", "dtype"),
    [
        (1, torch.float32),
        (3, torch.bfloat16),
        (64, torch.float16),
        (100, torch.float32),
        (513, torch.bfloat16),
        (513, torch.float32),
    ],
    ids=str,
)
@pytest.mark.parametrize("rows", ADVERSARIES.values(), ids=ADVERSARIES)
def test_the_certificate_holds_for_every_pair(rows, d: int, dtype: torch.dtype) -> None:
    emb = rows(120, d).to(dtype)
    if dtype == torch.bfloat16:  # the interpreter reads subnormal ones as 0
        emb[emb.abs() < torch.finfo(dtype).tiny] = 0.0
    side = coded(emb)
    scale = side.scale.repeat_interleave(tiles.TILE)[: len(emb)]
    assert_certificate_holds(emb, side.inverse, side.code[: len(emb)], scale, side.error)
    assert not side.code[len(emb) :].any(), "the sweep reads whole tiles"


def test_norms_are_those_of_normalize() -> None:
    emb = wild_rows()
    assert_norms_of_normalize(emb, coded(emb).inverse)


def test_the_certificate_is_not_vacuous() -> None:
    assert_not_vacuous(coded(torch.randn(100, 512, generator=generator(6))).error)


@pytest.mark.parametrize("rows", ADVERSARIES.values(), ids=ADVERSARIES)
def test_no_pair_is_lost_with_margins_where_the_bound_bites(rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TCM_KERNELS_GPU_SCREENING", "int8")
    monkeypatch.setattr(plan, "USELESS_FROM", 1.0)  # whatever is left is decided one by one
    monkeypatch.setattr(plan, "LIST_MOST", 32 * 32)
    monkeypatch.setattr(tiles, "TILE", 32)
    labels = torch.randint(12, (34,), generator=generator(7))
    assert_no_pair_is_lost(Engine("triton", "cpu"), rows(34, 96), labels, ranks=(2,))


def test_the_sample_tells_a_model_that_has_learnt_from_one_that_has_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forward = importlib.import_module("tcm_kernels.backends.triton.forward")
    monkeypatch.setenv("TCM_KERNELS_GPU_SCREENING", "int8")
    monkeypatch.setattr(tiles, "TILE", 32)
    calls = []
    finalize = forward.Forward._finalize

    def remembered(call: forward.Forward) -> object:
        calls.append(call)
        return finalize(call)

    monkeypatch.setattr(forward.Forward, "_finalize", remembered)
    for look in ("random", "collapsed"):
        inputs = Case(n=128, d=64, look=look, labels="all_different").build()
        run(Engine("triton", "cpu"), dataclasses.replace(inputs, margin_minus=0.5))
    learnt, untrained = (int(call.samples.sum()) > call.plan.max_candidates for call in calls)
    assert not learnt
    assert untrained
