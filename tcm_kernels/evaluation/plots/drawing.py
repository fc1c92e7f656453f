r"""What the pictures share: a figure without pyplot, colours, legends, rates as text, names drawn literally.

Colours are those of Okabe and Ito, which colour-blind people can tell apart. Legends stand below the axes,
where they cover nothing. matplotlib reads `$` in text as mathematics and warns of characters that the font
lacks; names of classes are shown as they are, and such characters, and those that would not be seen, as
escapes like \u98db. A font that has them goes first in matplotlib's `font.family`.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ticker import FuncFormatter

from ..curves import ClassCurves, Rates

BLUE, VERMILION, PURPLE, GREEN, YELLOW = "#0072B2", "#D55E00", "#CC79A7", "#009E73", "#F0E442"
QUIET, GRID = "#666666", "#dddddd"


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that many inches, which no window shows."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)  # replaces whatever canvas the user's environment asks for
    return figure


def as_png(figure: Figure, dpi: int = 130) -> bytes:
    """The figure as the content of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def legend_below(figure: Figure, axes: Axes, columns: int = 2) -> None:
    """The legend of `axes` under everything else, its texts drawn literally."""
    handles, texts = axes.get_legend_handles_labels()
    if not texts:
        return
    legend = figure.legend(
        handles, texts, loc="outside lower center", ncols=min(columns, len(texts)), frameon=False
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def grid(axes: Axes) -> None:
    """Thin lines behind everything."""
    axes.grid(color=GRID, lw=0.6)
    axes.set_axisbelow(True)


def say(axes: Axes, text: str) -> None:
    """A sentence in the middle of axes that have nothing to show."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=QUIET)


def kinds_of(curves: ClassCurves) -> str:
    """What the rows of the curves are."""
    return "groups" if curves.grouped else "classes"


def name_of(curves: ClassCurves, names: Sequence[str] | None, place: int) -> str:
    """What a class is called."""
    return str(curves.classes[place] if names is None else names[place])


def limits(thresholds: Rates, curves: ClassCurves) -> tuple[float, float]:
    """Of an axis that shows these thresholds, or all where there are none, and a little more."""
    lo, hi = (thresholds.min(), thresholds.max()) if len(thresholds) else (curves.lo, curves.hi)
    room = max(0.03 * (hi - lo), (curves.hi - curves.lo) / curves.bins)
    return float(lo - room), float(hi + room)


def literal(text: str, most: int = 40) -> str:
    """Text on one line of at most so many characters; to be drawn with `parse_math=False`."""
    font = get_font(findfont(FontProperties()))

    def drawn(c: str) -> str:
        return c if c.isprintable() and font.get_char_index(ord(c)) else c.encode("unicode_escape").decode()

    whole = "".join(map(drawn, text[: most + 1])) if text.strip() else f'"{text[:most]}"'
    return whole if len(whole) <= most else whole[: most - 1] + "…"


def percent(rate: float) -> str:
    """A rate in percent to three digits."""
    return f"{100 * rate:.3g} %"


def percent_ticks() -> FuncFormatter:
    """Formats the ticks of an axis of rates, which may end above 1; one for each axis."""
    return FuncFormatter(lambda rate, _: f"{100 * rate:.6g} %" if rate < 1 + 1e-9 else "")


def probit(rates: Any, lowest: float = 1e-9, highest: float = 1 - 1e-9) -> Any:
    """The normal deviates of rates, which are clipped to where those are finite."""
    clipped = np.clip(np.asarray(rates, np.float64), lowest, highest)
    inverse = NormalDist().inv_cdf
    return np.array([inverse(float(rate)) for rate in clipped.ravel()]).reshape(clipped.shape)
