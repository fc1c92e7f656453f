"""What the kernels of both GPU backends have to show where they run without a GPU, each in its own way.

With one, the shared tests run the backends like any other; what is here are those tests' checks, on inputs
and in settings that Triton's interpreter and the emulator of a GPU get through.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

import torch
from agreement import run
from cases import Case, Inputs
from coded_rows import SLACK, generator
from engines import Engine
from op_arguments import backward_arguments, pair_sums_arguments, residual_size
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.functional import normalize

import tcm_kernels
from tcm_kernels import reference


def assert_both_ops_pass_opcheck(engine: Engine, relation: str) -> None:
    arguments = pair_sums_arguments(engine, relation, torch.float32, True, True)
    size = residual_size(engine, arguments)
    torch.library.opcheck(torch.ops.tcm_kernels.pair_sums.default, (*arguments, size))
    arguments = tuple(x.detach() if isinstance(x, Tensor) else x for x in arguments)
    sums, _, residual = torch.ops.tcm_kernels.pair_sums(*arguments, size)
    torch.library.opcheck(
        torch.ops.tcm_kernels.pair_sums_backward.default,
        (torch.ones_like(sums), residual, *backward_arguments(arguments)),
    )


def assert_nan_everywhere(engine: Engine, side: str, value: float) -> None:
    """Loss and all gradients, with one number of `side` ("emb" or "ref_emb") that is not finite."""
    inputs = Case(relation="rectangular", n=35, d=20, extra=6).build()
    with torch.no_grad():
        getattr(inputs, side)[-1, 3] = value
    result = run(engine, inputs)
    assert result.loss.isnan()
    assert result.grad_emb.isnan().all()
    assert result.grad_ref is not None
    assert result.grad_ref.isnan().all()


def assert_embeddings_without_columns_are_zeros(backend: str, m: int | None) -> None:
    """Every similarity is 0: at m- = 0.5 positives alone are hard, which screening may not lose; then all."""
    emb = torch.zeros(6, 0, requires_grad=True)
    ref = None if m is None else torch.zeros(m, 0, requires_grad=True)
    labels, ref_labels = torch.arange(6) // 2, None if m is None else torch.arange(m)
    for margin_minus, push in ((0.5, 0.0), (-0.25, 0.25)):
        loss = tcm_kernels.fused_tcm_loss(
            emb, labels, ref, ref_labels, margin_minus=margin_minus, backend=backend
        )
        grads = torch.autograd.grad(loss, [emb] if ref is None else [emb, ref])
        assert abs(float(loss.detach()) - (0.9 + push)) < 1e-6
        assert [grad.shape for grad in grads] == [x.shape for x in (emb, ref) if x is not None]


def assert_same_bits_every_time(engine: Engine, n: int) -> None:
    inputs = Case(n=n, d=24, look="clustered", seed=2).build()
    first, second = run(engine, inputs), run(engine, inputs)
    assert torch.equal(first.loss, second.loss)
    assert torch.equal(first.grad_emb, second.grad_emb)


def assert_one_graph_for_all_sizes(backend: str) -> None:
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    loss = functools.partial(tcm_kernels.fused_tcm_loss, backend=backend)
    compiled = torch.compile(loss, backend=counter, fullgraph=True, dynamic=True)
    for n in (9, 12):
        inputs = Case(n=n, d=8, seed=n).build()
        results = [function(inputs.emb, inputs.labels) for function in (compiled, loss)]
        grads = [torch.autograd.grad(result, inputs.emb)[0] for result in results]
        torch.testing.assert_close(*results)
        torch.testing.assert_close(*grads)
    assert counter.frame_count == 1
    torch._dynamo.reset()


def assert_no_pair_is_lost(engine: Engine, emb: Tensor, labels: Tensor, ranks: Iterable[int]) -> None:
    """Margins a hair under the similarity of some pair: it is hard, and only its bound can keep it.

    ranks: of those pairs among all of two classes, the most similar first.
    """
    unit = normalize(emb.double())
    s = (unit @ unit.T).flatten()
    others = s[(labels[:, None] != labels[None, :]).flatten()].sort(descending=True).values
    for rank in ranks:
        margin = min(1.0, max(-1.0, float(others[rank]) - 3e-6))
        expected = reference.tcm_sums(emb, labels, margin_plus=margin, margin_minus=margin)
        in_band = int(((s - margin).abs() <= 2e-6).sum())
        inputs = Inputs(emb.clone().requires_grad_(), labels, margin_plus=margin, margin_minus=margin)
        stats = run(engine, inputs).stats
        assert abs(int(stats.positive_count) - int(expected.positive_count)) <= in_band
        assert abs(int(stats.negative_count) - int(expected.negative_count)) <= in_band


def assert_certificate_holds(
    emb: Tensor, inverse: Tensor, code: Tensor, scale: Tensor, error: Tensor
) -> None:
    """For every pair of rows (N, D): their codes (N, K), K >= D, with scales and errors (N,)."""
    d = emb.shape[1]
    unit = emb.double() * inverse.double()[:, None]
    stands_for = code[:, :d].double() * scale.double()[:, None]
    assert not code[:, d:].any(), "padding must not add to a product"
    error = error.double()
    assert (error >= (unit - stands_for).norm(dim=1)).all()
    products = code.double() @ code.double().T
    estimate = scale[:, None] * (scale[None, :] * products.float())
    bound = error[:, None] + error + error[:, None] * error + SLACK
    assert ((unit @ unit.T - estimate.double()).abs() <= bound).all()


def wild_rows() -> Tensor:
    """(50, 33) rows of norms around 1e-18 to 1e18."""
    return torch.randn(50, 33, generator=generator(2)) * 10.0 ** torch.linspace(-18, 18, 50)[:, None]


def assert_norms_of_normalize(emb: Tensor, inverse: Tensor) -> None:
    expected = 1.0 / emb.double().norm(dim=1).clamp_min(1e-12)
    assert torch.allclose(inverse.double(), expected, rtol=1.2e-7, atol=0.0)


def assert_not_vacuous(errors: Tensor) -> None:
    """Errors of 100 rows of 512 normal numbers: near what rounding to 8 bits leaves."""
    assert 0.005 < errors.mean() < 0.013
