"""The published layouts and a user's own folder: where splits lie, which values are void, and every mistake in one line."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from bench.data.labelled import VOID
from bench.data.labelled_folder import LabelledFolder
from bench.data.labelled_sets import LAYOUTS, LabelledSpec, open_labelled
from bench.errors import UserError
from tests.data.labelled_files import indices, save_folder, save_names, save_pair, save_set


def opened(data: str, path: Path, split: str = "test", **options) -> LabelledFolder:
    return open_labelled(LabelledSpec(data, path, **options), split)


def names(pictures: LabelledFolder) -> list[str]:
    return sorted(pictures.name(index) for index in range(len(pictures)))


@pytest.mark.parametrize("data", LAYOUTS)
def test_a_published_data_set_is_read_from_its_layout(tmp_path: Path, data: str) -> None:
    home, layout = save_set(tmp_path, data), LAYOUTS[data]
    pictures = opened(data, tmp_path)
    assert names(pictures) == ["test_0", "test_1", "test_2"]
    assert len(pictures.vocabulary.names) == layout.classes
    last = len(pictures.scored.names) - 1
    stored = indices(0, last, layout.ignore_index, dtype=np.uint16)
    assert np.array_equal(pictures.labels(0), np.where(stored == layout.ignore_index, VOID, stored))
    assert pictures.notices == (
        f"test: {data} with the {layout.classes} class names of {layout.class_list}.json"
        + "; predictions from class 20 on count as background" * (data == "voc-20b"),
    )
    assert opened(data, home).fingerprint == pictures.fingerprint, "the data set's own folder is fine too"


def test_void_is_what_the_data_set_says(tmp_path: Path) -> None:
    """255 is a class of the sets of 16 bits, and 459 one of ADE20K's 847."""
    for data, void in (("ade20k-847", 65535), ("pascal-context-459", 459)):
        home, layout = save_set(tmp_path, data, count=0), LAYOUTS[data]
        save_pair(home / layout.test[0], home / layout.test[1], "a", indices(255, 458, void, dtype=np.uint16))
        assert set(np.unique(opened(data, home).labels(0))) == {255, 458, VOID}


def test_everything_behind_the_20_classes_counts_as_background(tmp_path: Path) -> None:
    save_set(tmp_path, "voc-20b")
    pictures = opened("voc-20b", tmp_path, trained_on=("thing 3", "thing 40"))
    assert pictures.evaluation_map == (*range(20), *[20] * 39)
    assert len(pictures.vocabulary.names) == 59
    assert pictures.scored.names == (*pictures.vocabulary.names[:20], "background")
    assert [index for index, group in enumerate(pictures.scored.groups) if group == "seen"] == [3, 20]
    assert [index for index, group in enumerate(pictures.vocabulary.groups) if group == "seen"] == [3, 40]
    with pytest.raises(UserError, match="voc-20b is for tests alone"):
        opened("voc-20b", tmp_path, "train")
    save_set(tmp_path, "voc-20")
    plain = opened("voc-20", tmp_path)
    assert plain.evaluation_map is None
    assert plain.scored == plain.vocabulary
    assert len(plain.vocabulary.names) == 20, "the lists of both lie in one folder"


def test_training_and_validation_are_parts_of_the_published_training_set(tmp_path: Path) -> None:
    save_set(tmp_path, "coco-stuff")
    save_set(tmp_path, "coco-stuff", "train", count=20)
    train, validation = opened("coco-stuff", tmp_path, "train"), opened("coco-stuff", tmp_path, "validation")
    assert sorted(names(train) + names(validation)) == sorted(f"train_{number}" for number in range(20))
    assert len(validation) == 2, "a tenth, where that is less than 500"
    assert names(opened("coco-stuff", tmp_path)) == ["test_0", "test_1", "test_2"]
    with pytest.raises(UserError, match="no split 'words' here, only train, validation, test"):
        opened("coco-stuff", tmp_path, "words")


def test_seen_classes_are_those_of_the_training_vocabulary(tmp_path: Path) -> None:
    home = save_set(tmp_path, "voc-20")
    other = save_names(tmp_path / "mine.json", ["cat, kitten", *[f"thing {index}" for index in range(19)]])
    pictures = opened("voc-20", home, class_file=tmp_path / "mine.json", trained_on=("Cat", "thing 7"))
    assert pictures.vocabulary.names == tuple(other)
    assert [name for name, group in zip(other, pictures.vocabulary.groups, strict=True) if group == "seen"] == [
        "cat, kitten",
        "thing 7",
    ]
    assert pictures.notices[0] == (
        "test: voc-20 with the 20 class names of mine.json, 2 of which are in the training vocabulary"
    )


def test_what_is_missing_or_does_not_fit_is_one_line(tmp_path: Path) -> None:
    home = save_set(tmp_path, "ade20k-150")
    with pytest.raises(UserError, match=r"annotations_detectron2/training is missing: .*index masks of ade20k-150 for"):
        opened("ade20k-150", tmp_path, "train")
    with pytest.raises(UserError, match=r"task.data must be one of ade20k-150, .*, folder, got 'ade'"):
        opened("ade", tmp_path)
    with pytest.raises(UserError, match=r"task.ignore_index is an option of folder alone: in ade20k-150 255 is void"):
        opened("ade20k-150", tmp_path, ignore_index=0)
    save_names(home / "ade150.json", ["wall", "floor"])
    with pytest.raises(UserError, match=r"ade150.json has 2 names, but ade20k-150 has 150 classes"):
        opened("ade20k-150", tmp_path)
    (home / "ade150.json").unlink()
    with pytest.raises(
        UserError, match=r"ade150.json is missing: .*\(the published project has them as datasets/ade150"
    ):
        opened("ade20k-150", tmp_path)
    save_names(home / "classes.txt", [f"thing {index}" for index in range(150)])
    assert len(opened("ade20k-150", tmp_path)) == 3
    shutil.rmtree(home / "images")
    with pytest.raises(UserError, match=r"images/validation is missing: it should hold the pictures of test"):
        opened("ade20k-150", tmp_path)


def test_errors_name_the_option_that_is_meant(tmp_path: Path) -> None:
    root, meant = (
        save_folder(tmp_path, 12),
        {"task.data_path": "task.test_path", "task.class_file": "task.test_class_file"},
    )
    names_of = tmp_path / "mine.json"
    for options, own, other in (({}, "data_path", "class_file"), ({"meant": meant}, "test_path", "test_class_file")):
        names_of.write_text("{")
        with pytest.raises(UserError, match=rf"^task\.{other}: .*mine\.json is no JSON"):
            opened("folder", root, class_file=names_of, **options)
        save_names(names_of, ["wall"])
        with pytest.raises(UserError, match=rf"^task\.{other}: .*mine\.json has 1 names, but voc-20 has 20 classes"):
            opened("voc-20", save_set(tmp_path, "voc-20"), class_file=names_of, **options)
        with pytest.raises(UserError, match=rf"^task\.{own}: .*images is missing"):
            opened("folder", tmp_path / "nowhere", **options)
        with pytest.raises(
            UserError, match=rf"^task\.{own}: the mask .* has the value 2, but the 1 classes are 0 to 0"
        ):
            opened("folder", root, class_file=names_of, **options).labels(0)
        (tmp_path / "empty/images").mkdir(parents=True, exist_ok=True)
        with pytest.raises(UserError, match=rf"^task\.{own}: .* name another file in task\.{other}$"):
            opened("folder", tmp_path / "empty", **options)


# --- a user's own folder -------------------------------------------------------------------------------------------


def test_a_folder_without_sub_folders_is_split_by_a_hash(tmp_path: Path) -> None:
    root = save_folder(tmp_path, 20, names="classes.json")
    parts = {split: opened("folder", root, split) for split in ("train", "validation", "test")}
    assert {split: len(part) for split, part in parts.items()} == {"train": 16, "validation": 2, "test": 2}
    assert parts["train"].vocabulary.names == ("sky", "grass", "tree")
    assert "held out" in parts["test"].notices[1]


@pytest.mark.parametrize(
    ("subs", "expected"),
    [
        (("train", "val", "test"), {"train": "train", "validation": "val", "test": "test"}),
        (("train", "val"), {"train": "train", "validation": "train", "test": "val"}),
        (("train", "test"), {"train": "train", "validation": "train", "test": "test"}),
        (("validation",), {"train": None, "validation": None, "test": "validation"}),
    ],
)
def test_sub_folders_are_the_splits(tmp_path: Path, subs: tuple[str, ...], expected: dict[str, str | None]) -> None:
    for sub in subs:
        save_folder(tmp_path, 10, sub)
    for split, sub in expected.items():
        if sub is None:
            with pytest.raises(UserError, match=rf"images has no folder for {split}, only validation: add it"):
                opened("folder", tmp_path, split)
        else:
            found = names(opened("folder", tmp_path, split))
            assert all(name.startswith(sub) for name in found)
            assert len(found) == (10 if list(expected.values()).count(sub) == 1 else {"train": 9}.get(split, 1))


def test_void_of_a_folder_is_255_unless_that_is_a_class(tmp_path: Path) -> None:
    save_pair(tmp_path / "images", tmp_path / "masks", "a", indices(255, 1, 7))
    save_names(tmp_path / "classes.txt", [f"thing {index}" for index in range(9)])
    assert set(np.unique(opened("folder", tmp_path, "validation").labels(0))) == {1, 7, VOID}
    save_names(tmp_path / "classes.txt", [f"thing {index}" for index in range(256)])
    assert set(np.unique(opened("folder", tmp_path, "validation").labels(0))) == {1, 7, 255}
    with pytest.raises(UserError, match=r"task.ignore_index must be no class: 256 or more, got 255"):
        opened("folder", tmp_path, "validation", ignore_index=255)
    save_names(tmp_path / "classes.txt", [f"thing {index}" for index in range(7)])
    with pytest.raises(UserError, match="has the value 255, but the 7 classes are 0 to 6 and 7 is void"):
        opened("folder", tmp_path, "validation", ignore_index=7).labels(0)


def test_a_folder_needs_pictures_masks_and_names(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="images is missing: it should hold the pictures"):
        opened("folder", tmp_path)
    root = save_folder(tmp_path, 3)
    (root / "classes.txt").unlink()
    with pytest.raises(
        UserError, match=r"classes.json is missing: it should hold the names of the classes in order; put it there, or"
    ):
        opened("folder", root)
    save_names(root / "classes.txt", ["a"])
    shutil.rmtree(root / "masks")
    with pytest.raises(UserError, match="masks is missing: it should hold the index masks of test"):
        opened("folder", root)


def test_the_example_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "real-segmentation.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    save_set(tmp_path / "datasets", "voc-20")
    found: dict = {}
    exec(example, found)
    assert found["image"].shape == (*found["labels"].shape, 3)
    assert all(f"`{data}`" in page and f"`{layout.home}`" in page for data, layout in LAYOUTS.items())
