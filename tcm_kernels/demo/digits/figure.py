"""similarities.png: how similar pairs of unseen images are, without and with the TCM loss.

Two histograms one above the other on the same axis. Colours are Okabe and Ito's blue and vermilion,
which colour-blind people can tell apart; outlines differ too, for print without colour. Drawn on a
`Figure` of our own, so that a user's pyplot, its backend and its settings stay as they are.
"""

from __future__ import annotations

import io
import math
from typing import Any

import torch
from torch import Tensor

from .measures import FALSE_ACCEPT_RATE, Pairs
from .training import MARGIN_MINUS, MARGIN_PLUS, Trained

SIZE = (9.0, 7.0)  # inches
DPI = 120
_BINS = 100
_SAME, _OTHER = "#0072B2", "#D55E00"


def render(labels: Tensor, without_tcm: Trained, with_tcm: Trained) -> bytes:
    """The picture as PNG; labels, (N,), are those of both trainings' `unseen_emb`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  # an extra
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)  # replaces whatever canvas the user's environment asks for
    panels = figure.subplots(2, 1, sharex=True)
    sides = {"without TCM": without_tcm, "with TCM": with_tcm}
    pairs = [Pairs.of(trained.unseen_emb, labels) for trained in sides.values()]
    lowest = min(float(each.similarity.min()) for each in pairs)
    # whole tenths, with room left of margin_minus for its name
    low = max(-1.0, min(math.floor(10 * lowest) / 10, MARGIN_MINUS - 0.5))
    for axes, each, (title, trained) in zip(panels, pairs, sides.items(), strict=True):
        _panel(axes, each, low, f"{title}: Recall@1 {trained.measures.recall_at_1:.3f}")
    panels[1].set_xlabel("cosine similarity of a pair")
    figure.suptitle("Pairs of digits never seen in training", fontsize=13)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _panel(axes: Any, pairs: Pairs, low: float, title: str) -> None:
    for chosen, colour, style, name in (
        (pairs.same, _SAME, "-", "same class"),
        (pairs.other, _OTHER, "--", "other class"),
    ):
        similarity = pairs.similarity[chosen]
        counts = torch.histc(similarity, _BINS, low, 1.0)
        edges = torch.linspace(low, 1.0, _BINS + 1).tolist()
        shares = (100 * counts / len(similarity)).tolist()
        axes.stairs(shares, edges, fill=True, color=colour, alpha=0.25)
        axes.stairs(shares, edges, color=colour, linestyle=style, linewidth=1.6, label=name)
    # headroom for the margins' names, which stand above all bars
    axes.set_ylim(0, 1.22 * axes.get_ylim()[1])
    for margin, name, side in ((MARGIN_MINUS, "margin_minus", "right"), (MARGIN_PLUS, "margin_plus", "left")):
        axes.axvline(margin, color="black", linestyle=":", linewidth=1.3)
        axes.annotate(
            f"{name} = {margin:g}",
            (margin, 0.97),
            xycoords=("data", "axes fraction"),
            xytext=(-5 if side == "right" else 5, 0),
            textcoords="offset points",
            ha=side,
            va="top",
        )
    axes.axvline(
        pairs.threshold(),
        ymax=0.88,  # below the names of the margins
        color="#666666",
        linewidth=1.3,
        label=f"the one threshold ({FALSE_ACCEPT_RATE:.0%} false accepts)",
    )
    axes.set_xlim(low, 1)
    axes.set_ylabel("share of pairs, %")
    axes.set_title(title, loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
