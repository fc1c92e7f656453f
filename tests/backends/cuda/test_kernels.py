"""The CUDA kernels' own source, run on the emulator: every path they have, at small sizes.

The emulator is exact where a GPU is and strict where it is not: a barrier too few or a bank conflict
is an error here. Settings are those of gpu_settings.py; gpu/test_settings.py runs each of them, on a GPU as
well. What the emulator cannot show, the binary does (test_binary.py), and what neither shows needs a GPU,
where the shared tests run the backend like any other.
"""

from __future__ import annotations

import cuda_emulator
import pytest
import torch
from agreement import assert_agrees, run, truth_of
from cases import CASES, Case
from coded_rows import ADVERSARIES, generator
from engines import Engine, interprets_triton
from gpu_kernels import (
    assert_both_ops_pass_opcheck,
    assert_embeddings_without_columns_are_zeros,
    assert_nan_everywhere,
    assert_no_pair_is_lost,
    assert_one_graph_for_all_sizes,
    assert_same_bits_every_time,
)
from gpu_settings import CUDA as SETTINGS
from gpu_settings import Setting
from in_parts import run_in_parts

from tcm_kernels import dispatch, reference
from tcm_kernels.backends.contract import Problem

cuda_emulator.skip_module_unless_here()

ENGINE = Engine("cuda", "cpu")
pytestmark = pytest.mark.usefixtures("cuda_on_cpu")


@pytest.fixture(params=SETTINGS, ids=str)
def setting(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Setting:
    chosen = SETTINGS[request.param]
    chosen.apply(monkeypatch)
    return chosen


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_parts_add_up_to_the_whole(setting: Setting, dtype: torch.dtype) -> None:
    inputs = Case(n=setting.rows, d=21, look="clustered", dtype=dtype, seed=3).build()
    assert_agrees(run_in_parts(ENGINE, inputs, 131), inputs)


def is_quick(case: Case) -> bool:
    return case.dtype != torch.float64 and case.pairs * case.d <= 400 * 400 * 100


QUICK = list(filter(is_quick, CASES))


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("case", QUICK, ids=lambda case: case.id)
def test_agrees_with_the_float64_reference(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each case in one of the settings, all of them in turn."""
    settings = [setting for setting in SETTINGS.values() if setting.rows >= 300 or case.pairs <= 140**2]
    settings[QUICK.index(case) % len(settings)].apply(monkeypatch)
    inputs = case.build()
    assert_agrees(run(ENGINE, inputs), inputs, truth_of(inputs))


@pytest.mark.parametrize("precision", ["highest", "high"])
@pytest.mark.parametrize("look", ["random", "everything_hard"])
def test_float32_products_are_as_exact_as_asked_for(
    look: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ "high" takes TF32's 11 bits: similarities are off by 1e-3, sums of unit rows by 2^-16."""
    SETTINGS["everything in full precision"].apply(monkeypatch)
    monkeypatch.setattr("tcm_kernels.functional.fp32_precision", lambda _: precision)
    inputs = Case(n=200, d=96, look=look).build()
    found = run(ENGINE, inputs)
    if precision == "highest":
        assert_agrees(found, inputs)
        return
    expected = reference.tcm_loss(inputs.emb.detach(), inputs.labels, **inputs.settings)
    off = abs(float(found.loss.detach()) - float(expected))
    assert off <= 2e-3
    if look == "random":
        assert off > 1e-7, "TF32 was asked for, and this is more exact than that"


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["screened, candidates decided one by one", "everything in full precision"])
def test_rows_longer_than_registers_hold_are_taken_in_slices(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    SETTINGS[name].apply(monkeypatch)
    for d in (1030, 2501):
        inputs = Case(
            n=35, d=d, look="clustered", dtype=dtype, relation="rectangular_with_self_offset"
        ).build()
        assert_agrees(run(ENGINE, inputs), inputs)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("look", ["random", "nothing_hard"])
def test_directories_longer_than_a_warp_are_walked_to_their_end(
    look: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """35 tiles, of which nearly all have an entry; pairs of one class and of a row with itself among them."""
    SETTINGS["screened, candidates decided one by one"].apply(monkeypatch)
    inputs = Case(relation="rectangular_with_self_offset", n=3, d=8, look=look, extra=4450).build()
    assert_agrees(run(ENGINE, inputs), inputs)


@pytest.mark.parametrize("name", ["screened, in super-tiles of 256 rows", "everything in full precision"])
@pytest.mark.parametrize("relation", ["self", "rectangular_with_self_offset"])
def test_both_ops_pass_opcheck(relation: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    SETTINGS[name].apply(monkeypatch)
    assert_both_ops_pass_opcheck(ENGINE, relation)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("side", ["emb", "ref_emb"])
@pytest.mark.parametrize("value", [torch.nan, -torch.inf])
def test_a_number_that_is_not_finite_makes_loss_and_gradients_nan(
    value: float, side: str, setting: Setting
) -> None:
    assert_nan_everywhere(ENGINE, side, value)


@pytest.mark.usefixtures("poisoned_memory")
def test_every_run_gives_the_same_bits(setting: Setting) -> None:
    assert_same_bits_every_time(ENGINE, setting.rows)


@pytest.mark.parametrize("relation", ["self", "rectangular_with_self_offset"])
@pytest.mark.parametrize("backends", [("triton", "cuda"), ("cuda", "triton")], ids="-then-".join)
def test_the_backward_of_one_gpu_backend_reads_what_the_forward_of_the_other_has_left(
    backends: tuple[str, str], relation: str
) -> None:
    if not interprets_triton():
        pytest.skip("triton is not installed")
    inputs = Case(n=40, d=36, relation=relation, look="random").build()
    with torch.no_grad():
        margins = torch.tensor([0.9, 0.05], dtype=torch.float64)
        emb, labels, ref, ref_labels = inputs.tensors
        is_self = ref is None
        problem = Problem(
            emb, labels, ref, ref_labels, margins, inputs.self_offset, True, not is_self, "highest"
        )
        forward, backward = (dispatch.module(name) for name in backends)
        size = forward.residual_bytes(problem.gradient_rows)
        assert size == backward.residual_bytes(problem.gradient_rows)
        sums, _, residual = forward.pair_sums(problem, size)
        found = backward.pair_sums_backward(problem.gradient_rows, torch.ones_like(sums), residual)
        expected = forward.pair_sums_backward(problem.gradient_rows, torch.ones_like(sums), residual)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("m", [None, 7])
def test_embeddings_without_columns_are_zeros(m: int | None, setting: Setting) -> None:
    assert_embeddings_without_columns_are_zeros("cuda", m)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_it_compiles_to_one_graph_for_all_sizes() -> None:
    assert_one_graph_for_all_sizes("cuda")


@pytest.mark.parametrize("rows", ADVERSARIES.values(), ids=ADVERSARIES)
def test_no_pair_is_lost_with_margins_where_the_bound_bites(rows, monkeypatch: pytest.MonkeyPatch) -> None:
    SETTINGS["screened, candidates decided one by one"].apply(monkeypatch)
    labels = torch.randint(40, (140,), generator=generator(7))
    assert_no_pair_is_lost(ENGINE, rows(140, 96), labels, ranks=(2, 20, 200))
