"""What only the C++ kernel can get wrong: instruction sets, threads, super-tiles, private ops, its binary.

The loss itself is held against the reference by the shared cases, for this backend as for any other.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from forks import Forks, forks
from torch.nn.functional import normalize

import tcm_kernels
from tcm_kernels import dispatch, reference

REASON = dispatch.why_not_here("cpu")
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"cpu backend: {REASON}")


def clustered(n: int, d: int, *, classes: int, spread: float = 0.6, seed: int = 0):
    """Rows around random unit centres, labels shuffled; float32, requiring grad."""
    generator = torch.Generator().manual_seed(seed)
    centres = normalize(torch.randn(classes, d, generator=generator))
    labels = torch.randint(classes, (n,), generator=generator)
    noise = normalize(torch.randn(n, d, generator=generator))
    return (centres[labels] + spread * noise).requires_grad_(), labels


def loss_and_gradients(emb, labels, ref=None, ref_labels=None, **settings):
    inputs = [x for x in (emb, ref) if x is not None]
    loss = tcm_kernels.fused_tcm_loss(emb, labels, ref, ref_labels, backend="cpu", **settings)
    return [loss.detach(), *torch.autograd.grad(loss, inputs)]


def truth(emb, labels, ref=None, ref_labels=None, **settings):
    inputs = [x for x in (emb, ref) if x is not None]
    loss = reference.tcm_loss(emb, labels, ref, ref_labels, **settings)
    return [loss.detach(), *torch.autograd.grad(loss, inputs)]


def assert_close(got, expected):
    """Loss to 1e-6, gradients to 5e-6 of their norm: several roundings of float32, far under any fault."""
    assert abs(got[0].double() - expected[0]) <= 1e-6
    for ours, theirs in zip(got[1:], expected[1:], strict=True):
        error = (ours.double() - theirs.double()).norm() / theirs.double().norm()
        assert error <= 5e-6


def test_rows_too_wide_for_one_super_tile_are_packed_in_turns():
    # At D = 5000 a super-tile has one tile along its edge, so 1,100 rows make six of them.
    emb, labels = clustered(1100, 5000, classes=40)
    assert_close(loss_and_gradients(emb, labels), truth(emb, labels))


def test_a_rectangle_of_many_super_tiles_with_an_offset():
    emb, labels = clustered(530, 5000, classes=25)
    bank, bank_labels = clustered(1200, 5000, classes=25, seed=1)
    with torch.no_grad():
        bank[300:830] = emb
    bank_labels[300:830] = labels
    arguments = (emb, labels, bank, bank_labels)
    assert_close(loss_and_gradients(*arguments, self_offset=300), truth(*arguments, self_offset=300))


def test_more_rows_than_a_super_tile_holds():
    emb, labels = clustered(8300, 4, classes=300, spread=0.1)
    settings = {"margin_minus": 0.98}
    _, stats = tcm_kernels.fused_tcm_loss(emb, labels, backend="cpu", return_stats=True, **settings)
    expected = reference.tcm_sums(emb, labels, dtype=torch.float64, **settings)
    # One pair in a million or so lies within rounding of a margin, where its penalty is nothing.
    assert abs(stats.negative_count - expected.negative_count) <= 20
    assert torch.isclose(stats.negative_sum, expected.negative_sum, rtol=1e-6)


@pytest.mark.parametrize("margin_minus", [0.5, 0.2, 0.0, -0.3, -1.0])
def test_every_way_of_adding_up_gives_the_gradient(margin_minus):
    # From a handful of hard negatives (lists) over half of all pairs to every pair (0/1 products).
    emb, labels = clustered(700, 24, classes=70)
    settings = {"margin_minus": margin_minus}
    assert_close(loss_and_gradients(emb, labels, **settings), truth(emb, labels, **settings))


@pytest.mark.parametrize("side", [0, 1], ids=["row", "column"])
def test_a_sample_without_hard_pairs_among_samples_full_of_them_has_a_gradient_of_exactly_zero(side):
    """Where nearly every pair is hard, sums are those of a block less a few; less all is to be nothing."""
    generator = torch.Generator().manual_seed(3)
    sides = [torch.randn(700, 40, generator=generator) * 0.1 for _ in range(2)]
    for x in sides:
        x[:, 0] = 1.0
    sides[side][5, 0] = -1.0
    emb, ref = (x.requires_grad_() for x in sides)
    labels = torch.arange(700)
    grads = loss_and_gradients(emb, labels, ref, labels + 1000, margin_minus=0.2)[1:]
    assert grads[side].norm(dim=1).count_nonzero() == 699
    assert not grads[side][5].any()


def test_a_row_that_is_not_finite_is_seen_even_without_rows_to_pair_it_with():
    bank = torch.ones(9000, 2)
    bank[8999, 1] = torch.inf
    loss = tcm_kernels.fused_tcm_loss(
        torch.empty(0, 2), torch.empty(0, dtype=torch.int64), bank, torch.arange(9000), backend="cpu"
    )
    assert loss.isnan()


def test_threads_change_nothing_but_the_time():
    emb, labels = clustered(3000, 48, classes=300)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(loss_and_gradients(emb, labels))
    finally:
        torch.set_num_threads(threads)
    for result in results[1:]:
        # The tile edge may follow the number of threads, so bitwise equality is not owed here.
        assert_close(result, [x.double() for x in results[0]])


SCRIPT = """
import os, torch
import test_kernel as t
from tcm_kernels import dispatch
name = dispatch.module("cpu").simd_name()
assert name == os.environ["TCM_KERNELS_CPU_ISA"], name
for n, d, dtype in ((700, 24, torch.float32), (200, 7, torch.float64), (130, 65, torch.bfloat16)):
    emb, labels = t.clustered(n, d, classes=20)
    emb = emb.detach().to(dtype).requires_grad_()
    for margin in (0.4, 0.0, -1.0):
        got = t.loss_and_gradients(emb, labels, margin_minus=margin)
        want = t.truth(emb, labels, margin_minus=margin)
        if dtype != torch.bfloat16:
            t.assert_close(got, want)
        else:
            assert abs(got[0] - want[0]) < 1e-6
            assert torch.allclose(got[1], want[1], rtol=2**-7, atol=1e-7)
for d in (64, 192, 4096):
    codes = torch.randint(-127, 128, (40, d), generator=torch.Generator().manual_seed(d), dtype=torch.int8)
    codes[:2], codes[2] = 127, -127  # the largest products of either sign
    for count in (1, 2, 3, 4, 5, 39):
        index = torch.arange(count, dtype=torch.int32).flip(0)
        for x in (codes[0], codes[2], codes[39]):
            products = torch.full((count,), -1, dtype=torch.int32)
            torch.ops.tcm_kernels._cpu_code_dots(x, codes, index, products)
            want = codes[index.long()].double() @ x.double()
            assert torch.equal(products.double(), want), (d, count)
"""


@pytest.fixture(scope="module")
def processes() -> Iterator[Forks]:
    with forks("test_kernel", folder="backends/cpu") as all_of:
        yield all_of


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512", "avx512_vnni"])
def test_every_instruction_set_of_this_processor_computes_the_loss_and_products_of_codes(isa, processes):
    widest = dispatch.module("cpu").simd_name()
    order = ["baseline", "avx2", "avx512", "avx512_vnni"]
    if order.index(isa) > order.index(widest):
        pytest.skip(f"this processor has no {isa}")
    processes.output_of(SCRIPT, TCM_KERNELS_CPU_ISA=isa)


def test_working_memory_stays_within_its_budget():
    # 2.5 float32 (N + M) x D buffers + 64 MiB beyond inputs and gradient, of which P and Q take 2.
    for n, d in ((256, 128), (8192, 512), (65536, 128), (32768, 2048), (4096, 8192)):
        emb = torch.empty(1, 1).expand(n, d)
        workspace = torch.ops.tcm_kernels._cpu_workspace_bytes(emb, None, 2)
        assert workspace <= 0.5 * n * d * 4 + 64 * 2**20, (n, d, workspace)


def test_the_private_ops_refuse_tensors_that_do_not_fit():
    emb, labels = clustered(10, 4, classes=3)
    emb = emb.detach()
    out = (torch.empty(2, dtype=torch.float64), torch.empty(2, dtype=torch.int64))
    margins = torch.tensor([0.9, 0.5], dtype=torch.float64)
    bytes_needed = torch.ops.tcm_kernels._cpu_workspace_bytes(emb, None, 2)
    workspace = torch.empty(bytes_needed, dtype=torch.uint8)

    def call(emb=emb, labels=labels, margins=margins, sums=(), workspace=workspace, stages=None):
        torch.ops.tcm_kernels._cpu_pair_sums(
            [emb, labels, *sums], [], margins, None, False, 2, *out, workspace, stages
        )

    call()
    call(sums=[torch.empty_like(emb)] * 2)
    for wrong in (
        {"emb": emb.T},
        {"emb": emb.to(torch.int32)},
        {"labels": labels[:3]},
        {"labels": labels.to(torch.int32)},
        {"margins": margins.float()},
        {"workspace": workspace[:-1]},
        {"stages": torch.empty(4, dtype=torch.float64)},
        {"sums": [torch.empty_like(emb)]},
        {"sums": [torch.empty_like(emb), torch.empty(10, 3)]},
        {"sums": [torch.empty_like(emb), torch.empty_like(emb).double()]},
    ):
        with pytest.raises(RuntimeError):
            call(**wrong)


def test_the_binary_needs_only_the_stable_abi():
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("nm (binutils) is not installed")
    library = Path(tcm_kernels.__file__).parent / "_cpu.abi3.so"
    listing = subprocess.run(
        [nm, "-D", "--undefined-only", library], capture_output=True, text=True, check=True
    )
    names = {line.split()[-1].split("@")[0] for line in listing.stdout.splitlines()}
    of_torch = {name for name in names if re.search(r"torch|c10|at[0-9]", name)}
    assert of_torch, "the library calls torch, so some symbol of it must be undefined"
    assert {name for name in of_torch if not re.match(r"(aoti_torch|torch)_\w+$", name)} == set()
