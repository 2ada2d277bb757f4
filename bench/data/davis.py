"""DAVIS 2016 and 2017, read as they are published, and any videos written in their layout.

    <root>/JPEGImages/480p/<sequence>/00000.jpg
    <root>/Annotations/480p/<sequence>/00000.png      palette; 0 background, 1.. objects, 255 void
    <root>/ImageSets/2017/{train,val,test-dev}.txt    a name a line
    <root>/ImageSets/480p/{train,val}.txt             2016 as first published: two paths a line, one line a frame

Splits: ``train`` and ``validation`` are parts of the published training set, ``test`` is the published validation set, on which
results are reported, and ``submission`` is test-dev.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.data.images import ImagePool
from bench.data.index_masks import write_masks
from bench.data.masked_folder import MaskedClip, MaskedFolders
from bench.data.shards import write_atomically
from bench.data.video_folder import (
    SPLITS,
    check_split,
    choose,
    hold_out,
    list_images,
    new_digest,
    new_folder,
    read_text,
    require_folder,
    write_frame,
)
from bench.errors import UserError

if TYPE_CHECKING:
    from bench.data.cache_folder import Progress
    from bench.data.video.clips import MaskedVideos

LISTS = {"train": "train", "validation": "train", "test": "val", "submission": "test-dev"}
"""Split -> the published list that it is taken from."""
HELD_OUT = {"validation": 6}
"""Sequences of the training list that are the split ``validation``."""
YEARS = (2016, 2017)


def open_davis(
    path: Path,
    split: str,
    *,
    year: int = 2017,
    resolution: str = "480p",
    limit: int | None = None,
    leave_out: Collection[str] = (),
    workers: int | None = None,
    report: Progress | None = None,
) -> MaskedFolders:
    """List the sequences of a split.

    Args:
        path: the folder that holds ``JPEGImages``, ``Annotations`` and ``ImageSets``.
        split: ``train``, ``validation``, ``test`` or ``submission``.
        year: 2017, or 2016: its lists, and all objects of a sequence are one.
        resolution: the folder of that name: ``480p``, ``Full-Resolution`` (2016: ``1080p``).
        limit: at most so many sequences.
        leave_out: names of sequences that are not wanted.
        workers: threads that decode; by default one for each core.
        report: progress, a step for each sequence.

    Raises:
        UserError: a folder, list or sequence is missing, or a sequence has no masks, masks without frames, or, unless it is of
            ``submission``, frames without masks.
    """
    check_split(split, SPLITS)
    if year not in YEARS:
        raise UserError(f"year must be 2016 or 2017, got {year}")
    images = require_folder(path / "JPEGImages" / resolution, f"the frames of DAVIS (resolution is {resolution})")
    annotations = require_folder(path / "Annotations" / resolution, "the masks of DAVIS")
    names = _listed(path, year, resolution, LISTS[split])
    if LISTS[split] == "train":
        names = hold_out(names, split, HELD_OUT)
    names, notices = choose(names, limit, leave_out, split)
    digest, clips = new_digest(), []
    for done, name in enumerate(names):
        if report:
            report(f"listing DAVIS {split}", done, len(names))
        frames = list_images(images / name, digest)
        masks = list_images(annotations / name, digest, (".png",))
        numbers = {stem: number for number, stem in enumerate(frames.stems)}
        if alone := set(masks.stems) - set(numbers):
            raise UserError(f"task.data_path: the mask {min(alone)} in {masks.folder} has no frame in {frames.folder}")
        if split != "submission" and (missing := sorted(set(numbers) - set(masks.stems))):
            raise UserError(
                f"task.data_path: {name} has no mask {masks.folder / missing[0]}.png ({len(missing)} of {len(frames.stems)} frames "
                f"lack theirs): fetch it again, or name {name} in task.leave_out"
            )
        at = {numbers[stem]: masks.path(number) for number, stem in enumerate(masks.stems)}
        clips.append(MaskedClip(name, frames, at))
    if report:
        report(f"listing DAVIS {split}", len(names), len(names))
    return MaskedFolders(clips, digest.hexdigest(), (*notices, *_told(split)), ImagePool(workers), merge=year == 2016)


def _listed(path: Path, year: int, resolution: str, name: str) -> list[str]:
    """Names of a list of either form, each once, in order."""
    sets = path / "ImageSets"
    places = [sets / str(year) / f"{name}.txt"] + ([sets / resolution / f"{name}.txt"] if year == 2016 else [])
    text = read_text(
        next((place for place in places if place.is_file()), places[0]), f"the sequences of DAVIS {year} {name}"
    )
    firsts = [line.split()[0] for line in text.splitlines() if line.strip()]
    # "/JPEGImages/480p/bear/00000.jpg /Annotations/480p/bear/00000.png", or "bear"
    return list(dict.fromkeys(Path(first).parent.name if "/" in first else first for first in firsts))


def _told(split: str) -> tuple[str, ...]:
    if split == "validation":
        return ("validation: sequences of the training list by a hash of their names, held out",)
    if split == "submission":
        return ("submission: DAVIS test-dev, first masks only; it is scored on the server of DAVIS alone",)
    return ()


def write_davis(
    videos: MaskedVideos,
    path: Path,
    *,
    name: str = "val",
    prefix: str = "",
    year: int = 2017,
    resolution: str = "480p",
    quality: int | None = 95,
    report: Progress | None = None,
) -> None:
    """Write videos in the layout of DAVIS, one sequence at a time, each all or nothing; the list comes last.

    Args:
        videos: what to write; frames without ground truth get no mask, as only those of test-dev may.
        path: made if missing. Several lists may share it; sequences and lists that are there are never overwritten.
        name: the list, ``train``, ``val`` or ``test-dev``.
        prefix: goes before the name of each sequence, where two lists have the same names: those of rendered clips do.
        year: folder of the list.
        resolution: folder of frames and masks.
        quality: of the JPEG; None writes PNG, which loses nothing, but which not all tools read here.
        report: progress, a step for each video.

    Raises:
        UserError: a sequence or the list is there already, or the disk.
    """
    listed = path / "ImageSets" / str(year) / f"{name}.txt"
    infos = [videos.info(clip) for clip in range(len(videos))]
    names = [prefix + info.name for info in infos]
    folders = [path / kind / resolution / own for own in names for kind in ("JPEGImages", "Annotations")]
    if taken := [place for place in (listed, *folders) if place.exists()]:
        raise UserError(f"{taken[0]} is there already and is not overwritten: remove it or choose another folder")
    for clip, (own, info) in enumerate(zip(names, infos, strict=True)):
        if report:
            report("writing DAVIS", clip, len(infos))
        with new_folder(path / "JPEGImages" / resolution / own) as frames:
            for frame in range(info.frames):  # one at a time: a long video does not fit in memory
                write_frame(videos.frames(clip, np.array([frame]))[0], frames / f"{frame:05d}", quality)
            annotated = np.flatnonzero(info.annotated)
            stems = [f"{frame:05d}" for frame in annotated]
            ids = info.object_ids or tuple(range(1, len(info.first_frames) + 1))
            write_masks(path / "Annotations" / resolution / own, videos.masks(clip, annotated), stems, ids)
    listed.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(listed, "".join(f"{own}\n" for own in names).encode())
    if report:
        report("writing DAVIS", len(infos), len(infos))
