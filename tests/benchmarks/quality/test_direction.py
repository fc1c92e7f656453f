"""One pair of trainings long enough to tell: the same seed with ArcFace alone and with TCM beside it."""

from __future__ import annotations

import pytest

for package in ("matplotlib", "pytorch_metric_learning", "scipy", "tqdm"):
    pytest.importorskip(package, reason=f"{package} is not installed: pip install 'tcm-kernels[demo]'")

from benchmarks.quality import data, running  # noqa: E402
from benchmarks.quality.plan import Size, Trial  # noqa: E402

SHORT = Size(steps=300, seeds=(0,), train_views=2, views=1, stops=(300,), trials=1, splits=("random-0",))


def test_beside_arcface_tcm_brings_the_classes_own_thresholds_together() -> None:
    """Margins lie where its pairs are (docs/recipe.md).

    Seeds 0 and 1: -30 % and -31 % of threshold spread, -6 % and -10 % of OPIS, two points of Recall@1.
    """
    found = {}
    for arm, weight in (("base", 0.0), ("tcm", 10.0)):
        trial = Trial("random-0", "arcface", arm, "judge", 0, 0.016, 0.01, weight, 0.98, 0.95)
        rows, _ = running.run(trial, SHORT)
        found[arm] = rows[-1]
    data.load.cache_clear()
    base, tcm = found["base"], found["tcm"]
    assert base["classes"] == "test"
    assert tcm["spread_relative"] < 0.85 * base["spread_relative"]
    assert tcm["opis"] < base["opis"]
    assert tcm["recall_at_1"] > base["recall_at_1"] - 0.05
    assert base["recall_at_1"] > 0.2  # it has learnt something
