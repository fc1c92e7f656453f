"""The truth itself, held against the definition in plain Python loops and against a worked example."""

from __future__ import annotations

import math

import pytest
import torch
from cases import RELATIONS, Case, Inputs

from tcm_kernels import reference


def _unit(row: list[float]) -> list[float]:
    norm = max(math.sqrt(sum(value * value for value in row)), 1e-12)
    return [value / norm for value in row]


def _in_plain_python(inputs: Inputs) -> tuple[float, list[float], list[int]]:
    """The definition of the loss, pair by pair: loss, [Σ+, Σ-], [n+, n-]."""
    emb = [_unit(row) for row in inputs.emb.detach().double().tolist()]
    ref = emb if inputs.ref_emb is None else [_unit(row) for row in inputs.ref_emb.detach().double().tolist()]
    labels = inputs.labels.tolist()
    ref_labels = labels if inputs.ref_labels is None else inputs.ref_labels.tolist()
    offset = 0 if inputs.ref_emb is None else inputs.self_offset
    sums, counts = [0.0, 0.0], [0, 0]
    for i, x in enumerate(emb):
        for j, r in enumerate(ref):
            if offset is not None and i + offset == j:
                continue
            s = sum(a * b for a, b in zip(x, r, strict=True))
            negative = labels[i] != ref_labels[j]
            violation = s - inputs.margin_minus if negative else inputs.margin_plus - s
            if violation >= 0:
                sums[negative] += violation
                counts[negative] += 1
    terms = [total / max(count, 1) for total, count in zip(sums, counts, strict=True)]
    return inputs.lambda_plus * terms[0] + inputs.lambda_minus * terms[1], sums, counts


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("look", ["random", "clustered", "collapsed", "zero_rows", "wild_norms"])
@pytest.mark.parametrize("labels", ["shuffled", "huge"])
def test_reference_is_the_definition_pair_by_pair(relation: str, look: str, labels: str) -> None:
    inputs = Case(relation=relation, n=14, d=5, labels=labels, look=look, extra=9, seed=1).build()
    loss, sums, counts = _in_plain_python(inputs)
    settings = {name: inputs.settings[name] for name in ("margin_plus", "margin_minus", "self_offset")}
    found = reference.tcm_sums(*inputs.tensors, **settings)
    assert sum(counts) > 0, "an example without hard pairs shows nothing"
    assert [int(found.positive_count), int(found.negative_count)] == counts
    assert float(found.positive_sum.detach()) == pytest.approx(sums[0], abs=1e-12)
    assert float(found.negative_sum.detach()) == pytest.approx(sums[1], abs=1e-12)
    assert float(reference.tcm_loss(*inputs.tensors, **inputs.settings).detach()) == pytest.approx(
        loss, abs=1e-13
    )


def test_gradient_is_the_formula_in_the_design() -> None:
    """g = -(λ+/n+) P + (λ-/n-) Q, twice in the self case, and (g - (g.x̂) x̂) / |x| for the raw rows."""
    inputs = Case(n=40, d=6, look="random", seed=2, dtype=torch.float64).build()
    x = inputs.emb.detach()
    unit = x / x.norm(dim=1, keepdim=True)
    s = unit @ unit.T
    same = inputs.labels[:, None] == inputs.labels[None, :]
    another = ~torch.eye(40, dtype=torch.bool)
    pulls = (same & another & (s <= inputs.margin_plus)).double()
    pushes = (~same & (s >= inputs.margin_minus)).double()
    g = 2 * (pushes @ unit / pushes.sum() - pulls @ unit / pulls.sum())
    expected = (g - (g * unit).sum(dim=1, keepdim=True) * unit) / x.norm(dim=1, keepdim=True)
    loss = reference.tcm_loss(inputs.emb, inputs.labels, **inputs.settings)
    (grad,) = torch.autograd.grad(loss, inputs.emb)
    torch.testing.assert_close(grad, expected, rtol=1e-12, atol=1e-15)


def test_passing_the_batch_as_its_own_reference_set_is_the_self_case() -> None:
    inputs = Case(n=20, d=4).build()
    within = reference.tcm_loss(inputs.emb, inputs.labels)
    assert torch.equal(within, reference.tcm_loss(inputs.emb, inputs.labels, inputs.emb, inputs.labels))
