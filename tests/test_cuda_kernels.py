"""The CUDA kernels' own source, run on the CPU twin: every path they have, at small sizes.

The twin (csrc/twin) is exact where a GPU is and strict where it is not: a barrier too few or a bank conflict
is an error here. What it cannot show, the binary does (test_cuda_binary.py), and what neither shows needs a
GPU, where the shared tests run the backend like any other.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools

import cuda_twin
import pytest
import torch
from agreement import assert_agrees, run, truth_of
from cases import CASES, Case, Inputs
from engines import Engine, interprets_triton
from test_ops import _arguments, _residual_bytes
from test_screening import ADVERSARIES, generator
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.functional import normalize

import tcm_kernels
from tcm_kernels import dispatch, reference
from tcm_kernels.backends import cuda
from tcm_kernels.backends.contract import Problem

REASON = cuda_twin.why_not()
if REASON is not None:
    pytest.skip(REASON, allow_module_level=True)
if torch.cuda.is_available():
    pytest.skip("the kernels run on a GPU here", allow_module_level=True)

ENGINE = Engine("cuda", "cpu")


@pytest.fixture(autouse=True)
def twin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TCM_KERNELS_CUDA_TWIN", str(cuda_twin.library()))
    monkeypatch.setattr(cuda, "_import_error", cuda.load())


@dataclasses.dataclass(frozen=True)
class Setting:
    """How a matrix is cut and screened."""

    screening: str
    pool_mib: float = 64
    list_most: int = cuda.LIST_MOST
    useless_from: float = cuda.USELESS_FROM  # share of candidates from which on the sweep does not run
    rows: int = 300  # pair by pair takes 20 us each here
    shared_kib: int = 228  # of a multiprocessor: two buffers or four

    def apply(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cuda, "LIST_MOST", self.list_most)
        monkeypatch.setattr(cuda, "USELESS_FROM", self.useless_from)
        monkeypatch.setenv("TCM_KERNELS_GPU_SCREENING", self.screening)
        monkeypatch.setenv("TCM_KERNELS_GPU_POOL_MIB", str(self.pool_mib))
        monkeypatch.setenv("TCM_TWIN_SHARED_BYTES", str(self.shared_kib * 1024))


SETTINGS = {
    "as the shape asks": Setting(""),
    "screened, with little shared memory": Setting("int8", shared_kib=100),
    "screened, candidates decided one by one": Setting(
        "int8", list_most=128 * 128, useless_from=1.0, rows=140
    ),
    "screened, many candidates a tile": Setting("int8", list_most=8, useless_from=1.0),
    "screened, in super-tiles of 256 rows": Setting("int8", pool_mib=1e-6, useless_from=1.0),
    "everything in full precision": Setting("full", list_most=8),
    "full precision, with little shared memory": Setting("full", shared_kib=100),
    "full precision, in super-tiles of 256 rows": Setting("full", pool_mib=1e-6),
}


@pytest.fixture(params=SETTINGS, ids=str)
def setting(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Setting:
    chosen = SETTINGS[request.param]
    chosen.apply(monkeypatch)
    return chosen


def pairs_of(case: Case) -> int:
    return case.n * (case.n if case.relation == "self" else case.m)


def is_quick(case: Case) -> bool:
    return case.dtype != torch.float64 and pairs_of(case) * case.d <= 400 * 400 * 100


QUICK = list(filter(is_quick, CASES))


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("case", QUICK, ids=lambda case: case.id)
def test_agrees_with_the_float64_reference(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each case in one of the settings, all of them in turn."""
    settings = [setting for setting in SETTINGS.values() if setting.rows >= 300 or pairs_of(case) <= 140**2]
    settings[QUICK.index(case) % len(settings)].apply(monkeypatch)
    inputs = case.build()
    assert_agrees(run(ENGINE, inputs), inputs, truth_of(inputs))


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize(
    ("dtype", "d"), [(torch.float32, 72), (torch.bfloat16, 136), (torch.float16, 41)], ids=str
)
@pytest.mark.parametrize(
    ("relation", "look"),
    [
        ("self", "random"),
        ("self", "clustered"),
        ("self", "everything_hard"),
        ("rectangular_with_self_offset", "collapsed"),
    ],
)
def test_every_setting_gives_the_loss(
    setting: Setting, relation: str, look: str, dtype: torch.dtype, d: int
) -> None:
    """Dimensions: a block of columns and a bit for either kind of pattern, and rows that begin anywhere."""
    inputs = Case(relation=relation, n=setting.rows, d=d, look=look, extra=20, seed=5, dtype=dtype).build()
    assert_agrees(run(ENGINE, inputs), inputs)


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


@pytest.mark.parametrize("name", ["screened, in super-tiles of 256 rows", "everything in full precision"])
@pytest.mark.parametrize("relation", ["self", "rectangular_with_self_offset"])
def test_both_ops_pass_opcheck(relation: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    SETTINGS[name].apply(monkeypatch)
    arguments = _arguments(ENGINE, relation, torch.float32, True, True)
    size = _residual_bytes(ENGINE, arguments)
    torch.library.opcheck(torch.ops.tcm_kernels.pair_sums.default, (*arguments, size))
    arguments = tuple(x.detach() if isinstance(x, torch.Tensor) else x for x in arguments)
    sums, _, residual = torch.ops.tcm_kernels.pair_sums(*arguments, size)
    torch.library.opcheck(
        torch.ops.tcm_kernels.pair_sums_backward.default, (torch.ones_like(sums), residual, *arguments)
    )


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("side", ["emb", "ref_emb"])
@pytest.mark.parametrize("value", [torch.nan, -torch.inf])
def test_a_number_that_is_not_finite_makes_loss_and_gradients_nan(
    value: float, side: str, setting: Setting
) -> None:
    inputs = Case(relation="rectangular", n=35, d=20, extra=6).build()
    with torch.no_grad():
        getattr(inputs, side)[-1, 3] = value
    result = run(ENGINE, inputs)
    assert result.loss.isnan()
    assert result.grad_emb.isnan().all()
    assert result.grad_ref is not None
    assert result.grad_ref.isnan().all()


@pytest.mark.usefixtures("poisoned_memory")
def test_every_run_gives_the_same_bits(setting: Setting) -> None:
    inputs = Case(n=setting.rows, d=24, look="clustered", seed=2).build()
    first, second = run(ENGINE, inputs), run(ENGINE, inputs)
    assert torch.equal(first.loss, second.loss)
    assert torch.equal(first.grad_emb, second.grad_emb)


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
        size = forward.residual_bytes(problem)
        assert size == backward.residual_bytes(problem)
        sums, _, residual = forward.pair_sums(problem, size)
        found = backward.pair_sums_backward(problem, torch.ones_like(sums), residual)
        expected = forward.pair_sums_backward(problem, torch.ones_like(sums), residual)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("m", [None, 7])
def test_embeddings_without_columns_are_zeros(m: int | None, setting: Setting) -> None:
    emb = torch.zeros(5, 0, requires_grad=True)
    ref = None if m is None else torch.zeros(m, 0, requires_grad=True)
    ref_labels = None if m is None else torch.arange(m)
    loss = tcm_kernels.fused_tcm_loss(
        emb, torch.arange(5), ref, ref_labels, margin_minus=-0.25, backend="cuda"
    )
    grads = torch.autograd.grad(loss, [emb] if ref is None else [emb, ref])
    assert float(loss.detach()) == pytest.approx(0.25 if m is None else 0.9 + 0.25)
    assert [grad.shape for grad in grads] == [x.shape for x in (emb, ref) if x is not None]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_it_compiles_to_one_graph_for_all_sizes() -> None:
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    loss = functools.partial(tcm_kernels.fused_tcm_loss, backend="cuda")
    compiled = torch.compile(loss, backend=counter, fullgraph=True, dynamic=True)
    for n in (9, 12):
        inputs = Case(n=n, d=8, seed=n).build()
        results = [function(inputs.emb, inputs.labels) for function in (compiled, loss)]
        grads = [torch.autograd.grad(result, inputs.emb)[0] for result in results]
        torch.testing.assert_close(*results)
        torch.testing.assert_close(*grads)
    assert counter.frame_count == 1
    torch._dynamo.reset()


@pytest.mark.parametrize("rows", ADVERSARIES.values(), ids=ADVERSARIES)
def test_no_pair_is_lost_with_margins_where_the_bound_bites(rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """Margins a hair under the similarity of some pair: it is hard, and only its bound can keep it."""
    SETTINGS["screened, candidates decided one by one"].apply(monkeypatch)
    n = 140
    emb = rows(n, 96).requires_grad_()
    labels = torch.randint(40, (n,), generator=generator(7))
    unit = normalize(emb.detach().double())
    s = (unit @ unit.T).flatten()
    others = s[(labels[:, None] != labels[None, :]).flatten()].sort(descending=True).values
    for k in (2, 20, 200):
        margin = min(1.0, max(-1.0, float(others[k]) - 3e-6))
        expected = reference.tcm_sums(emb.detach(), labels, margin_plus=margin, margin_minus=margin)
        in_band = int(((s - margin).abs() <= 2e-6).sum())
        found = run(ENGINE, Inputs(emb, labels, margin_plus=margin, margin_minus=margin))
        assert abs(int(found.stats.positive_count) - int(expected.positive_count)) <= in_band
        assert abs(int(found.stats.negative_count) - int(expected.negative_count)) <= in_band


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
    unit = emb.double() * side.inverse.double()[:, None]
    stands_for = side.code[:, :d].double() * side.scale.double()[:, None]
    assert not side.code[:, d:].any(), "padding must not add to a product"
    error = side.error.double()
    assert (error >= (unit - stands_for).norm(dim=1)).all()
    products = side.code.double() @ side.code.double().T
    estimate = side.scale[:, None] * (side.scale[None, :] * products.float())
    bound = error[:, None] + error + error[:, None] * error + 2e-6
    assert ((unit @ unit.T - estimate.double()).abs() <= bound).all()
    for tile, part in enumerate((slice(0, 128), slice(128, 140))):
        scale = side.scale[part]
        expected = torch.stack([side.error[part].max(), scale.max(), scale.min()])
        assert torch.equal(side.extremes[tile], expected)


def test_norms_are_those_of_normalize_and_the_rest_is_noticed() -> None:
    emb = torch.randn(50, 33, generator=generator(2)) * 10.0 ** torch.linspace(-18, 18, 50)[:, None]
    side = prepared(emb)
    assert torch.allclose(
        side.inverse.double(), 1.0 / emb.double().norm(dim=1).clamp_min(1e-12), rtol=1.2e-7, atol=0
    )
    assert side.not_finite == 0
    emb[7] = 3e38
    side = prepared(emb)
    assert side.not_finite == 1
    assert side.inverse.isnan().nonzero().tolist() == [[7]]


def test_the_certificate_is_not_vacuous() -> None:
    errors = prepared(torch.randn(100, 512, generator=generator(6))).error
    assert 0.005 < errors.mean() < 0.013


@pytest.fixture
def arguments_of_the_op(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What the Python side hands to the private op."""
    seen: list[object] = []
    right = torch.ops.tcm_kernels._cuda_pair_sums
    dispatch.why_not_here("cuda")
    monkeypatch.setattr(torch.ops.tcm_kernels, "_cuda_pair_sums", lambda *args: seen.extend(args))
    inputs = Case(n=9, d=4, relation="rectangular").build()
    with torch.no_grad():
        tcm_kernels.fused_tcm_loss(*inputs.tensors, backend="cuda")
    monkeypatch.setattr(torch.ops.tcm_kernels, "_cuda_pair_sums", right)
    return seen


WRONG = {
    "a transposed matrix": (0, lambda x: x.T.contiguous().T),
    "float64 embeddings": (0, lambda x: x.double()),
    "too short an order": (1, lambda x: x[:-1]),
    "an order of 32 bits": (1, lambda x: x.to(torch.int32)),
    "a reference set of other width": (7, lambda x: x[:, :-1].contiguous()),
    "a reference set of other dtype": (7, lambda x: x.half()),
    "no classes for the reference set": (8, lambda x: None),
    "float32 margins": (14, lambda x: x.float()),
    "a negative pool": (16, lambda x: -1),
    "an unknown screening": (19, lambda x: 3),
    "too small a workspace": (23, lambda x: x[:-1]),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_the_private_op_refuses(wrong: str, arguments_of_the_op: list[object]) -> None:
    """Whatever Python hands it: bad input must not crash the process."""
    place, change = WRONG[wrong]
    torch.ops.tcm_kernels._cuda_pair_sums(*arguments_of_the_op)
    arguments_of_the_op[place] = change(arguments_of_the_op[place])
    with pytest.raises(RuntimeError):
        torch.ops.tcm_kernels._cuda_pair_sums(*arguments_of_the_op)


def test_it_says_which_inputs_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cuda.why_not("cpu", torch.float32) is None
    assert "not torch.float64" in str(cuda.why_not("cpu", torch.float64))
    assert "not on cuda" in str(cuda.why_not("cuda", torch.float32))
    monkeypatch.delenv("TCM_KERNELS_CUDA_TWIN")
    assert "torch sees none" in str(cuda.why_not_here())
    assert "not on cpu" in str(cuda.why_not("cpu", torch.float32))
