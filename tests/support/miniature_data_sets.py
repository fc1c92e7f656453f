"""Folders of exactly the structure of the real data sets, with a few tiny images of noise around a colour.

Each writer makes the folder as it is after unpacking the official download, and returns what `--root` names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.quality.real import data_sets

SIZE = (28, 24)  # width, height


def image(path: Path, colour: int, seed: int) -> None:
    """Write an image that resembles others of its colour, in the format of the file's name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mean = np.random.default_rng(colour).integers(40, 216, size=3)
    noise = np.random.default_rng([colour, seed]).normal(0, 25, (SIZE[1], SIZE[0], 3))
    Image.fromarray((mean + noise).clip(0, 255).astype(np.uint8)).save(path)


def cub(root: Path, classes: Sequence[int] = (1, 2, 100, 101, 150, 200), per_class: int = 4) -> Path:
    """CUB-200-2011; `classes` as numbered there, from 1 to 200."""
    base = root / "CUB_200_2011"
    names, labels = [], []
    for label in classes:
        for i in range(per_class):
            name = f"{label:03}.Some_Bird/Some_Bird_{i:04}_{1000 * label + i}.jpg"
            image(base / "images" / name, label, i)
            number = len(names) + 1
            names.append(f"{number} {name}")
            labels.append(f"{number} {label}")
    write_lines(base / "images.txt", names)
    write_lines(base / "image_class_labels.txt", labels)
    return root


def cars(root: Path, classes: Sequence[int] = (1, 98, 99, 196), per_class: int = 3) -> Path:
    """Cars-196, the combined release. A MATLAB struct array, classes as 1 × 1 matrices of bytes."""
    from scipy.io import savemat  # noqa: PLC0415

    fields = ("relative_im_path", "bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "test")
    dtype = [(field, object) for field in fields]
    rows = []
    for label in classes:
        for i in range(per_class):
            name = f"car_ims/{len(rows) + 1:06}.jpg"
            image(root / name, label, i)
            box = [np.array([[x]], np.uint16) for x in (1, 2, 20, 18)]
            rows.append((name, *box, np.array([[label]], np.uint8), np.array([[i % 2]], np.uint8)))
    annotations = np.array([rows], dtype=dtype) if len(rows) == 1 else np.array(rows, dtype=dtype)[None]
    savemat(root / "cars_annos.mat", {"annotations": annotations, "class_names": np.array(["AM General"])})
    return root


def sop(root: Path, train: Sequence[int] = (1, 2, 3), test: Sequence[int] = (11319, 11320)) -> Path:
    """Stanford Online Products."""
    base, number = root / "Stanford_Online_Products", 0
    for part, classes in (("train", train), ("test", test)):
        lines = ["image_id class_id super_class_id path"]
        for label in classes:
            for i in range(2):
                number += 1
                name = f"{('bicycle', 'chair')[label % 2]}_final/{110000000000 + label}_{i}.JPG"
                image(base / name, label, i)
                lines.append(f"{number} {label} {1 + label % 2} {name}")
        write_lines(base / f"Ebay_{part}.txt", lines)
    return root


def in_shop(root: Path, train: int = 3, test: int = 3, per_class: int = 4, *, inside: str = "") -> Path:
    """In-Shop; `inside` is the folder of root that has img/. Half of a test item's images are queries."""
    lines = []
    for item in range(1, train + test + 1):
        for i in range(per_class):
            name = f"img/WOMEN/Dresses/id_{item:08}/02_{i}_front.jpg"
            image(root / inside / name, item, i)
            status = "train" if item <= train else ("query", "gallery")[i % 2]
            lines.append(f"{name:<70} id_{item:08} {status}")
    header = [str(len(lines)), "image_name item_id evaluation_status"]
    write_lines(root / "Eval" / "list_eval_partition.txt", header + lines)
    return root


def inaturalist(root: Path) -> Path:
    """iNaturalist-2018 with Smooth-AP's lists in root / "Inat_dataset_splits"."""
    kinds = {"train": ("Plantae/5678", "Aves/2"), "test": ("Plantae/77", "Fungi/10", "Insecta/2")}
    for part, classes in kinds.items():
        lines = []
        for number, folder in enumerate(classes):
            for i in range(2):
                name = f"train_val2018/{folder}/{number}{i}c0ffee.jpg"
                image(root / name, len(folder) + number, i)
                lines.append(name)
        write_lines(root / "Inat_dataset_splits" / f"Inaturalist_{part}_set1.txt", lines)
    return root


def write_lines(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def replace_line(path: Path, number: int, line: str) -> None:
    """Put another line in the place of one, counted from 1."""
    lines = path.read_text().splitlines()
    lines[number - 1] = line
    write_lines(path, lines)


WRITERS = {"cub": cub, "cars": cars, "sop": sop, "in_shop": in_shop, "inaturalist": inaturalist}


def load(name: str, root: Path) -> data_sets.OpenWorldData:
    """A miniature; it is never complete, which the loader says."""
    with pytest.warns(UserWarning, match="results do not compare with published ones"):
        return data_sets.load(name, root, split_list(name, root))


def split_list(name: str, root: Path) -> Path | None:
    return root / "Inat_dataset_splits" if name == "inaturalist" else None
