"""Renders of single objects (Objaverse, GSO, ABO) in the layout of Zero-1-to-3's Blender script.

    <root>/<split>.json             {uid: folder}, or a list of uids; a relative folder is taken from <root>
    <root>/<uid>/000.png 000.npy    RGBA on transparent ground; 3 x 4, world to Blender camera
                 001.png 001.npy    ... 32 views

The stored matrix is [R^T | -R^T t], the *inverse* of a pose. It is completed with 0 0 0 1, inverted, and its camera turned
from Blender's axes to OpenCV's. Read as camera to world, as the published object code does, every camera centre becomes
(0, 0, -radius). The objects stand at the origin in a frame of known size, so nothing is centred or scaled.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.data.arrays import shuffled
from bench.data.cameras import check_poses, opengl_to_opencv
from bench.data.draws import of_name
from bench.data.images import ImagePool, composite, decode, fit_square
from bench.data.multiview import Views
from bench.errors import UserError

VIEWS = 32
FIELD_OF_VIEW = 49.1
"""Vertical, degrees: a focal length of 560.44 at 512 pixels. The renders do not store it."""


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
        rank = np.argsort(shuffled(draws, self.views, salt=1), axis=1)
        edges = [self.views * group // input_views for group in range(input_views + 1)]
        inputs = np.stack(
            [start + rank[:, start:end].argmin(axis=1) for start, end in itertools.pairwise(edges)], axis=1
        )
        order = shuffled(draws, self.views, salt=2)
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
        order = shuffled(draws, self.views, salt=3)
        inputs = np.tile(np.arange(input_views), (len(order), 1))
        return inputs, _first_free(order, np.tile(np.arange(self.views) < input_views, (len(order), 1)), target_views)

    def load(self, scenes: np.ndarray, views: np.ndarray) -> Views:
        """Read views `views` [B, V] of the objects `scenes` [B], composited over the background.

        Raises:
            UserError: a file that cannot be read, or a matrix that is no rigid motion; names the file.
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
) -> ObjectSplit:
    """The objects of a split that are complete: 32 images and 32 matrices. Others are left out and counted in a notice.

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

    Raises:
        UserError: an index that is missing or malformed, or no complete object.
    """
    root = Path(root)
    path = Path(index) if index is not None else root / f"{split}.json"
    uids, folders = _read_index(path, root)
    if limit is not None and limit < 1:
        raise UserError(f"limit must be >= 1, got {limit}")
    wanted = frozenset(f"{view:03d}.{kind}" for view in range(views) for kind in ("png", "npy"))
    kept: list[int] = []
    left_out: list[str] = []
    with ThreadPoolExecutor(16) as pool:
        for start in range(0, len(uids), 1024):
            flags = pool.map(lambda folder: _complete(folder, wanted), folders[start : start + 1024])
            for number, complete in enumerate(flags, start):
                if complete:
                    kept.append(number)
                else:
                    left_out.append(uids[number])
                if len(kept) == limit:
                    break
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
        notices,
    )


def _first_free(order: np.ndarray, taken: np.ndarray, count: int) -> np.ndarray:
    """The first `count` views of each row of `order` [B, V] that are not `taken` [B, V], by view number."""
    last = np.argsort(np.take_along_axis(taken, order, axis=1), axis=1, kind="stable")
    return np.take_along_axis(order, last, axis=1)[:, :count]


def _read_index(path: Path, root: Path) -> tuple[Sequence[str], Sequence[Path]]:
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: write the split's objects there, as JSON {{uid: folder}}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}): mend or rewrite it") from None
    if isinstance(index, list):
        index = {uid: uid for uid in index if isinstance(uid, str)} if all(isinstance(u, str) for u in index) else None
    if not isinstance(index, dict) or not index or not all(isinstance(folder, str) for folder in index.values()):
        raise UserError(f"{path} must hold {{uid: folder}} or a list of uids, with at least one object")
    return list(index), [root / folder for folder in index.values()]


def _complete(folder: Path, wanted: frozenset[str]) -> bool:
    try:
        return wanted <= set(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return False


def _read_pose(path: Path) -> np.ndarray:
    """c2w [4, 4] fp32, OpenCV, from the stored world-to-Blender-camera matrix."""
    try:
        stored = np.load(path)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} cannot be read ({error}): render this object again") from None
    if stored.shape != (3, 4) or stored.dtype.kind != "f":
        raise UserError(f"{path} must hold floats of shape [3, 4], got {stored.dtype} {list(stored.shape)}")
    w2c = np.concatenate([stored.astype(np.float64), [[0, 0, 0, 1]]])
    check_poses(w2c[None], lambda _: f"{path}: the matrix")
    return opengl_to_opencv(np.linalg.inv(w2c)).astype(np.float32)
