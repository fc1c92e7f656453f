"""Curves in files: what was saved comes back, and nothing else is taken for curves."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_curves import assert_same, some_labels, some_rows

from tcm_kernels.evaluation import ClassCurves, class_curves


@pytest.mark.parametrize("kind", ["numbers", "text", "groups", "two_sets", "empty"])
def test_what_was_saved_is_loaded_again(tmp_path: Path, kind: str) -> None:
    emb, labels = some_rows(), some_labels()
    got = {
        "numbers": lambda: class_curves(emb, labels, bins=20, range=(-0.3, 0.7)),
        "text": lambda: class_curves(emb, [f"Größe <b>{i}</b>" for i in labels.tolist()], bins=20),
        "groups": lambda: class_curves(emb, labels, groups=labels % 2, bins=20),
        "two_sets": lambda: class_curves(emb, labels, some_rows(9, 1), some_labels(9), bins=20),
        "empty": lambda: class_curves(emb[:0], labels[:0], bins=20),
    }[kind]()
    for path in (tmp_path / "curves.npz", str(tmp_path / "no ending")):
        got.save(path)
        assert_same(ClassCurves.load(path), got)
    assert sorted(x.name for x in tmp_path.iterdir()) == ["curves.npz", "no ending"]


def test_saving_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "curves.npz"
    got = class_curves(some_rows(), some_labels(), bins=20)
    got.save(path)
    before = path.read_bytes()

    def full(file: Any, **_: Any) -> None:
        file.write(b"half of it")
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OSError, match="No space left"):
        got.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


class _Bomb:
    """Unpickling this leaves a trace."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def _content(**changes: Any) -> dict[str, Any]:
    good = class_curves(some_rows(), some_labels(), bins=20)
    content = {
        "format": np.array("tcm_kernels class curves 1"),
        "classes": good.classes,
        "positives": good.positives,
        "negatives": good.negatives,
        "pooled": good.pooled,
        "range": np.array([-1.0, 1.0]),
        "symmetric": np.array(True),
        "grouped": np.array(False),
    }
    return {name: x for name, x in (content | changes).items() if x is not None}


def test_the_files_below_are_wrong_in_nothing_else(tmp_path: Path) -> None:
    np.savez(tmp_path / "good.npz", **_content())
    assert_same(ClassCurves.load(tmp_path / "good.npz"), class_curves(some_rows(), some_labels(), bins=20))


def test_loading_unpickles_nothing(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    bomb = np.array([_Bomb(trace)], dtype=object)
    np.savez(tmp_path / "in_npz", **_content(classes=bomb))
    np.save(tmp_path / "in_npy.npy", bomb)
    (tmp_path / "pickle").write_bytes(pickle.dumps(_Bomb(trace)))
    torch.save({"curves": torch.zeros(3)}, tmp_path / "torch.pt")
    for name in ("in_npz.npz", "in_npy.npy", "pickle", "torch.pt"):
        with pytest.raises(ValueError, match=re.escape(name)):
            ClassCurves.load(tmp_path / name)
    assert not trace.exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"embeddings, labels\n", b"\x93NUMPY\x01\x00"])
def test_files_of_another_kind_are_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "another.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"another\.npz is not a file of class curves"):
        ClassCurves.load(path)


def test_half_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "half.npz"
    class_curves(some_rows(), some_labels(), bins=20).save(path)
    whole = path.read_bytes()
    for size in (len(whole) // 2, len(whole) - 10):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"half\.npz is not a file of class curves"):
            ClassCurves.load(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": None},
        {"format": np.array("another 1")},
        {"positives": None},
        {"pooled": None},
        {"positives": np.zeros((3, 22), np.int64)},
        {"negatives": np.zeros((9, 21), np.int64)},
        {"pooled": np.zeros((3, 22), np.int64)},
        {"pooled": np.zeros(22, np.int64)},
        {"positives": np.zeros((9, 22), np.float64)},
        {"positives": np.full((9, 22), -1)},
        {"classes": np.arange(8)},
        {"classes": np.zeros((9, 2), np.int64)},
        {"classes": np.linspace(0.0, 1.0, 9)},
        {"classes": np.arange(9)[::-1]},
        {"classes": np.zeros(9, np.int64)},
        {"range": np.array([1.0, -1.0])},
        {"range": np.array([0.0, np.nan])},
        {"range": np.array([0.0, np.inf])},
        {"range": np.array([0.0])},
    ],
    ids=lambda x: "-".join(
        f"{k}_{v is not None and v.dtype}_{v is not None and v.shape}" for k, v in x.items()
    ),
)
def test_a_file_that_cannot_be_right_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = tmp_path / "wrong.npz"
    np.savez(path, **_content(**changes))
    with pytest.raises(ValueError, match=r"wrong\.npz is not a file of class curves"):
        ClassCurves.load(path)


def test_a_file_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ClassCurves.load(tmp_path / "nothing.npz")
