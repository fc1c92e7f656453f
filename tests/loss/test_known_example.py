"""Numbers from outside: pytorch-metric-learning's test case, and its implementation on random data."""

from __future__ import annotations

import pytest
import torch
from engines import Engine

import tcm_kernels

# The points of pytorch-metric-learning's own test, at 0, 26, 90 and 45 degrees from the second axis.
POINTS = ((0.0, 1.0), (0.43, 0.9), (1.0, 0.0), (0.5, 0.5))
CLASSES = (0, 0, 1, 1)
# By hand. Similarities: positives 0.9023 (above m+, not hard) and 0.7071: one hard pair, violation
# 0.9 - 0.7071. Negatives 0, 0.7071, 0.4311 and 0.9429: two hard pairs, violations 0.2071 and 0.4429.
POSITIVE_TERM = 0.9 - 0.5**0.5
NEGATIVE_TERM = ((0.5**0.5 - 0.5) + ((0.43 + 0.9) / (2 * (0.43**2 + 0.9**2)) ** 0.5 - 0.5)) / 2


def test_the_four_points_worked_by_hand(engine: Engine) -> None:
    emb = torch.tensor(POINTS, device=engine.device)
    labels = torch.tensor(CLASSES, device=engine.device)
    loss, stats = tcm_kernels.fused_tcm_loss(emb, labels, backend=engine.backend, return_stats=True)
    assert (int(stats.positive_count), int(stats.negative_count)) == (2, 4)
    # A float32 similarity of two numbers is off by 4e-7 at most; see the top of agreement.py.
    assert float(stats.positive_term) == pytest.approx(POSITIVE_TERM, abs=4e-7)
    assert float(stats.negative_term) == pytest.approx(NEGATIVE_TERM, abs=4e-7)
    assert float(loss) == pytest.approx(POSITIVE_TERM + NEGATIVE_TERM, abs=8e-7)


def test_the_four_points_as_published() -> None:
    """The hand-worked terms are the published ones, to the four digits they are published with."""
    found = (POSITIVE_TERM, NEGATIVE_TERM, POSITIVE_TERM + NEGATIVE_TERM)
    assert found == pytest.approx((0.1929, 0.3250, 0.5179), abs=5e-5)


@pytest.mark.parametrize("relation", ["self", "rectangular"])
@pytest.mark.parametrize("seed", range(4))
def test_equal_to_pytorch_metric_learning(engine: Engine, seed: int, relation: str) -> None:
    """Its loss of release 2.9 ignores `ref_emb`, so it gets both sets as one batch and a list of pairs."""
    losses = pytest.importorskip(
        "pytorch_metric_learning.losses", reason="pytorch-metric-learning is not installed"
    )
    engine.skip_unless_it_takes(torch.float64)
    generator = torch.Generator().manual_seed(seed)
    emb = torch.randn(80, 5, generator=generator, dtype=torch.float64).to(engine.device).requires_grad_()
    labels = torch.randint(0, 6, (80,), generator=generator).to(engine.device)
    settings = {"margin_plus": 0.8, "margin_minus": 0.3, "lambda_plus": 0.7, "lambda_minus": 1.3}
    ours = tcm_kernels.ThresholdConsistentMarginLoss(**settings, backend=engine.backend)
    theirs = losses.ThresholdConsistentMarginLoss(**settings)
    if relation == "self":
        found, expected = ours(emb, labels), theirs(emb, labels)
    else:
        found = ours(emb[:30], labels[:30], None, emb[30:], labels[30:])
        same = labels[:30, None] == labels[None, 30:]
        pairs = [(i, j + 30) for mask in (same, ~same) for i, j in (mask.nonzero(as_tuple=True),)]
        expected = theirs(emb, labels, (*pairs[0], *pairs[1]))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    grads = [torch.autograd.grad(loss, emb)[0] for loss in (found, expected)]
    torch.testing.assert_close(*grads, rtol=1e-10, atol=1e-14)
