"""The data sets of open-vocabulary segmentation as the conversions for detectron2 leave them, and any folder of pictures and masks.

A published data set's labels have been converted already: an index mask a picture, whose values are positions in the data set's
list of class names. The lists are files of the user's, beside the data.

| data | below the root |
|---|---|
| ade20k-150 | ADEChallengeData2016: images/validation/, annotations_detectron2/validation/*.png |
| ade20k-847 | ADE20K_2021_17_01: images_detectron2/validation/, annotations_detectron2/validation/*.tif, 16 bits |
| pascal-context-59 | VOCdevkit/VOC2010: JPEGImages/, annotations_detectron2/pc59_val/*.png |
| pascal-context-459 | VOCdevkit/VOC2010: JPEGImages/, annotations_detectron2/pc459_val/*.tif, 16 bits; 459 is void |
| voc-20, voc-20b | VOCdevkit/VOC2012: JPEGImages/, annotations_detectron2/val/*.png, annotations_detectron2_bg/val/*.png |
| coco-stuff | coco-stuff: images/{train,val}2017/, annotations_detectron2/{train,val}2017/*.png |
| folder | images/, masks/, classes.txt or classes.json; sub-folders train, val and test are the splits |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.data.image_folder import FOLDERS
from bench.data.labelled import VOID
from bench.data.labelled_folder import LabelledFolder, Part, make_vocabulary, open_pairs, read_names
from bench.data.video_folder import check_split, require_folder
from bench.errors import UserError, naming

SPLITS = ("train", "validation", "test")
HELD_OUT = {"validation": 500}
"""Pictures of a published training set that are the split ``validation``."""
FOLDER_HELD_OUT = {"validation": 200, "test": 200}
"""The same of a folder without sub-folders for splits."""
BACKGROUND = "background"


@dataclass(frozen=True)
class Layout:
    """Where a published data set keeps what."""

    home: str
    """Its own folder, as the published loaders look for it."""
    class_list: str
    """Stem of the file of its class names in the published project."""
    classes: int
    train: tuple[str, str]
    """Folders of pictures and of index masks below `home`."""
    test: tuple[str, str]
    ignore_index: int = 255
    background_from: int | None = None
    """Predictions from this class on count as one more class, the background, which labels have behind the classes before it."""


_CONVERTED = "annotations_detectron2"
LAYOUTS = {
    "ade20k-150": Layout(
        home="ADEChallengeData2016",
        class_list="ade150",
        classes=150,
        train=("images/training", f"{_CONVERTED}/training"),
        test=("images/validation", f"{_CONVERTED}/validation"),
    ),
    "ade20k-847": Layout(
        home="ADE20K_2021_17_01",
        class_list="ade847",
        classes=847,
        train=("images_detectron2/training", f"{_CONVERTED}/training"),
        test=("images_detectron2/validation", f"{_CONVERTED}/validation"),
        ignore_index=65535,
    ),
    "pascal-context-59": Layout(
        home="VOCdevkit/VOC2010",
        class_list="pc59",
        classes=59,
        train=("JPEGImages", f"{_CONVERTED}/pc59_train"),
        test=("JPEGImages", f"{_CONVERTED}/pc59_val"),
    ),
    "pascal-context-459": Layout(
        home="VOCdevkit/VOC2010",
        class_list="pc459",
        classes=459,
        train=("JPEGImages", f"{_CONVERTED}/pc459_train"),
        test=("JPEGImages", f"{_CONVERTED}/pc459_val"),
        ignore_index=459,
    ),
    "voc-20": Layout(
        home="VOCdevkit/VOC2012",
        class_list="voc20",
        classes=20,
        train=("JPEGImages", f"{_CONVERTED}/train"),
        test=("JPEGImages", f"{_CONVERTED}/val"),
    ),
    "voc-20b": Layout(
        home="VOCdevkit/VOC2012",
        class_list="voc20b",
        classes=59,
        train=("JPEGImages", f"{_CONVERTED}_bg/train"),
        test=("JPEGImages", f"{_CONVERTED}_bg/val"),
        background_from=20,
    ),
    "coco-stuff": Layout(
        home="coco-stuff",
        class_list="coco",
        classes=171,
        train=("images/train2017", f"{_CONVERTED}/train2017"),
        test=("images/val2017", f"{_CONVERTED}/val2017"),
    ),
}
SETS = (*LAYOUTS, "folder")


@dataclass(frozen=True)
class LabelledSpec:
    """Which pictures with labels."""

    data: str
    """One of `SETS`."""
    path: Path
    """The data set's own folder, or one that holds it under its published name (``VOCdevkit/VOC2012``); of ``folder`` the folder."""
    class_file: Path | None = None
    """Names of the classes; None: a file beside the data, see `open_labelled`."""
    trained_on: tuple[str, ...] = ()
    """Names of the training vocabulary, which tell seen classes from unseen ones; without any all are seen."""
    ignore_index: int | None = None
    """``folder`` only: value of void pixels; None: 255, or 65535 where 255 is a class. 65535 always is void."""
    limit: int | None = None
    """At most so many pictures, those whose names hash lowest."""
    meant: Mapping[str, str] = field(default_factory=dict)
    """Options that stand for others in errors: ``task.data_path`` and ``task.class_file`` where those of the test are meant."""


def open_labelled(spec: LabelledSpec, split: str) -> LabelledFolder:
    """List the pictures of a split and read the names of its classes.

    ``test`` is the published validation set, on which results are reported; ``train`` and ``validation`` are parts of the
    published training set. Without `LabelledSpec.class_file` names are read from the published file's name (``ade150.json``),
    ``classes.json`` or ``classes.txt`` in the data set's folder.

    Args:
        spec: which.
        split: ``train``, ``validation`` or ``test``.

    Raises:
        UserError: an unknown data set or split, a folder or the names are missing, their number is not that of the data set, or no
            picture is left.
    """
    check_split(split, SPLITS)
    with naming(spec.meant):
        return _open(spec, split)


def _open(spec: LabelledSpec, split: str) -> LabelledFolder:
    if spec.data not in SETS:
        raise UserError(f"task.data must be one of {', '.join(SETS)}, got {spec.data!r}")
    layout = LAYOUTS.get(spec.data)
    root, part = _published(spec, layout, split) if layout else (spec.path, _folder_part(spec.path, split))
    file = spec.class_file or _class_file(root, layout)
    with naming({"task.data_path": "task.class_file"} if spec.class_file else {}):
        names = read_names(file)
        if layout and len(names) != layout.classes:
            raise UserError(
                f"task.data_path: {file} has {len(names)} names, but {spec.data} has {layout.classes} classes"
            )
    vocabulary = make_vocabulary(names, spec.trained_on)
    told = f"{split}: {spec.data} with the {len(names)} class names of {file.name}"
    if spec.trained_on:
        told += f", {vocabulary.groups.count('seen')} of which are in the training vocabulary"
    scored, evaluation_map = vocabulary, None
    if layout and (first := layout.background_from) is not None:
        told += f"; predictions from class {first} on count as background"
        # Not a class whose name could be unseen: it is whatever is none of the others.
        scored = make_vocabulary((*names[:first], BACKGROUND), spec.trained_on and (*spec.trained_on, BACKGROUND))
        evaluation_map = tuple(min(index, first) for index in range(len(names)))
    return open_pairs(
        root,
        part,
        split,
        vocabulary,
        scored=scored,
        evaluation_map=evaluation_map,
        ignore_index=layout.ignore_index if layout else _void_index(spec, names),
        limit=spec.limit,
        notices=(told,),
        meant=spec.meant,
    )


def _published(spec: LabelledSpec, layout: Layout, split: str) -> tuple[Path, Part]:
    """A published data set's own folder, and where a split lies in it."""
    if spec.ignore_index is not None:
        raise UserError(f"task.ignore_index is an option of folder alone: in {spec.data} {layout.ignore_index} is void")
    if layout.background_from is not None and split != "test":
        raise UserError(
            f"task.data: {spec.data} is for tests alone, as its labels have a background: train on another one"
        )
    home = spec.path / layout.home
    root = home if home.is_dir() else spec.path
    part = Part(*layout.test, {}) if split == "test" else Part(*layout.train, HELD_OUT)
    elsewhere = "" if root == home else f"; nor is there {home}"
    require_folder(
        root / part.labels, f"the index masks of {spec.data} for {split}, as converted for detectron2{elsewhere}"
    )
    return root, part


def _folder_part(root: Path, split: str) -> Part:
    """Where a split of a user's own folder lies: in sub-folders, or held out by a hash of the names."""
    images = require_folder(root / "images", "the pictures")
    found = {own: name for own, names in FOLDERS.items() for name in names if (images / name).is_dir()}
    if not found:
        return Part("images", "masks", FOLDER_HELD_OUT)
    if "test" not in found and "validation" in found:
        found["test"] = found.pop("validation")
    held_out = {} if "validation" in found else HELD_OUT
    name = found.get("train" if split in held_out else split)
    if name is None:
        raise UserError(
            f"task.data_path: {images} has no folder for {split}, only {', '.join(sorted(found.values()))}: add it"
        )
    return Part(f"images/{name}", f"masks/{name}", {} if split == "test" else held_out)


def _class_file(root: Path, layout: Layout | None) -> Path:
    """The file of class names beside the data."""
    stems = [layout.class_list, "classes"] if layout else ["classes"]
    places = [root / f"{stem}{suffix}" for stem in stems for suffix in (".json", ".txt")]
    if found := next((place for place in places if place.is_file()), None):
        return found
    where = f" (the published project has them as datasets/{layout.class_list}.json)" if layout else ""
    raise UserError(
        f"task.data_path: {places[0]} is missing: it should hold the names of the classes in order{where}; put it there, or name "
        f"another file in task.class_file"
    )


def _void_index(spec: LabelledSpec, names: tuple[str, ...]) -> int:
    """Value of void pixels in a user's own folder."""
    if spec.ignore_index is None:
        return 255 if len(names) <= 255 else VOID
    if 0 <= spec.ignore_index < len(names):
        raise UserError(f"task.ignore_index must be no class: {len(names)} or more, got {spec.ignore_index}")
    return spec.ignore_index
