"""The glyphs: which characters are classes, how samples are made, and that everything follows from seeds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

for package in ("matplotlib", "PIL"):
    pytest.importorskip(package, reason=f"{package} is not installed: pip install 'tcm-kernels[demo]'")

from tcm_kernels.demo import glyphs  # noqa: E402
from tcm_kernels.demo.glyphs import SIDE, Alphabet, Samples, contact_sheet, training  # noqa: E402
from tcm_kernels.demo.glyphs import alphabet as alphabet_module  # noqa: E402
from tcm_kernels.demo.glyphs.training import CLASSES_PER_BATCH, PER_CLASS, GlyphStudent, Optimisation  # noqa: E402


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def alphabet(cache: Path) -> Alphabet:
    return glyphs.load_alphabet(cache)


@pytest.fixture(scope="module")
def few(alphabet: Alphabet) -> Samples:
    return glyphs.draw_samples(alphabet, np.arange(40, dtype=np.int64), views=1, seed=0)


class TestAlphabet:
    def test_there_are_well_over_a_thousand_classes_of_ten_faces_and_more(self, alphabet: Alphabet) -> None:
        assert len(alphabet.characters) == len(set(alphabet.characters)) > 1500
        assert alphabet.drawings.shape == (len(alphabet.characters), len(glyphs.FACES), SIDE, SIDE)
        assert alphabet.drawn.sum(axis=1).min() >= alphabet_module.FEWEST_FACES

    def test_a_face_that_lacks_a_character_leaves_its_drawing_empty(self, alphabet: Alphabet) -> None:
        assert np.array_equal(alphabet.drawings.any(axis=(2, 3)), alphabet.drawn)

    def test_no_two_classes_look_alike(self, alphabet: Alphabet) -> None:
        pixels = alphabet.drawings.reshape(*alphabet.drawn.shape, -1).astype(np.float64)
        length = np.linalg.norm(pixels, axis=2)
        some = np.random.default_rng(0).choice(len(pixels), 150, replace=False)
        for a in some:
            for b in some[some > a]:
                both = alphabet.drawn[a] & alphabet.drawn[b]
                if not both.any():
                    continue
                products = (pixels[a, both] * pixels[b, both]).sum(axis=1)
                cosine = (products / (length[a, both] * length[b, both])).mean()
                assert cosine <= alphabet_module.LOOK_ALIKE + 1e-6, (
                    alphabet.characters[a] + alphabet.characters[b]
                )

    def test_of_two_that_look_alike_the_first_stays(self, alphabet: Alphabet) -> None:
        twice = Alphabet(
            "ab" + alphabet.characters[2:5],
            alphabet.drawings[[0, 0, 2, 3, 4]],
            alphabet.drawn[[0, 0, 2, 3, 4]],
        )
        assert alphabet_module.without_look_alikes(twice).characters == "a" + alphabet.characters[2:5]

    def test_the_second_time_it_is_read_from_the_cache(
        self, alphabet: Alphabet, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(alphabet_module, "_draw", lambda _: pytest.fail("drawn again"))
        again = glyphs.load_alphabet(cache)
        assert again.characters == alphabet.characters
        assert np.array_equal(again.drawings, alphabet.drawings)
        assert np.array_equal(again.drawn, alphabet.drawn)

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short"], ids=["empty", "damaged"])
    def test_a_damaged_cache_is_drawn_anew_and_mended(
        self,
        content: bytes,
        alphabet: Alphabet,
        cache: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        (name,) = (path.name for path in cache.iterdir())
        (tmp_path / name).write_bytes(content)
        monkeypatch.setattr(alphabet_module, "_draw", lambda _: alphabet)
        assert glyphs.load_alphabet(tmp_path).characters == alphabet.characters
        monkeypatch.setattr(alphabet_module, "_draw", lambda _: pytest.fail("drawn again"))
        assert glyphs.load_alphabet(tmp_path).characters == alphabet.characters

    def test_a_cache_that_cannot_be_written_costs_nothing_but_time(
        self, alphabet: Alphabet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").write_text("mine")
        monkeypatch.setattr(alphabet_module, "_draw", lambda _: alphabet)
        assert glyphs.load_alphabet(tmp_path / "file" / "cache").characters == alphabet.characters


def test_the_contact_sheet_is_a_picture(alphabet: Alphabet) -> None:
    assert contact_sheet.render(alphabet, classes=3).startswith(b"\x89PNG\r\n\x1a\n")


class TestSplits:
    def test_a_random_split_deals_every_class_once(self, alphabet: Alphabet) -> None:
        split = glyphs.split_at_random(alphabet, seed=0)
        dealt = np.concatenate([split.train, split.validation, split.test])
        assert np.array_equal(np.sort(dealt), np.arange(len(alphabet.characters)))
        assert len(split.train) > len(split.test) > len(split.validation) > 300

    def test_random_splits_follow_from_their_seed(self, alphabet: Alphabet) -> None:
        first, again, other = (glyphs.split_at_random(alphabet, seed) for seed in (0, 0, 1))
        assert np.array_equal(first.test, again.test)
        assert not np.array_equal(first.test, other.test)

    def test_the_split_by_script_learns_latin_and_is_judged_on_what_is_neither(
        self, alphabet: Alphabet
    ) -> None:
        split = glyphs.split_by_script(alphabet)
        scripts = [{alphabet.script(c) for c in of} for of in (split.train, split.validation, split.test)]
        assert scripts[0] == {"LATIN"}
        assert scripts[1] == {"CYRILLIC", "GEORGIAN"}
        assert {"GREEK", "ARMENIAN"} <= scripts[2]
        assert not scripts[2] & (scripts[0] | scripts[1])
        assert sum(map(len, (split.train, split.validation, split.test))) == len(alphabet.characters)


class TestSamples:
    def test_there_are_so_many_views_of_every_face_that_has_the_character(self, alphabet: Alphabet) -> None:
        classes = np.array([3, 500, 1400], dtype=np.int64)
        samples = glyphs.draw_samples(alphabet, classes, views=2, seed=0)
        assert samples.images.dtype == torch.uint8
        assert samples.images.shape[1:] == (1, SIDE, SIDE)
        for label, c in enumerate(classes):
            of_class = samples[samples.labels == label]
            expected = np.repeat(np.flatnonzero(alphabet.drawn[c]), 2)
            assert of_class.faces.tolist() == expected.tolist()

    def test_they_follow_from_the_seed_and_leave_the_callers_random_state(self, alphabet: Alphabet) -> None:
        classes = np.arange(5, dtype=np.int64)
        before = torch.get_rng_state()
        first, again, other = (
            glyphs.draw_samples(alphabet, classes, views=1, seed=seed).images for seed in (0, 0, 1)
        )
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_no_two_views_are_the_same_and_all_show_their_character(self, alphabet: Alphabet) -> None:
        """A view resembles the drawing it came from more than the drawings of most other characters."""
        classes = np.arange(0, 1500, 30, dtype=np.int64)
        samples = glyphs.draw_samples(alphabet, classes, views=3, seed=0)
        plain = [samples.labels == 7, samples.faces == 0]
        views = samples.images[plain[0] & plain[1]].flatten(1).float()
        assert len(views) == 3
        assert not torch.equal(views[0], views[1])
        centred = samples.images[:, 0].flatten(1).float()
        centred = torch.nn.functional.normalize(centred - centred.mean(dim=1, keepdim=True))
        first = torch.from_numpy(alphabet.drawings[classes, 0]).flatten(1).float()
        first = torch.nn.functional.normalize(first - first.mean(dim=1, keepdim=True))
        nearest = (centred @ first.T).argmax(dim=1)
        assert (nearest == samples.labels).float().mean() > 0.2  # by chance, 0.02

    def test_no_views_are_refused_by_name(self, alphabet: Alphabet) -> None:
        with pytest.raises(ValueError, match="views: got 0, expected at least 1"):
            glyphs.draw_samples(alphabet, np.arange(2, dtype=np.int64), views=0, seed=0)

    def test_no_classes_give_no_samples(self, alphabet: Alphabet) -> None:
        samples = glyphs.draw_samples(alphabet, np.empty(0, np.int64), views=1, seed=0)
        assert samples.images.shape == (0, 1, SIDE, SIDE)
        assert len(samples.labels) == 0


class TestLongTail:
    def test_the_largest_class_keeps_all_and_the_smallest_an_eighth(self, alphabet: Alphabet) -> None:
        samples = glyphs.draw_samples(alphabet, np.arange(30, dtype=np.int64), views=4, seed=0)
        whole = torch.bincount(samples.labels)
        kept = torch.bincount(glyphs.long_tailed(samples, seed=0).labels)
        share = (kept / whole).sort(descending=True).values
        assert share[0] == 1
        assert share[-1].item() == pytest.approx(1 / 8, abs=0.02)
        # A power in between: halfway through the ranks, the geometric mean.
        assert share[15].item() == pytest.approx(8**-0.5, abs=0.05)

    def test_every_class_keeps_two_samples(self, few: Samples) -> None:
        kept = torch.bincount(glyphs.long_tailed(few, seed=0, ratio=1000.0).labels)
        assert kept.min() == 2

    def test_a_ratio_below_one_is_refused_by_name(self, few: Samples) -> None:
        with pytest.raises(ValueError, match=r"ratio: got 0\.5, expected at least 1"):
            glyphs.long_tailed(few, seed=0, ratio=0.5)


class TestBatches:
    def test_a_batch_holds_as_many_different_samples_of_as_many_different_classes(
        self, alphabet: Alphabet
    ) -> None:
        classes = np.arange(2 * CLASSES_PER_BATCH, dtype=np.int64)
        labels = glyphs.draw_samples(alphabet, classes, views=1, seed=0).labels
        source = training.batches(labels, seed=0)
        for _ in range(3):
            rows = next(source)
            assert len(set(rows.tolist())) == training.BATCH_SIZE
            sizes = torch.bincount(labels[rows])
            assert sizes[sizes > 0].tolist() == [PER_CLASS] * CLASSES_PER_BATCH

    def test_where_there_are_too_few_some_come_twice(self) -> None:
        labels = torch.tensor([0, 1, 1, 2, 0])
        rows = next(training.batches(labels, seed=0))
        assert len(rows) == training.BATCH_SIZE
        assert set(rows.tolist()) <= set(range(5))
        assert set(labels[rows].tolist()) == {0, 1, 2}

    def test_they_follow_from_the_seed(self, few: Samples) -> None:
        first, again, other = (next(training.batches(few.labels, seed)) for seed in (0, 0, 1))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)


class TestStudent:
    HOW = Optimisation(learning_rate=1e-3, weight_decay=1e-2)

    @staticmethod
    def pull(emb: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        unit = torch.nn.functional.normalize(emb)
        return 1 - (unit @ unit.T)[labels[:, None] == labels].mean()

    def test_the_same_seed_learns_the_same_and_keeps_the_callers_random_state(self, few: Samples) -> None:
        before = torch.get_rng_state()
        learnt = []
        for _ in range(2):
            student = GlyphStudent(None, self.HOW, seed=0)
            assert list(training.learn(student, few, 0, (0, 2), self.pull)) == [0, 2]
            learnt.append(student.embed(few.images))
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.equal(*learnt)

    def test_what_is_added_changes_neither_the_start_nor_the_batches(self, few: Samples) -> None:
        seen: list[list[torch.Tensor]] = []
        starts = []
        for weight in (0.0, 1.0):
            batches: list[torch.Tensor] = []

            def added(
                emb: torch.Tensor, labels: torch.Tensor, w: float = weight, into=batches
            ) -> torch.Tensor:
                into.append(labels)
                return w * self.pull(emb, labels)

            student = GlyphStudent(None, self.HOW, seed=0)
            starts.append(student.embed(few.images[:10]))
            list(training.learn(student, few, 0, (2,), added))
            seen.append(batches)
        assert torch.equal(*starts)
        assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))

    def test_proxies_learn_ten_times_as_fast_and_do_not_decay(self) -> None:
        student = GlyphStudent(lambda: torch.nn.Linear(2, 3), self.HOW, seed=0)
        network, proxies = student.optimizer.param_groups
        assert proxies["initial_lr"] == pytest.approx(10 * network["initial_lr"])
        assert (network["weight_decay"], proxies["weight_decay"]) == (1e-2, 0.0)

    def test_what_is_embedded_with_is_an_average_of_the_weights_on_the_way(self, few: Samples) -> None:
        student = GlyphStudent(None, self.HOW, seed=0)
        weights = []
        for _ in training.learn(student, few, 0, (1, 2, 3), self.pull):
            weights.append(student.network[0].weight.detach().clone())
        expected = weights[0]
        for past, weight in enumerate(weights[1:], start=1):
            expected = expected + (weight - expected) * (1 - (1 + past) / (10 + past))
        torch.testing.assert_close(student.average.module[0].weight.detach(), expected)
        assert not torch.equal(expected, weights[-1])

    def test_no_images_give_no_embeddings(self) -> None:
        emb = GlyphStudent(None, self.HOW, seed=0).embed(torch.empty(0, 1, SIDE, SIDE, dtype=torch.uint8))
        assert emb.shape == (0, training.EMBEDDING_SIZE)
