"""The characters that are classes, and how each face draws them.

matplotlib installs sixteen faces of DejaVu and STIX. The characters that at least ten of them can draw,
without those that look alike, are about 2,100 classes: letters of five scripts, arrows, operators, boxes.

Drawings are cached in `tcm_kernels` in the user's cache folder ($XDG_CACHE_HOME, or ~/.cache); the name of
the file follows from the fonts' own bytes and from the way they are drawn, so that another set of fonts is
another file.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import hashlib
import os
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...files import replacing

SIDE = 32  # pixels of an image
FACES = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique"),
    *("DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique", "DejaVuSansMono-BoldOblique"),
    *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic"),
    *("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"),
)
FEWEST_FACES = 10  # that a character must have
LOOK_ALIKE = 0.95  # cosine similarity of two characters' drawings, averaged over the faces of both

_INK = 22  # pixels of a drawing's longer side: turned and shifted, it stays inside
_POINTS = 64  # that characters are drawn at before they are made as small
_CATEGORIES = "LNPS"  # letters, numbers, punctuation, symbols: no marks that need a letter to stand on
_RECIPE = "1"  # a new one wherever a drawing changes, so that an old cache is not taken for it


@dataclasses.dataclass(frozen=True, eq=False)
class Alphabet:
    """The characters and their drawings.

    Attributes:
        characters: C of them, in the order of their code points; class c is `characters[c]`.
        drawings: (C, F, SIDE, SIDE) uint8, ink on 0, the longer side always as long.
        drawn: (C, F) bool, whether that face has the character.
    """

    characters: str
    drawings: npt.NDArray[np.uint8]
    drawn: npt.NDArray[np.bool_]

    def script(self, c: int) -> str:
        """The script of class c as Unicode names it, "LATIN" say; of a symbol the first word of its name."""
        name = unicodedata.name(self.characters[c])
        # Raised and lowered letters are of the script that they are small forms of, which is Latin here.
        return "LATIN" if name.startswith("MODIFIER LETTER") else name.split()[0]


def load_alphabet(cache: Path | None = None) -> Alphabet:
    """All characters that are classes; drawn at the first call, from then on read from the cache.

    Args:
        cache: the folder of the cache instead of the user's. Where it cannot be written to, the characters
            are drawn again the next time.
    """
    folder = cache or _cache()
    fonts = _font_files()
    path = folder / f"glyphs-{_fingerprint(fonts)}.npz"
    # A file that is missing, damaged or of somebody else's making is drawn anew.
    # Opened here: numpy leaves a file open that turns out to be none of its own.
    with (
        contextlib.suppress(Exception),
        path.open("rb") as opened,
        np.load(opened, allow_pickle=False) as file,
    ):
        kept = Alphabet(str(file["characters"]), file["drawings"], file["drawn"])
        if kept.drawings.shape == (*kept.drawn.shape, SIDE, SIDE) and len(kept.characters) == len(kept.drawn):
            return kept
    alphabet = without_look_alikes(_draw(fonts))
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as unfinished:
            np.savez_compressed(
                unfinished,
                characters=np.array(alphabet.characters),
                drawings=alphabet.drawings,
                drawn=alphabet.drawn,
            )
    return alphabet


def _font_files() -> list[Path]:
    import matplotlib  # noqa: PLC0415  # an extra

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return [folder / f"{face}.ttf" for face in FACES]


def _cache() -> Path:
    """The user's; where there is no home, as in some containers, a folder that nothing can be written to."""
    of_user = os.environ.get("XDG_CACHE_HOME")
    if of_user is None:
        try:
            of_user = str(Path.home() / ".cache")
        except RuntimeError:
            of_user = os.devnull
    return Path(of_user) / "tcm_kernels"


def _fingerprint(fonts: list[Path]) -> str:
    """Of all that the drawings follow from: the recipe, what draws, and the fonts."""
    from PIL import features  # noqa: PLC0415  # comes with matplotlib

    rasteriser = f"{features.version('pil')} {features.version('freetype2')} {unicodedata.unidata_version}"
    digest = hashlib.sha256(f"{_RECIPE} {SIDE} {_INK} {FEWEST_FACES} {LOOK_ALIKE} {rasteriser}".encode())
    for font in fonts:
        digest.update(font.read_bytes())
    return digest.hexdigest()[:16]


def _draw(fonts: list[Path]) -> Alphabet:
    """Every character that enough faces have, look-alikes included."""
    from matplotlib.ft2font import FT2Font  # noqa: PLC0415
    from PIL import ImageFont  # noqa: PLC0415  # comes with matplotlib

    known = [set(FT2Font(str(font)).get_charmap()) for font in fonts]
    faces_of = collections.Counter(code for codes in known for code in codes)
    codes = sorted(
        code
        for code, faces in faces_of.items()
        if faces >= FEWEST_FACES and unicodedata.category(chr(code))[0] in _CATEGORIES
    )
    drawings = np.zeros((len(codes), len(fonts), SIDE, SIDE), np.uint8)
    for face, font in enumerate(fonts):
        pen = ImageFont.truetype(str(font), _POINTS, layout_engine=ImageFont.Layout.BASIC)
        for place, code in enumerate(codes):
            if code in known[face]:
                drawings[place, face] = _drawing(pen, chr(code))
    drawn = np.asarray(drawings.any(axis=(2, 3)))
    enough = drawn.sum(axis=1) >= FEWEST_FACES  # some are empty
    characters = "".join(chr(code) for code, kept in zip(codes, enough, strict=True) if kept)
    return Alphabet(characters, drawings[enough], drawn[enough])


def _drawing(pen: Any, character: str) -> npt.NDArray[np.uint8]:
    """(SIDE, SIDE): the ink in the middle, its longer side _INK pixels long."""
    from PIL import Image  # noqa: PLC0415

    image = np.zeros((SIDE, SIDE), np.uint8)
    mask = pen.getmask(character, mode="L")
    if 0 in mask.size:
        return image
    factor = _INK / max(mask.size)
    width, height = (max(1, round(side * factor)) for side in mask.size)
    smooth = Image.Resampling.BOX if factor < 1 else Image.Resampling.BILINEAR
    ink = Image.frombytes("L", mask.size, bytes(mask)).resize((width, height), smooth)
    top, left = (SIDE - height) // 2, (SIDE - width) // 2
    image[top : top + height, left : left + width] = np.asarray(ink)
    return image


def without_look_alikes(alphabet: Alphabet) -> Alphabet:
    """Without the characters that resemble one before them by more than LOOK_ALIKE."""
    drawn = alphabet.drawn.astype(np.float32)
    pixels = alphabet.drawings.reshape(*drawn.shape, -1).astype(np.float32)
    pixels /= np.maximum(np.linalg.norm(pixels, axis=2, keepdims=True), 1.0)
    similarity = sum(pixels[:, face] @ pixels[:, face].T for face in range(drawn.shape[1]))
    alike = similarity > LOOK_ALIKE * np.maximum(drawn @ drawn.T, 1)
    kept: list[int] = []
    for c in range(len(drawn)):
        if not alike[c, kept].any():
            kept.append(c)
    return Alphabet(
        "".join(alphabet.characters[c] for c in kept), alphabet.drawings[kept], alphabet.drawn[kept]
    )
