"""Pictures of named things: what is in them, their labels, their cache."""

from __future__ import annotations

import colorsys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.data.labelled import VOID
from bench.data.named import NamedSceneSpec, open_named, prepare, split_folder
from bench.data.named import scene as scene_module
from bench.data.named import spec as spec_module
from bench.data.named.scene import make_picture, sample_scene
from bench.data.named.sheet import ROWS, contact_sheet
from bench.data.named.spec import GROUPS_OF, SPLITS
from bench.data.named.words import COLOURS, LEFT_OUT_COLOURS, LEFT_OUT_SHAPES, LEFT_OUT_TEXTURES
from bench.errors import UserError
from tests.data.named_calibration import bins_of, colour_lookup, guess_left_out, nearest_mean, scores, stacked

SPEC = NamedSceneSpec(image_size=40, train_images=40, validation_images=1, test_images=10, words_images=3)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("named")
    prepare(SPEC, folder, workers=1)
    return folder


def drawn(split: str, pictures: int) -> list[list[str]]:
    spec = NamedSceneSpec(**{f"{split}_images": pictures})
    return [[t.name for t in sample_scene(spec.generator(split, i), spec, split)[0]] for i in range(pictures)]


def test_unseen_names_are_as_frequent_at_test_as_seen_ones():
    vocabulary = NamedSceneSpec().vocabulary("test")
    often = Counter(name for things in drawn("test", 250) for name in things)
    mean = {
        group: np.mean(
            [often[n] for n, g in zip(vocabulary.names[2:], vocabulary.groups[2:], strict=True) if g == group]
        )
        for group in ("seen", "unseen")
    }
    assert mean["unseen"] == pytest.approx(mean["seen"], rel=0.2)


def test_pictures_hold_four_to_eight_things_of_their_split():
    left_out = {*LEFT_OUT_TEXTURES, *LEFT_OUT_COLOURS, *LEFT_OUT_SHAPES}
    for split in SPLITS:
        pictures = drawn(split, 40)
        assert set(map(len, pictures)) <= set(range(4, 9))
        assert np.mean([len(things) for things in pictures]) > 5
        names = {name for things in pictures for name in things}
        assert names <= set(NamedSceneSpec().vocabulary(split).names)
        new = np.mean([bool(left_out & set(name.split())) for things in pictures for name in things])
        assert 0.35 < new < 0.6 if split == "words" else new == 0


def test_things_wear_their_names():
    """Pattern, colour and shape of what is drawn are what the words say."""
    spec = NamedSceneSpec(words_images=100)
    patterns = {"plain": "solid", "striped": "stripes", "spotted": "dots", "checkered": "checker"}
    for index in range(30):
        things, scene = sample_scene(spec.generator("words", index), spec, "words")
        assert scene.floor.texture.name not in LEFT_OUT_TEXTURES.values()
        for thing, thing_object in zip(things, scene.objects, strict=True):
            texture = thing_object.textures[0]
            assert texture.name == patterns[thing.texture]
            assert thing_object.shape == thing.shape
            hue, saturation, value = colorsys.rgb_to_hsv(*(texture.dark if texture.name == "dots" else texture.light))
            other = colorsys.rgb_to_hsv(*(texture.light if texture.name == "dots" else texture.dark))
            if thing.colour == "white":
                assert saturation < 0.1
                assert value - other[2] > 0.5
            else:
                distance = {word: abs((hue - mean[0] + 0.5) % 1 - 0.5) for word, mean in COLOURS.items()}
                assert min(distance, key=distance.__getitem__) == thing.colour
                assert saturation > 0.45
                assert other[1] < 0.1


def test_labels_lie_on_the_pixels_of_their_things():
    """Most pixels under the label of a plain thing have the hue of its colour; the ground is grey, the sky is not."""
    vocabulary, right, sky, ground = SPEC.vocabulary("train"), [], [], []
    for index in range(12):
        picture = make_picture(SPEC, "train", index)
        pixels = picture.rgb.astype(float) / 255
        sky.extend(pixels[picture.labels == 1].max(-1))
        ground.extend(np.ptp(pixels[picture.labels == 0], axis=-1))
        for label in set(np.unique(picture.labels).tolist()) - {0, 1, VOID}:
            texture, colour, _ = vocabulary.names[label].split()
            if texture == "plain":
                for pixel in pixels[picture.labels == label]:
                    hue = colorsys.rgb_to_hsv(*pixel)[0]
                    right.append(abs((hue - COLOURS[colour][0] + 0.5) % 1 - 0.5) < 0.04)
    assert len(right) > 1000
    assert np.mean(right) > 0.85  # pixels at the edge are mixed
    assert np.mean(sky) > 0.7
    assert np.median(ground) < 0.06


def test_what_is_hardly_seen_is_void(monkeypatch):
    labels = make_picture(SPEC, "test", 0).labels
    areas = {label: count for label, count in Counter(labels.ravel().tolist()).items() if label > 1}
    between = sorted(areas.values())[1]
    monkeypatch.setattr(scene_module, "SMALLEST_AREA", between)
    stricter = make_picture(SPEC, "test", 0).labels
    gone = [label for label, area in areas.items() if area < between]
    assert gone
    np.testing.assert_array_equal(stricter, np.where(np.isin(labels, gone), VOID, labels))


def test_cache_holds_the_pictures(cache):
    for split in SPLITS:
        scenes = open_named(SPEC, split, cache)
        assert len(scenes) == SPEC.images(split)
        assert scenes.vocabulary == SPEC.vocabulary(split)
        last = len(scenes) - 1
        made = make_picture(SPEC, split, last)
        assert (scenes.image(last).dtype, scenes.labels(last).dtype) == (np.uint8, np.uint16)
        np.testing.assert_array_equal(scenes.image(last), made.rgb)
        np.testing.assert_array_equal(scenes.labels(last), made.labels)
        labels = np.unique(stacked(scenes)[1])
        groups = {scenes.vocabulary.groups[label] for label in labels[labels != VOID]}
        assert groups <= set(GROUPS_OF[split])
        assert GROUPS_OF[split][-1] in groups
        assert scenes.name(last) == f"scene-{last:05d}"
        assert any("rendered" in notice for notice in scenes.notices)
    assert len({open_named(SPEC, split, cache).fingerprint for split in SPLITS}) == 4


def test_rendered_once_in_shards_that_do_not_change_the_pictures(cache, tmp_path, monkeypatch):
    spec = NamedSceneSpec(**{**SPEC.__dict__, "train_images": 5, "test_images": 7})
    reports: list[tuple[str, int, int]] = []
    many = open_named(SPEC, "train", cache)
    monkeypatch.setattr(spec_module, "PICTURES_PER_SHARD", 2)
    prepare(spec, tmp_path, lambda *report: reports.append(report), splits=["train"], workers=1)
    assert reports == [("rendering train named scenes", done, 5) for done in (0, 2, 4, 5)]
    prepare(NamedSceneSpec(**{**spec.__dict__, "test_images": 99}), tmp_path, reports.append, ["train"], 1)
    assert len(reports) == 4
    few = open_named(spec, "train", tmp_path)
    assert [np.array_equal(few.image(i), many.image(i)) for i in range(5)] == [True] * 5
    assert few.fingerprint != many.fingerprint


def test_another_spec_has_another_folder(tmp_path):
    folders = {split_folder(SPEC, split, tmp_path) for split in SPLITS}
    for change in ({"seed": 1}, {"image_size": 48}, {"supersampling": 1}, {"train_images": 8}, {"colours": 7}):
        folders.add(split_folder(NamedSceneSpec(**{**SPEC.__dict__, **change}), "train", tmp_path))
    assert len(folders) == 9


def test_missing_and_damaged_pictures_are_errors(tmp_path):
    spec = NamedSceneSpec(image_size=32, train_images=1)
    with pytest.raises(UserError, match=r"named scenes: train is not in the cache .*; prepare it first"):
        open_named(spec, "train", tmp_path)
    prepare(spec, tmp_path, splits=["train"], workers=1)
    path: Path = split_folder(spec, "train", tmp_path) / "shard-0000-labels.npy"
    path.write_bytes(path.read_bytes()[:-2] + b"\x09\x09")
    with pytest.raises(UserError, match=r"named scenes: .*shard-0000-labels.npy does not match .*; delete .* anew"):
        open_named(spec, "train", tmp_path)
    with pytest.raises(UserError, match="split must be one of train, validation, test, words, got 'ood'"):
        prepare(spec, tmp_path, splits=["ood"])


def test_colours_alone_do_not_name_things(cache):
    """A lookup from a pixel's colour to its class is hardly better than nothing, even told where things are."""
    rgb, labels = stacked(open_named(SPEC, "train", cache))
    image, truth = stacked(open_named(SPEC, "test", cache))
    told = np.where(truth < 2, truth, colour_lookup(rgb, labels, things_only=True)[bins_of(image)])
    vocabulary = SPEC.vocabulary("test")
    for predicted in (told, nearest_mean(rgb, labels, image), colour_lookup(rgb, labels)[bins_of(image)]):
        found = scores(predicted, truth, vocabulary)
        assert found["pixels of things"] < 20
        assert found["mIoU unseen"] == 0
    assert scores(truth, truth, vocabulary) == dict.fromkeys(found, 100)


def test_who_knows_the_words_of_training_fails_on_the_others_only(cache):
    words = open_named(SPEC, "words", cache)
    _, labels = stacked(words)
    said = guess_left_out(labels, SPEC)
    changed = {words.vocabulary.groups[label] for label in labels[said != labels]}
    assert changed == {"word"}
    assert scores(said, labels, words.vocabulary)["mIoU word"] < 60


def test_guesses_are_names_that_there_are_with_the_known_words_kept():
    spec = replace(SPEC, textures=2, colours=3, shapes=3)
    names = spec.vocabulary("words").names
    said = guess_left_out(np.arange(len(names)).reshape(1, 1, -1), spec).ravel()
    left_out = {*LEFT_OUT_TEXTURES, *LEFT_OUT_COLOURS, *LEFT_OUT_SHAPES}
    for name, guess in zip(names, said, strict=True):
        words = zip(name.split(), names[guess].split(), strict=True)
        assert all(word in left_out or word == other for word, other in words)


def test_sheet_shows_pictures_over_their_labels():
    spec = NamedSceneSpec(image_size=32)
    sheet = contact_sheet(spec, columns=2)
    assert sheet.shape == (2 * len(ROWS) * 32, 2 * 32, 3)
    np.testing.assert_array_equal(sheet[:32, :32], make_picture(spec, "train", 0).rgb)
