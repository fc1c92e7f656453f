"""The report as its reader meets it: opened from disk in Chromium, without a network, its slider moved.

What the page then shows is held against `error_rates` at the threshold that it names. Where Selenium or
Chromium is missing these tests are skipped, except in continuous integration (`CI` is set): there they fail.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_pages import HOSTILE, out_of, page, percent, small_curves, spread

from tcm_kernels.evaluation import ClassCurves
from tcm_kernels.evaluation.rates import error_rates
from tcm_kernels.evaluation.report import data as report_data

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55"
    "0000000a49444154789c6360000000020001e221bc330000000049454e44ae426082"
)


def missing(what: str, how: str) -> None:
    """Skip, or fail where nothing may be missing."""
    text = f"{what} is missing: {how}"
    if os.environ.get("CI"):
        pytest.fail(text)
    pytest.skip(text)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if importlib.util.find_spec("selenium") is None:
        missing("selenium", "pip install 'tcm-kernels[test]'")
    chromium = next(filter(None, map(shutil.which, CHROMIUM)), None)
    driver = shutil.which("chromedriver")
    if chromium is None:
        missing("Chromium", "apt-get install chromium")
    if driver is None:
        missing("chromedriver", "apt-get install chromium-driver")
    from selenium import webdriver  # noqa: PLC0415

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "window-size=1100,900"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        started.execute_cdp_cmd("Network.enable", {})
        offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        started.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
        yield started
    finally:
        started.quit()


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Callable[[str], Any]]:
    """Opens a page in the browser; at the end nothing has complained and nothing was asked of a network."""

    def open_page(text: str) -> Any:
        file = tmp_path / "report.html"
        file.write_text(text, encoding="utf-8")
        browser.get(file.as_uri())
        return browser

    for log in ("browser", "performance"):
        browser.get_log(log)
    yield open_page
    assert browser.get_log("browser") == []
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            assert message["params"]["request"]["url"].startswith(("file:", "data:", "about:"))


@pytest.fixture(scope="module")
def curves() -> ClassCurves:
    return small_curves()


SPREAD = (
    "lowest class",
    "5th percentile of classes",
    "median class",
    "95th percentile of classes",
    "highest class",
)
NAMES = [f"class {c}" for c in range(28)]

READ = """
const texts = (selector) => [...document.querySelectorAll(selector)].map((e) => e.textContent);
const rows = (selector) => [...document.querySelectorAll(selector)].map(
    (row) => [...row.children].map((cell) => cell.textContent));
const worst = (id) => [...document.querySelectorAll(`#${id} li`)].map((li) => [
    li.querySelector(".name").textContent, li.querySelector(".rate").textContent,
    li.querySelector(".detail").textContent]);
return {
  threshold: document.getElementById("value").textContent,
  spoken: document.getElementById("threshold").getAttribute("aria-valuetext"),
  pooled: texts("#pooled-far, #pooled-frr"),
  summary: rows("#summary tbody tr"),
  histogram: {far: texts("#histogram-far .count"), frr: texts("#histogram-frr .count")},
  worst: {far: worst("worst-far"), frr: worst("worst-frr")},
  classes: [...document.querySelectorAll("#classes tbody tr")].map((row) => [
    row.querySelector(".name").textContent,
    ...[...row.querySelectorAll("td + td")].flatMap((cell) => [...cell.children].map((e) => e.textContent))]),
};
"""


def bar_of(rate: float) -> int:
    """Which bar of the histogram a rate belongs to."""
    bounds = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
    return 0 if rate == 0 else 1 + sum(rate >= bound for bound in bounds)


def expected(curves: ClassCurves, threshold: float, names: list[str]) -> dict[str, Any]:
    """What the page must show at a threshold."""
    at = error_rates(curves, threshold)
    edge = curves.edge(threshold)
    positives, negatives = curves.positive_pairs, curves.negative_pairs
    rejects = curves.positives[:, : edge + 1].sum(axis=1)
    accepts = curves.negatives[:, edge + 1 :].sum(axis=1)
    counts = {"far": (accepts, negatives), "frr": (rejects, positives)}
    rates = {"far": at.false_accept, "frr": at.false_reject}
    gaps = (at.false_accept_gap, at.false_reject_gap)
    pooled = [percent(at.pooled_false_accept), percent(at.pooled_false_reject)]
    worst = {}
    for own, other, by, says in (
        ("far", "frr", "false_accept", "false rejects"),
        ("frr", "far", "false_reject", "false accepts"),
    ):
        worst[own] = [
            [
                names[c],
                percent(rates[own][c]),
                f"{out_of(*(x[c] for x in counts[own]))} · {says} {percent(rates[other][c])}",
            ]
            for c in at.worst(20, by)
        ]
    return {
        "pooled": pooled,
        "summary": [
            ["all pairs together", *pooled],
            *(
                [name, percent(far), percent(frr)]
                for name, far, frr in zip(
                    SPREAD, spread(at.false_accept), spread(at.false_reject), strict=True
                )
            ),
            ["gap: highest − lowest", *map(percent, gaps)],
        ],
        "histogram": {
            which: [str([bar_of(x) for x in of if not np.isnan(x)].count(bar)) for bar in range(10)]
            for which, of in rates.items()
        },
        "worst": worst,
        "classes": [
            [
                names[c],
                percent(at.false_accept[c]), out_of(accepts[c], negatives[c]),
                percent(at.false_reject[c]), out_of(rejects[c], positives[c]),
            ]
            for c in range(len(names))
        ],
    }  # fmt: skip


def assert_shows(browser: Any, curves: ClassCurves, *, every: bool = True, names: list[str] = NAMES) -> float:
    """That all figures are those of the threshold that the page names; returns it."""
    shown = browser.execute_script(READ)
    threshold = float(shown.pop("threshold"))
    assert float(shown.pop("spoken")) == threshold
    assert np.abs(curves.thresholds - threshold).min() < 1e-9, "not the edge of a bin"
    right = expected(curves, threshold, names)
    if not every:
        right["classes"] = []
    assert shown == right
    return threshold


def set_slider(browser: Any, value: int) -> None:
    browser.execute_script(
        "const slider = document.getElementById('threshold'); slider.value = arguments[0];"
        "slider.dispatchEvent(new Event('input', {bubbles: true}));",
        value,
    )


def steps_of(browser: Any) -> int:
    return int(browser.find_element("id", "threshold").get_attribute("max")) + 1


def test_opens_at_the_chosen_threshold_with_all_figures_of_it(
    opened: Callable[[str], Any], curves: ClassCurves
) -> None:
    browser = opened(page(curves, title="sound & vision.npz", names=NAMES, pictures=[("a dot", PNG)]))
    assert assert_shows(browser, curves) == pytest.approx(0.33)
    assert browser.title == "sound & vision.npz"
    assert browser.find_element("tag name", "h1").text == "sound & vision.npz"
    assert "0.0123 (0.01 to 0.014)" in browser.find_element("css selector", ".numbers").text
    assert "OPIS looks at thresholds" in browser.find_element("css selector", ".notes").text
    assert browser.execute_script("return document.querySelector('figure img').naturalWidth") == 1


def test_keys_move_the_threshold_and_every_figure_with_it(
    opened: Callable[[str], Any], curves: ClassCurves
) -> None:
    from selenium.webdriver.common.keys import Keys  # noqa: PLC0415

    browser = opened(page(curves, names=NAMES))
    slider = browser.find_element("id", "threshold")
    width = 2 / curves.bins
    seen = [assert_shows(browser, curves)]
    for key in (Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_UP, Keys.ARROW_LEFT, Keys.PAGE_UP):
        slider.send_keys(key)
        seen.append(assert_shows(browser, curves))
    assert np.diff(seen)[:4] == pytest.approx([width, width, width, -width])
    assert seen[5] > seen[4] + width
    slider.send_keys(Keys.END)
    highest = assert_shows(browser, curves)
    slider.send_keys(Keys.HOME)
    assert highest - assert_shows(browser, curves) == pytest.approx(width * (steps_of(browser) - 1))
    browser.find_element("id", "chosen").click()
    assert assert_shows(browser, curves) == seen[0]


def test_every_step_of_the_slider_shows_the_rates_of_its_threshold(
    opened: Callable[[str], Any], curves: ClassCurves
) -> None:
    browser = opened(page(curves, names=NAMES))
    thresholds = []
    for step in range(steps_of(browser)):
        set_slider(browser, step)
        thresholds.append(assert_shows(browser, curves))
    assert thresholds == sorted(set(thresholds))
    first, last = error_rates(curves, thresholds[0]), error_rates(curves, thresholds[-1])
    assert (first.pooled_false_reject, last.pooled_false_accept) == (0, 0), "the ends show everything"


def test_a_page_too_small_for_all_classes_says_so_and_shows_the_worst_at_every_step(
    opened: Callable[[str], Any], curves: ClassCurves, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_data, "MOST_BYTES", 100)
    monkeypatch.setattr(report_data, "_STEPS", (12, 6))
    browser = opened(page(curves, names=NAMES))
    assert "The rates of all 28 classes at all steps do not fit" in browser.find_element("id", "all").text
    assert browser.find_elements("id", "filter") == []
    count = steps_of(browser)
    assert 12 <= count <= 16, "12 steps, the ends of the range and the chosen threshold"
    thresholds = []
    for step in range(count):
        set_slider(browser, step)
        thresholds.append(assert_shows(browser, curves, every=False))
    for wanted in (0.2, 0.33, 0.5):
        assert np.abs(np.array(thresholds) - wanted).min() < 1e-9


def test_classes_are_found_sorted_and_turned_over_by_page(
    opened: Callable[[str], Any], curves: ClassCurves
) -> None:
    names = [f"{'odd' if c % 2 else 'even'} {c}" for c in range(28)]
    doubled = curves + ClassCurves(
        curves.classes + 28, curves.positives, curves.negatives, curves.pooled, curves.lo, curves.hi
    )
    browser = opened(page(doubled, names=names + [f"again {name}" for name in names]))

    def column(which: int) -> list[str]:
        return [row[which] for row in browser.execute_script(READ)["classes"]]

    assert (len(column(0)), browser.find_element("id", "page").text) == (50, "page 1 of 2")
    browser.find_element("id", "next").click()
    assert column(0)[0] == "again even 22"
    browser.find_element("id", "filter").send_keys("Again ODD")
    assert column(0) == [f"again odd {c}" for c in range(1, 28, 2)]
    assert browser.find_element("id", "found").text == "14 of 56"
    at = error_rates(doubled, 0.33)
    chosen = [28 + c for c in range(1, 28, 2)]
    worst_first = sorted(chosen, key=lambda c: (np.isnan(at.false_reject[c]), -at.false_reject[c], c))
    button = browser.find_element("css selector", "[data-sort=frr]")
    button.click()
    assert column(0) == [f"again odd {c - 28}" for c in worst_first]
    assert button.find_element("xpath", "..").get_attribute("aria-sort") == "descending"
    button.click()
    best_first = sorted(chosen, key=lambda c: (np.isnan(at.false_reject[c]), at.false_reject[c], c))
    assert column(0) == [f"again odd {c - 28}" for c in best_first]


def test_markup_and_script_in_names_and_titles_are_text(
    opened: Callable[[str], Any], curves: ClassCurves
) -> None:
    names = [HOSTILE[c % len(HOSTILE)] for c in range(28)]
    title = " ".join(HOSTILE[:6])
    browser = opened(
        page(
            curves,
            title=title,
            names=names,
            numbers=[(text, text, text) for text in HOSTILE],
            notes=HOSTILE,
            pictures=[(text, PNG) for text in HOSTILE],
        )
    )
    as_text = [re.sub("[\0\ud800]", "\ufffd", text) for text in HOSTILE]
    shown_names = [text if text.strip() else json.dumps(text) for text in as_text]
    assert_shows(browser, curves, names=[shown_names[c % len(HOSTILE)] for c in range(28)])
    texts = "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)"
    assert browser.execute_script(texts, ".notes li") == as_text
    assert browser.execute_script(texts, ".numbers .figure") == as_text
    assert browser.execute_script(texts, "figcaption") == as_text
    assert browser.execute_script(texts, "h1") == [title]
    inside = "return document.querySelectorAll(arguments[0]).length"
    assert browser.execute_script(inside, "b b, .name *, .notes li *, h1 bdi *") == 0
    assert browser.execute_script(inside, "script") == 2
    assert browser.execute_script(inside, "img") == len(HOSTILE)
    assert browser.execute_script("return window.ran") is None
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")


def test_the_policy_stops_what_escaping_would_have_missed(
    browser: Any, tmp_path: Path, curves: ClassCurves
) -> None:
    """With its own log, because here Chromium must complain."""
    file = tmp_path / "report.html"
    file.write_text(page(curves), encoding="utf-8")
    browser.get(file.as_uri())
    browser.execute_async_script(
        """
        const done = arguments[0];
        document.body.insertAdjacentHTML("beforeend", '<img src="data:," onerror="window.ran = 1">');
        const script = document.createElement("script");
        script.textContent = "window.ran = 2";
        document.body.append(script);
        const fetched = fetch("https://example.com/").then(() => { window.ran = 3; }, () => {});
        fetched.finally(() => setTimeout(done, 200));
        """
    )
    assert browser.execute_script("return window.ran") is None
    complaints = [entry["message"] for entry in browser.get_log("browser")]
    assert sum("Content Security Policy" in text for text in complaints) >= 3, complaints
    browser.get_log("performance")


@pytest.mark.parametrize("width", [320, 375])
def test_a_phone_shows_it_without_scrolling_sideways(
    opened: Callable[[str], Any], curves: ClassCurves, width: int
) -> None:
    unbroken = "an_unbroken_name_" * 9
    browser = opened(
        page(
            curves,
            title=unbroken,
            names=[f"{unbroken}{c}" for c in range(28)],
            numbers=[(unbroken, unbroken, unbroken)],
            notes=[unbroken],
            pictures=[(unbroken, PNG)],
        )
    )
    size = {"width": width, "height": 800, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        measured = browser.execute_script("return [innerWidth, document.documentElement.scrollWidth]")
        assert measured == [width, width]
        assert browser.find_element("id", "threshold").size["width"] > 0.8 * width
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_colours_follow_the_readers_scheme_and_paper_is_white(
    opened: Callable[[str], Any], curves: ClassCurves
) -> None:
    browser = opened(page(curves, names=NAMES))
    look = "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]"
    found = {}
    for scheme, medium in (("light", ""), ("dark", ""), ("dark", "print")):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": medium, "features": features})
        colours = (re.findall(r"\d+", colour) for colour in browser.execute_script(look))
        found[scheme, medium] = [sum(map(int, colour[:3])) for colour in colours]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    for key, (paper, ink) in found.items():
        dark = key == ("dark", "")
        assert (ink > 600 and paper < 150) if dark else (paper == 765 and ink < 150), (key, paper, ink)
