"""The torchmetrics metrics: their values, and that they keep torchmetrics' contract, alone and across ranks.

Inputs are `exact_rows`: similarities are multiples of 1/16 without rounding, so values must agree to the last
bit of the float32 that a metric returns, in whatever batches the rows arrive.
"""

from __future__ import annotations

import copy
import gc
import importlib
import io
import math
import pickle
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from brute_force import all_pairs, exact_rows
from brute_force import epsilon_opis as true_epsilon_opis
from brute_force import opis as true_opis
from cases import LABEL_DTYPES
from torch import Tensor, nn

from tcm_kernels.evaluation.consistency import epsilon_opis, opis
from tcm_kernels.evaluation.counting import class_curves
from tcm_kernels.evaluation.curves import ClassCurves
from tcm_kernels.evaluation.roc import tar_at_far

pytest.importorskip("torchmetrics", reason="needs torchmetrics")
from torchmetrics import Metric, MetricCollection

from tcm_kernels.evaluation.metrics import OPIS, EpsilonOPIS, TARAtFAR

METRICS = ("opis", "epsilon_opis", "tar_at_far")
N, M, D = 90, 60, 24
BINS = 32  # edges at multiples of 1/16, where the similarities are: every pair is a tie with an edge
RANGE = (-0.25, 0.25)
FAR = 0.1


def queries(seed: int = 1, n: int = N, classes: int = 7) -> tuple[Tensor, Tensor]:
    """Classes 0 to 6: the last two are not in the reference set."""
    draw = torch.Generator().manual_seed(seed)
    return exact_rows(n, D, seed), torch.randint(classes, (n,), generator=draw)


def gallery() -> tuple[Tensor, Tensor]:
    """Classes 0 to 4, and one that no query has."""
    emb, labels = queries(2, M, 6)
    return emb, torch.where(labels == 5, 90, labels)


def make(which: str, with_reference: bool, **settings: Any) -> Metric:
    reference = gallery() if with_reference else ()
    settings = {"bins": BINS, **settings}
    if which == "tar_at_far":
        return TARAtFAR(*reference, far=FAR, **settings)
    settings = {"calibration_range": RANGE, "k": 2.0, **settings}
    if which == "opis":
        return OPIS(*reference, **settings)
    return EpsilonOPIS(*reference, epsilon=40.0, **settings)


def number(which: str, curves: ClassCurves) -> Tensor:
    """What the metric must say, by the functions it is made of."""
    if which == "tar_at_far":
        value = tar_at_far(curves, FAR).tar
    elif which == "opis":
        value = opis(curves, range=RANGE, k=2.0).value
    else:
        value = epsilon_opis(curves, 40.0, range=RANGE, k=2.0).value
    return torch.tensor(value, dtype=torch.float32)


def expected(which: str, with_reference: bool, emb: Tensor, labels: Tensor) -> Tensor:
    reference = gallery() if with_reference else ()
    return number(which, class_curves(emb, labels, *reference, bins=BINS))


def batches(emb: Tensor, labels: Tensor, sizes: tuple[int, ...] = (40, 0, 1, 30, 19)) -> Iterator[Any]:
    return zip(emb.split(sizes), labels.split(sizes), strict=True)


def filled(metric: Metric, emb: Tensor, labels: Tensor) -> Metric:
    for batch in batches(emb, labels):
        metric.update(*batch)
    return metric


both_ways = pytest.mark.parametrize("with_reference", [False, True], ids=["all_pairs", "reference"])
each_metric = pytest.mark.parametrize("which", METRICS)


@both_ways
@each_metric
def test_batches_together_give_the_number_of_all_rows(which: str, with_reference: bool) -> None:
    emb, labels = queries()
    value = filled(make(which, with_reference), emb, labels).compute()
    assert (value.dtype, value.shape, value.device.type) == (torch.float32, (), "cpu")
    assert torch.equal(value, expected(which, with_reference, emb, labels))
    assert 0.0 < value < 1.0  # not one of the values that everything gives


@both_ways
@each_metric
def test_the_number_is_that_of_explicit_pairs(which: str, with_reference: bool) -> None:
    emb, labels = queries()
    truth = all_pairs(emb, labels, *(gallery() if with_reference else ()), bins=BINS)
    if which == "tar_at_far":
        edge = truth.first_edge_with_far(FAR)
        assert edge is not None
        value = truth.true_accept(edge)
    else:
        first, last = (round((t + 1) * BINS / 2) for t in RANGE)
        utilities = truth.utilities(first, last + 1, k=2.0)
        assert len(utilities) == (5 if with_reference else 7)
        value = true_opis(utilities) if which == "opis" else true_epsilon_opis(utilities, 40.0)
    measured = filled(make(which, with_reference), emb, labels).compute()
    assert measured.item() == pytest.approx(value, rel=1e-6)


@both_ways
@each_metric
def test_the_order_of_batches_does_not_matter(which: str, with_reference: bool) -> None:
    metric, backwards = make(which, with_reference), make(which, with_reference)
    for batch in (parts := list(batches(*queries()))):
        metric.update(*batch)
    for batch in reversed(parts):
        backwards.update(*batch)
    assert torch.equal(metric.compute(), backwards.compute())


@both_ways
@each_metric
def test_reset_forgets_what_was_seen(which: str, with_reference: bool) -> None:
    metric = filled(make(which, with_reference), *queries())
    before = metric.compute()
    metric.reset()
    after = filled(metric, *queries(7)).compute()
    assert torch.equal(after, expected(which, with_reference, *queries(7)))
    assert not torch.equal(after, before)


@both_ways
@each_metric
def test_forward_returns_the_batch_and_keeps_the_rest(which: str, with_reference: bool) -> None:
    emb, labels = queries()
    metric = make(which, with_reference)
    for part in batches(emb, labels, (40, 50)):
        assert torch.equal(metric(*part), expected(which, with_reference, *part))
    assert torch.equal(metric.compute(), expected(which, with_reference, emb, labels))


def test_queries_of_unknown_classes_count_against_the_classes_they_resemble() -> None:
    """They are false accepts of the reference's classes, so leaving them out would change the number."""
    emb, labels = queries()
    known = labels < 5
    alone = filled(make("opis", True), emb, labels)
    without = make("opis", True)
    without.update(emb[known], labels[known])
    assert torch.equal(alone.negatives.sum(dim=0), 2 * alone.pooled[1])  # a pair counts at both its ends
    assert int(alone.negatives[-1].sum()) == int((~known).sum()) * M
    assert int(alone.positives[-1].sum()) == 0
    assert int(alone.pooled.sum()) == N * M
    assert alone.compute() != without.compute()


@each_metric
@pytest.mark.parametrize(
    ("with_reference", "labels"),
    [(False, []), (True, []), (False, [3] * 6), (False, range(6)), (True, range(100, 106))],
    ids=["no_rows", "no_rows_for_the_reference", "one_class", "all_singletons", "none_of_the_reference"],
)
def test_too_few_pairs_give_nan_and_one_warning(
    which: str, with_reference: bool, labels: Sequence[int]
) -> None:
    """Lightning's sanity check looks at two batches before the training: an error there would end it."""
    few = queries()[0][: len(labels)], torch.tensor(labels, dtype=torch.int64)
    metric = make(which, with_reference)
    metric.update(*few)
    with pytest.warns(UserWarning, match=f"{type(metric).__name__} is NaN: ") as told:
        value = metric.compute()
    assert len(told) == 1
    assert (value.shape, value.dtype) == ((), torch.float32)
    assert value.isnan()
    metric.reset()
    assert metric(*few).isnan()  # and a second warning would be an error
    assert metric.compute().isnan()
    metric.reset()
    assert torch.equal(filled(metric, *queries()).compute(), expected(which, with_reference, *queries()))


@each_metric
def test_a_metric_that_saw_nothing_is_nan(which: str) -> None:
    metric = make(which, False)
    with (
        pytest.warns(UserWarning, match="called before the ``update`` method"),  # torchmetrics' own
        pytest.warns(UserWarning, match="is NaN: there are no pairs in what was seen"),
    ):
        assert metric.compute().isnan()


def test_rows_that_are_not_finite_are_an_error_and_no_number() -> None:
    emb, labels = queries()
    emb[3, 0] = math.nan
    with pytest.raises(ValueError, match=r"emb: 1 of 90 rows are not finite \(rows 3\)"):
        make("opis", True).update(emb, labels)
    metric = make("opis", False)
    metric.update(emb, labels)
    with pytest.raises(ValueError, match=r"emb: 1 of 90 rows are not finite \(rows 3\)"):
        metric.compute()


REF = gallery()


@pytest.mark.parametrize(
    ("kind", "arguments", "settings", "error", "message"),
    [
        (OPIS, (), {"bins": 0}, ValueError, "bins: got 0"),
        (OPIS, (), {"bins": 2.5}, ValueError, "bins: got 2.5"),
        (TARAtFAR, (), {"range": (1.0, -1.0)}, ValueError, "range: got"),
        (TARAtFAR, (), {"range": 3}, TypeError, "range: got 3"),
        (OPIS, (), {"backend": "numpy"}, ValueError, "backend: got 'numpy'"),
        (OPIS, (), {"far": (0.0, 0.1)}, ValueError, "far: got"),
        (OPIS, (), {"far": 0.1}, (TypeError, ValueError), "far: got 0.1"),
        (OPIS, (), {"far": (1e-2, 2.0)}, ValueError, "far: got"),
        (OPIS, (), {"calibration_range": (0.5, 0.1)}, ValueError, "^calibration_range: got"),
        (OPIS, (), {"calibration_range": (2.0, 3.0)}, ValueError, "^calibration_range: 2 to 3 covers 0"),
        (OPIS, (), {"k": 0.0}, ValueError, "k: got 0.0"),
        (EpsilonOPIS, (), {"k": -1.0}, ValueError, "k: got -1.0"),
        (EpsilonOPIS, (), {"epsilon": 0.0}, ValueError, "epsilon: got 0.0"),
        (EpsilonOPIS, (), {"epsilon": 51.0}, ValueError, "epsilon: got 51.0"),
        (TARAtFAR, (), {"far": 0.0}, ValueError, "far: got 0.0"),
        (TARAtFAR, (), {"far": 1.0}, ValueError, "far: got 1.0"),
        (TARAtFAR, (), {"far": "low"}, (TypeError, ValueError), "far: got 'low'"),
        (TARAtFAR, (), {"colour": "red"}, ValueError, "colour"),
        (OPIS, (REF[0],), {}, ValueError, "ref_labels: got None"),
        (OPIS, (None, REF[1]), {}, ValueError, "ref_emb: got None"),
        (OPIS, (REF[0], REF[1][:-1]), {}, ValueError, "ref_labels: got shape"),
        (OPIS, (REF[0], REF[1].float()), {}, TypeError, "ref_labels: got dtype"),
        (OPIS, (REF[0][0], REF[1]), {}, ValueError, "ref_emb: got shape"),
        (OPIS, (REF[0].numpy(), REF[1]), {}, TypeError, "ref_emb: got ndarray"),
        (OPIS, (REF[0] / 0, REF[1]), {}, ValueError, "ref_emb: 60 of 60 rows are not finite"),
        (OPIS, (REF[0][:0], REF[1][:0]), {}, ValueError, "ref_emb: got no rows"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_at_construction(
    kind: Callable[..., Metric],
    arguments: tuple[Any, ...],
    settings: dict[str, Any],
    error: Any,
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        kind(*arguments, **settings)


@both_ways
def test_a_batch_that_cannot_be_used_is_refused_by_update(with_reference: bool) -> None:
    metric = make("opis", with_reference)
    emb, labels = queries()
    metric.update(emb, labels)
    with pytest.raises(ValueError, match=r"emb: got shape .* expected 24 columns"):
        metric.update(emb[:, :-1], labels)
    with pytest.raises(ValueError, match="labels: got shape"):
        metric.update(emb, labels[:-1])
    with pytest.raises(TypeError, match=r"labels: got dtype torch\.float32"):
        metric.update(emb, labels.float())
    with pytest.raises(TypeError, match=r"emb: got dtype torch\.int64"):
        metric.update(emb.long(), labels)
    if with_reference:
        with pytest.raises(ValueError, match="emb: got device meta, expected cpu as ref_emb has"):
            metric.update(emb.to("meta"), labels.to("meta"))
    assert torch.equal(metric.compute(), expected("opis", with_reference, emb, labels))


class _Saved:
    """What autograd keeps of a tensor for the backward; gone when the graph is."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


@both_ways
@pytest.mark.parametrize("way", ["update", "forward"])
def test_neither_graph_nor_activations_are_kept(with_reference: bool, way: str) -> None:
    metric = make("opis", with_reference)
    emb, labels = queries()
    graph: list[weakref.ref[_Saved]] = []

    def pack(tensor: Tensor) -> _Saved:
        saved = _Saved(tensor)
        graph.append(weakref.ref(saved))
        return saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved.tensor):
        tokens = emb[:, None].expand(N, 50, D) * nn.Parameter(torch.ones(D))
        getattr(metric, way)(tokens[:, 0], labels)  # of the 50 tokens of each row the first
    assert graph
    assert graph[0]() is not None
    del tokens
    gc.collect()
    assert all(saved() is None for saved in graph)
    if not with_reference:
        (kept,) = metric.emb
        assert kept.untyped_storage().nbytes() == N * D * kept.element_size()
    assert torch.equal(metric.compute(), expected("opis", with_reference, emb, labels))


@both_ways
def test_memory_that_the_next_batch_is_written_into_is_not_shared(with_reference: bool) -> None:
    emb, labels = queries()
    metric = make("opis", with_reference)
    metric.update(emb, labels)
    emb.fill_(1.0)
    labels.fill_(0)
    assert torch.equal(metric.compute(), expected("opis", with_reference, *queries()))


def test_memory_of_the_reference_is_not_shared() -> None:
    ref, ref_labels = gallery()
    metric = TARAtFAR(ref, ref_labels, far=FAR, bins=BINS)
    ref.fill_(1.0)
    ref_labels.fill_(0)
    metric.update(*queries())
    assert torch.equal(metric.compute(), expected("tar_at_far", True, *queries()))


@both_ways
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_embeddings_are_kept_in_their_dtype(with_reference: bool, dtype: torch.dtype) -> None:
    emb, labels = queries()
    metric = filled(make("opis", with_reference), emb.to(dtype), labels)
    assert {x.dtype for x in metric.metric_state.get("emb", [])} <= {dtype}
    assert torch.equal(metric.compute(), expected("opis", with_reference, emb, labels))


def test_a_half_precision_reference_takes_queries_in_single_precision_without_rounding_them() -> None:
    ref, ref_labels = gallery()
    emb, labels = torch.randn(N, D), queries()[1]
    metric = TARAtFAR(ref.bfloat16(), ref_labels, far=FAR)
    metric.update(emb, labels)
    pooled = class_curves(emb, labels, ref, ref_labels).pooled
    assert torch.equal(metric.pooled, torch.from_numpy(pooled))


@both_ways
@pytest.mark.parametrize("dtype", LABEL_DTYPES, ids=str)
def test_labels_may_have_every_integer_dtype(with_reference: bool, dtype: torch.dtype) -> None:
    """The largest numbers of each among them, which uint64 has beyond those of int64."""
    top = torch.iinfo(dtype).max
    names = torch.tensor([top, 3, top - 1, 0, 1, 2, top - 2], dtype=dtype)
    emb, labels = queries()
    renamed = torch.stack([names.view(torch.uint8).view(7, -1)[c] for c in labels]).view(dtype)[:, 0]
    ref, ref_labels = gallery()
    settings: dict[str, Any] = {"calibration_range": RANGE, "k": 2.0, "bins": BINS}
    metric = OPIS(**settings)
    if with_reference:
        inside = ref_labels < 5
        ref, ref_labels = ref[inside], ref_labels[inside]
        metric = OPIS(
            ref, torch.stack([names.view(torch.uint8).view(7, -1)[c] for c in ref_labels]).view(dtype)[:, 0],
            **settings,
        )  # fmt: skip
    metric.update(emb, renamed)
    curves = class_curves(emb, labels, *((ref, ref_labels) if with_reference else ()), bins=BINS)
    assert torch.equal(metric.compute(), number("opis", curves))


def _pickled(metric: Metric) -> Metric:
    return pickle.loads(pickle.dumps(metric))


def _saved(metric: Metric) -> Metric:
    buffer = io.BytesIO()
    metric.persistent(True)
    torch.save(metric.state_dict(), buffer)
    buffer.seek(0)
    fresh = make("opis", metric.reference is not None)
    fresh.load_state_dict(torch.load(buffer, weights_only=True))
    return fresh


@both_ways
@pytest.mark.parametrize("copied", [_pickled, copy.deepcopy, Metric.clone, _saved])
@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")  # its count of updates is not saved
def test_a_copy_goes_on_where_the_original_was(with_reference: bool, copied: Any) -> None:
    emb, labels = queries()
    metric = make("opis", with_reference)
    metric.update(emb[:50], labels[:50])
    twin = copied(metric)
    assert torch.equal(twin.compute(), metric.compute())
    twin.update(emb[50:], labels[50:])
    assert torch.equal(twin.compute(), expected("opis", with_reference, emb, labels))
    assert torch.equal(metric.compute(), expected("opis", with_reference, emb[:50], labels[:50]))


@both_ways
def test_state_dict_is_empty_unless_asked_for(with_reference: bool) -> None:
    assert filled(make("opis", with_reference), *queries()).state_dict() == {}


@both_ways
def test_casting_a_model_rounds_neither_counts_nor_labels(with_reference: bool) -> None:
    emb, labels = queries()
    metric = make("opis", with_reference)
    labels = labels + (1 << 40)  # not one of them is a float32
    labels[:50] -= 1 << 40
    metric.update(emb, labels)
    before = metric.compute()
    model = nn.Sequential(nn.Linear(2, 2), metric)
    for cast in (nn.Module.half, nn.Module.bfloat16, lambda m: m.to(torch.bfloat16)):
        cast(model)
        assert {x.dtype for x in metric.metric_state.values() if isinstance(x, Tensor)} <= {torch.int64}
        metric._computed = None
        assert metric.compute().dtype == torch.float32
        assert torch.equal(metric.compute(), before)
    metric.set_dtype(torch.float64)
    metric._computed = None
    assert metric.compute().dtype == torch.float64
    assert torch.equal(metric.compute().float(), before)
    if with_reference:
        assert metric.reference.emb.dtype == torch.float32


@both_ways
def test_the_metric_moves_to_a_device_with_all_it_needs(with_reference: bool) -> None:
    """`meta` stands for a GPU: everything but the arithmetic is there."""
    metric = make("opis", with_reference).to("meta")
    assert metric.device.type == "meta"
    tensors = [x for x in metric.metric_state.values() if isinstance(x, Tensor)]
    if with_reference:
        tensors += [metric.reference.emb, metric.reference.numbers, metric.reference.classes]
    assert {x.device.type for x in tensors} <= {"meta"}
    metric.reset()
    assert {x.device.type for x in metric.metric_state.values() if isinstance(x, Tensor)} <= {"meta"}


@both_ways
def test_a_reset_under_inference_mode_leaves_a_metric_that_can_be_updated(with_reference: bool) -> None:
    """Lightning validates under inference_mode, and resets there."""
    metric = make("opis", with_reference)
    with torch.inference_mode():
        metric.reset()
        metric.update(*queries(5))
        metric.reset()
    filled(metric, *queries())
    assert torch.equal(metric.compute(), expected("opis", with_reference, *queries()))


@both_ways
@pytest.mark.parametrize("way", ["update", "forward"])
def test_a_collection_stores_once_what_its_metrics_share(with_reference: bool, way: str) -> None:
    collection = MetricCollection([make(which, with_reference) for which in METRICS], prefix="val/")
    for emb, labels in batches(*queries()):
        if len(emb) > 1 or way == "update":
            getattr(collection, way)(emb=emb, labels=labels)
    values = collection.compute()
    if way == "update":
        assert [sorted(group) for group in collection.compute_groups.values()] == [
            ["EpsilonOPIS", "OPIS", "TARAtFAR"]
        ]
        emb, labels = queries()
    else:
        keep = [batch for batch in batches(*queries()) if len(batch[0]) > 1]
        emb, labels = (torch.cat(x) for x in zip(*keep, strict=True))
    for which, name in zip(METRICS, ("OPIS", "EpsilonOPIS", "TARAtFAR"), strict=True):
        assert torch.equal(values[f"val/{name}"], expected(which, with_reference, emb, labels))
    collection.reset()
    collection.update(*queries(7))
    assert torch.equal(collection.compute()["val/OPIS"], expected("opis", with_reference, *queries(7)))


def test_a_collection_does_not_share_counts_of_different_pairs() -> None:
    """Before the first row all tables are zeros, whatever they are going to count."""
    ref, ref_labels = gallery()
    collection = MetricCollection(
        {
            "here": TARAtFAR(ref, ref_labels, far=FAR, bins=BINS),
            "there": TARAtFAR(ref.flip(0), ref_labels, far=FAR, bins=BINS),
            "finer": TARAtFAR(ref, ref_labels, far=FAR, bins=BINS, range=(-0.5, 0.5)),
        }
    )
    emb, labels = queries()
    collection.update(emb[:0], labels[:0])
    collection.update(emb, labels)
    assert len(collection.compute_groups) == 3
    for name, curves in {
        "here": class_curves(emb, labels, ref, ref_labels, bins=BINS),
        "there": class_curves(emb, labels, ref.flip(0), ref_labels, bins=BINS),
        "finer": class_curves(emb, labels, ref, ref_labels, bins=BINS, range=(-0.5, 0.5)),
    }.items():
        assert torch.equal(collection[name].compute(), number("tar_at_far", curves))


@both_ways
def test_metrics_can_be_merged_and_only_of_the_same_pairs(with_reference: bool) -> None:
    emb, labels = queries()
    one, other = make("opis", with_reference), make("opis", with_reference)
    one.update(emb[:30], labels[:30])
    other.update(emb[30:], labels[30:])
    one.merge_state(other)
    assert torch.equal(one.compute(), expected("opis", with_reference, emb, labels))
    if with_reference:
        with pytest.raises(ValueError, match="ref_emb, ref_labels, bins or range differ"):
            one.merge_state(make("opis", True, range=(-0.5, 1.0)))


class _Trained(nn.Module):
    """What Lightning does with a metric that a module logs, in its order."""

    def __init__(self, metric: Metric) -> None:
        super().__init__()
        self.encoder = nn.Linear(D, D, bias=False)
        nn.init.eye_(self.encoder.weight)
        self.metric = metric

    def validate(self, parts: list[Any]) -> float:
        self.eval()
        with torch.inference_mode():
            for emb, labels in parts:
                self.metric.update(self.encoder(emb), labels)
            logged = self.metric.compute()
            assert logged.numel() == 1
            self.metric.reset()
        self.train()
        return float(logged)


@both_ways
def test_a_training_loop_can_log_it(with_reference: bool) -> None:
    """A sanity check with too little, then a model cast and trained between two validations."""
    model = _Trained(make("opis", with_reference))
    emb, labels = queries()
    with pytest.warns(UserWarning, match="OPIS is NaN"):
        assert math.isnan(model.validate([(emb[:2], torch.tensor([100, 101]))]))
    model.double()
    for step in range(2):
        loss = model.encoder(emb.double()).square().mean() * 0.0
        loss.backward()
        value = model.validate(list(batches(emb.double(), labels)))
        assert value == pytest.approx(expected("opis", with_reference, emb, labels).item(), rel=1e-6), step


def test_importing_evaluation_does_not_import_torchmetrics() -> None:
    code = "import sys, tcm_kernels.evaluation; sys.exit('torchmetrics' in sys.modules)"
    root = Path(__file__).parent.parent
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, timeout=120)


def test_without_torchmetrics_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    monkeypatch.delitem(sys.modules, "tcm_kernels.evaluation.metrics")
    with pytest.raises(ImportError, match=r"pip install 'tcm-kernels\[metrics\]'"):
        importlib.import_module("tcm_kernels.evaluation.metrics")
