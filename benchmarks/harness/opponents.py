"""Who is measured: this package, dense PyTorch, torch.compile of it, pytorch-metric-learning.

Each is a function of the embeddings alone, so that forward and forward+backward are made in one way for
all. The dense loss below is what a careful PyTorch user would write: straightforward, in the dtype of
the embeddings, nothing slow on purpose. It is not `tcm_kernels.reference`, which is the float64 truth
that both are held against.

Each states how many bytes it needs beyond its inputs. What does not fit is then refused before it runs,
because running it would end in a killed process and not in an exception.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

import tcm_kernels
from benchmarks.harness.workload import Case, Workload

Loss = Callable[[Tensor], Tensor]


def dense_tcm_loss(
    emb: Tensor,
    labels: Tensor,
    ref: Tensor | None = None,
    ref_labels: Tensor | None = None,
    *,
    margin_plus: float,
    margin_minus: float,
) -> Tensor:
    """The loss as plain PyTorch writes it, with the whole (N, M) similarity matrix; λ+ = λ- = 1.

    emb (N, D), labels (N,); ref (M, D), ref_labels (M,): other samples than those of emb, or None.
    """
    unit = F.normalize(emb)
    similarities = unit @ (unit if ref is None else F.normalize(ref)).T
    same = labels[:, None] == (labels if ref_labels is None else ref_labels)[None, :]
    hard_positive = same & (similarities <= margin_plus)
    if ref is None:
        hard_positive.fill_diagonal_(False)
    hard_negative = ~same & (similarities >= margin_minus)
    # Sums of half-precision penalties are held in float32: float16 would overflow.
    wide = torch.promote_types(emb.dtype, torch.float32)
    pull = torch.where(hard_positive, margin_plus - similarities, 0).sum(dtype=wide)
    push = torch.where(hard_negative, similarities - margin_minus, 0).sum(dtype=wide)
    return pull / hard_positive.sum().clamp_min(1) + push / hard_negative.sum().clamp_min(1)


def _ours(work: Workload, backend: str) -> Loss:
    def loss(emb: Tensor) -> Tensor:
        return tcm_kernels.fused_tcm_loss(
            emb,
            work.labels,
            work.ref,
            work.ref_labels,
            margin_plus=work.margin_plus,
            margin_minus=work.margin_minus,
            backend=backend,
        )

    return loss


def _dense(work: Workload, backend: str) -> Loss:
    def loss(emb: Tensor) -> Tensor:
        return dense_tcm_loss(
            emb,
            work.labels,
            work.ref,
            work.ref_labels,
            margin_plus=work.margin_plus,
            margin_minus=work.margin_minus,
        )

    return loss


def _compiled(work: Workload, backend: str) -> Loss:
    # Static shapes: the most a compiler can do for this case. Cases must not count as each other's
    # recompilations, of which torch allows only a few.
    torch._dynamo.reset()
    compiled = torch.compile(_dense(work, backend), fullgraph=True, dynamic=False)

    def loss(emb: Tensor) -> Tensor:
        with warnings.catch_warnings():  # torch's own, while it compiles
            warnings.simplefilter("ignore")
            return compiled(emb)

    return loss


def _metric_learning(work: Workload, backend: str) -> Loss:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pytorch_metric_learning.losses import ThresholdConsistentMarginLoss  # noqa: PLC0415

    module = ThresholdConsistentMarginLoss(margin_plus=work.margin_plus, margin_minus=work.margin_minus).to(
        work.case.device
    )

    def loss(emb: Tensor) -> Tensor:
        return module(emb, work.labels, ref_emb=work.ref, ref_labels=work.ref_labels)

    return loss


def _nothing_missing() -> str | None:
    return None


def _metric_learning_missing() -> str | None:
    if importlib.util.find_spec("pytorch_metric_learning") is None:
        return "needs pytorch-metric-learning >= 2.9: pip install 'pytorch-metric-learning>=2.9'"
    return None


@dataclasses.dataclass(frozen=True)
class Competitor:
    """One column of the table.

    Attributes:
        name: how it is called in records, tables and test ids.
        loss: makes its loss, a function of emb (N, D), for a workload and a tcm_kernels backend name.
        bytes_needed: estimate of its peak memory beyond the inputs, forward and backward.
        why_not_here: None where its packages are installed, else what is missing.
        compiles: whether its first call compiles, which costs memory of its own.
    """

    name: str
    loss: Callable[[Workload, str], Loss]
    bytes_needed: Callable[[Case], int]
    why_not_here: Callable[[], str | None] = _nothing_missing
    compiles: bool = False


OURS = "tcm_kernels"
DENSE = "dense PyTorch"
COMPILED = "torch.compile"
METRIC_LEARNING = "pytorch-metric-learning"

# Estimates are peaks measured on a CPU in float32, rounded up: 15.3 bytes a pair for dense PyTorch, 6.2 for
# torch.compile, 8.1 x D x 4 for pytorch-metric-learning, which gathers both rows of every pair.
COMPETITORS = (
    Competitor(OURS, _ours, lambda case: 8 * (case.n + case.columns) * case.d * 4 + 2**27),
    Competitor(DENSE, _dense, lambda case: 7 * case.matrix_bytes // 2 + 3 * case.pairs),
    Competitor(COMPILED, _compiled, lambda case: 5 * case.matrix_bytes // 4 + 2 * case.pairs, compiles=True),
    Competitor(
        METRIC_LEARNING,
        _metric_learning,
        lambda case: 9 * case.pairs * case.d * case.torch_dtype.itemsize,
        _metric_learning_missing,
    ),
)


def named(name: str) -> Competitor:
    """The competitor called `name`."""
    return {competitor.name: competitor for competitor in COMPETITORS}[name]


def steps(loss: Loss, emb: Tensor) -> dict[str, Callable[[], tuple[Tensor, ...]]]:
    """The two timed steps of a loss: forward returns (loss,), forward+backward (loss, gradient).

    emb (N, D). The forward runs under no_grad: it is what the value alone costs. The gradient is
    returned, not accumulated, so no step leaves anything behind for the next.
    """
    leaf = emb.detach().clone().requires_grad_()

    def forward() -> tuple[Tensor, ...]:
        with torch.no_grad():
            return (loss(leaf),)

    def forward_backward() -> tuple[Tensor, ...]:
        value = loss(leaf)
        (gradient,) = torch.autograd.grad(value, leaf)
        return value.detach(), gradient

    return {"forward": forward, "forward+backward": forward_backward}
