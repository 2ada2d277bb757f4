"""What is where in a split, read once and kept in the cache, so that afterwards one image is one read.

    cache_dir/re10k-v2/<split>-<key>/
        scenes.json     every scene, sorted by its key: the numbering is the same for both layouts of the same data
        frames.npy      every frame of every scene: place and camera, `FRAME`; memory-mapped
        part-*.npz      while it is being made: finished parts, from which a run that was killed goes on
        .lock           held (fcntl) by the process that makes it

The key is a hash of layout, folder, and the name, size and time of change of every file that the index was made from. The
index of data that were since replaced stays; the folder may be deleted while nothing runs.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.data.images import ImagePool
from bench.data.shards import write_atomically
from bench.errors import UserError

if TYPE_CHECKING:
    from bench.data.scenes.cache import Progress

INDEX_VERSION = 2

FRAME = np.dtype(
    [
        ("number", "<i4"),  # of the frame in its clip; a frame that could not be converted leaves a gap
        ("length", "<u4"),  # bytes of the JPEG in its chunk; 0 in a converted tree
        ("offset", "<u8"),
        ("intrinsics", "<f4", 4),  # fx, fy, cx, cy as the layout has them: normalised (chunks) or in pixels (tree)
        ("w2c", "<f4", (3, 4)),  # OpenCV
    ]
)


@dataclass(frozen=True)
class Scene:
    """One clip."""

    key: str
    source: str
    """The chunk, or the folder of its images, relative to the folder of the split where it lies there."""
    frames: int
    shape: tuple[int, int]
    """Height and width of its first image; (0, 0) where that one cannot be read."""
    max_fov: float
    """Widest field of view of its frames, horizontally or vertically, in degrees."""
    extent: float
    """Diagonal of the box that holds its camera centres, in the units of the data: no baseline is longer."""
    damaged: int = 0
    """Its images that cannot be read and are not among its frames."""


@dataclass(frozen=True)
class SceneIndex:
    """All clips of a split in the order of their keys."""

    folder: Path
    """Where the index lies."""
    scenes: list[Scene]
    digest: str
    """SHA-256 of keys and frames: places within chunks, sizes, cameras; not of the folder."""

    @cached_property
    def frames(self) -> NDArray[np.void]:
        """[F] of `FRAME`: the frames of scene i are ``starts[i] .. starts[i + 1]``."""
        return np.load(self.folder / "frames.npy", mmap_mode="r", allow_pickle=False)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """[N + 1]."""
        return np.cumsum([0, *(scene.frames for scene in self.scenes)])

    def __getstate__(self) -> dict[str, Any]:
        # Another process maps the file itself: a memory map would travel as its whole content.
        return {field.name: getattr(self, field.name) for field in fields(self)}


Part = list[tuple[Scene, NDArray[np.void]]]
"""Scenes with their frames [n] of `FRAME`."""


def summarise(key: str, source: str, frames: NDArray[np.void], shape: tuple[int, int], normalised: bool) -> Scene:
    """What rules need to know of a clip of one frame or more.

    Raises:
        ValueError: a camera is not finite, has a focal length of 0 or less, or a pose that is no rotation and translation.
    """
    rotation, translation = frames["w2c"][:, :, :3].astype(np.float64), frames["w2c"][:, :, 3].astype(np.float64)
    intrinsics = frames["intrinsics"].astype(np.float64)
    if not (np.isfinite(frames["w2c"]).all() and np.isfinite(intrinsics).all() and (intrinsics[:, :2] > 0).all()):
        raise ValueError(f"scene {key} has a camera that is not finite or has no focal length")
    if np.abs(rotation @ rotation.swapaxes(1, 2) - np.eye(3)).max() > 1e-2 or (np.linalg.det(rotation) < 0).any():
        raise ValueError(f"scene {key} has a pose that is no rotation and translation")
    size = np.ones(2) if normalised else np.array(shape[::-1], np.float64)
    focal, centre = intrinsics[:, :2], intrinsics[:, 2:]
    fov = np.degrees(np.arctan(centre / focal) + np.arctan((size - centre) / focal)).max()
    centres = -(rotation.swapaxes(1, 2) @ translation[..., None])[..., 0]
    return Scene(key, source, len(frames), shape, float(fov), float(np.linalg.norm(np.ptp(centres, axis=0))))


def open_index(
    folder: Path,
    layout: str,
    files: Sequence[Path],
    read: Callable[[Sequence[Path]], Part],
    cache_dir: Path,
    *,
    files_per_part: int = 1,
    workers: int | None = None,
    report: Progress | None = None,
) -> SceneIndex:
    """The index of the split in `folder`, made if the cache has none of exactly these files.

    Args:
        folder: of the split; its name is the split's.
        layout: its name; part of the key.
        files: all that `read` reads from, in order.
        read: scenes and frames of some of them.
        cache_dir: made if missing.
        files_per_part: how many files make one part of the work.
        workers: threads; by default one for each usable core.
        report: told of every finished batch of parts; the unit is a file.

    Raises:
        UserError: from `read`; no scene at all; a cache folder that cannot be written.
    """
    target = Path(cache_dir) / f"re10k-v{INDEX_VERSION}" / f"{folder.name}-{_key(folder, layout, files)}"
    if not (target / "scenes.json").is_file():
        try:
            target.mkdir(parents=True, exist_ok=True)
            lock = os.open(target / ".lock", os.O_CREAT | os.O_RDWR)
        except OSError as error:
            raise UserError(f"cannot write in {target}: {error.strerror}; choose another cache folder") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the system frees it when this process dies
            if not (target / "scenes.json").is_file():
                groups = [files[start : start + files_per_part] for start in range(0, len(files), files_per_part)]
                _make(target, f"indexing RealEstate10K {folder.name}", groups, read, ImagePool(workers), report)
        finally:
            os.close(lock)
    made = json.loads((target / "scenes.json").read_text())
    scenes = [Scene(**{**row, "shape": tuple(row["shape"])}) for row in made["scenes"]]
    return SceneIndex(target, scenes, made["digest"])


def _key(folder: Path, layout: str, files: Sequence[Path]) -> str:
    digest = hashlib.sha256(f"{INDEX_VERSION} {layout} {folder.resolve()}".encode())
    for file in files:
        try:
            status = file.stat()
        except OSError as error:
            raise UserError(f"{file} is missing: {folder} is not complete; fetch or convert it again") from error
        digest.update(f"\n{file} {status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()[:12]


def _make(
    target: Path,
    label: str,
    groups: Sequence[Sequence[Path]],
    read: Callable[[Sequence[Path]], Part],
    pool: ImagePool,
    report: Progress | None,
) -> None:
    """Read all parts that are missing, then join them; the caller holds the lock."""

    def make_part(number: int) -> None:
        path = target / f"part-{number:06d}.npz"
        if not path.is_file():
            part = read(groups[number])
            rows = json.dumps([asdict(scene) for scene, _ in part]).encode()
            frames = np.concatenate([np.empty(0, FRAME), *(frames for _, frames in part)])
            buffer = io.BytesIO()
            np.savez(buffer, scenes=np.frombuffer(rows, np.uint8), frames=frames)
            write_atomically(path, buffer.getvalue())

    total, batch = sum(map(len, groups)), 4 * pool.workers
    if report:
        report(label, 0, total)
    for start in range(0, len(groups), batch):
        pool.map(make_part, range(start, min(start + batch, len(groups))))
        if report:
            report(label, sum(map(len, groups[: start + batch])), total)
    _join(target, len(groups))


def _join(target: Path, parts: int) -> None:
    """Write all parts as one, sorted by key; of scenes with one key, the first stays."""
    rows: list[tuple[dict[str, Any], int, int]] = []
    frames: list[NDArray[np.void]] = []
    for number in range(parts):
        with np.load(target / f"part-{number:06d}.npz", allow_pickle=False) as part:
            start = 0
            for row in json.loads(part["scenes"].tobytes()):
                rows.append((row, number, start))
                start += row["frames"]
            frames.append(part["frames"])
    if not rows:
        raise UserError(f"there is not one scene in the data behind {target}; fetch or convert them again")
    first: dict[str, tuple[dict[str, Any], int, int]] = {}
    for entry in rows:
        first.setdefault(entry[0]["key"], entry)
    kept = [first[key] for key in sorted(first)]
    temporary, count = target / ".frames.tmp", sum(row["frames"] for row, *_ in kept)
    digest = hashlib.sha256("\n".join(row["key"] for row, *_ in kept).encode())
    try:
        with open(temporary, "wb") as file:  # not through a memory map: on a full disk that ends the process
            header = {"descr": np.lib.format.dtype_to_descr(FRAME), "fortran_order": False, "shape": (count,)}
            np.lib.format.write_array_header_1_0(file, header)
            for row, number, start in kept:
                content = frames[number][start : start + row["frames"]].tobytes()
                digest.update(content)
                file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target / "frames.npy")
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror}; choose another cache folder") from error
    made = {"digest": digest.hexdigest(), "scenes": [row for row, *_ in kept]}
    write_atomically(target / "scenes.json", json.dumps(made).encode())  # last: it is complete
    for number in range(parts):
        (target / f"part-{number:06d}.npz").unlink()
