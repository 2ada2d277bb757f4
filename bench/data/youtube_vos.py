"""YouTube-VOS, read as it is published, and predictions in the layout of its server.

    <root>/{train,valid}/JPEGImages/<video>/00005.jpg           every 5th frame
    <root>/{train,valid}/Annotations/<video>/00005.png          palette; in valid each object's first mask alone
    <root>/{train,valid}/meta.json                              {"videos": {video: {"objects": {"1": {"frames": ["00005", ..]}}}}}
    <root>/{train,valid}_all_frames/JPEGImages/<video>/...      all frames, apart

Objects may begin in the middle of a video. The truth of ``valid`` lies on a server, so ``train``, ``validation`` and ``test`` are
parts of the published training set, and ``submission`` is ``valid``.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.data.images import ImagePool
from bench.data.index_masks import MAX_ID
from bench.data.masked_folder import MaskedClip, MaskedFolders, Objects
from bench.data.video_folder import (
    SPLITS,
    FrameFolder,
    check_split,
    choose,
    hold_out,
    list_images,
    new_digest,
    read_text,
    require_folder,
)
from bench.errors import UserError

if TYPE_CHECKING:
    from bench.data.cache_folder import Progress

HELD_OUT = {"validation": 64, "test": 200}
"""Videos of the training set that are other splits."""


def open_youtube_vos(
    path: Path,
    split: str,
    *,
    all_frames: bool = False,
    limit: int | None = None,
    leave_out: Collection[str] = (),
    workers: int | None = None,
    report: Progress | None = None,
) -> MaskedFolders:
    """List the videos of a split.

    Args:
        path: the folder that holds ``train`` and ``valid``.
        split: ``train``, ``validation``, ``test`` or ``submission``.
        all_frames: take frames from ``<part>_all_frames``; every 5th is annotated, and submitted, as before.
        limit: at most so many videos.
        leave_out: names of videos that are not wanted.
        workers: threads that decode; by default one for each core.
        report: progress, a step for each video.

    Raises:
        UserError: a folder, frame or mask is missing, or meta.json does not fit the files.
    """
    check_split(split, SPLITS)
    part = "valid" if split == "submission" else "train"
    base = require_folder(path / part, "JPEGImages, Annotations and meta.json of YouTube-VOS")
    for kind in ("JPEGImages", "Annotations"):
        require_folder(base / kind, f"the {'frames' if kind == 'JPEGImages' else 'masks'} of YouTube-VOS")
    source = path / f"{part}_all_frames" if all_frames else base
    if all_frames:
        require_folder(source / "JPEGImages", "all frames of YouTube-VOS (all_frames is true)")
    videos = _meta(base / "meta.json")
    names = sorted(videos)
    beyond = sum(1 for entry in (base / "JPEGImages").iterdir() if entry.is_dir() and entry.name not in videos)
    if part == "train":
        names = hold_out(names, split, HELD_OUT)
    names, notices = choose(names, limit, leave_out, split)
    if beyond:
        notices.append(f"{split}: {beyond} folders of {part}/JPEGImages are not in meta.json and are not read")
    digest, clips = new_digest(), []
    digest.update(str(all_frames).encode())
    for done, name in enumerate(names):
        if report:
            report(f"listing YouTube-VOS {split}", done, len(names))
        frames = list_images(source / "JPEGImages" / name, digest)
        masks = list_images(base / "Annotations" / name, digest, (".png",))
        sparse = list_images(base / "JPEGImages" / name, digest) if all_frames else frames
        clips.append(_clip(name, frames, masks, sparse, videos[name]["objects"], base / "meta.json"))
        digest.update(repr(clips[-1].objects).encode())
    if report:
        report(f"listing YouTube-VOS {split}", len(names), len(names))
    return MaskedFolders(clips, digest.hexdigest(), (*notices, *_told(split)), ImagePool(workers))


def _told(split: str) -> tuple[str, ...]:
    if split == "submission":
        return ("submission: YouTube-VOS valid, first masks only; it is scored on the server of YouTube-VOS alone",)
    if split == "train":
        return ()
    return (f"{split}: videos of train/ by a hash of their names, held out: the truth of valid/ is not published",)


def _meta(path: Path) -> dict[str, Any]:
    """Videos of meta.json: name -> {"objects": {id: {"frames": [..]}}}."""
    try:
        videos = json.loads(read_text(path, "the videos and their objects"))["videos"]
        for video in videos.values():
            for entry in video["objects"].values():
                entry["frames"][0]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(
            f"task.data_path: {path} is not as YouTube-VOS has it ({type(error).__name__}: {error}): fetch it again"
        ) from None
    return dict(videos)


def _clip(
    name: str,
    frames: FrameFolder,
    masks: FrameFolder,
    sparse: FrameFolder,
    listed: Mapping[str, Mapping[str, Any]],
    meta: Path,
) -> MaskedClip:
    """Fit frames, masks and the entry of meta.json together."""
    numbers = {stem: number for number, stem in enumerate(frames.stems)}
    for other in (masks, sparse):
        if alone := set(other.stems) - set(numbers):
            raise UserError(f"task.data_path: {other.folder} has {min(alone)}, of which {frames.folder} has no frame")
    at = {numbers[stem]: masks.path(number) for number, stem in enumerate(masks.stems)}
    first: dict[int, int] = {}
    for number, entry in listed.items():
        if not (number.isdecimal() and 0 < int(number) <= MAX_ID):
            raise UserError(f"task.data_path: {meta}: object {number!r} of {name} must be a number from 1 to {MAX_ID}")
        begins = min(entry["frames"])
        if numbers.get(begins) not in at:
            raise UserError(
                f"task.data_path: {meta} says that object {number} of {name} begins in frame {begins}, but {masks.folder} has no "
                f"mask of it: mend either, or name the video in task.leave_out"
            )
        first[int(number)] = numbers[begins]
    if not first:
        raise UserError(
            f"task.data_path: {meta} lists no object of {name}: mend it, or name the video in task.leave_out"
        )
    ids = tuple(sorted(first))
    submitted = tuple(numbers[stem] for stem in sparse.stems)
    return MaskedClip(name, frames, at, Objects(ids, tuple(first[i] for i in ids)), submitted)


def write_youtube_vos(videos: MaskedFolders, out: Path, clip: int, masks: NDArray[np.uint8]) -> None:
    """Write predicted masks [F, H, W] of a clip for the server: ``<out>/Annotations/<video>/<frame>.png``.

    All frames that ``valid`` lists are written, also those before an object begins. Zip the folder ``Annotations``.

    Raises:
        UserError: the video is there already, or the disk.
    """
    videos.write_prediction(out / "Annotations", clip, masks)
