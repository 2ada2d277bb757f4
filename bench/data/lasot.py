"""LaSOT, read as it is published, and its result files.

    <root>/<class>/<class>-<n>/img/00000001.jpg      or <root>/<class>-<n>/img/..
    <root>/<class>/<class>-<n>/groundtruth.txt       x,y,w,h a line, counted from 1
    <root>/<class>/<class>-<n>/full_occlusion.txt    0 or 1 a frame, on one line
    <root>/<class>/<class>-<n>/out_of_view.txt       the same
    <root>/{training,testing}_set.txt                the names of a split; without: the published 1120 and 280

The author says that the smallest coordinate is 1. In the extension of 150 videos users found 0: give `first_pixel` 0 there.

Splits: ``train`` and ``validation`` are parts of the published training set, ``test`` is the published test set.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bench.data.boxed_folder import BoxedClip, BoxedFolders, make_boxes, result_lines, told_of_flat, write_new
from bench.data.images import ImagePool
from bench.data.video_folder import (
    check_split,
    choose,
    hold_out,
    list_images,
    new_digest,
    read_flags,
    read_rows,
    read_text,
    require_folder,
)
from bench.errors import UserError

if TYPE_CHECKING:
    from hashlib import _Hash

    from bench.data.cache_folder import Progress

HELD_OUT = {"validation": 64}
"""Videos of the training set that are the split ``validation``."""
TEST = frozenset(
    f"{group.split()[0]}-{number}"
    for group in [
        "airplane 1 9 13 15",
        "basketball 1 6 7 11",
        "bear 2 4 6 17",
        "bicycle 2 7 9 18",
        "bird 2 3 15 17",
        "boat 3 4 12 17",
        "book 3 10 11 19",
        "bottle 1 12 14 18",
        "bus 2 5 17 19",
        "car 2 6 9 17",
        "cat 1 3 18 20",
        "cattle 2 7 12 13",
        "chameleon 3 6 11 20",
        "coin 3 6 7 18",
        "crab 3 6 12 18",
        "crocodile 3 4 10 14",
        "cup 1 4 7 17",
        "deer 4 8 10 14",
        "dog 1 7 15 19",
        "drone 2 7 13 15",
        "electricfan 1 10 18 20",
        "elephant 1 12 16 18",
        "flag 2 3 5 9",
        "fox 2 3 5 20",
        "frog 3 4 9 20",
        "gametarget 1 2 7 13",
        "gecko 1 5 16 19",
        "giraffe 2 10 13 15",
        "goldfish 3 7 8 10",
        "gorilla 4 6 9 13",
        "guitar 3 8 10 16",
        "hand 2 3 9 16",
        "hat 1 2 5 18",
        "helmet 5 11 13 19",
        "hippo 1 7 9 20",
        "horse 1 4 12 15",
        "kangaroo 2 5 11 14",
        "kite 4 6 10 15",
        "leopard 1 7 16 20",
        "licenseplate 6 12 13 15",
        "lion 1 5 12 20",
        "lizard 1 3 6 13",
        "microphone 2 6 14 16",
        "monkey 3 4 9 17",
        "motorcycle 1 3 9 18",
        "mouse 1 8 9 17",
        "person 1 5 10 12",
        "pig 2 10 13 18",
        "pool 3 7 12 15",
        "rabbit 10 13 17 19",
        "racing 10 15 16 20",
        "robot 1 5 8 19",
        "rubicCube 1 6 14 19",
        "sepia 6 8 13 16",
        "shark 2 3 5 6",
        "sheep 3 5 7 9",
        "skateboard 3 8 16 19",
        "spider 14 16 18 20",
        "squirrel 8 11 13 19",
        "surfboard 4 5 8 12",
        "swing 10 14 17 20",
        "tank 6 9 14 16",
        "tiger 4 6 12 18",
        "train 1 7 11 20",
        "truck 3 6 7 16",
        "turtle 5 8 9 16",
        "umbrella 2 9 17 19",
        "volleyball 1 13 18 19",
        "yoyo 7 15 17 19",
        "zebra 10 14 16 17",
    ]
    for number in group.split()[1:]
)
"""The 280 videos of the published test set, four a class."""


def open_lasot(
    path: Path,
    split: str,
    *,
    first_pixel: int = 1,
    limit: int | None = None,
    leave_out: Collection[str] = (),
    workers: int | None = None,
    report: Progress | None = None,
) -> BoxedFolders:
    """List the videos of a split and read their boxes.

    A frame counts as one where the target is present unless it is out of view or its box has no area; where it is fully occluded
    it is present with a visible share of 0.

    Args:
        path: the folder that holds the folders of the classes, or of the videos.
        split: ``train``, ``validation`` or ``test``.
        first_pixel: what the files call the left upper corner of the first pixel, 1 or 0.
        limit: at most so many videos.
        leave_out: names of videos that are not wanted.
        workers: threads that decode; by default one for each core.
        report: progress, a step for each video.

    Raises:
        UserError: a folder, listed video or label is missing, or does not fit the frames.
    """
    check_split(split, ("train", "validation", "test"))
    if first_pixel not in (0, 1):
        raise UserError(f"first_pixel must be 0 or 1, got {first_pixel}")
    folders = _folders(require_folder(path, "the classes of LaSOT"))
    names, told = _names(path, folders, "test" if split == "test" else "train")
    if split != "test":
        names = hold_out(names, split, HELD_OUT)
    names, notices = choose(names, limit, leave_out, split)
    digest, clips, flat = new_digest(), [], 0
    for done, name in enumerate(names):
        if report:
            report(f"listing LaSOT {split}", done, len(names))
        clip, without_area = _clip(name, folders[name], first_pixel, digest)
        clips.append(clip)
        flat += without_area
    if report:
        report(f"listing LaSOT {split}", len(names), len(names))
    if split == "validation":
        told = [*told, "validation: videos of the training set by a hash of their names, held out"]
    return BoxedFolders(clips, digest.hexdigest(), (*told, *notices, *told_of_flat(flat, split)), ImagePool(workers))


def _folders(path: Path) -> dict[str, Path]:
    """Video -> its folder, in the order of class and number."""
    tops = [entry for entry in path.iterdir() if entry.is_dir()]
    below = [entry for top in tops if not (top / "img").is_dir() for entry in top.iterdir() if (entry / "img").is_dir()]
    found = [*(top for top in tops if (top / "img").is_dir()), *below]
    if not found:
        raise UserError(
            f"task.data_path: {path} holds no video of LaSOT (<class>/<class>-<n>/img): unpack the classes there"
        )
    return {folder.name: folder for folder in sorted(found, key=_order)}


def _order(folder: Path) -> tuple[str, int, str]:
    kind, _, number = folder.name.rpartition("-")
    return kind, int(number) if number.isdecimal() else 0, folder.name


def _names(path: Path, folders: Mapping[str, Path], part: str) -> tuple[list[str], list[str]]:
    """Names of the published training or test set, and what must be told of them."""
    listed = path / ("testing_set.txt" if part == "test" else "training_set.txt")
    if listed.is_file():
        names = read_text(listed, "names of videos").split()
        if missing := [name for name in names if name not in folders]:
            raise UserError(
                f"task.data_path: {listed} lists {missing[0]} and {len(missing) - 1} more that are not in {path}: unpack their classes, "
                f"or shorten the list"
            )
        return names, []
    names = [name for name in folders if (name in TEST) == (part == "test")]
    if not names:
        raise UserError(f"task.data_path: {path} holds no video of the published {part} set, and no {listed.name}")
    all_of_it = len(TEST) if part == "test" else 1400 - len(TEST)
    return names, [f"{part}: {len(names)} of the {all_of_it} published videos are there"] if len(
        names
    ) != all_of_it else []


def _clip(name: str, folder: Path, first_pixel: int, digest: _Hash) -> tuple[BoxedClip, int]:
    """A video, and in how many frames its box has no area."""
    # The folder of the frames is called img everywhere: the digest needs the video's own name.
    digest.update(name.encode())
    frames, truth = list_images(folder / "img", digest), folder / "groundtruth.txt"
    rows, count = read_rows(truth, 4, "x,y,w,h"), len(frames.files)
    if len(rows) != count:
        raise UserError(f"task.data_path: {truth} has {len(rows)} boxes for {count} frames: fetch the video again")
    hidden, outside = (read_flags(folder / f"{kind}.txt", count) > 0 for kind in ("full_occlusion", "out_of_view"))
    # Where the target is fully occluded a box without area is no fault of the file.
    flat_and_hidden = hidden & ~(rows[:, 2:] > 0).all(1)
    boxes, flat = make_boxes(rows, np.where(hidden, 0.0, 1.0), outside | flat_and_hidden, first_pixel, truth)
    digest.update(boxes.xywh.tobytes() + boxes.visible.tobytes())
    return BoxedClip(name, frames, boxes, np.ones(count, bool)), flat


def write_lasot_result(out: Path, name: str, xywh: NDArray[np.floating]) -> None:
    """Write a tracker's boxes [F, 4] of a video: ``<out>/<name>.txt``, a line a frame. The first box is the given one.

    Raises:
        UserError: the file is there already, or the disk.
        ValueError: a box is not finite.
    """
    write_new(out / f"{name}.txt", result_lines(xywh))
