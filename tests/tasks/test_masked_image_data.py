"""Where images come from: views of rendered scenes with the shape that they show, and folders, through the task."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench.data import scenes
from bench.data.crops import flips
from bench.data.scenes.shapes import CLASS_NAMES, SHAPES
from bench.tasks.masked_image import MaskedImage, MaskedImageConfig
from bench.tasks.masked_image_data import SceneImages
from tests.tasks.masked_image_data import Constant


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> scenes.SceneSplit:
    cache = tmp_path_factory.mktemp("cache")
    spec = scenes.SceneSpec(image_size=16, train_scenes=4, train_views=6)
    scenes.prepare(spec, ["train"], cache, workers=1)
    return scenes.open_split(spec, "train", cache)


def test_the_first_images_show_every_scene_once_and_are_named_as_in_view_synthesis(rendered) -> None:
    images = SceneImages(rendered, 24)
    assert [images.sample_name(index) for index in (0, 1, 3, 4, 23)] == [
        "0000/00",
        "0001/00",
        "0003/00",
        "0000/01",
        "0003/05",
    ]
    loaded = images.load(np.arange(24))
    for index in range(24):
        scene, view = map(int, images.sample_name(index).split("/"))
        np.testing.assert_array_equal(loaded[index], rendered.rgb[scene][view])
    assert len(SceneImages(rendered, 10)) == 10


def test_the_class_of_a_view_is_the_shape_of_its_largest_object(rendered) -> None:
    images = SceneImages(rendered, 24, "shape")
    assert images.classes == tuple(SHAPES)
    for index, label in enumerate(images.labels(np.arange(24))):
        seen = rendered.classes[index % 4][index // 4]
        names, counts = np.unique(seen[seen > 1], return_counts=True)
        if len(names):
            assert counts[list(names).index(CLASS_NAMES.index(images.classes[label]))] == counts.max()
        else:
            assert label == -1


def test_the_composition_of_a_view_tells_sky_and_how_much_objects_take(rendered) -> None:
    images = SceneImages(rendered, 24)
    assert len(images.classes) == 6
    labels = images.labels(np.arange(24))
    assert len(set(labels.tolist())) > 2
    for index, label in enumerate(labels):
        seen = rendered.classes[index % 4][index // 4]
        share = (seen > 1).mean()
        amount = "below 21 %" if share < 0.21 else "21-30 %" if share < 0.30 else "above 30 %"
        sky = "sky" if (seen == 0).mean() > 0.005 else "no sky"
        assert images.classes[label].startswith(f"{sky}, {amount}")


def test_views_are_mirrored_or_cropped_by_their_draw(rendered) -> None:
    images, indices = SceneImages(rendered, 24), np.arange(12)
    draws, plain = indices.astype(np.uint64) * 13, images.load(indices)
    mirrored = flips(draws)[:, None, None, None]
    np.testing.assert_array_equal(images.load(indices, draws, "flip"), np.where(mirrored, plain[:, :, ::-1], plain))
    np.testing.assert_array_equal(images.load(indices, draws, "none"), plain)
    cropped = images.load(indices, draws, "crop")
    assert cropped.shape == plain.shape
    assert not any(np.array_equal(one, other) for one, other in zip(cropped, plain, strict=True))
    np.testing.assert_array_equal(cropped[2:4], images.load(indices[2:4], draws[2:4], "crop"))


def test_a_folder_is_learned_and_scored_through_the_task(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for split, count in (("train", 30), ("val", 5)):
        for label in ("bright", "dark"):
            folder = tmp_path / "data" / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 100, (40, 48, 3), np.uint8) + 150 * (label == "bright")
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:02d}.jpg")
    config = MaskedImageConfig(
        data="folder",
        data_path=str(tmp_path / "data"),
        image_size=32,
        train_images=None,
        validation_images=None,
        test_images=None,
    )
    task = MaskedImage(config, tmp_path)
    task.prepare()
    assert set(task.fingerprints()) == {"train", "validation", "test"}
    assert any("val/" in line for line in task.notices)
    first = task.collate(np.arange(6), np.arange(6, dtype=np.uint64))
    again = MaskedImage(config, tmp_path / "another cache").collate(np.arange(6), np.arange(6, dtype=np.uint64))
    assert all(torch.equal(first[name], again[name]) for name in first)

    class Brightness(Constant):
        def features(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean((2, 3)) + 10

    records = task.evaluate(Brightness(4), torch.device("cpu"))
    assert {record["sample"].rsplit("/", 1)[0] for record in records} == {"test/bright", "test/dark"}
    assert all(record["linear"] == 1.0 for record in records)


def test_as_many_scenes_are_rendered_as_hold_the_images() -> None:
    spec = MaskedImageConfig(train_images=100, validation_images=600, test_images=None).scene_spec
    assert (spec.train_scenes, spec.validation_scenes, spec.test_scenes) == (17, 100, 100)
    assert MaskedImageConfig(train_images=0).scene_spec.train_scenes == 20_000
