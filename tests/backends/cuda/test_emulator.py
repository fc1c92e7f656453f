"""The emulator of the device primitives: its instructions do what the manual says, and it finds faults.

Instructions are held against NumPy-like products of the same bits. Faults are planted in small kernels of
cuda_probes.cpp; each must be found and named. Faults in the real kernels: test_planted_faults.py.
"""

from __future__ import annotations

import ctypes

import cuda_emulator
import pytest
import torch

cuda_emulator.skip_module_unless_here(beside_a_gpu=True)


def address(x: torch.Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(x.data_ptr())


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def message(name: str, *args: object) -> str:
    """What a probe has thrown, or nothing."""
    return getattr(cuda_emulator.probes(), f"probe_{name}")(*args).decode()


KINDS = {"int8": torch.int8, "bfloat16": torch.bfloat16, "float16": torch.float16, "tf32": torch.float32}


@pytest.mark.parametrize("kind", KINDS)
def test_a_product_on_matrix_units_is_the_product_of_the_rows(kind: str) -> None:
    """Operands pass through shared memory, asynchronous copies and ldmatrix, as in the kernels."""
    dtype = KINDS[kind]
    terms = 32 // dtype.itemsize
    if dtype == torch.int8:
        a, b = (torch.randint(-128, 128, (n, terms), generator=generator(n), dtype=dtype) for n in (16, 8))
        acc = torch.randint(-1000, 1000, (16, 8), generator=generator(1), dtype=torch.int32)
    else:
        # Multiples of 1/8 with few bits: exact in every type and in every order of summation.
        a, b = (torch.randint(-16, 17, (n, terms), generator=generator(n)).to(dtype) / 8 for n in (16, 8))
        acc = torch.randint(-16, 17, (16, 8), generator=generator(1)).float()
    expected = acc.double() + a.double() @ b.double().T
    assert message("multiply", list(KINDS).index(kind), address(a), address(b), address(acc)) == ""
    assert torch.equal(acc.double(), expected)


def test_tf32_products_do_not_see_the_lower_bits() -> None:
    a, b, acc = torch.zeros(16, 8), torch.zeros(8, 8), torch.zeros(16, 8)
    a[:, 0], b[:, 0] = 1.0 + 2.0**-11, 1.0
    assert message("multiply", 3, address(a), address(b), address(acc)) == ""
    assert (acc == 1.0).all()


def test_bits_are_transposed() -> None:
    bits = torch.rand(32, 32, generator=generator(2)) < 0.5

    def words(rows: torch.Tensor) -> torch.Tensor:
        return (rows.long() << torch.arange(32)).sum(dim=1).to(torch.int32)

    found = words(bits)
    cuda_emulator.probes().probe_transpose(address(found))
    assert torch.equal(found, words(bits.T))


REVERSE_FAULTS = {
    1: "reads a word that nobody has written|reads what another thread writes",  # no barrier
    2: "waits at sync_block for others|reads",  # a barrier for one warp only
    3: "waits at shuffle for others",  # a shuffle without all lanes
    4: "reads a word that nobody has written",
    5: "are outside",
    6: "threads that belong together are at (ballot and at sync_warp|sync_warp and at ballot)",
}


@pytest.mark.parametrize("fault", [0, *REVERSE_FAULTS])
def test_faults_among_the_threads_of_a_block_are_found(fault: int) -> None:
    numbers, out = torch.arange(64.0), torch.zeros(64)
    found = message("reverse", fault, address(numbers), address(out))
    if fault == 0:
        assert found == ""
        assert torch.equal(out, numbers.flip(0))
    else:
        with pytest.raises(RuntimeError, match=REVERSE_FAULTS[fault]):
            raise RuntimeError(found)
        assert "kernel reverse, block 0" in found


@pytest.mark.parametrize("fault", [0, 1, 2])
def test_a_missing_barrier_of_a_warp_is_found_whether_or_not_the_result_is_wrong(fault: int) -> None:
    numbers, out = torch.arange(32.0), torch.zeros(32)
    found = message("reverse_warp", fault, address(numbers), address(out))
    if fault == 0:
        assert found == ""
        assert torch.equal(out, numbers)
    else:
        assert "kernel reverse_warp" in found


ADD_FAULTS = {
    1: "adds to a word that nobody has written",
    2: "adds to (a word that nobody has written|what another thread writes)"
    "|writes what another thread adds to",
    3: "reads what another thread adds to|adds to what another thread reads",
}


@pytest.mark.parametrize("fault", [0, *ADD_FAULTS])
def test_faults_around_atomic_additions_are_found(fault: int) -> None:
    """Among themselves additions need no barrier."""
    numbers = torch.randint(4, (64,), generator=generator(5), dtype=torch.int32)
    out = torch.zeros(4, dtype=torch.int32)
    found = message("add", fault, address(numbers), address(out))
    if fault == 0:
        assert found == ""
        assert torch.equal(out, numbers.bincount(minlength=4).int())
    else:
        with pytest.raises(RuntimeError, match=ADD_FAULTS[fault]):
            raise RuntimeError(found)
        assert "kernel add" in found


COPY_FAULTS = {
    1: "reads a word that is being copied",
    2: "reads a word that is being copied|without waiting",
    3: "reads (what another thread writes|a word that (is being copied|nobody has written))",
    4: "share banks",
}


@pytest.mark.parametrize("fault", [0, *COPY_FAULTS])
def test_faults_of_asynchronous_copies_are_found(fault: int) -> None:
    numbers = torch.randint(-128, 128, (512,), generator=generator(4), dtype=torch.int8)
    out = torch.zeros(32, 4, dtype=torch.int32)
    found = message("copy", fault, address(numbers), address(out))
    if fault == 0:
        assert found == ""
        # Lane 8 m + i names row i of matrix m, here what its neighbour has copied; lane l takes word l % 4 of
        # row l / 4 of each matrix.
        rows = numbers.view(torch.int32).view(32, 4)[torch.arange(32) ^ 1]
        assert torch.equal(out, rows.view(4, 32).T)
    else:
        with pytest.raises(RuntimeError, match=COPY_FAULTS[fault]):
            raise RuntimeError(found)
