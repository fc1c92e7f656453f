"""The report: one HTML file that opens anywhere, without a network, and can be put beside a model.

It holds the numbers, the pictures, and a slider over the threshold that moves the false-accept and
false-reject rates of every class and the list of the worst. Everything is inside the file: style, script,
pictures as data: addresses, and counts as JSON. A Content-Security-Policy forbids the rest, even to a script
that got in through the name of a class: only the style and script whose hashes it names count. Such names
are escaped besides, here where they stand in markup, and by `textContent` where the script shows them.

The page's own parts are page.html, .css and .js; data.py decides what fits.
"""

from __future__ import annotations

import base64
import hashlib
import html as markup
import json
import re
import string
from collections.abc import Sequence
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

from ..curves import ClassCurves
from .data import WORST, page_data

_PNG = b"\x89PNG\r\n\x1a\n"
_FLOOR = 1e-4  # the lowest rate of the overview, whose axis has four decades


def html(
    title: str,
    curves: ClassCurves,
    *,
    names: Sequence[str] | None = None,
    range: tuple[float, float] | None,
    threshold: float,
    margins: tuple[float, float] | None,
    numbers: Sequence[tuple[str, str, str]],
    notes: Sequence[str] = (),
    pictures: Sequence[tuple[str, bytes]] = (),
) -> str:
    """The page as text, to be written as UTF-8. Any text is shown as it is, never as markup.

    Args:
        title: what has been evaluated.
        curves: C classes.
        names: C names to show instead of `curves.classes`.
        range: (lo, hi), the calibration range as thresholds, where there is one.
        threshold: the chosen one, where the slider stands first; the nearest edge is used.
        margins: (margin_plus, margin_minus) of the loss, shown beside the rates.
        numbers: (title, value, what it means) of each number, in this order.
        notes: what else a reader should know, a paragraph each.
        pictures: (caption, PNG or SVG) of each picture.

    Returns:
        The page: at most about 8 MB and the pictures, however many the classes.

    Raises:
        ValueError: an argument that cannot be used; the message names it.
    """
    shown = [str(name) for name in (curves.classes if names is None else names)]
    if len(shown) != len(curves.classes):
        raise ValueError(f"names: got {len(shown)}, expected {len(curves.classes)}: one per class")
    start = curves.edge(threshold)
    ends = () if range is None else tuple(curves.edge(end) for end in range)
    data, edges = page_data(curves, [_shown(name) for name in shown], ends, start)
    kind, kinds = ("group", "groups") if curves.grouped else ("class", "classes")
    style, script = _part("css"), _part("js")
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    left_out = ""
    if data["every"] is None:
        left_out = (
            f"The rates of all {len(shown):,} {kinds} at all steps do not fit into one page. It holds, for "
            f"every step, the {WORST} worst {kinds} by either rate, and how the rates of all are spread."
        )
    return string.Template(_part("html")).substitute(
        policy=policy,
        style=style,
        script=script,
        data=_json(data),
        title=_escape(title),
        subtitle=_subtitle(curves, kinds),
        kind=kind,
        kinds=kinds,
        steps=_steps(curves, edges),
        overview=_overview(data, edges, curves, ends, margins),
        legend=_legend(range, margins),
        left_out=left_out,
        numbers="".join(_number(*number) for number in numbers),
        pictures=_section("Pictures", "".join(_picture(*picture) for picture in pictures)),
        notes=_section("Notes", _list(notes)),
    )


def _part(ending: str) -> str:
    return resources.files(__package__).joinpath(f"page.{ending}").read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _shown(text: str) -> str:
    """Text that UTF-8 can hold: halves of surrogate pairs, and NUL, become replacement characters."""
    return re.sub("[\0\ud800-\udfff]", "\ufffd", text)


def _escape(text: str) -> str:
    return markup.escape(_shown(text))


def _json(data: Any) -> str:
    """JSON inside a script element, which only `<` could end; `<!--` and U+2028 are no more special."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _subtitle(curves: ClassCurves, kinds: str) -> str:
    same, other = curves.pooled.sum(axis=1)
    twice = "; within one set of embeddings each pair counts in both orders" if curves.symmetric else ""
    return (
        f"{len(curves.classes):,} {kinds}, {same:,} same-class pairs and {other:,} other-class pairs of "
        f"embeddings{twice}. A pair is accepted where its cosine similarity is at least the threshold."
    )


def _steps(curves: ClassCurves, edges: npt.NDArray[np.int64]) -> str:
    """How the slider's steps were chosen."""
    if len(edges) == edges[-1] - edges[0] + 1:
        return f"Its steps are all {len(edges):,} edges of bins between which anything changes."
    return (
        f"Its steps are {len(edges):,} of the {curves.bins + 1:,} edges of bins, the ends of the calibration "
        "range and the chosen threshold among them; rates are exact at each."
    )


def _legend(range: tuple[float, float] | None, margins: tuple[float, float] | None) -> str:
    parts = []
    if range is not None:
        parts.append(f"Shaded: the calibration range, {range[0]:.4g} to {range[1]:.4g}.")
    if margins is not None:
        parts.append(f"Dotted: the margins, {min(margins):g} and {max(margins):g}.")
    return " ".join(parts)


def _overview(
    data: dict[str, Any],
    edges: npt.NDArray[np.int64],
    curves: ClassCurves,
    ends: tuple[int, ...],
    margins: tuple[float, float] | None,
) -> str:
    """Rates by step as SVG, 1000 wide and 400 high: a decade is 100; the slider below has the same steps."""
    xs = np.linspace(0, 1000, len(edges)) if len(edges) > 1 else np.zeros(1)

    def points(rates: Any) -> list[str]:
        ys = -100 * np.log10(np.clip(np.asarray(rates, np.float64), _FLOOR, 1))
        return [f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True)]

    parts = []
    if ends:
        left, right = (float(np.interp(end, edges, xs)) for end in ends)
        parts.append(f'<rect class="range" x="{left:.1f}" y="0" width="{right - left:.1f}" height="400"/>')
    parts += [f'<line class="grid" x1="0" x2="1000" y1="{y}" y2="{y}"/>' for y in (0, 100, 200, 300, 400)]
    for margin in margins or ():
        if curves.thresholds[edges[0]] <= margin <= curves.thresholds[edges[-1]]:
            x = np.interp(margin, curves.thresholds[edges], xs)
            parts.append(f'<line class="margin" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="400"/>')
    pooled = data["pooled"]
    kinds = (
        ("accept", data["quantiles"]["far"], pooled["accepts"], pooled["negatives"]),
        ("reject", data["quantiles"]["frr"], pooled["rejects"], pooled["positives"]),
    )
    for name, quantiles, _, _ in kinds:
        if quantiles[0] is not None:
            low, high = points([step[1] for step in quantiles]), points([step[-2] for step in quantiles])
            parts.append(f'<path class="band {name}" d="M{" ".join(low + high[::-1])}Z"/>')
    for name, _, counts, total in kinds:
        if total:
            parts.append(f'<path class="curve {name}" d="M{" ".join(points(np.array(counts) / total))}"/>')
    parts.append('<line id="cursor" y1="-6" y2="406"/>')
    described = "False-accept rate, which falls with the threshold, and false-reject rate, which rises."
    return (
        '<svg viewBox="0 0 1000 400" preserveAspectRatio="none" role="img" '
        f'aria-label="{described}">{"".join(parts)}</svg>'
    )


def _number(title: str, value: str, meaning: str) -> str:
    # An interval in parentheses after the number is set smaller.
    number, parenthesis, interval = value.partition(" (")
    return (
        f'<div><dt>{_escape(title)}</dt><dd class="figure">{_escape(number)}'
        f"<small>{_escape(parenthesis + interval)}</small></dd>"
        f'<dd class="quiet">{_escape(meaning)}</dd></div>'
    )


def _picture(caption: str, content: bytes) -> str:
    if content.startswith(_PNG):
        kind = "png"
    elif content.lstrip().startswith(b"<"):
        kind = "svg+xml"
    else:
        raise ValueError(f"pictures: got {content[:8]!r}... for {caption!r}, expected PNG or SVG")
    data = base64.b64encode(content).decode()
    text = _escape(caption)
    return (
        f'<figure><img alt="{text}" src="data:image/{kind};base64,{data}">'
        f"<figcaption>{text}</figcaption></figure>"
    )


def _list(notes: Sequence[str]) -> str:
    return f'<ul class="notes">{"".join(f"<li>{_escape(note)}</li>" for note in notes)}</ul>' if notes else ""


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>{content}</section>" if content else ""
