"""The study with few classes and three steps a run: fixtures for the tests of what is made of its records."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))  # benchmarks is not installed; it is found in the checkout

from benchmarks.quality import chain, data, plan  # noqa: E402
from benchmarks.quality.plan import Size  # noqa: E402
from benchmarks.quality.records import Records  # noqa: E402
from tcm_kernels.demo.glyphs import Split  # noqa: E402

TINY = Size(steps=3, seeds=(0, 1), train_views=1, views=1, stops=(2, 3), trials=2, splits=("random-0",))


@pytest.fixture(scope="module")
def few_classes() -> Iterator[None]:
    """Of each split seventy classes to learn from, twenty to choose by and thirty to judge on."""
    whole = data.classes_of

    def some(split: str) -> Split:
        classes = whole(split)
        return Split(classes.train[:70], classes.validation[:20], classes.test[:30])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "classes_of", some)
        data.load.cache_clear()
        yield
    data.load.cache_clear()


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory, few_classes: None) -> Records:
    """Two chains of three steps a run."""
    records = Records(tmp_path_factory.mktemp("study"))
    for base in ("smooth_ap", plan.ALONE):
        chain.walk("random-0", base, TINY, records, lambda _: None)
    return records
