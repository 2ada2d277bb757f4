"""Scenes in a `transforms.json`: instant-ngp, nerfstudio and the synthetic scenes of NeRF (Blender).

    <root>/transforms.json                           one scene, or
    <root>/transforms_{train,val,test}.json          one scene with its own split, or
    <root>/<scene>/transforms*.json                  several scenes of either kind

A file has `frames`, each with `file_path` (with or without extension) and `transform_matrix` (OpenGL camera to world), and
the camera in pixels of a `w` x `h` image, for all frames or inside each: `fl_x`, `fl_y` or `camera_angle_x`, `camera_angle_y`,
`cx`, `cy`, and OpenCV's distortion `k1`, `k2`, `p1`, `p2`, which is taken out of the images as they are read.

Left unread, because poses and images of a file agree with each other without them: `applied_transform`, `applied_scale`,
`scale`, `offset`, `aabb_scale`, `ply_file_path`, depths, masks. Lenses that no pinhole camera can stand for are refused.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from scipy.ndimage import map_coordinates

from bench.data.arrays import shuffled
from bench.data.cameras import undistorted_square
from bench.data.draws import Salt, of_name
from bench.data.images import ImagePool, composite, decode, fit_square
from bench.data.multiview import Views
from bench.data.transforms_file import SPLITS, Scene, is_scene, read_scene
from bench.errors import UserError

if TYPE_CHECKING:
    from bench.data.scenes.cache import Progress

HELD_OUT_EVERY = 8
"""One scene without lists: frame 0, 8, 16.. by file path is for test, 4, 12, 20.. for validation, the rest for training."""
MAX_ASPECT_ERROR = 0.02
"""Images may be smaller than `w` x `h` says, by one factor; rounding a side of 100 pixels is one per cent."""


@dataclass(frozen=True, eq=False)
class TransformsSplit:
    """A `MultiViewSplit` over `transforms.json` files; see `open_transforms`.

    What the protocol calls a scene is here an item: a scene, or, where the split is of frames, a frame of the split, which
    is then the item's first target.
    """

    scenes: tuple[Scene, ...]
    items: tuple[tuple[int, int], ...]
    """Scene, and its frame of the split or -1."""
    split: str
    image_size: int
    neighbours: int | None
    background: tuple[int, int, int]
    pool: ImagePool
    single: bool
    """Whether the root is itself the one scene: what its folder is called is then no part of a name."""
    fingerprint: str
    """Digest of what the split holds, wherever it lies: the files' text, the sizes of the images, the items."""

    def __len__(self) -> int:
        """Number of items."""
        return len(self.items)

    def sample_name(self, scene: int, view: int) -> str:
        """``<scene>/<file path without extension>``; the path alone where the root is itself the scene."""
        found = self.scenes[self.items[scene][0]]
        return found.names[view] if self.single else f"{found.name}/{found.names[view]}"

    def choose(
        self, scenes: np.ndarray, draws: np.ndarray, input_views: int, target_views: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Any views of a scene that the split may show, or of the `neighbours` nearest to the first target.

        Raises:
            UserError: too few of them for Vi + Vt views; names the scene.
        """
        if self.split != "train" and self.items[0][1] >= 0:
            target_views = 1
        chosen = [
            self._choose(*self.items[int(item)], draw, input_views, target_views)
            for item, draw in zip(scenes, draws, strict=True)
        ]
        inputs, targets = zip(*chosen, strict=True)
        return np.stack(inputs), np.stack(targets)

    def choose_evaluation(
        self, scenes: np.ndarray, input_views: int, target_views: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """As in training, with a hash of the item's name for a draw; held-out frames are one target each, with T = 1.

        Raises:
            UserError: too few of them for Vi + Vt views; names the scene.
        """
        draws = np.array([of_name(self._item_name(item)) for item in scenes])
        return self.choose(scenes, draws, input_views, target_views)

    def load(self, scenes: np.ndarray, views: np.ndarray) -> Views:
        """Read views `views` [B, V] of the items `scenes` [B]: undistorted, cropped to the middle square, resized.

        Raises:
            UserError: an image that cannot be read, or is of another shape than `w` x `h`; names the file.
        """
        places = [
            (self.scenes[self.items[item][0]], int(view))
            for item, row in zip(scenes, views, strict=True)
            for view in row
        ]
        read = self.pool.map(lambda place: self._read(*place), places)
        rgb, intrinsics = (np.stack(parts).reshape(*views.shape, *parts[0].shape) for parts in zip(*read, strict=True))
        c2w = np.stack([scene.c2w[view] for scene, view in places]).reshape(*views.shape, 4, 4)
        return Views(rgb, c2w, intrinsics)

    def _choose(
        self, number: int, frame: int, draw: np.uint64, input_views: int, target_views: int
    ) -> tuple[np.ndarray, np.ndarray]:
        scene = self.scenes[number]
        order = shuffled(np.array([draw]), len(scene.files), salt=Salt.VIEWS)[0]
        anchor = int(order[-1]) if frame < 0 else frame
        others = np.ones(len(order), bool) if scene.roles is None else scene.roles == "train"
        others[anchor] = False
        if self.neighbours is not None:
            far = np.where(others, _distances(scene.c2w, anchor), np.inf).argsort(kind="stable")[self.neighbours :]
            others[far] = False
        free = order[others[order]]
        needed = input_views + target_views - 1
        if len(free) < needed:
            raise UserError(
                f"{scene.name}: {input_views} inputs and {target_views} targets do not fit the {len(free) + 1} views to "
                "choose from; ask for fewer, raise neighbours, or leave the scene out"
            )
        return free[:input_views], np.concatenate([[anchor], free[len(free) - target_views + 1 :]])

    def _item_name(self, item: int) -> str:
        number, anchor = self.items[item]
        return self.scenes[number].name if anchor < 0 else self.sample_name(item, anchor)

    def _read(self, scene: Scene, view: int) -> tuple[np.ndarray, np.ndarray]:
        path, camera = scene.files[view], scene.cameras[view]
        rgb = composite(decode(path), self.background)
        (height, width), (declared_width, declared_height) = rgb.shape[:2], camera[4:6]
        scale = np.array([width / declared_width, height / declared_height])
        if abs(scale[0] / scale[1] - 1) > MAX_ASPECT_ERROR:
            raise UserError(
                f"{path} is {width} x {height}, but w and h of its frame say {declared_width:g} x {declared_height:g}: "
                "they must differ by one factor only"
            )
        intrinsics = camera[:4] * np.tile(scale, 2)
        if camera[6:].any():
            return fit_square(*_undistort(path, rgb, intrinsics, camera[6:], self.image_size), self.image_size)
        # Cut here, so that fit_square need not round the longer side: a phone's 4 : 3 at 64 pixels would be stretched.
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        return fit_square(rgb[top : top + side, left : left + side], intrinsics - (0, 0, left, top), self.image_size)


def open_transforms(
    root: str | os.PathLike[str],
    split: str,
    *,
    image_size: int,
    neighbours: int | None = None,
    background: tuple[int, int, int] = (255, 255, 255),
    workers: int | None = None,
    report: Progress | None = None,
) -> TransformsSplit:
    """The part of one scene, or of a folder of scenes, that belongs to a split.

    Lists come first: `transforms_{train,val,test}.json`, or `{train,val,test}_filenames` inside `transforms.json`. Every
    frame of the split is then an item: its image is a target, the inputs are training frames. One scene without lists is
    split the same way by `HELD_OUT_EVERY`. Several scenes without lists are split as wholes: sorted by a hash of their
    names, the first tenth (at least one) is for test, as many are for validation, and the rest for training.

    Args:
        root: the scene's folder, or the folder of scene folders.
        split: ``train``, ``validation`` or ``test``.
        image_size: side of the images that come out, in pixels.
        neighbours: draw a sample's other views among this many cameras nearest to its first target (see `_distances`);
            by default from the whole scene.
        background: what transparent pixels are composited over, 0 to 255.
        workers: threads that read images; by default one for each usable core.
        report: ``report(label, done, total)``; the unit is a scene.

    Raises:
        UserError: no scene, a split without frames, or whatever is wrong in a file, by file, frame and field.
    """
    root = Path(root)
    if split not in SPLITS:
        raise UserError(f"split must be one of {', '.join(SPLITS)}, got {split}")
    if neighbours is not None and neighbours < 1:
        raise UserError(f"neighbours must be >= 1, got {neighbours}")
    if not root.is_dir():
        raise UserError(f"{root} is no folder: give the folder of a scene or of several")
    folders = [root] if is_scene(root) else sorted(folder for folder in root.iterdir() if is_scene(folder))
    if not folders:
        raise UserError(
            f"{root} holds no transforms.json, nor does a folder in it: give the folder of a scene or of several"
        )
    label = "reading transforms.json"
    if report:
        report(label, 0, len(folders))
    start = folders[0]
    first = read_scene(start, split)
    if len(folders) == 1 and first.roles is None:
        place = np.arange(len(first.files)) % HELD_OUT_EVERY
        roles = np.select([place == 0, place == HELD_OUT_EVERY // 2], ["test", "validation"], "train")
        first = replace(first, roles=roles)
    elif first.roles is None:
        folders = _split_scenes(root, folders, split)
    scenes: list[Scene] = []
    for folder in folders:
        scenes.append(first if folder == start else read_scene(folder, split))
        if report:
            report(label, len(scenes), len(folders))
    items: list[tuple[int, int]] = []
    for number, scene in enumerate(scenes):
        if (scene.roles is None) != (first.roles is None):
            raise UserError(
                f"{root}: {first.name} and {scene.name} must both list their train and test frames, or neither: add the "
                "lists or take one away"
            )
        if scene.roles is None:
            items.append((number, -1))
            continue
        chosen = np.flatnonzero(scene.roles == split)
        if not len(chosen) or not (scene.roles == "train").any():
            lacking = split if not len(chosen) else "train"
            raise UserError(
                f"{scene.name} has no frame for {lacking}: add transforms_{SPLITS[lacking]}.json, or "
                f"{SPLITS[lacking]}_filenames in transforms.json, or more frames"
            )
        items += [(number, int(frame)) for frame in chosen]
    single = start == root
    held = [(scene.digest if single else f"{scene.name} {scene.digest}") for scene in scenes]
    return TransformsSplit(
        tuple(scenes),
        tuple(items),
        split,
        image_size,
        neighbours,
        background,
        ImagePool(workers),
        single,
        hashlib.sha256(repr((held, items)).encode()).hexdigest(),
    )


def _split_scenes(root: Path, folders: Sequence[Path], split: str) -> list[Path]:
    if len(folders) < 3:
        raise UserError(f"{root} holds {len(folders)} scenes without lists of frames: splitting scenes takes 3 or more")
    ranked = sorted(folders, key=lambda folder: (of_name(folder.name), folder.name))
    count = max(1, len(folders) // 10)
    parts = {"test": ranked[:count], "validation": ranked[count : 2 * count], "train": ranked[2 * count :]}
    return sorted(parts[split])


def _distances(c2w: np.ndarray, anchor: int) -> np.ndarray:
    """How far each camera [V] is from one of them: centre distance, its mean over the scene being 1, plus angle in radians."""
    centres, forward = c2w[:, :3, 3], c2w[:, :3, 2]
    distance = np.linalg.norm(centres - centres[anchor], axis=-1)
    return distance / max(distance.mean(), 1e-12) + np.arccos(np.clip(forward @ forward[anchor], -1, 1))


# -------------------------------------------------------------------------------------------------------- distortion


def _undistort(
    path: Path, rgb: np.ndarray, intrinsics: np.ndarray, coefficients: np.ndarray, image_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """The middle square of the ideal image and its intrinsics.

    A large photograph is first averaged down to two pixels for each one that is asked for: the lens is taken out of a
    fraction of the pixels, and what bilinear sampling blurs is averaged away afterwards.
    """
    height, width = rgb.shape[:2]
    shrink = 2 * image_size / min(height, width)
    if shrink < 1:
        size = round(width * shrink), round(height * shrink)
        rgb = np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BOX))
        intrinsics = intrinsics * np.tile([size[0] / width, size[1] / height], 2)
        width, height = size
    try:
        ideal, places = _undistortion(tuple(intrinsics), tuple(coefficients), width, height)
    except ValueError as error:
        raise UserError(f"{path}: k1, k2, p1, p2 = {', '.join(f'{k:g}' for k in coefficients)}: {error}") from None
    channels = [map_coordinates(rgb[..., c], places, order=1, mode="nearest") for c in range(3)]
    return np.stack(channels, axis=-1), ideal


@functools.lru_cache(maxsize=8)
def _undistortion(
    intrinsics: tuple[float, ...], coefficients: tuple[float, ...], width: int, height: int
) -> tuple[np.ndarray, np.ndarray]:
    """`undistorted_square`, once for all images of a camera; with a camera for each frame, once for each image.

    A map has at most (2 image_size)^2 places in fp32: 2 MB at 256 pixels, of which the last 8 are kept.
    """
    ideal, places = undistorted_square(np.array(intrinsics), np.array(coefficients), width, height)
    return ideal, places.astype(np.float32)
