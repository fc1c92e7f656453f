"""The metrics keep torchmetrics' contract: copies, casts, devices, collections, training loops."""

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
from typing import Any

import pytest
import torch
from cases import LABEL_DTYPES
from checkout import ROOT
from torch import Tensor, nn

from tcm_kernels.evaluation.counting import class_curves

pytest.importorskip("torchmetrics", reason="needs torchmetrics")
from metric_cases import (
    BINS,
    FAR,
    METRICS,
    NAMES,
    RANGE,
    D,
    N,
    batches,
    both_ways,
    expected,
    filled,
    gallery,
    make,
    number,
    queries,
)
from torchmetrics import Metric, MetricCollection

from tcm_kernels.evaluation.metrics import OPIS, TARAtFAR


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
        assert [set(group) for group in collection.compute_groups.values()] == [set(NAMES.values())]
        emb, labels = queries()
    else:
        keep = [batch for batch in batches(*queries()) if len(batch[0]) > 1]
        emb, labels = (torch.cat(x) for x in zip(*keep, strict=True))
    for which, name in NAMES.items():
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
    root = ROOT
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, timeout=120)


def test_without_torchmetrics_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    for module in ("metrics", "pair_metric"):
        monkeypatch.delitem(sys.modules, f"tcm_kernels.evaluation.{module}")
    with pytest.raises(ImportError, match=r"pip install 'tcm-kernels\[metrics\]'"):
        importlib.import_module("tcm_kernels.evaluation.metrics")
