"""The report's text without a browser: its size, what is inside, what it refuses."""

from __future__ import annotations

import hashlib
import html
import json
import math
import re
from base64 import b64decode, b64encode
from typing import Any

import numpy as np
import pytest
from report_pages import HOSTILE, many_curves, page, small_curves

from tcm_kernels.evaluation import ClassCurves
from tcm_kernels.evaluation.rates import error_rates
from tcm_kernels.evaluation.report import data as report_data

SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"/>'


def data_of(text: str) -> Any:
    """What the page's script reads."""
    (found,) = re.findall(r'<script id="data" type="application/json">(.*?)</script>', text, re.DOTALL)
    return json.loads(found)


def test_11_000_classes_at_2001_edges_stay_within_8_megabytes() -> None:
    curves = many_curves(11_000)
    text = page(curves, names=[f"https://example.com/classes/{c:05d}" for c in range(11_000)])
    assert len(text.encode()) < 8e6
    data = data_of(text)
    assert len(data["every"]["positives"]) == 11_000
    assert len(data["thresholds"]) >= 100
    for step in (0, data["start"], len(data["thresholds"]) - 1):
        at = error_rates(curves, float(data["thresholds"][step]))
        for which, by in (("far", "false_accept"), ("frr", "false_reject")):
            shown = [data["names"][row[0]] for row in data["worst"][which][step]]
            assert shown == [f"https://example.com/classes/{c:05d}" for c in at.worst(20, by)]


def test_where_no_thinning_makes_all_classes_fit_the_steps_stay_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_data, "MOST_BYTES", 200_000)
    text = page(many_curves(1000))
    assert len(text.encode()) < 1e6
    data = data_of(text)
    assert data["every"] is None
    assert "The rates of all 1,000 classes at all steps do not fit" in text
    assert len(data["thresholds"]) > 300
    assert 20 < len(data["names"]) < 1000


def test_counts_take_no_more_than_their_share_when_estimated_and_when_written() -> None:
    counts = np.array([[0, 9, 10], [99, 100, 12345]])
    assert report_data._characters(counts) == len("0,9,10,99,100,12345,")


def test_very_long_names_of_many_classes_are_cut_and_say_so() -> None:
    curves = small_curves()
    text = page(curves, names=["x" * 1_000_000] * 28)
    assert len(text) < 1e6
    assert set(data_of(text)["names"]) == {"x" * 200 + "… (1,000,000 characters)"}


@pytest.mark.parametrize("bins", [1, 2, 7, 150, 30_000])
def test_steps_are_told_apart_and_hold_the_ends_and_the_threshold(bins: int) -> None:
    curves = small_curves(bins)
    texts = report_data.threshold_texts(curves)
    assert len(set(texts)) == bins + 1
    width = 2 / bins
    assert np.abs(np.array(texts, float) - curves.thresholds).max() < 0.06 * width
    shown = data_of(page(curves))["thresholds"]
    for wanted in (0.2, 0.33, 0.5):
        assert texts[curves.edge(wanted)] in shown
    assert len(shown) <= 401 + 4


def test_thresholds_are_plain_decimals_where_edges_are() -> None:
    texts = report_data.threshold_texts(small_curves(2000))
    assert texts[:2] == ["-1.000", "-0.999"]
    assert texts[1000] == "0.000"


def test_nothing_is_loaded_and_only_the_pages_own_style_and_script_may_run() -> None:
    text = page(small_curves(), pictures=[("vector", SVG)])
    policy = html.unescape(re.findall(r'Content-Security-Policy" content="(.*?)"', text)[0])
    for tag in ("style", "script"):
        (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert set(re.findall(r'(?:src|href)="([a-z]+:)', text)) == {"data:"}
    picture = re.findall(r"data:image/svg\+xml;base64,([^\"]*)", text)[0]
    assert b64decode(picture) == SVG


def test_hostile_text_leaves_no_markup_behind() -> None:
    text = page(
        small_curves(), title=HOSTILE[0], names=[HOSTILE[c % len(HOSTILE)] for c in range(28)], notes=HOSTILE
    )
    text.encode()  # halves of pairs would refuse
    assert text.count("<script") == 2
    assert "<img" not in text
    assert "\u2028" not in re.findall(r'type="application/json">(.*?)</script>', text, re.DOTALL)[0]


def test_groups_are_called_groups() -> None:
    found = small_curves()
    curves = ClassCurves(found.classes, found.positives, found.negatives, found.pooled, grouped=True)
    text = page(curves)
    assert "Worst groups" in text
    assert "Worst classes" not in text
    assert data_of(text)["quantile_names"][0] == "lowest group"


def test_classes_without_pairs_of_a_kind_do_not_count_as_0() -> None:
    found = small_curves()
    none = np.zeros_like(found.negatives)
    pooled = np.stack([found.pooled[0], none[0]])
    data = data_of(page(ClassCurves(found.classes, found.positives, none, pooled)))
    step = data["start"]
    assert data["quantiles"]["far"][step] is None
    assert sum(data["histogram"]["far"][step]) == 0
    assert data["worst"]["far"][step] == []
    assert sum(data["histogram"]["frr"][step]) == 24


def test_no_calibration_range_and_no_margins_are_fine() -> None:
    text = page(small_curves(), range=None, margins=None, numbers=[])
    assert 'class="range"' not in text
    assert "Shaded" not in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": ["one"]}, "names: got 1, expected 28: one per class"),
        ({"threshold": 1.5}, r"threshold: got 1.5, expected a similarity in \[-1.0, 1.0\]"),
        ({"threshold": math.nan}, "threshold: got nan"),
        ({"range": (-2.0, 0.5)}, "threshold: got -2.0"),
        (
            {"pictures": [("a photo", b"\xff\xd8\xff\xe0JFIF")]},
            "pictures: got .* for 'a photo', expected PNG or SVG",
        ),
    ],
)
def test_arguments_that_cannot_be_used_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        page(small_curves(), **changes)
