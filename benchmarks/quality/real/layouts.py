"""How each data set lies on disk: from a folder to a list of (part, class, image).

Every reader checks each line of the list files and gives up at the first that is not what it should be: a
list that is half understood would be another split under a well-known name. Whether the images are there is
asked later, by data_sets.py, for all of them at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple, NoReturn

from .errors import UsageError

Part = Literal["train", "test", "gallery"]


class DataSetError(UsageError):
    """A folder does not hold the data set; the message says which file, and where the set comes from."""


class Entry(NamedTuple):
    """One image: the part of the split, the class as the data set numbers or names it, the file."""

    part: Part
    label: int | str
    path: str


class Source(NamedTuple):
    """A data set on disk.

    Attributes:
        title: what people call it.
        page: where it officially comes from.
        read: from (source, root, folder of split lists or None) to its entries; raises DataSetError.
    """

    title: str
    page: str
    read: Callable[[Source, Path, Path | None], list[Entry]]

    def fail(self, complaint: str) -> NoReturn:
        """Raise DataSetError with the name of the set and where to get it."""
        raise DataSetError(f"{self.title}: {complaint}; the data set comes from {self.page}")

    def file(self, path: Path) -> Path:
        """The path, if there is such a file."""
        if not path.is_file():
            self.fail(f"missing file {path}")
        return path

    def folder(self, path: Path) -> Path:
        """The path, if there is such a folder."""
        if not path.is_dir():
            self.fail(f"missing folder {path}")
        return path

    def malformed(self, path: Path, number: int, line: str, expected: str) -> NoReturn:
        """Raise DataSetError for a line, counted from 1."""
        self.fail(f"{path}, line {number}: got {line[:200]!r}, expected {expected}")

    def lines(self, path: Path) -> list[str]:
        """All lines of a text file, without the empty ones at its end."""
        try:
            return self.file(path).read_text(encoding="utf-8").rstrip().splitlines()
        except UnicodeDecodeError:
            self.fail(f"{path} is not a text file")


def _base(root: Path, name: str) -> Path:
    """The folder `name` in root, or root where that is the folder itself."""
    return root if root.name == name and not (root / name).is_dir() else root / name


def _is_relative(path: str) -> bool:
    """Whether a path stays inside the folder it is relative to."""
    return not path.startswith("/") and ".." not in PurePosixPath(path).parts


def _numbered(source: Source, path: Path, expected: str) -> Iterator[tuple[int, int, str, str]]:
    """Lines `number text`: the line's number, the number, the text, the line; no number comes twice."""
    seen = set()
    for number, line in enumerate(source.lines(path), start=1):
        first, _, second = line.strip().partition(" ")
        if not first.isascii() or not first.isdigit() or not second.strip():
            source.malformed(path, number, line, expected)
        if int(first) in seen:
            source.malformed(path, number, line, "an image id that has not been there before")
        seen.add(int(first))
        yield number, int(first), second.strip(), line


def _cub(source: Source, root: Path, _: Path | None) -> list[Entry]:
    """images.txt: `image_id path`; image_class_labels.txt: `image_id class_id`, classes 1 to 200."""
    base = _base(root, "CUB_200_2011")
    names, classes = base / "images.txt", base / "image_class_labels.txt"
    for path in (names, classes):
        source.file(path)
    images = source.folder(base / "images")
    paths = {}
    for number, image, path, line in _numbered(source, names, "an image id and a path"):
        if not _is_relative(path):
            source.malformed(names, number, line, "an image id and a path inside images/")
        paths[image] = path
    labels = {}
    for number, image, label, line in _numbered(source, classes, "an image id and a class from 1 to 200"):
        if not label.isascii() or not label.isdigit() or not 1 <= int(label) <= 200:
            source.malformed(classes, number, line, "an image id and a class from 1 to 200")
        if image not in paths:
            source.malformed(classes, number, line, f"an image id that {names.name} has")
        labels[image] = int(label)
    for image in paths:
        if image not in labels:
            source.fail(f"{classes} has no class for image id {image} of {names.name}")
    return [
        Entry("train" if labels[image] <= 100 else "test", labels[image], str(images / path))
        for image, path in paths.items()
    ]


_CARS_FIELDS = ("relative_im_path", "class")


def _cars(source: Source, root: Path, _: Path | None) -> list[Entry]:
    """cars_annos.mat of the combined release: `annotations` with relative_im_path, class (1 to 196), ..."""
    path = root / "cars_annos.mat"
    if not path.is_file() and ((root / "cars_train").is_dir() or (root / "devkit").is_dir()):
        source.fail(
            f"missing file {path}: {root} holds the release in two parts (cars_train, cars_test), expected "
            "the combined one (cars_annos.mat, car_ims), which numbers images otherwise"
        )
    source.file(path)
    source.folder(root / "car_ims")
    entries: list[Entry] = []
    for number, (name, label) in enumerate(_cars_annotations(source, path), start=1):
        if not isinstance(name, str) or not name or not _is_relative(name):
            source.fail(f"{path}, annotation {number}: got relative_im_path {name!r}, expected a path")
        try:
            # The file stores classes as 1 × 1 matrices of bytes, which squeezing makes numbers.
            known = int(label)
        except (TypeError, ValueError):
            known = 0
        if not 1 <= known <= 196:
            source.fail(f"{path}, annotation {number}: got class {label!r}, expected 1 to 196")
        entries.append(Entry("train" if known <= 98 else "test", known, str(root / name)))
    return entries


def _cars_annotations(source: Source, path: Path) -> list[tuple[Any, Any]]:
    """(relative_im_path, class) of every annotation."""
    try:
        from scipy.io import loadmat  # noqa: PLC0415  # comes with an extra
    except ImportError:
        source.fail(f"reading {path} needs scipy: pip install 'tcm-kernels[demo]'")
    try:
        found = loadmat(path, squeeze_me=True)
    except Exception as error:  # scipy raises what it happens to meet in a file that is none of its own
        source.fail(f"{path} cannot be read as a MATLAB file ({type(error).__name__}: {error})")
    if "annotations" not in found:
        source.fail(f"{path} has no variable `annotations`")
    annotations = found["annotations"].reshape(-1)
    for field in _CARS_FIELDS:
        if field not in (annotations.dtype.names or ()):
            source.fail(f"{path}: annotations have no field {field!r}, expected {', '.join(_CARS_FIELDS)}")
    columns = [annotations[field].tolist() for field in _CARS_FIELDS]
    return list(zip(*columns, strict=True))


_SOP_HEADER = ["image_id", "class_id", "super_class_id", "path"]


def _sop(source: Source, root: Path, _: Path | None) -> list[Entry]:
    """Ebay_train.txt and Ebay_test.txt: a header, then `image_id class_id super_class_id path`."""
    base = _base(root, "Stanford_Online_Products")
    lists: dict[Part, Path] = {"train": base / "Ebay_train.txt", "test": base / "Ebay_test.txt"}
    for path in lists.values():
        source.file(path)
    entries = []
    for part, path in lists.items():
        lines = source.lines(path)
        if not lines or lines[0].split() != _SOP_HEADER:
            source.malformed(path, 1, lines[0] if lines else "", f"the header '{' '.join(_SOP_HEADER)}'")
        for number, line in enumerate(lines[1:], start=2):
            fields = line.split(maxsplit=3)
            if len(fields) != 4 or not all(re.fullmatch("[0-9]+", field) for field in fields[:3]):
                source.malformed(path, number, line, "three numbers and a path")
            if not _is_relative(fields[3]):
                source.malformed(path, number, line, f"a path inside {base.name}")
            entries.append(Entry(part, int(fields[1]), str(base / fields[3])))
    return entries


_IN_SHOP_HEADER = ["image_name", "item_id", "evaluation_status"]
_IN_SHOP_PARTS: dict[str, Part] = {"train": "train", "query": "test", "gallery": "gallery"}


def _in_shop(source: Source, root: Path, _: Path | None) -> list[Entry]:
    """list_eval_partition.txt: how many lines, a header, then `image_name item_id evaluation_status`."""
    name = "list_eval_partition.txt"
    path = next((p for p in (root / "Eval" / name, root / name) if p.is_file()), root / "Eval" / name)
    lines = source.lines(path)
    # The list's own paths begin with img/, which lies in the data folder or in its folder Img.
    base = next((b for b in (root, root / "Img") if (b / "img").is_dir()), root)
    source.folder(base / "img")
    if not lines or not re.fullmatch("[0-9]+", lines[0].strip()):
        source.malformed(path, 1, lines[0] if lines else "", "the number of images")
    if len(lines) < 2 or lines[1].split() != _IN_SHOP_HEADER:
        header = f"the header '{' '.join(_IN_SHOP_HEADER)}'"
        source.malformed(path, 2, lines[1] if len(lines) > 1 else "", header)
    entries = []
    for number, line in enumerate(lines[2:], start=3):
        fields = line.split()
        if (
            len(fields) != 3
            or not _is_relative(fields[0])
            or not re.fullmatch("id_[0-9]+", fields[1])
            or fields[2] not in _IN_SHOP_PARTS
        ):
            wanted = "a path, an item like id_00000002 and one of train, query, gallery"
            source.malformed(path, number, line, wanted)
        entries.append(Entry(_IN_SHOP_PARTS[fields[2]], fields[1], str(base / fields[0])))
    if len(entries) != int(lines[0]):
        source.fail(f"{path} has {len(entries):,} images, its first line says {int(lines[0]):,}")
    return entries


SPLIT_LISTS: dict[Part, str] = {
    "train": "Inaturalist_train_set1.txt",
    "test": "Inaturalist_test_set1.txt",
}
SPLIT_LISTS_PAGE = "https://github.com/Andrew-Brown1/Smooth_AP"


def _inaturalist(source: Source, root: Path, split_list: Path | None) -> list[Entry]:
    """Lists of paths like train_val2018/Plantae/5678/0a1b.jpg, one a line; a class is an image's folder."""
    if split_list is None:
        raise DataSetError(
            f"{source.title}: --split-list: got none, expected the folder of "
            f"{' and '.join(SPLIT_LISTS.values())}, which come with Smooth-AP: {SPLIT_LISTS_PAGE}"
        )
    lists = {part: split_list / name for part, name in SPLIT_LISTS.items()}
    for path in lists.values():
        if not path.is_file():
            raise DataSetError(f"{source.title}: missing file {path}; it comes from {SPLIT_LISTS_PAGE}")
    source.folder(root)
    entries = []
    for part, path in lists.items():
        for number, line in enumerate(source.lines(path), start=1):
            image = PurePosixPath(line.strip())
            if not line.strip() or len(image.parts) < 2 or not _is_relative(line.strip()):
                source.malformed(path, number, line, "a path relative to the data folder: folder/image")
            entries.append(Entry(part, str(image.parent), str(root / image)))
    return entries


SOURCES = {
    "cub": Source("CUB-200-2011", "https://www.vision.caltech.edu/datasets/cub_200_2011/", _cub),
    "cars": Source("Cars-196", "http://ai.stanford.edu/~jkrause/cars/car_dataset.html", _cars),
    "sop": Source("Stanford Online Products", "https://cvgl.stanford.edu/projects/lifted_struct/", _sop),
    "in_shop": Source(
        "In-Shop Clothes Retrieval",
        "https://mmlab.ie.cuhk.edu.hk/projects/DeepFashion/InShopRetrieval.html",
        _in_shop,
    ),
    "inaturalist": Source(
        "iNaturalist-2018", "https://github.com/visipedia/inat_comp/tree/master/2018", _inaturalist
    ),
}
"""By the name that configurations and records use."""
