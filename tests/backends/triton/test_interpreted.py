"""The Triton kernels, run by Triton's interpreter on the CPU: every path they have, at small sizes.

The interpreter runs a program at a time, so tiles are made small here: a matrix of 130 rows then has as
many tiles, super-tiles and programs as one of thousands (gpu_settings.py; gpu/test_settings.py runs each of
them, on a GPU as well). What the interpreter cannot show, the compiler's report does
(test_compiled.py), and what neither shows needs a GPU, where the shared tests run the backend like any
other.
"""

from __future__ import annotations

import importlib

import pytest
import torch
from agreement import assert_agrees, run, truth_of
from cases import CASES, Case
from engines import Engine, interprets_triton
from gpu_kernels import (
    assert_both_ops_pass_opcheck,
    assert_embeddings_without_columns_are_zeros,
    assert_nan_everywhere,
    assert_one_graph_for_all_sizes,
    assert_same_bits_every_time,
)
from gpu_settings import TRITON as SETTINGS
from gpu_settings import Setting
from in_parts import run_in_parts
from op_arguments import pair_sums_arguments, residual_size

if not interprets_triton():
    pytest.skip("the kernels run on a GPU here, or triton is not installed", allow_module_level=True)

small = importlib.import_module("tcm_kernels.backends.triton.small")
ENGINE = Engine("triton", "cpu")
pytestmark = [
    pytest.mark.no_cover,
    # Gradients of rows of zeros are beyond float16, in which numpy, unlike a GPU, finds something to say.
    pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning"),
]


@pytest.fixture(params=["in one launch", "screened, three super-tiles", "everything in full precision"])
def setting(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Setting:
    chosen = SETTINGS[request.param]
    chosen.apply(monkeypatch)
    return chosen


def is_small(case: Case) -> bool:
    """A program takes milliseconds; and label dtypes are converted before any kernel runs."""
    plain = case.label_dtype in (torch.int64, torch.uint64)
    size = max(case.n, case.m if case.relation != "self" else 0)
    return size <= 140 and case.pairs <= 66 * 66 and case.dtype != torch.float64 and plain


SMALL = [case for case in CASES if is_small(case)][::2]  # a GPU runs all


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.id)
def test_agrees_with_the_float64_reference(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each case in one of the settings, all of them in turn."""
    settings = [
        setting
        for setting in SETTINGS.values()
        if not setting.is_pair_by_pair or case.pairs <= setting.rows**2
    ]
    settings[SMALL.index(case) % len(settings)].apply(monkeypatch)
    inputs = case.build()
    assert_agrees(run(ENGINE, inputs), inputs, truth_of(inputs))


def is_small_batch(case: Case) -> bool:
    m = case.n if case.relation == "self" else case.m
    small_enough = small.takes(case.n, m, case.d * case.dtype.itemsize) and case.pairs <= 140**2
    return small_enough and case.dtype != torch.float64


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("case", list(filter(is_small_batch, CASES))[::2], ids=lambda case: case.id)
def test_small_batches_in_one_launch_agree_with_the_reference(case: Case) -> None:
    inputs = case.build()
    assert_agrees(run(ENGINE, inputs), inputs, truth_of(inputs))


@pytest.mark.parametrize("name", ["in one launch", "screened, many candidates a tile"])
@pytest.mark.parametrize("relation", ["self", "rectangular_with_self_offset"])
def test_both_ops_pass_opcheck(relation: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    SETTINGS[name].apply(monkeypatch)
    assert_both_ops_pass_opcheck(ENGINE, relation)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@pytest.mark.parametrize("name", ["in one launch", "screened, many candidates a tile"])
@pytest.mark.parametrize(("value", "side"), [(torch.nan, "emb"), (-torch.inf, "ref_emb")])
def test_a_number_that_is_not_finite_makes_loss_and_gradients_nan(
    value: float, side: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    SETTINGS[name].apply(monkeypatch)
    assert_nan_everywhere(ENGINE, side, value)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("m", [None, 7])
def test_embeddings_without_columns_are_zeros(m: int | None, setting: Setting) -> None:
    assert_embeddings_without_columns_are_zeros("triton", m)


def test_one_launch_leaves_its_counter_at_zero() -> None:
    """The residual is compared between calls, and a graph that is replayed begins where it ended."""
    arguments = pair_sums_arguments(ENGINE, "self", torch.float32, True, False)
    _, _, residual = torch.ops.tcm_kernels.pair_sums(*arguments, residual_size(ENGINE, arguments))
    counter = importlib.import_module("tcm_kernels.backends.gpu.residual").counter_of(residual)
    assert counter == 0


@pytest.mark.usefixtures("poisoned_memory")
def test_every_run_gives_the_same_bits(setting: Setting) -> None:
    assert_same_bits_every_time(ENGINE, setting.rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_parts_add_up_to_the_whole(setting: Setting, dtype: torch.dtype) -> None:
    inputs = Case(n=setting.rows, d=21, look="clustered", dtype=dtype, seed=3).build()
    assert_agrees(run_in_parts(ENGINE, inputs, 20), inputs)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_it_compiles_to_one_graph_for_all_sizes() -> None:
    assert_one_graph_for_all_sizes("triton")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TCM_KERNELS_GPU_POOL_MIB", "much"),
        ("TCM_KERNELS_GPU_POOL_MIB", "0"),
        ("TCM_KERNELS_GPU_POOL_MIB", "nan"),
        ("TCM_KERNELS_GPU_SCREENING", "none"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    inputs = Case(n=4, d=small.LARGEST_ROW).build()  # small batches have no pool
    with pytest.raises(ValueError, match=f"{name}: got '{value}'"):
        run(ENGINE, inputs)
