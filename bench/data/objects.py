"""Renders of single objects (Objaverse, GSO, ABO) in the layout of Zero-1-to-3's Blender script.

    <root>/<split>.json             {uid: folder}, or a list of uids; a relative folder is taken from <root>
    <root>/<uid>/000.png 000.npy    RGBA on transparent ground; 3 x 4 (or 4 x 4), world to Blender camera
                 001.png 001.npy    ... 32 views

The stored matrix is [R^T | -R^T t], the *inverse* of a pose. It is completed with 0 0 0 1, inverted, and its camera turned
from Blender's axes to OpenCV's. Read as camera to world, as the published object code does, every camera centre becomes
(0, 0, -radius). The objects stand at the origin in a frame of known size, so nothing is centred or scaled.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.data.arrays import shuffled
from bench.data.cameras import check_poses, opengl_to_opencv
from bench.data.draws import Salt, of_name
from bench.data.images import ImagePool, composite, decode, fit_square
from bench.data.multiview import Views
from bench.errors import UserError

if TYPE_CHECKING:
    from bench.data.scenes.cache import Progress

SPLITS = ("train", "validation", "test")
VIEWS = 32
FIELD_OF_VIEW = 49.1
"""Vertical, degrees: a focal length of 560.44 at 512 pixels. The renders do not store it."""
MIN_FACING = 0.5
"""Cosine between where a camera looks and where the origin is: renders look at it, to within a few degrees."""


@dataclass(frozen=True, eq=False)
class ObjectSplit:
    """A `MultiViewSplit` of rendered objects; see `open_objects`."""

    uids: tuple[str, ...]
    folders: tuple[Path, ...]
    image_size: int
    views: int
    field_of_view: float
    background: tuple[int, int, int]
    pool: ImagePool
    fingerprint: str
    """Digest of what the split holds, wherever it lies: uids, and for each the size of its first image and matrix."""
    notices: tuple[str, ...] = ()
    """Lines that must stand under the table: how many objects were left out."""

    def __len__(self) -> int:
        """Number of objects."""
        return len(self.uids)

    def sample_name(self, scene: int, view: int) -> str:
        """``<uid>/007`` is view 7 of that object, as its file is called."""
        return f"{self.uids[scene]}/{view:03d}"

    def choose(
        self, scenes: np.ndarray, draws: np.ndarray, input_views: int, target_views: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """One input from each of Vi runs of neighbouring views, targets from all the rest; functions of the draw.

        With 4 inputs of 32 views these are the 4 groups of 8 of the original; for other numbers, runs as even as can be.

        Raises:
            UserError: the objects have fewer than Vi + Vt views.
        """
        self._check_fit(input_views, target_views)
        rank = np.argsort(shuffled(draws, self.views, salt=Salt.VIEWS), axis=1)
        edges = [self.views * group // input_views for group in range(input_views + 1)]
        inputs = np.stack(
            [start + rank[:, start:end].argmin(axis=1) for start, end in itertools.pairwise(edges)], axis=1
        )
        order = shuffled(draws, self.views, salt=Salt.OBJECT_TARGETS)
        taken = np.zeros(order.shape, bool)
        np.put_along_axis(taken, inputs, True, axis=1)
        return inputs, _first_free(order, taken, target_views)

    def choose_evaluation(
        self, scenes: np.ndarray, input_views: int, target_views: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Inputs 0 to Vi - 1, targets a function of the object's uid among the rest.

        The first four views of GSO stand at azimuths 45, 135, 225 and 315 degrees. The original draws the targets anew in
        every run. Another number of inputs changes a target only where it has become an input.

        Raises:
            UserError: the objects have fewer than Vi + Vt views.
        """
        self._check_fit(input_views, target_views)
        draws = np.array([of_name(self.uids[scene]) for scene in scenes])
        order = shuffled(draws, self.views, salt=Salt.OBJECT_EVALUATION)
        inputs = np.tile(np.arange(input_views), (len(order), 1))
        return inputs, _first_free(order, np.tile(np.arange(self.views) < input_views, (len(order), 1)), target_views)

    def load(self, scenes: np.ndarray, views: np.ndarray) -> Views:
        """Read views `views` [B, V] of the objects `scenes` [B], composited over the background.

        Raises:
            UserError: a file that cannot be read, or a matrix that is no rigid motion or looks away from the origin; names
                the file.
        """
        places = [(self.folders[scene], int(view)) for scene, row in zip(scenes, views, strict=True) for view in row]
        read = self.pool.map(lambda place: self._read(*place), places)
        return Views(*(np.stack(parts).reshape(*views.shape, *parts[0].shape) for parts in zip(*read, strict=True)))

    def _read(self, folder: Path, view: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Image, pose and intrinsics of one view."""
        rgb = composite(decode(folder / f"{view:03d}.png"), self.background)
        height, width = rgb.shape[:2]
        focal = height / 2 / math.tan(math.radians(self.field_of_view) / 2)
        square, intrinsics = fit_square(rgb, np.array([focal, focal, width / 2, height / 2]), self.image_size)
        return square, _read_pose(folder / f"{view:03d}.npy"), intrinsics

    def _check_fit(self, input_views: int, target_views: int) -> None:
        if input_views + target_views > self.views:
            raise UserError(
                f"task.input_views: {input_views} inputs and {target_views} targets do not fit the {self.views} views of "
                "an object; ask for fewer"
            )


def open_objects(
    root: str | os.PathLike[str],
    split: str,
    *,
    image_size: int,
    index: str | os.PathLike[str] | None = None,
    views: int = VIEWS,
    field_of_view: float = FIELD_OF_VIEW,
    background: tuple[int, int, int] = (255, 255, 255),
    limit: int | None = None,
    workers: int | None = None,
    report: Progress | None = None,
) -> ObjectSplit:
    """The objects of a split that are complete: 32 images and 32 matrices. Others are left out and counted in a notice.

    The lists of the other splits that lie beside this one are read too, and an object in two of them is refused, be it by
    its uid or by its folder, links followed.

    Args:
        root: folder of the objects.
        split: ``train``, ``validation`` or ``test``; objects are never shared out by chance.
        image_size: side of the images that come out, in pixels.
        index: JSON with the split's objects in order; ``<root>/<split>.json`` by default.
        views: views that every object has.
        field_of_view: vertical, in degrees.
        background: what transparent pixels are composited over, 0 to 255.
        limit: only this many complete objects, the first ones; the original scored 100.
        workers: threads that read images; by default one for each usable core.
        report: ``report(label, done, total)``; the unit is an object.

    Raises:
        UserError: an index that is missing or malformed, names an object twice or shares one with another split, or no
            complete object.
    """
    root = Path(root)
    if split not in SPLITS:
        raise UserError(f"split must be one of {', '.join(SPLITS)}, got {split}")
    if limit is not None and limit < 1:
        raise UserError(f"limit must be >= 1, got {limit}")
    path = Path(index) if index is not None else root / f"{split}.json"
    label = f"looking for the objects of {path.name}"
    uids, folders = _read_index(path, root)
    if report:
        report(label, 0, len(uids))
    others = [path.parent / f"{other}.json" for other in SPLITS if other != split]
    _check_apart(path, uids, folders, {other: _read_index(other, root) for other in others if other.is_file()})
    wanted = frozenset(f"{view:03d}.{kind}" for view in range(views) for kind in ("png", "npy"))
    kept: list[int] = []
    left_out: list[str] = []
    digest = hashlib.sha256(f"{views} views".encode())
    with ThreadPoolExecutor(16) as pool:
        for start in range(0, len(uids), 1024):
            found = pool.map(lambda folder: _sizes(folder, wanted), folders[start : start + 1024])
            for number, sizes in enumerate(found, start):
                if sizes:
                    kept.append(number)
                    digest.update(f"\n{uids[number]} {sizes}".encode())
                else:
                    left_out.append(uids[number])
                if len(kept) == limit:
                    break
            if report:
                report(label, len(uids) if len(kept) == limit else min(start + 1024, len(uids)), len(uids))
            if len(kept) == limit:
                break
    if not kept:
        raise UserError(
            f"{path}: none of its {len(uids)} objects is complete, the first should have {views} .png and {views} .npy "
            f"files in {folders[0]}: check the folders that the index names"
        )
    notices: tuple[str, ...] = ()
    if left_out:
        notices = (
            f"{len(left_out)} of {len(left_out) + len(kept)} objects in {path.name} left out: they have fewer than "
            f"{views} images and matrices (first: {left_out[0]})",
        )
    return ObjectSplit(
        tuple(uids[number] for number in kept),
        tuple(folders[number] for number in kept),
        image_size,
        views,
        field_of_view,
        background,
        ImagePool(workers),
        digest.hexdigest(),
        notices,
    )


def _first_free(order: np.ndarray, taken: np.ndarray, count: int) -> np.ndarray:
    """The first `count` views of each row of `order` [B, V] that are not `taken` [B, V], by view number."""
    last = np.argsort(np.take_along_axis(taken, order, axis=1), axis=1, kind="stable")
    return np.take_along_axis(order, last, axis=1)[:, :count]


def _read_index(path: Path, root: Path) -> tuple[Sequence[str], Sequence[Path]]:
    try:
        # An object comes as a tuple of its pairs, so that a uid that stands twice is seen; an array as a list.
        index = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=tuple)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: write the split's objects there, as JSON {{uid: folder}}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}): mend or rewrite it") from None
    if isinstance(index, list):
        index = tuple((uid, uid) for uid in index)
    if not isinstance(index, tuple) or not index or not all(isinstance(part, str) for pair in index for part in pair):
        raise UserError(f"{path} must hold {{uid: folder}} or a list of uids, with at least one object")
    return [uid for uid, _ in index], [root / folder for _, folder in index]


def _check_apart(
    path: Path,
    uids: Sequence[str],
    folders: Sequence[Path],
    others: Mapping[Path, tuple[Sequence[str], Sequence[Path]]],
) -> None:
    """Refuse an object that is listed twice, in the list `path` or in it and one of the others."""
    by_uid: set[str] = set()
    by_folder: dict[str, str] = {}
    for uid, folder in zip(uids, _real(folders), strict=True):
        if uid in by_uid:
            raise UserError(f"{path}: {uid} is listed twice: list it once")
        if folder in by_folder:
            raise UserError(f"{path}: {by_folder[folder]} and {uid} have the same folder, {folder}: list it once")
        by_uid.add(uid)
        by_folder[folder] = uid
    for other, (other_uids, other_folders) in others.items():
        for uid, folder in zip(other_uids, _real(other_folders), strict=True):
            if uid in by_uid or folder in by_folder:
                shared = uid if uid in by_uid else f"{by_folder[folder]} (there {uid}, folder {folder})"
                raise UserError(
                    f"{path} and {other.name} share {shared}: training and scoring must not, leave it in one"
                )


def _real(folders: Sequence[Path]) -> Iterator[str]:
    """Where the folders are, with links followed; those above them are looked up once, for there may be a million."""
    above: dict[str, str] = {}
    for folder in folders:
        parent, name = os.path.split(folder)
        if parent not in above:
            above[parent] = os.path.realpath(parent)
        place = f"{above[parent]}{os.sep}{name}"
        yield os.path.realpath(place) if name == ".." or os.path.islink(place) else place


def _sizes(folder: Path, wanted: frozenset[str]) -> tuple[int, int] | None:
    """Bytes of the first image and the first matrix; None where one of the `wanted` files is missing."""
    try:
        if not wanted <= set(os.listdir(folder)):
            return None
        return (folder / "000.png").stat().st_size, (folder / "000.npy").stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return None


def _read_pose(path: Path) -> np.ndarray:
    """c2w [4, 4] fp32, OpenCV, from the stored world-to-Blender-camera matrix."""
    try:
        stored = np.load(path)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} cannot be read ({error}): render this object again") from None
    if stored.shape not in ((3, 4), (4, 4)) or stored.dtype.kind != "f":
        raise UserError(f"{path} must hold floats of shape [3, 4] or [4, 4], got {stored.dtype} {list(stored.shape)}")
    w2c = np.concatenate([stored, [[0, 0, 0, 1]]])[:4].astype(np.float64)
    check_poses(w2c[None], lambda _: f"{path}: the matrix")
    w2c[3] = 0, 0, 0, 1
    c2w = opengl_to_opencv(np.linalg.inv(w2c))
    # A matrix that is the pose itself puts the camera below the object, and most of its views look elsewhere.
    if c2w[:3, 2] @ -c2w[:3, 3] < MIN_FACING * np.linalg.norm(c2w[:3, 3]):
        raise UserError(
            f"the matrix of {path} looks away from the origin: does it hold camera to world? Zero-1-to-3 stores world to "
            "(Blender) camera; invert it"
        )
    return c2w.astype(np.float32)
