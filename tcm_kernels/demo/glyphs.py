"""A data set that ships as code: printed characters as classes, type faces as their samples.

matplotlib installs sixteen faces of DejaVu and STIX. The characters that at least ten of them can draw,
without those that look alike, are about 2,100 classes: letters of five scripts, arrows, operators, boxes. A
sample is a character in one face, turned, scaled, slanted, shifted, blurred, faded and covered with noise.

    alphabet = load_alphabet()                          drawn once in seconds, then read from the cache
    split = split_at_random(alphabet, seed=0)           classes to learn from, to choose by, to judge on
    samples = draw_samples(alphabet, split.test, views=2, seed=0)

Everything follows from seeds. Only undistorted drawings are cached, in `tcm_kernels` in the user's cache
folder ($XDG_CACHE_HOME, or ~/.cache); the name of the file follows from the fonts' own bytes and from the
way they are drawn, so that another set of fonts is another file.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import hashlib
import math
import os
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, conv2d, grid_sample

from ..files import replacing

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
_CHUNK = 8192  # samples distorted at a time

Classes = npt.NDArray[np.int64]
"""Numbers of classes, ascending."""


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


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Classes, none in two of the three: to learn from, to choose settings by, and to judge on.

    Attributes:
        train: (C1,) int64, ascending.
        validation: (C2,).
        test: (C3,).
    """

    train: Classes
    validation: Classes
    test: Classes


@dataclasses.dataclass(frozen=True)
class Samples:
    """Images of some classes.

    Attributes:
        images: (N, 1, SIDE, SIDE) uint8, on the CPU.
        labels: (N,) int64, counting from 0 through the classes asked for.
        faces: (N,) int64, the number of the face in FACES.
    """

    images: Tensor
    labels: Tensor
    faces: Tensor

    def __getitem__(self, rows: Tensor) -> Samples:
        """Those rows, a mask or indices."""
        return Samples(self.images[rows], self.labels[rows], self.faces[rows])


def load_alphabet(cache: Path | None = None) -> Alphabet:
    """All characters that are classes; drawn at the first call, from then on read from the cache.

    Args:
        cache: the folder of the cache instead of the user's. Where it cannot be written to, the characters
            are drawn again the next time.
    """
    folder = cache or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tcm_kernels"
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


def _fingerprint(fonts: list[Path]) -> str:
    digest = hashlib.sha256(f"{_RECIPE} {SIDE} {_INK} {FEWEST_FACES} {LOOK_ALIKE}".encode())
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


def split_at_random(alphabet: Alphabet, seed: int) -> Split:
    """Half the classes to learn from, a fifth to choose by, the rest to judge on."""
    count = len(alphabet.characters)
    order = np.random.default_rng(seed).permutation(count)
    train, validation, test = np.split(order, [count // 2, count // 2 + count // 5])
    return Split(np.sort(train), np.sort(validation), np.sort(test))


def split_by_script(alphabet: Alphabet) -> Split:
    """Learn from Latin, choose by Cyrillic and Georgian, judge on all others: a real shift."""
    scripts = np.array([alphabet.script(c) for c in range(len(alphabet.characters))])
    latin, chosen = scripts == "LATIN", np.isin(scripts, ["CYRILLIC", "GEORGIAN"])
    return Split(*(np.flatnonzero(rows).astype(np.int64) for rows in (latin, chosen, ~latin & ~chosen)))


def draw_samples(alphabet: Alphabet, classes: Classes, *, views: int, seed: int) -> Samples:
    """Distorted images: of every face of every class so many `views`, different ones for each seed.

    Args:
        alphabet: of `load_alphabet`.
        classes: (K,) numbers of classes; the k-th gets the label k.
        views: of each drawing, at least 1.
        seed: of the distortions.
    """
    if views < 1:
        raise ValueError(f"views: got {views}, expected at least 1")
    label, face = np.nonzero(alphabet.drawn[classes])
    label, face = (np.repeat(each, views) for each in (label, face))
    drawings = torch.from_numpy(alphabet.drawings[np.asarray(classes)[label], face])[:, None]
    generator = torch.Generator().manual_seed(seed)
    images = [distorted(part, generator) for part in torch.split(drawings, _CHUNK)]
    return Samples(torch.cat(images) if images else drawings, torch.from_numpy(label), torch.from_numpy(face))


def long_tailed(samples: Samples, *, seed: int, ratio: float = 8.0) -> Samples:
    """Fewer samples of most classes: the first keeps all it has, the last one `ratio`-th, in between a power.

    Which classes are large is drawn by the seed; at least two samples of a class remain.
    """
    if not ratio >= 1:
        raise ValueError(f"ratio: got {ratio}, expected at least 1")
    generator = np.random.default_rng(seed)
    labels = samples.labels.numpy()
    rank = generator.permutation(labels.max(initial=-1) + 1)
    kept = []
    for label, place in enumerate(rank):
        rows = np.flatnonzero(labels == label)
        share = ratio ** (-place / max(len(rank) - 1, 1))
        kept.append(generator.permutation(rows)[: max(2, round(share * len(rows)))])
    return samples[torch.from_numpy(np.sort(np.concatenate(kept)) if kept else np.empty(0, np.int64))]


def distorted(drawings: Tensor, generator: torch.Generator) -> Tensor:
    """Each drawing as a camera might see it.

    Turned by up to 15°, scaled by 0.75 to 1.15, slanted by up to 0.3, shifted by up to 3 pixels; blurred,
    faded to as little as 0.4 of its contrast on a background of any brightness, with noise.

    Args:
        drawings: (N, 1, SIDE, SIDE) uint8.
        generator: of torch, on the CPU.

    Returns:
        (N, 1, SIDE, SIDE) uint8.
    """
    count = len(drawings)
    if not count:
        return drawings

    def between(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    angle, slant = between(-1, 1) * math.radians(15), between(-0.3, 0.3)
    grow = 1 / between(0.75, 1.15)  # a grid says where each pixel comes from
    across, down = (between(-3, 3) * 2 / SIDE for _ in range(2))  # the pixels span -1 to 1
    cos, sin = angle.cos() * grow, angle.sin() * grow
    rows = torch.stack((cos, slant * grow - sin, across), 1), torch.stack((sin, cos, down), 1)
    grid = affine_grid(torch.stack(rows, 1), [count, 1, SIDE, SIDE], align_corners=False)
    ink = grid_sample(drawings.float() / 255, grid, align_corners=False)
    # Between the image and one whose pixels are mixed with their neighbours', by Pascal's fourth row.
    line = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    soft = conv2d(ink, (line[:, None] * line)[None, None], padding=2)
    blur = between(0, 1)[:, None, None, None]
    contrast = between(0.4, 1)[:, None, None, None]
    ground = between(0, 1)[:, None, None, None] * (1 - contrast)
    noise = between(0, 0.15)[:, None, None, None] * torch.randn(ink.shape, generator=generator)
    seen = ground + contrast * torch.lerp(ink, soft, blur) + noise
    return (255 * seen.clamp(0, 1)).round().to(torch.uint8)
