"""A folder of images: which files belong to which split, their classes, and what is read of them when."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data.crops import flips
from bench.data.image_folder import FolderSplit, open_folder
from bench.errors import UserError


def write(path: Path, colour: tuple[int, int, int] = (10, 20, 30), size: tuple[int, int] = (24, 20)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def opened(root: Path, split: str = "train", **options) -> FolderSplit:
    return open_folder(root, split, **{"image_size": 16, "workers": 1, **options})


@pytest.fixture
def imagenet(tmp_path: Path) -> Path:
    """``train`` and ``val``, classes n0 .. n2, the layout of ImageNet; the colour tells class and number."""
    for split, count in (("train", 40), ("val", 4)):
        for number in range(count):
            for label in range(3):
                write(tmp_path / split / f"n{label}" / f"{split}_{number:03d}.JPEG", (80 * label, 6 * number, 0))
    return tmp_path


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    for number in range(300):
        write(tmp_path / f"{number // 100}" / f"{number}.png", (number % 256, 0, 0), (16, 16))
    return tmp_path


def test_val_is_the_test_split_and_validation_is_held_out_of_training(imagenet: Path) -> None:
    train, validation, test = (opened(imagenet, split) for split in ("train", "validation", "test"))
    assert len(test) == 12
    assert len(train) + len(validation) == 120
    assert 0 < len(validation) < 20
    assert not set(train.paths) & set(validation.paths)
    assert test.root == imagenet / "val"
    assert test.notices == ("test: the images of val/, for there is no test/",)
    assert validation.notices == ("validation: 5 % of the images of train/ by a hash of their paths, held out",)
    assert not train.notices


def test_folders_of_all_splits_are_taken_as_they_are(imagenet: Path) -> None:
    write(imagenet / "test" / "n1" / "a.png")
    assert [len(opened(imagenet, split)) for split in ("train", "validation", "test")] == [120, 12, 1]
    assert not any(opened(imagenet, split).notices for split in ("train", "validation", "test"))


def test_without_a_train_folder_a_hash_of_the_path_splits_the_images_for_good(flat: Path) -> None:
    splits = {split: opened(flat, split) for split in ("train", "validation", "test")}
    paths = [path for split in splits.values() for path in split.paths]
    assert sorted(paths) == sorted(f"{number // 100}/{number}.png" for number in range(300))
    assert all(5 <= len(splits[split]) <= 26 for split in ("validation", "test"))
    for number in range(300, 330):
        write(flat / "3" / f"{number}.png")
    assert set(splits["test"].paths) <= set(opened(flat, "test").paths), "a new image moves no other one"


def test_training_alone_gives_both_other_splits_from_itself(imagenet: Path) -> None:
    (imagenet / "val").rename(imagenet.parent / "elsewhere")
    found = [set(opened(imagenet, split).paths) for split in ("train", "validation", "test")]
    assert sum(map(len, found)) == 120 == len(set.union(*found))
    assert all(found)


@pytest.mark.parametrize(
    "names", [("val", "test"), ("Train", "Val"), ("training",), ("valid", "cats"), ("test", "cats")]
)
def test_without_train_no_folder_of_another_split_becomes_a_class(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        write(tmp_path / name / "n0" / "a.png")
    splits = "/, ".join(sorted(name for name in names if name != "cats"))
    for split in ("train", "validation", "test"):
        with pytest.raises(UserError, match=re.escape(f"train/ is missing in {tmp_path}, which holds {splits}/: put")):
            opened(tmp_path, split)


def test_a_class_may_be_called_like_a_split_inside_train_and_a_file_anywhere(imagenet: Path, tmp_path_factory) -> None:
    write(imagenet / "train" / "test" / "a.png")
    assert opened(imagenet).classes == ("n0", "n1", "n2", "test")
    alone = tmp_path_factory.mktemp("alone")
    for number in range(40):
        write(alone / f"{number}.png")
    (alone / "test").write_text("x")
    assert len(opened(alone)) > 30


@pytest.mark.parametrize(
    ("link", "target", "pair"),
    [
        ("val", "train", "val/ and train/"),
        ("test", "val", "test/ and val/"),
        ("test", "train/n0", "test/ and train/"),
        ("val", ".", "train/ and val/"),
    ],
)
def test_a_split_that_is_another_one_by_a_link_is_refused(imagenet: Path, link: str, target: str, pair: str) -> None:
    if (imagenet / link).exists():
        shutil.rmtree(imagenet / link)
    (imagenet / link).symlink_to(imagenet / target)
    for split in ("train", "validation", "test"):
        with pytest.raises(UserError, match="hold the same images, by a link: give each") as raised:
            opened(imagenet, split)
        assert set(pair.split(" and ")) <= set(str(raised.value).split())


def test_splits_may_lie_elsewhere_by_links(imagenet: Path, tmp_path_factory) -> None:
    subset = tmp_path_factory.mktemp("subset")
    for split in ("train", "val"):
        (subset / split).symlink_to(imagenet / split)
    for split in ("train", "validation", "test"):
        assert opened(subset, split).fingerprint == opened(imagenet, split).fingerprint


@pytest.mark.parametrize("name", ["train/n0/a.JPEG", "train/n3", "train/notes.txt", "valid", "test"])
def test_a_link_that_leads_nowhere_is_named(imagenet: Path, name: str) -> None:
    (imagenet / name).symlink_to("/nowhere/at/all")
    with pytest.raises(UserError) as raised:
        opened(imagenet)
    assert str(raised.value) == (
        f"task.data_path: {imagenet / name} cannot be read (a link to /nowhere/at/all: No such file or directory): "
        f"mend or remove it"
    )


def test_a_link_to_itself_is_named(imagenet: Path) -> None:
    (imagenet / "train" / "n0" / "loop.png").symlink_to("loop.png")
    with pytest.raises(UserError, match=r"n0/loop.png cannot be read \(a link to loop.png: .*\): mend or remove it"):
        opened(imagenet)


@pytest.mark.parametrize("name", [b"n0/caf\xe9.png", b"caf\xe9/a.png"])
def test_a_file_name_that_is_not_utf8_is_named(imagenet: Path, name: bytes) -> None:
    path = Path(os.fsdecode(os.fsencode(imagenet / "train") + b"/" + name))
    try:
        path.parent.mkdir(exist_ok=True)
        shutil.copyfile(imagenet / "train" / "n0" / "train_000.JPEG", path)
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    with pytest.raises(UserError) as raised:
        opened(imagenet)
    assert f"the file name {name!r} is not UTF-8: rename" in str(raised.value)
    str(raised.value).encode()


def test_a_limit_takes_a_fair_sample_and_says_so(imagenet: Path) -> None:
    some = opened(imagenet, limit=60)
    assert len(some) == 60
    assert min(np.bincount(some.labels(np.arange(60)))) > 10, "not the first classes only"
    assert "only 60 of" in some.notices[0]
    assert some.fingerprint != opened(imagenet).fingerprint
    assert some.paths == opened(imagenet, limit=90).paths[:60]


def test_classes_are_the_folders_of_training_in_every_split(imagenet: Path) -> None:
    write(imagenet / "val" / "unheard-of" / "a.png")
    train, test = opened(imagenet), opened(imagenet, "test")
    assert train.classes == test.classes == ("n0", "n1", "n2")
    labels = test.labels(np.arange(len(test)))
    expected = [{"n0": 0, "n1": 1, "n2": 2}.get(path.split("/")[0], -1) for path in test.paths]
    assert labels.tolist() == expected
    assert -1 in expected


def test_images_without_folders_have_no_classes(tmp_path: Path) -> None:
    for number in range(100):
        write(tmp_path / f"{number}.png")
    assert opened(tmp_path).classes == ()
    assert opened(tmp_path).labels(np.arange(2)).tolist() == [-1, -1]


def test_other_files_hidden_ones_and_links_in_a_circle_are_no_images(imagenet: Path) -> None:
    before = opened(imagenet).fingerprint
    (imagenet / "train" / "n0" / "notes.txt").write_text("x")
    (imagenet / "train" / "n0" / "._val_000.JPEG").write_bytes(b"x")
    write(imagenet / "train" / ".thumbnails" / "a.png")
    (imagenet / "train" / "n0" / "again").symlink_to(imagenet / "train" / "n0")
    (imagenet / "train" / "n0" / "all").symlink_to(imagenet / "train")
    (imagenet / "train" / "n0" / "everything").symlink_to(imagenet)
    (imagenet / "train" / "more").symlink_to(".")
    assert opened(imagenet).fingerprint == before
    assert opened(imagenet).classes == ("n0", "n1", "n2")


def test_linked_class_folders_are_followed(imagenet: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    subset = tmp_path_factory.mktemp("subset")
    (subset / "train").mkdir()
    for name in ("n0", "n2"):
        (subset / "train" / name).symlink_to(imagenet / "train" / name)
    train = opened(subset)
    assert train.classes == ("n0", "n2")
    assert len(train) > 60


def test_a_folder_that_is_reached_twice_has_both_names(imagenet: Path) -> None:
    before = opened(imagenet, "train").paths
    (imagenet / "train" / "a0").symlink_to("n0")
    (imagenet / "train" / "n1" / "part").symlink_to("../n2")
    (imagenet / "train" / "n2" / "part").symlink_to("../n1")
    train = opened(imagenet)
    assert train.classes == ("a0", "n0", "n1", "n2")
    paths = {path for split in ("train", "validation") for path in opened(imagenet, split).paths}
    folders = [path.rsplit("/", 1)[0] for path in paths]
    assert {name: folders.count(name) for name in folders} == dict.fromkeys(
        ("a0", "n0", "n1", "n2", "n1/part", "n2/part"), 40
    )
    assert set(before) <= set(train.paths), "no image changes its label for a link"


def test_the_fingerprint_is_of_what_lies_there_not_of_where(imagenet: Path, tmp_path_factory) -> None:
    before = opened(imagenet).fingerprint
    moved = imagenet.rename(tmp_path_factory.mktemp("moved") / "data")
    assert opened(moved).fingerprint == before
    with open(moved / "train" / opened(moved).paths[0], "ab") as file:
        file.write(b"x")
    assert opened(moved).fingerprint != before


def test_images_are_cropped_bicubically_and_mirrored_by_their_draw_alone(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for number in range(8):
        path = tmp_path / "train" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (40, 30, 3), np.uint8)).save(path)
    split = opened(tmp_path)
    indices, draws = np.arange(len(split)), np.arange(len(split), dtype=np.uint64) * 977
    plain = split.load(indices)
    assert (plain.shape, plain.dtype) == ((len(split), 16, 16, 3), np.uint8)
    mirrored = flips(draws)
    assert 0 < mirrored.sum() < len(split)
    flipped = split.load(indices, draws, "flip")
    np.testing.assert_array_equal(flipped, np.where(mirrored[:, None, None, None], plain[:, :, ::-1], plain))
    np.testing.assert_array_equal(split.load(indices, draws, "none"), plain)
    cropped = split.load(indices, draws, "crop")
    assert not np.array_equal(cropped, flipped)
    np.testing.assert_array_equal(cropped[3:5], split.load(indices[3:5], draws[3:5], "crop"))


def test_nothing_is_decoded_before_it_is_asked_for_and_a_broken_file_is_named(imagenet: Path) -> None:
    broken = opened(imagenet).paths[5]
    (imagenet / "train" / broken).write_bytes(b"not an image")
    split = opened(imagenet, limit=10)
    assert split.paths[5] == broken
    assert split.load(np.array([4, 6])).shape == (2, 16, 16, 3)
    with pytest.raises(UserError, match=f"{Path(broken).name} cannot be decoded"):
        split.load(np.array([4, 5]))


def test_transparent_images_lie_on_white(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    for number in range(4):
        Image.new("RGBA", (16, 16), (0, 0, 0, 0)).save(tmp_path / "train" / f"{number}.png")
    assert opened(tmp_path).load(np.array([0])).min() == 255


def test_a_folder_without_images_is_refused_and_listing_tells_its_progress(imagenet: Path, tmp_path_factory) -> None:
    with pytest.raises(UserError, match=r"task.data_path: .* holds no image for train"):
        opened(tmp_path_factory.mktemp("empty"))
    told = []
    opened(imagenet, report=lambda *step: told.append(step))
    assert told == [("listing train", done, 3) for done in range(4)]
