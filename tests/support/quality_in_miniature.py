"""The study with few classes and three steps a run: fixtures for the tests of what is made of its records."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.quality import chain, data, plan
from benchmarks.quality.plan import Size
from benchmarks.quality.records import Records
from tcm_kernels.demo.glyphs import Split

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
