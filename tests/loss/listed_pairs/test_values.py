"""The loss over pairs that a miner has chosen: its value and gradient, which pairs count and how often."""

from __future__ import annotations

import itertools

import pytest
import torch
from cases import FLOAT_DTYPES
from engines import Engine
from listed_pairs import (
    BOTH_FORMS,
    INDEX_DTYPES,
    REFERENCES,
    Listed,
    assert_right,
    assert_same_bits,
    changed,
    index_of,
    listed,
    poisoned,
    results,
    run,
)
from torch import Tensor

import tcm_kernels
from tcm_kernels import dispatch, reference
from tcm_kernels.backends import torch_pairs

# What is computed.


@poisoned
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
@REFERENCES
@BOTH_FORMS
def test_loss_statistics_and_gradients_are_those_of_the_list(
    engine: Engine, form: str, m: int | None, dtype: torch.dtype
) -> None:
    engine.skip_unless_it_takes(dtype)
    given = listed(form, m=m, dtype=dtype, device=engine.device, lambda_plus=0.7, lambda_minus=1.3)
    truth = assert_right(engine, given)
    for hard, pairs in zip(truth.hard, truth.listed, strict=True):
        assert 20 < hard < pairs - 20, "nearly all or none are hard: the list shows little"


@poisoned
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
@pytest.mark.parametrize("d", [1, 3, 64, 513])
@BOTH_FORMS
def test_rows_of_any_width_agree(engine: Engine, form: str, d: int, dtype: torch.dtype) -> None:
    engine.skip_unless_it_takes(dtype)
    for m in (None, 95):
        assert_right(engine, listed(form, m=m, d=d, dtype=dtype, device=engine.device, seed=1))


@poisoned
@pytest.mark.parametrize("count", [0, 1, 2, 63, 64, 65, 1023, 1025, 5000])
@BOTH_FORMS
def test_lists_of_any_length_agree(engine: Engine, form: str, count: int) -> None:
    for n, m in ((40, None), (7, 300)):
        assert_right(engine, listed(form, n=n, m=m, d=5, count=count, device=engine.device, seed=2))


@poisoned
@pytest.mark.parametrize("elements", [1, 300, 2000])
@pytest.mark.parametrize(("n", "m"), [(60, None), (60, 95), (600, 500)], ids=str)
@BOTH_FORMS
def test_lists_that_torch_gathers_in_many_parts_agree(
    form: str, n: int, m: int | None, elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of more pairs than rows and of fewer."""
    monkeypatch.setattr(torch_pairs, "CHUNK", elements)
    assert_right(Engine("torch", "cpu"), listed(form, n=n, m=m, device="cpu", seed=7))


@poisoned
@pytest.mark.parametrize("elements", [1, 300, torch_pairs.CHUNK])
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
@BOTH_FORMS
def test_partners_that_are_added_up_row_by_row_as_on_a_gpu_agree(
    form: str, dtype: torch.dtype, elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_pairs, "_add_partners", torch_pairs._add_partners_by_row)
    monkeypatch.setattr(torch_pairs, "CHUNK", elements)
    for n, m, count in ((60, None, 400), (7, 95, 400), (95, 7, 400), (60, 41, 5), (60, None, 0), (1, 1, 9)):
        assert_right(
            Engine("torch", "cpu"), listed(form, n=n, m=m, dtype=dtype, count=count, seed=8, margin_plus=0.7)
        )


@poisoned
@pytest.mark.parametrize("end", ["anchor", "partner"])
@REFERENCES
def test_one_row_in_all_pairs_agrees(engine: Engine, end: str, m: int | None) -> None:
    given = listed(m=m, count=3000, d=33, device=engine.device, seed=3)
    kept = (0, 2) if end == "anchor" else (1, 3)
    pairs = tuple(torch.full_like(x, 5) if k in kept else x for k, x in enumerate(given.pairs))
    assert_right(engine, changed(given, pairs=pairs))


@poisoned
@BOTH_FORMS
def test_one_row_alone_is_paired_with_itself(engine: Engine, form: str) -> None:
    assert_right(engine, listed(form, n=1, d=6, count=9, device=engine.device))
    assert_right(engine, listed(form, n=1, m=1, d=6, count=9, device=engine.device))


@poisoned
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("look", ["zero_rows", "wild_norms"])
@REFERENCES
def test_rows_of_any_length_agree(engine: Engine, look: str, m: int | None, dtype: torch.dtype) -> None:
    """Below 1e-12 a row is divided by 1e-12, as torch.nn.functional.normalize does."""
    engine.skip_unless_it_takes(dtype)
    given = listed(m=m, dtype=dtype, device=engine.device, seed=4)
    with torch.no_grad():
        for x in given.sides:
            if look == "zero_rows":
                x[::5] = 0.0
            else:
                lengths = 10.0 ** torch.linspace(-15.2, 17.9, len(x), dtype=dtype, device=x.device)
                x.mul_(lengths[:, None] / x.norm(dim=1, keepdim=True))
    assert_right(engine, given)


@poisoned
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
@pytest.mark.parametrize("memory", ["transposed", "every_second_row", "expanded_rows", "expanded_columns"])
@BOTH_FORMS
def test_rows_may_lie_anyhow_in_memory(engine: Engine, form: str, memory: str, dtype: torch.dtype) -> None:
    engine.skip_unless_it_takes(dtype)
    given = listed(form, m=95, dtype=dtype, device=engine.device, margin_plus=0.9, seed=5)

    def laid_out(x: Tensor) -> Tensor:
        x = x.detach()
        if memory == "transposed":
            x = x.T.contiguous().T
        elif memory == "every_second_row":
            x = x.repeat_interleave(2, dim=0)[::2]
        else:
            x = (x[:1] if memory == "expanded_rows" else x[:, :1]).clone().expand(x.shape)
        assert not x.is_contiguous()
        return x.requires_grad_()

    emb, ref = map(laid_out, given.sides)
    for rows in (emb, emb.detach().requires_grad_()):
        assert_right(engine, changed(given, emb=rows, ref=ref))
    without_a_reference = listed(form, dtype=dtype, device=engine.device, margin_plus=0.9, seed=5)
    assert_right(engine, changed(without_a_reference, emb=emb))


@poisoned
@pytest.mark.parametrize("margin", [-1.0, -0.5, 0.0, 0.5, 1.0])
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
@BOTH_FORMS
def test_a_pair_on_the_margin_is_hard_for_both_signs(
    engine: Engine, form: str, dtype: torch.dtype, margin: float
) -> None:
    """Rows of ±1 with four columns: no similarity has a rounding error."""
    engine.skip_unless_it_takes(dtype)
    corners = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=4)), dtype=dtype, device=engine.device)
    one, other = torch.ones(16, 16, device=engine.device).nonzero().unbind(dim=1)
    pairs = (one, other, other, one) if form == "pairs" else (one, other, other.flip(0))
    given = Listed(corners.requires_grad_(), pairs, margin_plus=margin, margin_minus=margin, apart=0.0)
    truth = assert_right(engine, given)
    assert truth.listed == [256, 256]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_both_ends_of_a_pair_on_the_margin_decide_alike(engine: Engine, dtype: torch.dtype) -> None:
    """The margin is the very similarity the kernel has computed: either end gets a gradient, or neither."""
    engine.skip_unless_it_takes(dtype)
    counts = set()
    for d, count in itertools.product((5, 33, 100, 513), (1, 3, 4, 7, 22)):
        given = listed(n=6, m=7, d=d, dtype=dtype, device=engine.device)
        chosen = torch.randperm(42)[:count].to(engine.device)
        b, n = chosen // 7, chosen % 7
        nothing = b[:0]
        s = (
            reference.unit_rows(given.emb.detach().double())
            @ reference.unit_rows(given.ref.detach().double()).T
        )
        k = int(s[b, n].argmax())
        alone = changed(given, pairs=(nothing, nothing, b[k : k + 1], n[k : k + 1]), margin_minus=-1.0)
        margin = run(engine, alone).stats.negative_sum.detach() - 1.0
        nearest = changed(given, pairs=(nothing, nothing, b, n), margin_minus=float(margin.float()))
        result = run(engine, nearest)
        rows = [int((grad != 0).any(dim=1).sum()) for grad in result.grads]
        assert rows == [int(result.stats.negative_count)] * 2
        counts.add(rows[0])
    assert 1 in counts


@poisoned
@pytest.mark.parametrize("relation", ["self", "rectangular"])
def test_a_list_of_all_pairs_is_the_loss_over_all_pairs(engine: Engine, relation: str) -> None:
    given = listed(m=None if relation == "self" else 70, device=engine.device, seed=6)
    emb, other = given.sides[0], given.sides[-1]
    labels, other_labels = (torch.arange(len(x), device=engine.device) % 5 for x in (emb, other))
    same = labels[:, None] == other_labels[None, :]
    different = ~same
    if relation == "self":
        same.fill_diagonal_(False)
    given = changed(given, pairs=(*torch.where(same), *torch.where(different)))
    loss, *grads = results(engine, given)
    rest = (None, None) if given.ref is None else (given.ref, other_labels)
    expected = reference.tcm_loss(emb, labels, *rest, margin_plus=0.6, margin_minus=0.2)
    assert float(loss) == pytest.approx(float(expected.detach()), abs=2e-6)
    for grad, right in zip(grads, torch.autograd.grad(expected, given.sides), strict=True):
        torch.testing.assert_close(grad, right, rtol=1e-4, atol=1e-6)


@poisoned
@BOTH_FORMS
def test_rows_of_width_zero_are_rows_of_zeros(engine: Engine, form: str) -> None:
    loss, grad = results(engine, listed(form, d=0, device=engine.device, margin_plus=0.9, margin_minus=0.5))
    assert float(loss) == pytest.approx(0.9, abs=1e-7)
    assert grad.shape == (60, 0)


# Which pairs count, and how often.


@poisoned
def test_a_pair_counts_as_often_as_it_is_listed(engine: Engine) -> None:
    once = Listed(
        torch.tensor(
            [[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [-0.8, 0.6]], device=engine.device
        ).requires_grad_(),
        tuple(index_of(*x, device=engine.device) for x in ((0, 0), (2, 3), (0, 1), (1, 2))),
        margin_plus=0.5,
        margin_minus=0.1,
    )
    # s is 0 and -0.8 for the positives, 0.6 and 0.8 for the negatives.
    assert float(once.loss(engine.backend).detach()) == pytest.approx((0.5 + 1.3) / 2 + (0.5 + 0.7) / 2)
    pairs = tuple(torch.cat((x, x[:1], x[:1])) for x in once.pairs)
    thrice = changed(once, pairs=pairs)
    assert float(thrice.loss(engine.backend).detach()) == pytest.approx((1.5 + 1.3) / 4 + (1.5 + 0.7) / 4)
    assert assert_right(engine, thrice).listed == [4, 4]


@poisoned
def test_a_pair_of_triplets_counts_once(engine: Engine) -> None:
    emb = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]], device=engine.device).requires_grad_()
    triplets = ((0, 0, 0, 1, 1), (2, 2, 2, 0, 0), (1, 2, 1, 2, 2))
    given = Listed(
        emb,
        tuple(index_of(*x, device=engine.device) for x in triplets),
        margin_plus=0.9,
        margin_minus=-0.5,
    )
    # Positives (0, 2) and (1, 0); negatives (0, 1), (0, 2) and (1, 2).
    truth = assert_right(engine, given)
    assert truth.listed == [2, 3]
    assert truth.loss == pytest.approx((0.9 + 0.3) / 2 + (1.1 + 0.5 + 1.3) / 3)


@poisoned
def test_a_pair_and_the_same_the_other_way_round_are_two(engine: Engine) -> None:
    triplets = tuple(index_of(*x, device=engine.device) for x in ((0, 1, 0, 1), (1, 0, 1, 0), (2, 2, 2, 2)))
    given = changed(listed(n=3, device=engine.device), pairs=triplets)
    assert assert_right(engine, given).listed == [2, 2]


@poisoned
@BOTH_FORMS
def test_a_row_and_itself_are_a_pair_as_any_other(engine: Engine, form: str) -> None:
    """Its similarity is 1, and its gradient along the row, of which nothing is left."""
    i = torch.arange(20, device=engine.device)
    given = listed(n=20, d=64, device=engine.device, margin_plus=0.9, margin_minus=0.3)
    given = changed(given, pairs=(i, i) * 2 if form == "pairs" else (i, i, i))
    truth = assert_right(engine, given)
    assert truth.hard == [0, 20]
    assert truth.loss == pytest.approx(0.7)


@poisoned
@pytest.mark.parametrize(("n", "m"), [(65_600, 65_536), (65_600, None)])
def test_pairs_of_triplets_are_told_apart_where_their_numbers_pass_32_bits(
    engine: Engine, n: int, m: int | None
) -> None:
    """Row · columns + column is 2^32 for one pair and 0 for another."""
    columns = n if m is None else m
    far, over = divmod(2**32, columns)
    rows = torch.randn(n + columns, 2, device=engine.device)
    numbers = [(0, 0, far, far, 1), (0, 0, over, over, 1), (columns - 1, columns - 1, 7, 7, 7)]
    _, stats = tcm_kernels.fused_tcm_loss(
        rows[:n],
        None,
        None if m is None else rows[n:],
        pairs=tuple(index_of(*x, device=engine.device) for x in numbers),
        backend=engine.backend,
        return_stats=True,
    )
    assert (int(stats.positive_pairs), int(stats.negative_pairs)) == (3, 3)


@poisoned
@pytest.mark.parametrize("empty", ["positives", "negatives"])
@REFERENCES
def test_a_sign_without_pairs_is_zero_with_zero_gradients(engine: Engine, m: int | None, empty: str) -> None:
    given = listed(m=m, device=engine.device)
    nothing = index_of(device=engine.device)
    a, p, b, n = given.pairs
    pairs = (nothing, nothing, b, n) if empty == "positives" else (a, p, nothing, nothing)
    truth = assert_right(engine, changed(given, pairs=pairs))
    assert truth.listed.count(0) == 1


@poisoned
@REFERENCES
@BOTH_FORMS
def test_an_empty_choice_is_zero_with_zero_gradients(engine: Engine, form: str, m: int | None) -> None:
    given = listed(form, m=m, count=0, device=engine.device)
    assert assert_right(engine, given).listed == [0, 0]
    loss, *grads = results(engine, given)
    assert float(loss) == 0.0
    assert all(torch.equal(grad, torch.zeros_like(grad)) for grad in grads)


@poisoned
@pytest.mark.parametrize(("n", "m"), [(0, None), (0, 4), (4, 0), (0, 0)])
@BOTH_FORMS
def test_an_empty_choice_of_no_rows_is_zero(engine: Engine, form: str, n: int, m: int | None) -> None:
    emb = torch.randn(n, 5, device=engine.device, requires_grad=True)
    ref = None if m is None else torch.randn(m, 5, device=engine.device, requires_grad=True)
    nothing = index_of(device=engine.device)
    loss, *grads = results(engine, Listed(emb, (nothing,) * (4 if form == "pairs" else 3), ref))
    assert float(loss) == 0.0
    assert [grad.shape for grad in grads] == [x.shape for x in (emb, ref) if x is not None]


@poisoned
@BOTH_FORMS
def test_where_nothing_is_hard_the_loss_is_zero_with_a_zero_gradient(engine: Engine, form: str) -> None:
    a, p, n = (torch.arange(k, 50 + k, device=engine.device) for k in (0, 6, 1))
    given = listed(form, device=engine.device, margin_plus=-1.0, margin_minus=1.0)
    given = changed(given, pairs=(a, p, a, n) if form == "pairs" else (a, p, n))
    assert assert_right(engine, given).hard == [0, 0]
    loss, grad = results(engine, given)
    assert float(loss) == 0.0
    assert torch.equal(grad, torch.zeros_like(grad))


@poisoned
def test_weights_of_zero_make_the_loss_zero(engine: Engine) -> None:
    given = listed(device=engine.device, lambda_plus=0.0, lambda_minus=0.0)
    loss, grad = results(engine, given)
    assert float(loss) == 0.0
    assert torch.equal(grad, torch.zeros_like(grad))


# What else may be passed.


@poisoned
@pytest.mark.parametrize("dtype", INDEX_DTYPES, ids=str)
@BOTH_FORMS
def test_numbers_may_be_of_any_integer_dtype(engine: Engine, form: str, dtype: torch.dtype) -> None:
    given = listed(form, m=95, device=engine.device)
    expected = results(engine, given)
    as_dtype = tuple(x.to(dtype) for x in given.pairs)
    assert_same_bits(expected, results(engine, changed(given, pairs=as_dtype)))
    mixed = (*given.pairs[:1], *as_dtype[1:])
    assert_same_bits(expected, results(engine, changed(given, pairs=mixed)))


@poisoned
@BOTH_FORMS
def test_numbers_may_lie_anyhow_in_memory(engine: Engine, form: str) -> None:
    """Columns of a table, one number expanded to a vector, every second number."""
    given = listed(form, count=200, device=engine.device)
    pairs = [x[:150] for x in given.pairs]
    expected = results(engine, changed(given, pairs=tuple(pairs)))
    columns = tuple(torch.stack(pairs, dim=1).unbind(dim=1))
    assert not columns[0].is_contiguous()
    assert_same_bits(expected, results(engine, changed(given, pairs=columns)))
    spread = tuple(torch.stack((x, x ^ 1), dim=1).flatten()[::2] for x in pairs)
    assert_same_bits(expected, results(engine, changed(given, pairs=spread)))
    same_anchor = (pairs[0][:1].expand(150), *pairs[1:])
    assert_right(engine, changed(given, pairs=same_anchor))


@poisoned
@BOTH_FORMS
def test_a_list_will_do_for_a_tuple(engine: Engine, form: str) -> None:
    given = listed(form, device=engine.device)
    assert_same_bits(results(engine, given), results(engine, changed(given, pairs=list(given.pairs))))


@poisoned
@REFERENCES
def test_labels_are_not_read(engine: Engine, m: int | None) -> None:
    given = listed(m=m, device=engine.device)
    labels = torch.zeros(60, dtype=torch.int64, device=engine.device)
    ref_labels = None if m is None else torch.arange(m, device=engine.device)
    expected = given.loss(engine.backend)
    for own, other in ((labels, ref_labels), (labels, None), (None, ref_labels)):
        found = tcm_kernels.fused_tcm_loss(
            given.emb, own, given.ref, other, pairs=given.pairs, backend=engine.backend, **given.settings
        )
        assert torch.equal(found, expected)


@poisoned
@BOTH_FORMS
def test_the_batch_as_its_own_reference_set_is_the_batch_alone(engine: Engine, form: str) -> None:
    given = listed(form, device=engine.device)
    expected = results(engine, given)
    loss = changed(given, ref=given.emb).loss(engine.backend)
    assert_same_bits(expected, (loss.detach(), *torch.autograd.grad(loss, given.emb)))


@poisoned
def test_a_copy_of_the_batch_as_reference_set_shares_the_gradient_out(engine: Engine) -> None:
    given = listed(device=engine.device, dtype=torch.float64)
    engine.skip_unless_it_takes(torch.float64)
    loss, grad = results(engine, given)
    copy = given.emb.detach().clone().requires_grad_()
    of_two, *grads = results(engine, changed(given, ref=copy))
    torch.testing.assert_close(of_two, loss, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(grads[0] + grads[1], grad, rtol=1e-9, atol=1e-12)


@poisoned
def test_margins_in_tensors_are_the_margins(engine: Engine) -> None:
    given = listed(device=engine.device)
    margins = {
        name: torch.tensor(getattr(given, name), dtype=torch.float64, device=engine.device)
        for name in ("margin_plus", "margin_minus")
    }
    assert torch.equal(given.loss(engine.backend), given.loss(engine.backend, **margins))


@poisoned
@BOTH_FORMS
def test_the_backend_is_chosen_among_those_that_take_pairs(form: str) -> None:
    given = listed(form)
    chosen = dispatch.choose("auto", "cpu", torch.float32, dispatch.PAIR_LIST_BACKENDS)
    assert_same_bits(results(Engine("auto", "cpu"), given), results(Engine(chosen, "cpu"), given))
    for other in set(dispatch.BACKENDS) - set(dispatch.PAIR_LIST_BACKENDS):
        with pytest.raises(ValueError, match=f"backend.*'{other}'"):
            given.loss(other)
