"""What the readers of real video share: frames in folders, lists of sequences, held-out sequences, folders written whole."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.data.cache_folder import disk_errors
from bench.data.draws import of_name
from bench.data.images import ImagePool, composite, decode
from bench.errors import UserError

if TYPE_CHECKING:
    from hashlib import _Hash

SUFFIXES = (".jpg", ".jpeg", ".png")
"""What counts as a frame, in any case; other files are left alone."""
SPLITS = ("train", "validation", "test", "submission")
"""Names of splits; `submission` is what a data set scores on its own server, with nothing but the first truth given."""


@dataclass(frozen=True)
class FrameFolder:
    """The numbered images of one video, in order; nothing is decoded before it is asked for."""

    folder: Path
    files: tuple[str, ...]

    def path(self, frame: int) -> Path:
        """Where a frame lies."""
        return self.folder / self.files[frame]

    @cached_property
    def stems(self) -> tuple[str, ...]:
        """Names of the frames without their ending, e.g. ``00005``."""
        return tuple(file.rsplit(".", 1)[0] for file in self.files)

    @cached_property
    def shape(self) -> tuple[int, int]:
        """Height and width, from the header of the first frame."""
        return shape_of(self.path(0))

    def read(self, which: NDArray[np.integer], pool: ImagePool) -> NDArray[np.uint8]:
        """RGB [n, H, W, 3] of the frames `which` [n].

        Raises:
            UserError: a frame is missing, cannot be decoded, or has another size than the first one; names it.
        """
        return np.stack(pool.map(self._read, np.asarray(which).tolist()))

    def _read(self, frame: int) -> NDArray[np.uint8]:
        image = composite(decode(self.path(frame)))
        if image.shape[:2] != self.shape:
            raise UserError(
                f"task.data_path: {self.path(frame)} has {size(image.shape)} pixels, but {self.files[0]} of the same video "
                f"has {size(self.shape)}: mend the file, or name the video in task.leave_out"
            )
        return image


def shape_of(path: Path) -> tuple[int, int]:
    """Height and width of an image, from its header. Raises `UserError` that names a file that has none."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"task.data_path: {path} is missing or no image ({error}); fetch it again") from error


def size(shape: Sequence[int]) -> str:
    """``854 x 480`` of an array [H, W, ..]."""
    return f"{shape[1]} x {shape[0]}"


def list_images(folder: Path, digest: _Hash, suffixes: tuple[str, ...] = SUFFIXES) -> FrameFolder:
    """List a folder's images in the order of their numbers, and add their names and sizes to `digest`.

    Raises:
        UserError: the folder is missing or holds no image, or two images differ in their ending alone.
    """
    try:
        with os.scandir(folder) as entries:
            found = [(e.name, e.stat().st_size) for e in entries if _is_image(e.name, suffixes)]
    except OSError as error:
        raise UserError(
            f"task.data_path: {folder} cannot be read ({error.strerror}): fetch it, or mend the list"
        ) from None
    found.sort(key=lambda item: _number(item[0]))
    if not found:
        raise UserError(f"task.data_path: {folder} holds no image ({', '.join(suffixes)}): fetch it again")
    # Names repeat from video to video: one string for all keeps millions of frames in little memory.
    listed = FrameFolder(folder, tuple(sys.intern(name) for name, _ in found))
    double = {stem for stem, after in zip(listed.stems, listed.stems[1:], strict=False) if stem == after}
    if double:
        raise UserError(f"task.data_path: {folder} holds frame {min(double)} in two formats: remove one")
    for name, length in found:
        digest.update(f"{folder.parent.name}/{folder.name}/{name}\t{length}\n".encode())
    return listed


def _is_image(name: str, suffixes: tuple[str, ...]) -> bool:
    return name.lower().endswith(suffixes) and not name.startswith(".")


def _number(name: str) -> tuple[int, str]:
    stem = name.rsplit(".", 1)[0]
    return (int(stem) if stem.isdecimal() else 0), name


def require_folder(path: Path, what: str) -> Path:
    """Return `path`. Raises `UserError` where it is no folder; `what` says what should lie there."""
    if not path.is_dir():
        raise UserError(f"task.data_path: {path} is missing: it should hold {what}")
    return path


def read_text(path: Path, what: str) -> str:
    """Content of a text file. Raises `UserError` where there is none; `what` says what should stand there."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise UserError(f"task.data_path: {path} cannot be read ({reason}): it should hold {what}") from None


def read_rows(path: Path, columns: int, what: str) -> NDArray[np.float64]:
    """Numbers [n, columns] of a text file, one row a line, parted by commas, tabs or blanks.

    Raises:
        UserError: a line with another count, or a value that is no number; names file and line.
    """
    rows = []
    for number, line in enumerate(read_text(path, what).splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = [float(value) for value in line.replace(",", " ").split()]
        except ValueError:
            row = []
        if len(row) != columns:
            raise UserError(f"task.data_path: {path}, line {number}: {line[:40]!r} is not {columns} numbers ({what})")
        rows.append(row)
    return np.array(rows, np.float64).reshape(len(rows), columns)


def read_flags(path: Path, count: int) -> NDArray[np.int64]:
    """Whole numbers [count] of a text file, one a line or parted by commas.

    Raises:
        UserError: it is missing, has another count, or a value that is no whole number.
    """
    values = read_text(path, "one number a frame").replace(",", " ").split()
    if len(values) != count:
        raise UserError(f"task.data_path: {path} has {len(values)} numbers for {count} frames: fetch it again")
    try:
        return np.array([int(value) for value in values], np.int64)
    except ValueError as error:
        raise UserError(f"task.data_path: {path}: {error}: it should hold whole numbers") from None


def hold_out(names: Sequence[str], split: str, counts: Mapping[str, int]) -> list[str]:
    """The names of a split where training videos are held out for others: those whose names hash lowest, in their order.

    Args:
        names: videos of the published training set.
        split: ``train``, or a key of `counts`.
        counts: split -> videos to hold out; never more than a tenth of all, and at least one.

    Raises:
        UserError: there are too few names.
    """
    share = {held: min(count, max(1, len(names) // 10)) for held, count in counts.items()}
    if sum(share.values()) >= len(names):
        raise UserError(
            f"task.data_path: {len(names)} training videos are too few to hold some out for {', '.join(counts)}"
        )
    ranked, taken = sorted(names, key=of_name), {}
    for held, count in share.items():
        taken[held], ranked = set(ranked[:count]), ranked[count:]
    chosen = taken.get(split, set(ranked))
    return [name for name in names if name in chosen]


def choose(
    names: Sequence[str], limit: int | None, leave_out: Collection[str], split: str
) -> tuple[list[str], list[str]]:
    """Drop the names `leave_out`, then take the `limit` ones that hash lowest; the order stays.

    Returns:
        The names, and the lines that must stand under a table.
    """
    kept, notices = [name for name in names if name not in leave_out], []
    if len(kept) < len(names):
        notices.append(f"{split}: {len(names) - len(kept)} of {len(names)} videos are left out by name")
    if limit is not None and limit < len(kept):
        notices.append(f"{split}: only {limit} of {len(kept)} videos are used, chosen by a hash of their names")
        chosen = set(sorted(kept, key=of_name)[:limit])
        kept = [name for name in kept if name in chosen]
    if not kept:
        raise UserError(f"task.data_path: no video is left for {split}")
    return kept, notices


def check_split(split: str, offered: Sequence[str]) -> None:
    """Raise `UserError` where a data set does not offer a split."""
    if split not in offered:
        raise UserError(f"task.data: there is no split {split!r} here, only {', '.join(offered)}")


def new_digest() -> _Hash:
    """A SHA-256 to feed with names and sizes."""
    return hashlib.sha256()


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder that becomes `path` once the block ends well, all or nothing.

    Raises:
        UserError: there is something at `path` already, or the disk is full or cannot be written.
    """
    if path.exists():
        raise UserError(f"{path} is there already and is not overwritten: remove it or choose another folder")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with disk_errors(path):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            yield temporary
            temporary.rename(path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def write_frame(image: NDArray[np.uint8], stem: Path, quality: int | None) -> None:
    """Write RGB [H, W, 3] as JPEG of that quality, colours at full resolution, or as PNG where it is None."""
    if quality is None:
        Image.fromarray(image).save(f"{stem}.png", compress_level=1)
    else:
        Image.fromarray(image).save(f"{stem}.jpg", quality=quality, subsampling=0)
