"""The data sets of the study, from miniature folders of the same structure: nobody here has the real ones."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

for package in ("pytorch_metric_learning", "PIL", "scipy", "tqdm"):
    pytest.importorskip(package, reason=f"{package} is not installed: pip install 'tcm-kernels[demo]'")
if sys.version_info < (3, 11):
    pytest.importorskip("tomli", reason="tomli is not installed: pip install 'tcm-kernels[bench]'")

import miniature_data_sets as miniature  # noqa: E402
from miniature_data_sets import WRITERS, load, split_list  # noqa: E402

from benchmarks.quality.real import data_sets  # noqa: E402
from benchmarks.quality.real.data_sets import DataSetError  # noqa: E402


class TestDataSets:
    @pytest.mark.parametrize(
        ("name", "counts"),
        [
            ("cub", (12, 3, 12, 3)),
            ("cars", (6, 2, 6, 2)),
            ("sop", (6, 3, 4, 2)),
            ("in_shop", (12, 3, 6, 3, 6)),
            ("inaturalist", (4, 2, 6, 3)),
        ],
    )
    def test_each_is_split_into_the_images_and_classes_that_its_files_say(
        self, name: str, counts: tuple[int, ...], tmp_path: Path
    ) -> None:
        data = load(name, WRITERS[name](tmp_path))
        assert tuple(data.counts().values()) == counts
        assert (data.gallery is not None) == (name == "in_shop")
        parts = [data.train, data.test] + ([data.gallery] if data.gallery else [])
        for part in parts:
            assert np.array_equal(np.unique(part.labels), np.arange(part.classes))
            assert part.labels.dtype == np.int64
            assert all(Path(path).is_file() for path in part.paths)
        folders = [{Path(path).parent for path in part.paths} for part in parts]
        if name in ("cub", "in_shop", "inaturalist"):  # where a class is a folder
            assert [len(x) for x in folders] == [part.classes for part in parts]
            assert not folders[0] & folders[1]
        assert not set(data.train.paths) & set(data.test.paths)

    def test_cub_trains_on_classes_1_to_100_and_cars_on_1_to_98(self, tmp_path: Path) -> None:
        cub = load("cub", miniature.cub(tmp_path / "cub"))
        assert {Path(path).parent.name[:3] for path in cub.train.paths} == {"001", "002", "100"}
        assert {Path(path).parent.name[:3] for path in cub.test.paths} == {"101", "150", "200"}
        cars = load("cars", miniature.cars(tmp_path / "cars"))
        assert [Path(path).stem for path in cars.train.paths] == [f"{i:06}" for i in range(1, 7)]
        assert cars.train.labels.tolist() == [0, 0, 0, 1, 1, 1]

    def test_a_class_has_one_label_among_queries_and_gallery(self, tmp_path: Path) -> None:
        data = load("in_shop", miniature.in_shop(tmp_path))
        assert data.gallery is not None
        item = {
            label: {Path(path).parent.name for part in (data.test, data.gallery) for path, of in
                    zip(part.paths, part.labels, strict=True) if of == label}
            for label in range(3)
        }  # fmt: skip
        assert item == {0: {"id_00000004"}, 1: {"id_00000005"}, 2: {"id_00000006"}}

    def test_the_order_of_classes_in_inaturalist_does_not_depend_on_the_list(self, tmp_path: Path) -> None:
        root = miniature.inaturalist(tmp_path)
        before = load("inaturalist", root)
        path = root / "Inat_dataset_splits" / "Inaturalist_test_set1.txt"
        miniature.write_lines(path, reversed(path.read_text().splitlines()))
        after = load("inaturalist", root)
        pairs = [
            set(zip(data.test.paths, data.test.labels.tolist(), strict=True)) for data in (before, after)
        ]
        assert pairs[0] == pairs[1]

    @pytest.mark.parametrize("inside", ["", "Img"])
    def test_in_shop_is_found_with_its_images_in_img_or_in_img_img(self, inside: str, tmp_path: Path) -> None:
        root = miniature.in_shop(tmp_path, inside=inside)
        (root / "Eval" / "list_eval_partition.txt").rename(root / "list_eval_partition.txt")
        assert len(load("in_shop", root).train) == 12

    @pytest.mark.parametrize(
        ("name", "folder"), [("cub", "CUB_200_2011"), ("sop", "Stanford_Online_Products")]
    )
    def test_root_may_be_the_sets_own_folder(self, name: str, folder: str, tmp_path: Path) -> None:
        root = WRITERS[name](tmp_path)
        assert load(name, root / folder).counts() == load(name, root).counts()

    def test_a_single_annotation_of_cars_is_read_as_many_are(self, tmp_path: Path) -> None:
        root = miniature.cars(tmp_path, classes=(1,), per_class=1)
        with pytest.raises(DataSetError, match="no image of the test part"):
            data_sets.load("cars", root)

    def test_complete_counts_are_those_of_the_papers(self) -> None:
        assert data_sets.STANDARD["inaturalist"] == {
            "train_images": 325_846, "train_classes": 5_690, "test_images": 136_093, "test_classes": 2_452,
        }  # fmt: skip
        assert data_sets.STANDARD["cub"]["train_images"] + data_sets.STANDARD["cub"]["test_images"] == 11_788
        assert (
            data_sets.STANDARD["cars"]["train_images"] + data_sets.STANDARD["cars"]["test_images"] == 16_185
        )
        assert data_sets.STANDARD["sop"]["train_images"] + data_sets.STANDARD["sop"]["test_images"] == 120_053
        assert sum(v for k, v in data_sets.STANDARD["in_shop"].items() if k.endswith("images")) == 52_712

    def test_a_set_that_is_complete_raises_no_warning(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        root = miniature.cub(tmp_path)
        monkeypatch.setitem(data_sets.STANDARD, "cub", load("cub", root).counts())
        data_sets.load("cub", root)

    def test_the_warning_names_both_counts(self, tmp_path: Path) -> None:
        with pytest.warns(UserWarning, match="the standard split has") as warned:
            data_sets.load("in_shop", miniature.in_shop(tmp_path))
        assert str(warned[0].message) == (
            "In-Shop Clothes Retrieval: got 12 training images of 3 classes and 6 test images of 3 with a "
            "gallery of 6, the standard split has 25,882 training images of 3,997 classes and 14,218 test "
            "images of 3,985 "
            "with a gallery of 12,612: results do not compare with published ones"
        )


FILES = [
    ("cub", "CUB_200_2011/images.txt"),
    ("cub", "CUB_200_2011/image_class_labels.txt"),
    ("cars", "cars_annos.mat"),
    ("sop", "Stanford_Online_Products/Ebay_train.txt"),
    ("sop", "Stanford_Online_Products/Ebay_test.txt"),
    ("in_shop", "Eval/list_eval_partition.txt"),
]
PAGES = {name: source.page for name, source in data_sets.SOURCES.items()}
TITLES = {name: source.title for name, source in data_sets.SOURCES.items()}


def complaint(name: str, root: Path) -> str:
    with pytest.raises(DataSetError) as raised:
        data_sets.load(name, root, split_list(name, root))
    return str(raised.value)


class TestBrokenDataSets:
    @pytest.mark.parametrize(("name", "file"), FILES)
    def test_a_missing_file_is_named_with_the_set_and_its_page(
        self, name: str, file: str, tmp_path: Path
    ) -> None:
        root = WRITERS[name](tmp_path)
        (root / file).unlink()
        said = f"{TITLES[name]}: missing file {root / file}; the data set comes from {PAGES[name]}"
        assert complaint(name, root) == said

    @pytest.mark.parametrize(
        ("name", "folder"), [("cub", "CUB_200_2011/images"), ("cars", "car_ims"), ("in_shop", "img")]
    )
    def test_a_missing_folder_is_named(self, name: str, folder: str, tmp_path: Path) -> None:
        root = WRITERS[name](tmp_path)
        (root / folder).rename(tmp_path / "elsewhere")
        said = f"{TITLES[name]}: missing folder {root / folder}; the data set comes from {PAGES[name]}"
        assert complaint(name, root) == said

    def test_a_missing_split_list_is_named_with_its_own_page(self, tmp_path: Path) -> None:
        root = miniature.inaturalist(tmp_path)
        path = root / "Inat_dataset_splits" / "Inaturalist_test_set1.txt"
        path.unlink()
        page = "https://github.com/Andrew-Brown1/Smooth_AP"
        assert (
            complaint("inaturalist", root) == f"iNaturalist-2018: missing file {path}; it comes from {page}"
        )
        with pytest.raises(
            DataSetError, match="--split-list: got none, expected the folder of Inaturalist_train"
        ):
            data_sets.load("inaturalist", root)
        with pytest.raises(
            ValueError, match="--split-list: got here, expected none: cub brings its own split"
        ):
            data_sets.load("cub", root, "here")

    def test_the_release_of_cars_in_two_parts_is_recognised(self, tmp_path: Path) -> None:
        (tmp_path / "cars_train").mkdir()
        assert "holds the release in two parts" in complaint("cars", tmp_path)

    @pytest.mark.parametrize(
        ("name", "file", "number", "line", "expected"),
        [
            ("cub", "CUB_200_2011/images.txt", 3, "3",
             "an image id and a path"),
            ("cub", "CUB_200_2011/images.txt", 3, "x 001.a/b.jpg",
             "an image id and a path"),
            ("cub", "CUB_200_2011/images.txt", 3, "3 ../b.jpg",
             "an image id and a path inside images/"),
            ("cub", "CUB_200_2011/images.txt", 3, "2 001.a/b.jpg",
             "an image id that has not been there before"),
            ("cub", "CUB_200_2011/image_class_labels.txt", 5, "5 201",
             "an image id and a class from 1 to 200"),
            ("cub", "CUB_200_2011/image_class_labels.txt", 5, "99 1",
             "an image id that images.txt has"),
            ("sop", "Stanford_Online_Products/Ebay_test.txt", 1, "id class path",
             "the header 'image_id class_id super_class_id path'"),
            ("sop", "Stanford_Online_Products/Ebay_test.txt", 3, "8 11319 2", "three numbers and a path"),
            ("sop", "Stanford_Online_Products/Ebay_train.txt", 2, "1 one 1 a/b.JPG",
             "three numbers and a path"),
            ("in_shop", "Eval/list_eval_partition.txt", 1, "many", "the number of images"),
            ("in_shop", "Eval/list_eval_partition.txt", 2, "image item status",
             "the header 'image_name item_id evaluation_status'"),
            ("in_shop", "Eval/list_eval_partition.txt", 7, "img/a.jpg id_00000001 test",
             "a path, an item like id_00000002 and one of train, query, gallery"),
            ("in_shop", "Eval/list_eval_partition.txt", 7, "img/a.jpg 1 train",
             "a path, an item like id_00000002 and one of train, query, gallery"),
            ("inaturalist", "Inat_dataset_splits/Inaturalist_train_set1.txt", 2, "",
             "a path relative to the data folder: folder/image"),
            ("inaturalist", "Inat_dataset_splits/Inaturalist_test_set1.txt", 4, "/data/Aves/2/x.jpg",
             "a path relative to the data folder: folder/image"),
        ],
    )  # fmt: skip
    def test_a_malformed_line_is_named_with_its_number(
        self, name: str, file: str, number: int, line: str, expected: str, tmp_path: Path
    ) -> None:
        root = WRITERS[name](tmp_path)
        miniature.replace_line(root / file, number, line)
        assert complaint(name, root) == (
            f"{TITLES[name]}: {root / file}, line {number}: got {line!r}, expected {expected}; "
            f"the data set comes from {PAGES[name]}"
        )

    def test_a_list_of_in_shop_that_was_cut_short_is_noticed(self, tmp_path: Path) -> None:
        root = miniature.in_shop(tmp_path)
        path = root / "Eval" / "list_eval_partition.txt"
        miniature.write_lines(path, path.read_text().splitlines()[:-2])
        assert f"{path} has 22 images, its first line says 24" in complaint("in_shop", root)

    def test_a_list_of_cub_that_was_cut_short_is_noticed(self, tmp_path: Path) -> None:
        root = miniature.cub(tmp_path)
        path = root / "CUB_200_2011" / "image_class_labels.txt"
        miniature.write_lines(path, path.read_text().splitlines()[:-2])
        assert f"{path} has no class for image id 23 of images.txt" in complaint("cub", root)

    @pytest.mark.parametrize("name", WRITERS)
    def test_absent_images_are_counted_and_the_first_few_named(self, name: str, tmp_path: Path) -> None:
        root = WRITERS[name](tmp_path)
        paths = load(name, root).test.paths[:4]
        for path in paths:
            Path(path).unlink()
        assert complaint(name, root) == (
            f"{TITLES[name]}: 4 images are listed but not there: {paths[0]}, {paths[1]}, {paths[2]}, ...; "
            f"the data set comes from {PAGES[name]}"
        )

    def test_a_class_on_both_sides_is_refused(self, tmp_path: Path) -> None:
        root = miniature.sop(tmp_path, train=(1, 2, 3), test=(3, 4))
        assert "1 classes are in the training and in the test part, 3 among them" in complaint("sop", root)

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ({"other": 1}, "has no variable `annotations`"),
            ({"annotations": {"fname": "a.jpg"}}, "annotations have no field 'relative_im_path'"),
            ({"annotations": {"relative_im_path": "car_ims/1.jpg", "class": 197}},
             "annotation 1: got class 197, expected 1 to 196"),
            (None, "cannot be read as a MATLAB file"),
        ],
    )  # fmt: skip
    def test_annotations_of_cars_that_are_something_else_are_refused(
        self, content: dict[str, Any] | None, said: str, tmp_path: Path
    ) -> None:
        from scipy.io import savemat  # noqa: PLC0415

        root = miniature.cars(tmp_path)
        if content is None:
            (root / "cars_annos.mat").write_bytes(b"<html>Not found</html>")
        else:
            savemat(root / "cars_annos.mat", content)
        assert f"{root / 'cars_annos.mat'}" in complaint("cars", root)
        assert said in complaint("cars", root)

    def test_an_unknown_set_is_refused(self) -> None:
        with pytest.raises(
            ValueError, match="data_set: got 'mnist', expected one of cub, cars, sop, in_shop, inat"
        ):
            data_sets.load("mnist", ".")
