"""GOT-10k, read as it is published, its result files, and any videos written in its layout.

    <root>/{train,val,test}/list.txt                       a name a line
    <root>/{train,val,test}/<sequence>/00000001.jpg
    <root>/{train,val,test}/<sequence>/groundtruth.txt     x,y,w,h a line, counted from 1; test: the first line alone
    <root>/{train,val}/<sequence>/absence.label            1: the target is not in the picture
    <root>/{train,val}/<sequence>/cover.label              0 to 8 eighths of the target are seen
    <root>/{train,val}/<sequence>/cut_by_image.label       1: the border of the picture cuts it; not used
    <root>/{train,val}/<sequence>/meta_info.ini            not used: sizes are those of the frames

Splits: ``train`` and ``validation`` are parts of the published training set, ``test`` is ``val``, whose truth is published, and
``submission`` is the published ``test``.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bench.data.boxed_folder import BoxedClip, BoxedFolders, make_boxes, result_lines, told_of_flat, write_new
from bench.data.images import ImagePool
from bench.data.shards import write_atomically
from bench.data.video.clips import Boxes, ClipInfo
from bench.data.video_folder import (
    SPLITS,
    FrameFolder,
    check_split,
    choose,
    hold_out,
    list_images,
    new_digest,
    new_folder,
    read_flags,
    read_rows,
    read_text,
    require_folder,
    write_frame,
)
from bench.errors import UserError

if TYPE_CHECKING:
    from bench.data.cache_folder import Progress
    from bench.data.video.clips import BoxedVideos

PARTS = {"train": "train", "validation": "train", "test": "val", "submission": "test"}
"""Split -> the published subset that it is taken from."""
HELD_OUT = {"validation": 64}
"""Sequences of the training set that are the split ``validation``."""
FAULTY = (
    "GOT-10k_Train_007947",
    *(f"GOT-10k_Train_{number:06d}" for number in range(8623, 8638)),
    "GOT-10k_Train_009058",
    "GOT-10k_Train_009059",
)
"""Sequences that users of the data set found broken: frames of two sizes (the first), boxes that lag behind the frames."""
COVER = 8
"""Levels of cover.label."""


def open_got10k(
    path: Path,
    split: str,
    *,
    limit: int | None = None,
    leave_out: Collection[str] = FAULTY,
    workers: int | None = None,
    report: Progress | None = None,
) -> BoxedFolders:
    """List the sequences of a split and read their boxes.

    Args:
        path: the folder that holds ``train``, ``val`` and ``test``.
        split: ``train``, ``validation``, ``test`` or ``submission``.
        limit: at most so many sequences.
        leave_out: names of sequences that are not wanted; by default those that are known to be broken.
        workers: threads that decode; by default one for each core.
        report: progress, a step for each sequence.

    Raises:
        UserError: a folder, list or label is missing, or does not fit the frames.
    """
    check_split(split, SPLITS)
    part = require_folder(path / PARTS[split], f"{PARTS[split]} of GOT-10k")
    names = read_text(part / "list.txt", "the names of the sequences").split()
    if PARTS[split] == "train":
        names = hold_out(names, split, HELD_OUT)
    names, notices = choose(names, limit, leave_out, split)
    digest, clips, flat = new_digest(), [], 0
    for done, name in enumerate(names):
        if report:
            report(f"listing GOT-10k {split}", done, len(names))
        frames = list_images(require_folder(part / name, f"the frames of {name}, which list.txt has"), digest)
        clip, without_area = _clip(name, frames, first_only=split == "submission")
        clips.append(clip)
        digest.update(clip.boxes.xywh.tobytes())
        flat += without_area
    if report:
        report(f"listing GOT-10k {split}", len(names), len(names))
    told = {
        "validation": ["validation: sequences of train/ by a hash of their names, held out"],
        "submission": ["submission: GOT-10k test, the first box only; it is scored on the server of GOT-10k alone"],
    }
    return BoxedFolders(
        clips, digest.hexdigest(), (*notices, *told_of_flat(flat, split), *told.get(split, ())), ImagePool(workers)
    )


def _clip(name: str, frames: FrameFolder, *, first_only: bool) -> tuple[BoxedClip, int]:
    """Boxes of a sequence, and in how many frames they have no area."""
    truth, count = frames.folder / "groundtruth.txt", len(frames.files)
    rows = read_rows(truth, 4, "x,y,w,h")
    if len(rows) != count and not (first_only and len(rows) == 1):
        raise UserError(f"task.data_path: {truth} has {len(rows)} boxes for {count} frames: fetch the sequence again")
    annotated = np.arange(count) < len(rows)
    xywh = np.zeros((count, 4))
    xywh[: len(rows)] = rows
    visible, absent = annotated.astype(np.float64), ~annotated
    if len(rows) == count and not first_only:
        absent = read_flags(frames.folder / "absence.label", count) > 0
        cover = read_flags(frames.folder / "cover.label", count)
        if cover.min() < 0 or cover.max() > COVER:
            raise UserError(f"task.data_path: {frames.folder / 'cover.label'} has numbers beyond 0 to {COVER}")
        visible = cover / COVER
    boxes, flat = make_boxes(xywh, visible, absent, 1.0, truth)
    return BoxedClip(name, frames, boxes, annotated), flat


def write_got10k_result(
    out: Path, name: str, xywh: NDArray[np.floating], seconds: NDArray[np.floating] | None = None
) -> None:
    """Write a tracker's boxes [F, 4] of a sequence: ``<out>/<name>/<name>_001.txt``, and ``<name>_time.txt`` with `seconds` [F].

    `out` is the folder of the tracker. The first box is the given one. Zip it for the server.

    Raises:
        UserError: the files are there already, or the disk.
        ValueError: a box is not finite, or there is not one time a frame.
    """
    if seconds is not None and seconds.shape != xywh.shape[:1]:
        raise ValueError(f"{seconds.shape} times for {xywh.shape[:1]} frames")
    write_new(out / name / f"{name}_001.txt", result_lines(xywh))
    if seconds is not None:
        write_new(out / name / f"{name}_time.txt", "".join(f"{value:.8f}\n" for value in seconds).encode())


def write_got10k(videos: BoxedVideos, path: Path, *, quality: int | None = 95, report: Progress | None = None) -> None:
    """Write videos as a subset of GOT-10k, one sequence at a time, each all or nothing; ``list.txt`` comes last.

    cover.label is the visible share in eighths, rounded up, so that what is seen at all is at least 1. A frame without the
    target has the box -1,-1,-1,-1, as most of GOT-10k. cut_by_image.label is 1 where the box touches the border.

    Args:
        videos: what to write.
        path: the subset, e.g. ``<root>/val``; made if missing.
        quality: of the JPEG; None writes PNG, which loses nothing, but which not all tools read here.
        report: progress, a step for each video.

    Raises:
        UserError: the list or a sequence is there already, or the disk.
    """
    infos = [videos.info(clip) for clip in range(len(videos))]
    if taken := [place for place in (path / "list.txt", *(path / info.name for info in infos)) if place.exists()]:
        raise UserError(f"{taken[0]} is there already and is not overwritten: remove it or choose another folder")
    for clip, info in enumerate(infos):
        if report:
            report("writing GOT-10k", clip, len(infos))
        with new_folder(path / info.name) as folder:
            for frame in range(info.frames):  # one at a time: a long video does not fit in memory
                write_frame(videos.frames(clip, np.array([frame]))[0], folder / f"{frame + 1:08d}", quality)
            for name, content in _labels(videos.boxes(clip), info).items():
                (folder / name).write_text(content)
    write_atomically(path / "list.txt", "".join(f"{info.name}\n" for info in infos).encode())
    if report:
        report("writing GOT-10k", len(infos), len(infos))


def _labels(boxes: Boxes, info: ClipInfo) -> dict[str, str]:
    """Name -> content of the text files of a sequence."""
    left, top, width, height = boxes.xywh.T
    with np.errstate(invalid="ignore"):
        cut = (left <= 0) | (top <= 0) | (left + width >= info.width) | (top + height >= info.height)
    # The small number keeps a share of k / 8 that was rounded up in float32 at k.
    cover = np.where(boxes.present, np.ceil(boxes.visible * COVER - 1e-5), 0)
    rows = np.where(boxes.present[:, None], boxes.xywh + np.array([1, 1, 0, 0]), -1.0)
    return {
        "groundtruth.txt": "".join(",".join(f"{value:.4f}" for value in row) + "\n" for row in rows),
        "absence.label": _column(~boxes.present),
        "cover.label": _column(cover),
        "cut_by_image.label": _column(cut & boxes.present),
        "meta_info.ini": f"[METAINFO]\nbegin: 0\nend: {info.frames}\nresolution: ({info.width}, {info.height})\n",
    }


def _column(values: NDArray[np.generic]) -> str:
    return "".join(f"{int(value)}\n" for value in values)
