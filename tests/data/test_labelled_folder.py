"""Pictures matched with masks, masks that are refused, lists of names, and seen and unseen classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bench.data.labelled import VOID, LabelledImages
from bench.data.labelled_folder import LabelledFolder, Part, make_vocabulary, open_pairs, read_names
from bench.errors import UserError
from tests.data.labelled_files import SHAPE, indices, save_folder, save_names, save_pair
from tests.data.video_files import picture

NAMES = ("sky", "grass", "tree")


def opened(root: Path, split: str = "test", *, held_out: dict[str, int] | None = None, **options) -> LabelledFolder:
    vocabulary = make_vocabulary(NAMES)
    given_options = {"ignore_index": 255, "scored": vocabulary, "evaluation_map": None, **options}
    return open_pairs(root, Part("images", "masks", held_out or {}), split, vocabulary, **given_options)


def test_pictures_and_labels_are_as_stored(tmp_path: Path) -> None:
    pictures: LabelledImages = opened(save_folder(tmp_path, 3))
    place = [pictures.name(index) for index in range(len(pictures))].index("2")
    image, labels = pictures.image(place), pictures.labels(place)
    assert (image.shape, image.dtype, labels.shape, labels.dtype) == ((*SHAPE, 3), np.uint8, SHAPE, np.uint16)
    assert abs(image.astype(int) - picture(2, shape=SHAPE)).mean() < 6, "a JPEG of the picture"
    stored = indices(2, 2, 255, dtype=np.uint16)
    assert np.array_equal(labels, np.where(stored == 255, VOID, stored))


def test_what_has_no_counterpart_is_left_out_and_told(tmp_path: Path) -> None:
    root = save_folder(tmp_path, 5)
    assert opened(root).notices == ()
    (root / "masks" / "0.png").unlink()
    (root / "masks" / "3.png").unlink()
    (root / "images" / "4.jpg").unlink()
    pictures = opened(root, notices=("first",))
    assert {pictures.name(index) for index in range(len(pictures))} == {"1", "2"}
    assert pictures.notices == (
        "first",
        "test: 2 pictures without index mask and 1 index masks without picture are left out",
    )
    for name in "12":
        (root / "masks" / f"{name}.png").rename(root / "masks" / f"other{name}.png")
    with pytest.raises(UserError, match=r"no picture in .*images has an index mask of the same name in .*masks"):
        opened(root)


def test_splits_of_one_folder_share_nothing_and_leave_nothing(tmp_path: Path) -> None:
    root, held = save_folder(tmp_path, 20), {"validation": 3, "test": 200}
    parts = {split: opened(root, split, held_out=held) for split in ("train", "validation", "test")}
    names = {split: {one.name(index) for index in range(len(one))} for split, one in parts.items()}
    assert {split: len(found) for split, found in names.items()} == {"train": 16, "validation": 2, "test": 2}
    assert len(set.union(*names.values())) == 20
    assert parts["test"].notices == ("test: 2 of the pictures in images/ by a hash of their names, held out",)
    with pytest.raises(UserError, match=r"of the 1 pictures in .* none is left for train"):
        opened(save_folder(tmp_path / "one", 1), "train", held_out={"validation": 3})


def test_a_limit_takes_the_first_ones_and_is_told(tmp_path: Path) -> None:
    root = save_folder(tmp_path, 8)
    every, some = opened(root), opened(root, limit=3)
    assert [some.name(index) for index in range(len(some))] == [every.name(index) for index in range(3)]
    assert some.notices == ("test: only 3 of 8 pictures are used, chosen by a hash of their names",)
    assert len(opened(root, limit=8)) == 8


def test_the_fingerprint_is_of_what_is_used_not_of_where_it_lies(tmp_path: Path) -> None:
    root = save_folder(tmp_path / "a", 4)
    before = opened(root).fingerprint
    moved = root.rename(tmp_path / "b")
    assert opened(moved).fingerprint == before
    (moved / "images" / "unmatched.jpg").write_bytes(b"")
    assert opened(moved).fingerprint == before
    assert opened(moved, limit=3).fingerprint != before
    assert opened(moved, ignore_index=9).fingerprint != before
    save_pair(moved / "images", moved / "masks", "1", indices(0, 1, 2, 0, 2, 1, 1))
    assert opened(moved).fingerprint != before


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (indices(0, 3), "has the value 3, but the 3 classes are 0 to 2 and 255 is void: convert the masks"),
        (indices(0, 300, dtype=np.uint16), "has the value 300"),
        (np.zeros((4, 8), np.uint8), "has 8 x 4 pixels, but 0.jpg has 8 x 6: take both of one resolution"),
        (np.zeros((*SHAPE, 3), np.uint8), r"has colours \(mode RGB\) where numbers should be"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused_by_name(tmp_path: Path, mask: np.ndarray, message: str) -> None:
    save_pair(tmp_path / "images", tmp_path / "masks", "0", mask)
    with pytest.raises(UserError, match=rf"masks/0\..* {message}") as raised:
        opened(tmp_path).labels(0)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_palettes_and_all_widths_of_numbers_are_read(tmp_path: Path, dtype: type) -> None:
    save_pair(tmp_path / "images", tmp_path / "masks", "0", indices(0, 2, 255))
    (tmp_path / "masks" / "0.png").unlink()
    image = Image.fromarray(indices(0, 2, 255).astype(dtype))
    if dtype == np.uint8:
        image.putpalette(list(range(255, -1, -1)) * 3)
    image.save(tmp_path / "masks" / ("0.tif" if dtype == np.int32 else "0.png"))
    assert sorted(np.unique(opened(tmp_path).labels(0))) == [0, 2, VOID]


def test_files_that_are_missing_or_cut_off_are_named(tmp_path: Path) -> None:
    root = save_folder(tmp_path, 2)
    pictures = opened(root)
    path = pictures.masks / pictures.files[0][1]
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UserError, match=rf"the mask .*{path.name} cannot be decoded"):
        pictures.labels(0)
    (pictures.images / pictures.files[1][0]).unlink()
    with pytest.raises(UserError, match=r"\.jpg is missing"):
        pictures.image(1)
    (root / "masks" / "x.png").write_bytes(b"")
    (root / "masks" / "x.tif").write_bytes(b"")
    with pytest.raises(UserError, match="x in two formats: remove one"):
        opened(root)


# --- names ---------------------------------------------------------------------------------------------------------


def test_names_of_either_kind_of_file_are_read_in_order(tmp_path: Path) -> None:
    names = ["wall", "bed ", "door, double door", "Ähre"]
    save_names(tmp_path / "a.json", names)
    (tmp_path / "a.txt").write_text("\ufeff" + "\n".join(names) + "\n\n", encoding="utf-8")
    expected = ("wall", "bed", "door, double door", "Ähre")
    assert read_names(tmp_path / "a.json") == read_names(tmp_path / "a.txt") == expected


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "[1, 2]", "should hold an array of class names"),
        ("a.json", '{"wall": 0}', "should hold an array of class names"),
        ("a.json", '["wall",', "is no JSON"),
        ("a.json", "[]", "no empty one, it has 0"),
        ("a.txt", "wall\n\nbed\n", "no empty one, it has 3"),
        ("a.txt", "wall\nbed\nwall\n", "names the class 'wall' twice"),
    ],
)
def test_a_list_that_is_none_is_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message) as raised:
        read_names(tmp_path / name)
    assert "\n" not in str(raised.value)
    with pytest.raises(UserError, match=r"none.txt cannot be read .*: it should hold the names of the classes"):
        read_names(tmp_path / "none.txt")


def test_a_class_is_seen_if_training_has_its_first_name() -> None:
    names = ("wall", "Door, double door", "screen door, door", "cat, wall")
    assert make_vocabulary(names).groups == ("seen",) * 4
    trained = make_vocabulary(names, ("WALL, brick", "door", "dog, cat"))
    assert trained.names == names
    assert trained.groups == ("seen", "seen", "unseen", "unseen")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text("abAB ,", min_size=1, max_size=4), unique=True, min_size=1), st.randoms())
def test_groups_follow_their_names_and_nothing_else(names: list[str], random) -> None:
    trained = random.sample(names, random.randint(1, len(names)))
    groups = dict(zip(names, make_vocabulary(names, trained).groups, strict=True))
    mixed = random.sample(names, len(names))
    assert all(groups[name] == "seen" for name in trained)
    assert make_vocabulary(mixed, trained[::-1]).groups == tuple(groups[name] for name in mixed)
