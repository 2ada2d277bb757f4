"""From pixelSplat's chunks to the tree that LVSM reads (`bench.data.re10k.tree`)."""

from __future__ import annotations

import errno
import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.data.images import ImagePool, decode
from bench.data.re10k.archive import Span, read_bytes
from bench.data.re10k.chunks import list_chunks, read_chunk
from bench.data.re10k.tree import frame_name
from bench.data.shards import write_atomically
from bench.errors import UserError

if TYPE_CHECKING:
    from bench.data.scenes.cache import Progress

PNG_LEVEL = 1
"""Effort of compression: a sixth of the time of Pillow's default (16 ms an image), for files 8 % larger."""

LEAST_GROWTH = 4
"""PNG files are at least so many times as large as the chunks; 6.5 times for JPEG of quality 90."""


@dataclass
class Conversion:
    """What came of it."""

    scenes: int = 0
    """Clips in the tree now, those of earlier calls included."""
    frames: int = 0
    """Images written by this call."""
    failed: list[str] = field(default_factory=list)
    """Frames that cannot be decoded, e.g. ``00e8df74b6805da7/00042``, of all clips that this call converted."""


def convert(
    source: Path, destination: Path, split: str, *, report: Progress | None = None, workers: int | None = None
) -> Conversion:
    """Write every frame of ``source/split`` as a PNG, and every clip's cameras as a JSON, into ``destination/split``.

    A clip is there when its JSON is, and that comes last: who runs this again after any interruption goes on where it
    ended. A frame that cannot be decoded leaves a gap in the numbers; its clip lists it under ``failed_frames``, and no
    other frame moves up. A clip without one good frame leaves a JSON without frames and is not listed.

    Args:
        source: holds ``train`` and ``test`` with chunks and ``index.json``.
        destination: made if missing; six to ten times as large as the chunks.
        split: ``train`` or ``test``.
        report: ``report(label, done, total)``; the unit is a chunk.
        workers: threads; by default one for each usable core.

    Raises:
        UserError: chunks that are missing or damaged; a disk that is, or would be, full; another conversion at work.
    """
    if split not in ("train", "test"):
        raise UserError(f"split must be train or test, got {split!r}")
    chunks, target = list_chunks(Path(source) / split), Path(destination) / split
    pool, result = ImagePool(workers), Conversion()
    label = f"converting RealEstate10K {split}"
    with _writing(target):
        if report:
            report(label, 0, len(chunks))
        for done, chunk in enumerate(chunks, 1):
            # By key: a clip that a chunk holds twice must not be written by two threads.
            clips = {clip[0]: clip for clip in read_chunk(chunk)}.values()
            todo = [clip for clip in clips if not _metadata(target, clip[0]).is_file()]
            if todo:
                _refuse_too_little_space(target, chunks[done - 1 :])
            for failed, written in pool.map(partial(_convert_clip, target, chunk), todo):
                result.failed += failed
                result.frames += written
            if report:
                report(label, done, len(chunks))
        listed = [
            path for path in sorted((target / "metadata").glob("*.json")) if (target / "images" / path.stem).is_dir()
        ]
        write_atomically(target / "full_list.txt", "".join(f"{path.resolve()}\n" for path in listed).encode())
    result.scenes = len(listed)
    return result


def _convert_clip(target: Path, chunk: Path, clip: tuple[str, list[Span], NDArray[np.void]]) -> tuple[list[str], int]:
    """Write one clip; return the frames that failed and how many were written."""
    key, spans, frames = clip
    images, temporary = target / "images" / key, target / "images" / f".{key}.tmp"
    for leftover in (temporary, images):  # images without their JSON: the process died in between
        shutil.rmtree(leftover, ignore_errors=True)
    temporary.mkdir(parents=True)
    entries: list[dict[str, Any]] = []
    failed: list[int] = []
    for frame, span in zip(frames, spans, strict=True):
        number, data = int(frame["number"]), read_bytes(chunk, span.offset, span.length)
        try:
            image = decode(data)[..., :3]
        except UserError:
            failed.append(number)
            continue
        height, width = image.shape[:2]
        Image.fromarray(image).save(temporary / frame_name(number), compress_level=PNG_LEVEL)
        entries.append(
            {
                "image_path": str((images / frame_name(number)).resolve()),
                "fxfycxcy": (frame["intrinsics"].astype(np.float64) * [width, height, width, height]).tolist(),
                "w2c": [*frame["w2c"].astype(np.float64).tolist(), [0.0, 0.0, 0.0, 1.0]],
            }
        )
    content = {"scene_name": key, "frames": entries} | ({"failed_frames": failed} if failed else {})
    if entries:
        temporary.rename(images)
    else:
        temporary.rmdir()
    write_atomically(_metadata(target, key), json.dumps(content).encode())
    return [f"{key}/{number:05d}" for number in failed], len(entries)


def _metadata(target: Path, key: str) -> Path:
    if Path(key).name != key or key.startswith("."):
        raise UserError(f"scene {key!r} cannot be a file name; the chunk is damaged, fetch it again")
    return target / "metadata" / f"{key}.json"


def _refuse_too_little_space(target: Path, chunks: list[Path]) -> None:
    """Say at once that the disk will be full, rather than after a day."""
    need, free = LEAST_GROWTH * sum(chunk.stat().st_size for chunk in chunks), shutil.disk_usage(target).free
    if free < need:
        raise UserError(
            f"{target} has {free / 2**30:.1f} GiB free, but {len(chunks)} chunks as PNG need at least "
            f"{need / 2**30:.1f} GiB; free some and run again: finished scenes are kept"
        )


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    """Hold the tree's lock; errors of the disk become one line."""
    try:
        (target / "metadata").mkdir(parents=True, exist_ok=True)
        with open(target / ".lock", "ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(f"another process is converting into {target}; wait for it") from error
            yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        mend = "free some space and run again: finished scenes are kept" if full else "choose another destination"
        raise UserError(f"cannot write in {target}: {error.strerror or error}; {mend}") from error
