"""The torchmetrics metrics on two ranks: two processes with gloo must say what one with everything says.

They are started once, run every case one after the other, and write down what came out or went wrong.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("torchmetrics", reason="needs torchmetrics")
from metric_cases import (
    BINS,
    METRICS,
    NAMES,
    D,
    M,
    N,
    both_ways,
    each_metric,
    expected,
    gallery,
    make,
    queries,
)
from torchmetrics import Metric, MetricCollection

from tcm_kernels.evaluation.metrics import OPIS


def _rank(rank: int, folder: str) -> None:
    """One of two processes: each case on its share, and what came out or went wrong."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    emb, labels = queries()
    results: dict[str, Any] = {}

    def record(name: str, metric: Metric | MetricCollection, begin: int, end: int) -> None:
        if begin < end:  # else no update at all, as where a sampler left nothing for a rank
            for part in zip(emb[begin:end].split(13), labels[begin:end].split(13), strict=True):
                metric.update(*part)
        try:
            results[name] = metric.compute()
            results[f"{name} again"] = metric.compute()
        except ValueError as error:
            results[name] = str(error)

    for with_reference in (False, True):
        for share, cut in SHARES.items():
            rows = (0, cut) if rank == 0 else (cut, N)
            for which in METRICS:
                record(f"{which} {with_reference} {share}", make(which, with_reference), *rows)
        collection = MetricCollection([make(which, with_reference) for which in METRICS])
        record(f"collection {with_reference}", collection, *((0, 33) if rank == 0 else (33, N)))
        nothing = make("opis", with_reference)
        record(f"nothing {with_reference}", nothing, 0, 0)

        metric = make("opis", with_reference)  # which goes on after a compute, with what it had of its own
        first, rest = ((0, 20), (20, 33)) if rank == 0 else ((33, 80), (80, N))
        metric.update(emb[slice(*first)], labels[slice(*first)])
        metric.compute()
        metric.update(emb[slice(*rest)], labels[slice(*rest)])
        results[f"goes on {with_reference}"] = metric.compute()

        for name, dtypes in DTYPES.items():
            metric = make("opis", with_reference)
            own = slice(0, 33) if rank == 0 else slice(33, N)
            metric.update(emb[own].to(dtypes[rank]), labels[own])
            results[f"{name} {with_reference}"] = metric.compute()

    metric = make("opis", False)
    metric.update(emb[:, : D - rank], labels)
    record("columns differ", metric, 0, 0)
    ref, ref_labels = gallery()
    record("references differ", OPIS(ref[rank:], ref_labels[rank:], bins=BINS), 0, N)
    record("classes differ", OPIS(ref[: M - 50 * rank], ref_labels[: M - 50 * rank], bins=BINS), 0, N)
    torch.save(results, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


SHARES = {"uneven": 33, "first rank empty": 0, "second rank empty": N}
DTYPES = {
    "float16": (torch.float16, torch.float16),
    "bfloat16": (torch.bfloat16, torch.bfloat16),
    "mixed": (torch.bfloat16, torch.float32),
}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two processes said, started once for all tests."""
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(_rank, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@both_ways
@each_metric
@pytest.mark.parametrize("share", SHARES)
def test_two_ranks_agree_with_one_process(
    ranks: list[dict[str, Any]], which: str, with_reference: bool, share: str
) -> None:
    value = expected(which, with_reference, *queries())
    for said in ranks:
        assert torch.equal(said[f"{which} {with_reference} {share}"], value)
        assert torch.equal(said[f"{which} {with_reference} {share} again"], value)


@both_ways
def test_a_collection_on_two_ranks_agrees_with_one_process(
    ranks: list[dict[str, Any]], with_reference: bool
) -> None:
    for said in ranks:
        for which, name in NAMES.items():
            value = said[f"collection {with_reference}"][name]
            assert torch.equal(value, expected(which, with_reference, *queries()))


@both_ways
@pytest.mark.parametrize("case", ["goes on", *DTYPES])
def test_ranks_may_go_on_after_compute_and_hold_any_dtype(
    ranks: list[dict[str, Any]], with_reference: bool, case: str
) -> None:
    for said in ranks:
        assert torch.equal(said[f"{case} {with_reference}"], expected("opis", with_reference, *queries()))


@both_ways
def test_ranks_that_saw_nothing_say_nan(ranks: list[dict[str, Any]], with_reference: bool) -> None:
    assert all(said[f"nothing {with_reference}"].isnan() for said in ranks)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("columns differ", "emb: got [23, 24] columns on different ranks"),
        ("references differ", "ref_emb, ref_labels, bins or range differ between ranks"),
        ("classes differ", "ref_emb, ref_labels, bins or range differ between ranks"),
    ],
)
def test_ranks_that_do_not_match_all_say_so(ranks: list[dict[str, Any]], case: str, message: str) -> None:
    """Neither hangs while the other has failed."""
    for said in ranks:
        assert message in said[case]
