"""Between data set and training: images and batches, backbones and base losses by name, configurations."""

from __future__ import annotations

import math
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

for package in ("pytorch_metric_learning", "PIL", "scipy", "tqdm"):
    pytest.importorskip(package, reason=f"{package} is not installed: pip install 'tcm-kernels[demo]'")
if sys.version_info < (3, 11):
    pytest.importorskip("tomli", reason="tomli is not installed: pip install 'tcm-kernels[bench]'")

import miniature_data_sets as miniature  # noqa: E402
from miniature_data_sets import load  # noqa: E402
from miniature_settings import written  # noqa: E402
from PIL import Image  # noqa: E402

from benchmarks.quality.real import backbones, config, data_sets, images, losses  # noqa: E402
from benchmarks.quality.real.images import ClassBalancedBatches, Draw, ImageFileError, Shape  # noqa: E402

SHAPE = Shape(16, 18, (0.3, 1.0), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


class TestImages:
    def test_evaluation_shows_the_centre_normalised(self, tmp_path: Path) -> None:
        pixels = np.zeros((36, 54, 3), np.uint8)
        pixels[:, 18:36] = (255, 0, 51)  # the centre third: after the resize, columns 9 to 18 of 27
        Image.fromarray(pixels).save(tmp_path / "a.png")
        files = images.ImageFiles(data_sets.Images((str(tmp_path / "a.png"),), np.array([3])), SHAPE)
        shown, label = files[0]
        assert (shown.shape, shown.dtype, label) == ((3, 16, 16), torch.float32, 3)
        expected = [(1 - 0.5) / 0.2, (0 - 0.4) / 0.3, (0.2 - 0.3) / 0.4]
        assert shown[:, 8, 8].tolist() == pytest.approx(expected, abs=1e-6)
        assert shown[:, 8, 0].tolist() == pytest.approx([-0.5 / 0.2, -0.4 / 0.3, -0.3 / 0.4], abs=1e-6)

    @pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
    def test_every_kind_of_image_becomes_rgb(self, mode: str, tmp_path: Path) -> None:
        path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
        Image.new("RGB", (9, 7), (200, 30, 30)).convert(mode).save(path)
        assert images.decode(str(path)).mode == "RGB"

    @pytest.mark.parametrize("size", [(40, 30), (3, 300), (300, 3), (1, 1)])
    def test_a_crop_of_any_image_has_the_size_that_is_asked_for(self, size: tuple[int, int]) -> None:
        picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))
        for number in range(20):
            assert images.augmented(picture, SHAPE, np.random.default_rng(number)).size == (16, 16)
        assert images.centred(picture, SHAPE).size == (16, 16)

    def test_crops_cover_the_share_that_is_asked_for_and_are_flipped_half_of_the_time(self) -> None:
        # Red is the column, green the row: the range of each in a crop is what it covers.
        rows, columns = np.mgrid[0:200, 0:200]
        picture = Image.fromarray(np.stack((columns, rows, 0 * rows), axis=2).astype(np.uint8))
        areas, flips = [], []
        for number in range(300):
            crop = np.asarray(images.augmented(picture, SHAPE, np.random.default_rng(number))).astype(int)
            width, height = (np.ptp(crop[..., i]) * 16 / 15 / 200 for i in (0, 1))
            areas.append(width * height)
            flips.append(crop[8, 0, 0] > crop[8, 15, 0])
        assert 0.27 < min(areas) < 0.4
        assert 0.85 < max(areas) < 1.05
        assert 0.4 < np.mean(flips) < 0.6

    def test_a_draw_is_the_same_image_each_time_and_another_number_another(self, tmp_path: Path) -> None:
        files = images.ImageFiles(load("cub", miniature.cub(tmp_path)).train, SHAPE)
        first, again, other = (files[Draw(2, number)][0] for number in (5, 5, 6))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    @pytest.mark.parametrize("content", [b"<html>", b"", "half"])
    def test_a_broken_image_is_named(self, content: bytes | str, tmp_path: Path) -> None:
        path = tmp_path / "a.jpg"
        miniature.image(path, 1, 1)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2] if isinstance(content, str) else content)
        with pytest.raises(ImageFileError) as raised:
            images.decode(str(path))
        assert str(raised.value).startswith(f"{path}: cannot be read as an image (")

    def test_workers_give_the_batches_of_no_workers(self, tmp_path: Path) -> None:
        data = load("cub", miniature.cub(tmp_path))
        batches = []
        for workers in (0, 2):
            sampler = ClassBalancedBatches(data.train.labels, 2, 2, seed=1, steps=3)
            batches.append(
                list(images.training_batches(data.train, SHAPE, sampler, workers=workers, pin=False))
            )
        for here, there in zip(*batches, strict=True):
            assert torch.equal(here[0], there[0])
            assert torch.equal(here[1], there[1])


LABELS = np.repeat(np.arange(6), [5, 3, 8, 2, 6, 4])


def sampled(seed: int = 0, steps: int = 20, **more: int) -> list[list[Draw]]:
    return list(ClassBalancedBatches(LABELS, 3, 4, seed=seed, steps=steps, **more))


class TestBatches:
    def test_each_has_so_many_classes_and_so_many_images_of_each(self) -> None:
        batches = sampled()
        assert len(batches) == 20
        for batch in batches:
            assert sorted(Counter(LABELS[draw.index] for draw in batch).values()) == [4, 4, 4]

    def test_a_class_gives_different_images_unless_it_has_too_few(self) -> None:
        for batch in sampled():
            for label in {LABELS[draw.index] for draw in batch}:
                shown = Counter(draw.index for draw in batch if LABELS[draw.index] == label)
                size = int((LABELS == label).sum())  # noqa: SIM300
                assert len(shown) == min(4, size)
                assert max(shown.values()) == math.ceil(4 / size)
            assert len({draw.number for draw in batch}) == 12  # cropped differently each time

    def test_classes_are_drawn_equally_often_whatever_their_size(self) -> None:
        shown = Counter(LABELS[draw.index] for batch in sampled(steps=2000) for draw in batch)
        assert all(share == pytest.approx(1 / 6, rel=0.05) for share in (n / 24_000 for n in shown.values()))

    def test_the_same_seed_gives_the_same_and_another_seed_another(self) -> None:
        assert sampled(seed=3) == sampled(seed=3)
        assert sampled(seed=3) != sampled(seed=4)

    def test_more_steps_begin_with_the_same_batches(self) -> None:
        assert sampled(steps=9) == sampled(steps=20)[:9]

    def test_every_epoch_and_every_rank_has_batches_of_its_own(self) -> None:
        shares = [sampled(rank=rank, world_size=2) for rank in (0, 1)]
        assert shares[0] != shares[1]
        everything = [tuple(batch) for share in shares for batch in share]
        assert len(set(everything)) == 40
        sampler = ClassBalancedBatches(LABELS, 3, 2, seed=0, steps=8, rank=1, world_size=2)
        assert sampler.epoch_length == 2  # 28 images, 6 a rank and step

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ((7, 4), "classes_per_batch: got 7, expected 1 to 6: there are no more"),
            ((0, 4), "classes_per_batch: got 0, expected 1 to 6: there are no more"),
            ((3, 0), "images_per_class: got 0, expected at least 1"),
        ],
    )
    def test_what_cannot_be_drawn_is_refused(self, arguments: tuple[int, int], said: str) -> None:
        with pytest.raises(ValueError, match=said):
            ClassBalancedBatches(LABELS, *arguments, seed=0, steps=1)


class TestBackbones:
    @pytest.mark.parametrize("name", ["small", "torch.nn:Flatten"])
    def test_gives_the_embedding_size(self, name: str) -> None:
        network = backbones.make(name, 7, 16, pretrained=False)
        assert network(torch.zeros(3, 3, 16, 16)).shape == (3, 7)

    def test_a_factory_that_asks_for_the_embedding_size_gets_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = (
            "from torch import nn\ndef make(embedding_size):\n"
            "    return nn.Sequential(nn.Flatten(), nn.LazyLinear(embedding_size))\n"
        )
        (tmp_path / "of_user.py").write_text(source)
        monkeypatch.syspath_prepend(str(tmp_path))
        assert len(backbones.make("of_user:make", 5, 8, pretrained=False)) == 2  # no layer follows

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("big", "backbone: got 'big', expected small, timm:<model> or <module>:<factory>"),
            ("nowhere:make", "backbone nowhere:make: No module named 'nowhere'"),
            ("torch.nn:Nothing", "backbone torch.nn:Nothing: module 'torch.nn' has no attribute 'Nothing'"),
            ("builtins:dict", "backbone builtins:dict: gave a dict, expected a torch.nn.Module"),
            ("torch.nn:Linear", r"backbone torch.nn:Linear: making it failed \(TypeError"),
            ("torch.nn:Identity", r"gave \(2, 3, 8, 8\) for 2 images, expected floats of shape \(2, D\)"),
            ("torch.nn:Bilinear", "making it failed"),
        ],
    )
    def test_what_is_no_backbone_is_refused_by_name(self, name: str, said: str) -> None:
        with pytest.raises(backbones.BackboneError, match=said):
            backbones.make(name, 4, 8, pretrained=False)

    @pytest.mark.parametrize(
        ("line", "said"),
        [
            (
                "raise ImportError('no timm')",
                r"timm does not import \(ImportError: no timm\); pip install timm",
            ),
            (
                "raise RuntimeError('operator torchvision::nms does not exist')",
                "install the one of the same release",
            ),
            (
                "def create_model(*_, **__): raise OSError('offline')",
                "set pretrained = false to go without weights",
            ),
        ],
    )  # fmt: skip
    def test_timm_that_fails_says_what_failed_and_the_cure(
        self, line: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "timm.py").write_text(line + "\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "timm", raising=False)
        with pytest.raises(backbones.BackboneError, match=said):
            backbones.make("timm:resnet50", 4, 8, pretrained=True)
        sys.modules.pop("timm", None)

    def test_timm_that_works_is_asked_for_a_model_without_classifier(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = (
            "import torch\ndef create_model(name, pretrained, num_classes):\n"
            "    assert (name, pretrained, num_classes) == ('tiny', True, 0)\n    return torch.nn.Flatten()\n"
        )
        (tmp_path / "timm.py").write_text(source)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "timm", raising=False)
        network = backbones.make("timm:tiny", 6, 4, pretrained=True)
        sys.modules.pop("timm", None)
        assert network(torch.zeros(2, 3, 4, 4)).shape == (2, 6)


class TestLosses:
    @pytest.mark.parametrize(
        ("name", "arguments"),
        [("ProxyAnchorLoss", {"margin": 0.2}), ("MultiSimilarityLoss", {}), ("ArcFaceLoss", {})],
    )
    def test_is_made_by_name(self, name: str, arguments: dict[str, Any]) -> None:
        loss = losses.make(name, arguments, 3, 4)
        assert loss(torch.randn(6, 4), torch.arange(6) % 3).isfinite()

    def test_unknown_names_and_arguments_are_refused(self) -> None:
        with pytest.raises(
            losses.LossError, match=r"base_loss: got 'ProxyAnchor', expected one of .*ArcFaceLoss"
        ):
            losses.make("ProxyAnchor", {}, 3, 4)
        with pytest.raises(
            losses.LossError, match=r"base_loss_arguments: ProxyAnchorLoss refuses \{'margn': 1\}"
        ):
            losses.make("ProxyAnchorLoss", {"margn": 1}, 3, 4)


class TestConfigurations:
    @pytest.mark.parametrize("name", data_sets.SOURCES)
    def test_every_set_has_one_with_the_papers_margins_and_weight(self, name: str) -> None:
        found = config.read(config.path_of(name))
        assert found.data_set == name
        assert found.paper == config.Paper(margin_plus=0.9, margin_minus=0.5, tcm_weight=1.0)
        losses.make(found.ours.base_loss, found.ours.base_loss_arguments, 3, found.ours.embedding_size)

    @pytest.mark.parametrize("name", data_sets.SOURCES)
    def test_every_key_has_a_comment_or_stands_under_one(self, name: str) -> None:
        lines = config.path_of(name).read_text().splitlines()
        bare = [line for line in lines if "=" in line and "#" not in line and not line.startswith("data_set")]
        assert bare == []

    @pytest.mark.parametrize(
        ("key", "value", "said"),
        [
            ("steps", '"many"', "[ours] steps: got 'many', expected an integer, at least 1"),
            ("steps", "0", "[ours] steps: got 0, expected an integer, at least 1"),
            ("steps", "true", "[ours] steps: got True, expected an integer, at least 1"),
            ("learning_rate", "0", "[ours] learning_rate: got 0, expected a number above 0"),
            ("learning_rate", "nan", "[ours] learning_rate: got nan, expected a number above 0"),
            ("margin_plus", "1.5", "[paper] margin_plus: got 1.5, expected a number, at least -1, at most 1"),
            ("pretrained", "1", "[ours] pretrained: got 1, expected true or false"),
            ("optimizer", '"SGD"', "[ours] optimizer: got 'SGD', expected one of Adam, AdamW"),
            ("std", "[0, 1, 1]", "[ours] std: got [0, 1, 1], expected 3 numbers, above 0, at most 1"),
            ("crop_scale", "[0.9, 0.2]",
             "[ours] crop_scale: got [0.9, 0.2], expected two numbers, least and most, above 0, at most 1"),
            ("resize", "8", "[ours] resize: got 8, expected at least image_size, 16"),
            ("base_loss_arguments", "3", "[ours] base_loss_arguments: got 3, expected a table"),
            ("images_per_class", "1", "[ours] images_per_class: got 1, expected an integer, at least 2"),
            ("data_set", '"mnist"',
             "data_set: got 'mnist', expected one of cub, cars, sop, in_shop, inaturalist"),
            ("weight_decay", "", "[ours] weight_decay: missing"),
            ("tcm_weight", "", "[paper] tcm_weight: missing"),
        ],
    )  # fmt: skip
    def test_a_wrong_or_missing_value_is_named_with_what_is_accepted(
        self, key: str, value: str, said: str, tmp_path: Path
    ) -> None:
        path = written(tmp_path, **{key: value})
        with pytest.raises(config.ConfigError) as raised:
            config.read(path)
        assert str(raised.value) == f"{path}: {said}"

    def test_an_unknown_key_is_named_with_those_there_are(self, tmp_path: Path) -> None:
        path = written(tmp_path)
        path.write_text(path.read_text().replace("tcm_weight", "lambda"))
        with pytest.raises(config.ConfigError) as raised:
            config.read(path)
        accepted = "margin_plus, margin_minus, tcm_weight"
        assert str(raised.value) == f"{path}: [paper] lambda: unknown key, accepted are {accepted}"
        path.write_text("[theirs]\n")
        with pytest.raises(config.ConfigError) as raised:
            config.read(path)
        assert str(raised.value) == f"{path}: theirs: unknown key, accepted are data_set, paper, ours"

    def test_what_is_no_toml_and_what_is_not_there_are_named(self, tmp_path: Path) -> None:
        path = tmp_path / "a.toml"
        path.write_text("steps = = 3")
        with pytest.raises(config.ConfigError, match=f"{path}: cannot be read as TOML"):
            config.read(path)
        with pytest.raises(
            config.ConfigError, match="bird: no such file, and not one of cars, cub, in_shop, inat"
        ):
            config.path_of("bird")
