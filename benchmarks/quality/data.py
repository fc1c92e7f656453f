"""The glyphs of a split, ready to learn from and to measure on; the same for every run."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from pathlib import Path

from tcm_kernels.demo.glyphs import (
    Classes,
    Samples,
    Split,
    draw_samples,
    load_alphabet,
    split_at_random,
    split_by_script,
)
from tcm_kernels.files import write_atomically

from .plan import Size

_TRAIN_SEED, _VALIDATION_SEED, _TEST_SEED = 0, 1, 2
_MOST = 20_000  # drawings that are looked at more than once: pairs grow with their square


@dataclasses.dataclass(frozen=True)
class Data:
    """Samples of three sets of classes that have none in common."""

    train: Samples
    validation: Samples
    test: Samples


class OtherGlyphsError(RuntimeError):
    """The records are of other characters or drawings than are made here; the message says what to do."""


def check_same_glyphs(folder: Path) -> None:
    """Refuse to add to records of other glyphs; where there are none yet, say what theirs are.

    Which characters are classes, and so every split, follows from how fonts are drawn: another version of
    matplotlib or Pillow may draw them differently.
    """
    alphabet = load_alphabet()
    digest = hashlib.sha256(alphabet.characters.encode() + alphabet.drawings.tobytes()).hexdigest()
    told = folder / "glyphs.sha256"
    if not told.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(told, f"{digest}\n".encode())
    elif told.read_text(encoding="utf-8").strip() != digest:
        raise OtherGlyphsError(
            f"{folder} has records of other glyphs than are drawn here, by another matplotlib or Pillow: "
            "begin in another folder, with --results"
        )


def classes_of(split: str) -> Split:
    """The classes of a split by its name in `plan.SPLITS`."""
    alphabet = load_alphabet()
    kind, _, seed = split.partition("-")
    return split_by_script(alphabet) if kind == "script" else split_at_random(alphabet, int(seed))


@functools.lru_cache(maxsize=1)  # chains of one split follow each other
def load(split: str, size: Size) -> Data:
    """Distorted images of all three; drawing them takes some ten seconds."""
    alphabet, classes = load_alphabet(), classes_of(split)

    def measured(of: Classes, seed: int) -> Samples:
        views = max(1, min(size.views, _MOST // int(alphabet.drawn[of].sum())))
        return draw_samples(alphabet, of, views=views, seed=seed)

    return Data(
        train=draw_samples(alphabet, classes.train, views=size.train_views, seed=_TRAIN_SEED),
        validation=measured(classes.validation, _VALIDATION_SEED),
        test=measured(classes.test, _TEST_SEED),
    )
