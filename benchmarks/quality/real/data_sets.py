"""The data sets of deep metric learning, from a folder on disk, split by class.

Nothing is tested on a class that was trained on.

    data = load("cub", "~/data")       # data.train, data.test, data.gallery (In-Shop only)

Splits are the ones that papers use: CUB-200-2011 and Cars-196 by the first and second half of their classes,
Stanford Online Products and In-Shop by their own lists, iNaturalist-2018 by the lists of Brown et al.,
"Smooth-AP", ECCV 2020. What a folder has to look like stands in README.md and in layouts.py.
"""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import UsageError
from .layouts import SOURCES, DataSetError, Entry, Part, Source

__all__ = ["SOURCES", "STANDARD", "DataSetError", "Images", "OpenWorldData", "load"]

_NAMED = 3  # absent files in a message


@dataclasses.dataclass(frozen=True, eq=False)
class Images:
    """Files and their classes.

    Attributes:
        paths: N files.
        labels: (N,) int64, from 0 without gaps over the classes of a part (query and gallery are one).
    """

    paths: tuple[str, ...]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def classes(self) -> int:
        """How many different labels there are."""
        return len(np.unique(self.labels))


@dataclasses.dataclass(frozen=True, eq=False)
class OpenWorldData:
    """A data set whose test classes do not occur in training.

    Attributes:
        name: a key of SOURCES.
        train: the images to train on; labels 0 to C - 1.
        test: the images to judge by, each against all others; the queries where there is a gallery.
        gallery: what queries are compared with, labels as in `test`; None but for In-Shop.
    """

    name: str
    train: Images
    test: Images
    gallery: Images | None = None

    def counts(self) -> dict[str, int]:
        """How many images and classes there are; for the records."""
        labels = [self.test.labels] + ([] if self.gallery is None else [self.gallery.labels])
        counts = {
            "train_images": len(self.train),
            "train_classes": self.train.classes,
            "test_images": len(self.test),
            "test_classes": len(np.unique(np.concatenate(labels))),
        }
        return counts if self.gallery is None else counts | {"gallery_images": len(self.gallery)}


_COUNTED = ("train_images", "train_classes", "test_images", "test_classes", "gallery_images")
STANDARD = {
    name: dict(zip(_COUNTED, counts, strict=False))
    for name, counts in {
        "cub": (5864, 100, 5924, 100),
        "cars": (8054, 98, 8131, 98),
        "sop": (59551, 11318, 60502, 11316),
        "in_shop": (25882, 3997, 14218, 3985, 12612),
        "inaturalist": (325846, 5690, 136093, 2452),
    }.items()
}
"""What `OpenWorldData.counts` is for the complete sets."""


def load(
    name: str, root: str | os.PathLike[str], split_list: str | os.PathLike[str] | None = None
) -> OpenWorldData:
    """A data set with its standard open-world split, all its images known to be there.

    Args:
        name: a key of SOURCES.
        root: the folder that the set was unpacked into.
        split_list: for iNaturalist-2018, the folder of Smooth-AP's list files; None for the others.

    Raises:
        UsageError: an unknown name, or a split list where none is taken.
        DataSetError: a file is missing or malformed, images are absent, a class is on both sides. The
            message names the data set, the file (and line) and the set's official page.

    Warns:
        UserWarning: the numbers of images or classes are not those of the complete set.
    """
    if name not in SOURCES:
        raise UsageError(f"data_set: got {name!r}, expected one of {', '.join(SOURCES)}")
    if split_list is not None and name != "inaturalist":
        raise UsageError(f"--split-list: got {split_list}, expected none: {name} brings its own split")
    source = SOURCES[name]
    lists = None if split_list is None else Path(split_list).expanduser()
    entries = source.read(source, Path(root).expanduser(), lists)
    data = _split(name, source, entries)
    _check_there(source, (entry.path for entry in entries))
    if (counts := data.counts()) != STANDARD[name]:
        warnings.warn(
            f"{source.title}: got {_text(counts)}, the standard split has {_text(STANDARD[name])}: results "
            "do not compare with published ones",
            stacklevel=2,
        )
    return data


def _split(name: str, source: Source, entries: list[Entry]) -> OpenWorldData:
    """Classes numbered anew, from 0 without gaps, in the order of their names or numbers."""
    parts: dict[Part, list[Entry]] = defaultdict(list)
    for entry in entries:
        parts[entry.part].append(entry)
    wanted: tuple[Part, ...] = ("train", "test", "gallery") if name == "in_shop" else ("train", "test")
    for part in wanted:
        if not parts[part]:
            source.fail(
                f"there is no image of the {'query' if (name, part) == ('in_shop', 'test') else part} part"
            )
    seen = {entry.label for entry in parts["train"]}
    unseen = {entry.label for part in wanted[1:] for entry in parts[part]}
    if both := sorted(seen & unseen, key=str):
        source.fail(f"{len(both):,} classes are in the training and in the test part, {both[0]} among them")

    def images(part: Part, classes: Iterable[Any]) -> Images:
        number = {label: i for i, label in enumerate(classes)}
        labels = np.array([number[entry.label] for entry in parts[part]], dtype=np.int64)
        return Images(tuple(entry.path for entry in parts[part]), labels)

    old, new = sorted(seen, key=_in_order), sorted(unseen, key=_in_order)
    gallery = images("gallery", new) if "gallery" in wanted else None
    return OpenWorldData(name, images("train", old), images("test", new), gallery)


def _in_order(label: int | str) -> tuple[int, str]:
    return (label, "") if isinstance(label, int) else (0, label)


def _check_there(source: Source, paths: Iterable[str]) -> None:
    """Each folder is listed once: half a million files are not asked for one by one."""
    folders: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        folder, _, file = path.rpartition(os.sep)
        folders[folder].append(file)
    absent = []
    for folder, files in folders.items():
        try:
            with os.scandir(folder) as found:
                there = {entry.name for entry in found if entry.is_file()}
        except OSError:
            there = set()
        absent += [os.path.join(folder, file) for file in files if file not in there]
    if absent:
        named = ", ".join(absent[:_NAMED]) + (", ..." if len(absent) > _NAMED else "")
        source.fail(f"{len(absent):,} images are listed but not there: {named}")


def _text(counts: dict[str, int]) -> str:
    text = "{train_images:,} training images of {train_classes:,} classes and {test_images:,} test images of "
    text = (text + "{test_classes:,}").format_map(counts)
    return text + (f" with a gallery of {counts['gallery_images']:,}" if "gallery_images" in counts else "")
