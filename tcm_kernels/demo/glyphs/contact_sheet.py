"""A look at the glyphs: some classes, a line each, a distorted sample of every face that has them.

python -m tcm_kernels.demo.glyphs.contact_sheet glyphs.png
"""

from __future__ import annotations

import io
import sys
import unicodedata
from pathlib import Path

import numpy as np

from ...files import write_atomically
from .alphabet import FACES, SIDE, Alphabet, load_alphabet
from .samples import draw_samples

_DPI = 110
_INCHES = 0.44  # of a sample


def render(alphabet: Alphabet, classes: int = 20, seed: int = 5) -> bytes:
    """The picture as PNG, of as many classes, chosen evenly from all and distorted by the seed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  # an extra
    from matplotlib.figure import Figure  # noqa: PLC0415

    step = max(1, len(alphabet.characters) // classes)
    chosen = np.arange(step // 2, len(alphabet.characters), step, dtype=np.int64)[:classes]
    samples = draw_samples(alphabet, chosen, views=1, seed=seed)
    sheet = np.full((len(chosen), SIDE, len(FACES), SIDE), 255, np.uint8)
    for image, label, face in zip(samples.images, samples.labels, samples.faces, strict=True):
        sheet[int(label), :, int(face)] = image[0].numpy()
    width, height = len(FACES) * _INCHES + 4.0, len(chosen) * _INCHES + 0.6
    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)  # replaces whatever canvas the user's environment asks for
    axes = figure.subplots()
    axes.imshow(sheet.reshape(len(chosen) * SIDE, -1), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    names = [_shortened(unicodedata.name(alphabet.characters[c]).capitalize()) for c in chosen]
    axes.set_yticks([SIDE * (i + 0.5) for i in range(len(chosen))], names, fontsize=8)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.set_title(
        f"{len(chosen)} of {len(alphabet.characters):,} classes in {len(FACES)} faces; "
        "white where a face lacks the character",
        loc="left",
        fontsize=10,
    )
    axes.spines[:].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _shortened(name: str, most: int = 42) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


if __name__ == "__main__":
    write_atomically(Path(sys.argv[1]), render(load_alphabet()))
