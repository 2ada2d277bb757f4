"""What a scene's `transforms.json`, or its `transforms_{train,val,test}.json`, say of its images; see `transforms`."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, cast

import numpy as np
from PIL import Image

from bench.data.cameras import check_poses, opengl_to_opencv
from bench.errors import UserError

SPLITS = {"train": "train", "validation": "val", "test": "test"}
"""Our splits and what the files call them."""
LENSES = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL")
OTHER_LENSES = ("is_fisheye", "ftheta_p0", "latlong", "equirectangular")
"""Keys by which instant-ngp marks a lens that is no pinhole."""
MAX_ROUNDING = 1e-5
"""Of a scene's extent: camera centres that fp32 would move by more are first brought to the origin."""
MIN_EXTENT = 1e-5
"""In world units: camera centres closer together than a file's decimals are those of a pure rotation."""
EXTENSIONS = ("", ".png", ".jpg", ".jpeg", ".PNG", ".JPG", ".JPEG", ".webp")


@dataclass(frozen=True, eq=False)
class Scene:
    """The frames of one scene, sorted by their paths."""

    name: str
    files: tuple[Path, ...]
    names: tuple[str, ...]
    """Each frame's path in the scene, without extension."""
    c2w: np.ndarray
    """[V, 4, 4] fp32, OpenCV."""
    cameras: np.ndarray
    """[V, 10] fp64: fx, fy, cx, cy, w, h, k1, k2, p1, p2."""
    roles: np.ndarray | None
    """[V] str: the split that each frame is listed in, "" where in none; None without lists."""
    digest: str
    """Of the files' text and the sizes of the images, wherever they lie."""


class _Frame(NamedTuple):
    """What a file says of one image."""

    name: str
    file: Path
    c2w: np.ndarray
    camera: tuple[float, ...]
    role: str = ""


def is_scene(folder: Path) -> bool:
    """Whether a folder holds a scene."""
    return any((folder / name).is_file() for name in ("transforms.json", "transforms_train.json"))


def read_scene(folder: Path, split: str) -> Scene:
    """The scene in a folder; of one that comes in a file for each split, the frames of training and of `split`.

    A scene far from the origin (georeferenced ones are) is moved so that the mean camera centre of its first file, the one
    that every split reads, is the origin: all splits of a scene agree on where it is.
    """
    frames: list[_Frame] = []
    lists: dict[str, Any] = {}
    digest = hashlib.sha256()
    listed = (folder / "transforms_train.json").is_file()
    if listed:
        for role in dict.fromkeys(("train", split)):
            path = folder / f"transforms_{SPLITS[role]}.json"
            if path.is_file():
                frames += [frame._replace(role=role) for frame in _read_frames(path, _read_json(path, digest))]
    else:
        path = folder / "transforms.json"
        document = _read_json(path, digest)
        frames = _read_frames(path, document)
        lists = {
            role: document[f"{word}_filenames"] for role, word in SPLITS.items() if f"{word}_filenames" in document
        }
    offset = _far_offset(np.stack([frame.c2w[:3, 3] for frame in frames if frame.role in ("", "train")]))
    frames.sort(key=lambda frame: frame.name)
    seen: dict[str, str] = {}
    for frame in frames:
        # By the file, since images/../images/0.png is another name for images/0.png.
        for key in {frame.name, os.path.realpath(frame.file)}:
            if key in seen:
                raise UserError(
                    f"{folder}: {frame.name} is listed twice (once as {seen[key]}), and a target could be an input: "
                    "list it once"
                )
            seen[key] = frame.name
        digest.update(f"{frame.name} {frame.file.stat().st_size}\n".encode())
    if lists:
        frames = _assign(path, frames, lists)
    c2w = np.stack([frame.c2w for frame in frames])
    c2w[:, :3, 3] -= offset
    return Scene(
        Path(os.path.abspath(folder)).name,
        tuple(frame.file for frame in frames),
        tuple(frame.name for frame in frames),
        c2w.astype(np.float32),
        np.array([frame.camera for frame in frames]),
        np.array([frame.role for frame in frames]) if listed or lists else None,
        digest.hexdigest(),
    )


def _far_offset(centres: np.ndarray) -> np.ndarray:
    """What to take from all camera centres: the mean of `centres` [V, 3] where the cast to fp32 would harm, else 0."""
    mean = centres.mean(axis=0)
    extent = np.abs(centres - mean).max()
    rounding = np.abs(mean).max() * np.finfo(np.float32).eps
    return mean if extent > MIN_EXTENT and rounding > MAX_ROUNDING * extent else np.zeros(3)


def _assign(path: Path, frames: Sequence[_Frame], lists: Mapping[str, Any]) -> list[_Frame]:
    """The frames with the split that each is listed in."""
    by_name = {frame.name: frame for frame in frames}
    for role, names in lists.items():
        for listed in names if isinstance(names, list) else [names]:
            name = _plain_name(listed) if isinstance(listed, str) else ""
            if name not in by_name:
                raise UserError(f"{path}: {SPLITS[role]}_filenames names {listed}, which is no frame's file_path")
            if by_name[name].role:
                raise UserError(
                    f"{path}: {listed} is in {SPLITS[by_name[name].role]}_filenames and {SPLITS[role]}_filenames"
                )
            by_name[name] = by_name[name]._replace(role=role)
    return list(by_name.values())


def _read_json(path: Path, digest: hashlib._Hash) -> dict[str, Any]:
    try:
        text = path.read_bytes()
        document = json.loads(text)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}): mend or rewrite it") from None
    if not isinstance(document, dict) or not isinstance(document.get("frames"), list) or not document["frames"]:
        raise UserError(f"{path}: frames must be a list with at least one frame")
    digest.update(f"{path.name} {len(text)}\n".encode() + text)
    return document


def _read_frames(path: Path, document: dict[str, Any]) -> list[_Frame]:
    matrices, frames = [], []
    for number, entry in enumerate(document["frames"]):
        where = f"{path}: frames[{number}]"
        if not isinstance(entry, dict) or not isinstance(entry.get("file_path"), str):
            raise UserError(f"{where} must have file_path, the path of its image")
        matrices.append(_matrix(entry.get("transform_matrix"), f"{where}.transform_matrix ({entry['file_path']})"))
        file = _find_image(path.parent, entry["file_path"], f"{where}.file_path")
        camera = _camera(ChainMap(entry, document), file, where)
        frames.append(_Frame(_plain_name(entry["file_path"]), file, np.empty(0), camera))
    stacked = np.stack(matrices)
    check_poses(stacked, lambda i: f"{path}: frames[{i}].transform_matrix ({document['frames'][i]['file_path']})")
    stacked[:, 3] = 0, 0, 0, 1
    return [frame._replace(c2w=pose) for frame, pose in zip(frames, opengl_to_opencv(stacked), strict=True)]


def _matrix(value: Any, where: str) -> np.ndarray:
    try:
        matrix = np.array(value, np.float64)
    except (TypeError, ValueError):
        matrix = np.empty(0)
    if matrix.shape == (3, 4):
        matrix = np.concatenate([matrix, [[0, 0, 0, 1]]])
    if matrix.shape != (4, 4):
        raise UserError(f"{where} must be a 4 x 4 matrix of numbers, camera to world")
    return matrix


def _plain_name(file_path: str) -> str:
    path = PurePosixPath(file_path)
    return str(path.with_suffix("") if path.suffix in EXTENSIONS else path)


def _find_image(folder: Path, file_path: str, where: str) -> Path:
    for extension in EXTENSIONS:
        found = folder / (file_path + extension)
        if found.is_file():
            return found
    raise UserError(
        f"{where}: no image {folder / file_path}, with or without extension: mend the path or drop the frame"
    )


def _camera(keys: Mapping[str, Any], file: Path, where: str) -> tuple[float, ...]:
    """The ten numbers of `Scene.cameras` from a frame's own keys and, behind them, those of its file."""
    lens = keys.get("camera_model", "OPENCV")
    if lens not in LENSES:
        raise UserError(
            f"{where}: camera_model {lens} is not supported, only {', '.join(LENSES)}: undistort the images"
        )
    for key in OTHER_LENSES:
        if keys.get(key):
            raise UserError(f"{where}: {key} is set, but only pinhole lenses are supported: undistort the images")
    for key in ("k3", "k4"):
        if _number(keys, key, where, 0.0):
            raise UserError(
                f"{where}: {key} is {keys[key]}, but only k1, k2, p1, p2 are supported: undistort the images"
            )
    width, height = _number(keys, "w", where), _number(keys, "h", where)
    if width is None or height is None:
        width, height = _image_size(file)
    fx = _focal(keys, "fl_x", "camera_angle_x", width, where)
    fy = _focal(keys, "fl_y", "camera_angle_y", height, where)
    fx, fy = fx if fx is not None else fy, fy if fy is not None else fx
    if fx is None or fy is None:
        raise UserError(f"{where} has neither fl_x nor camera_angle_x: add the focal length in pixels or the angle")
    if min(fx, fy, width, height) <= 0:
        raise UserError(f"{where}: fl_x, fl_y, w and h must be > 0, got {fx:g}, {fy:g}, {width:g}, {height:g}")
    centre = _number(keys, "cx", where, width / 2), _number(keys, "cy", where, height / 2)
    lens_numbers = (_number(keys, key, where, 0.0) for key in ("k1", "k2", "p1", "p2"))
    return cast("tuple[float, ...]", (fx, fy, *centre, width, height, *lens_numbers))


def _focal(keys: Mapping[str, Any], length: str, angle: str, extent: float, where: str) -> float | None:
    """Focal length in pixels, from its own key or from a field of view in radians over `extent` pixels."""
    pixels, radians = _number(keys, length, where), _number(keys, angle, where)
    if pixels is not None or radians is None:
        return pixels
    if not 0 < radians < math.pi:
        raise UserError(f"{where}: {angle} must lie between 0 and pi radians, got {radians:g}")
    return extent / 2 / math.tan(radians / 2)


def _number(keys: Mapping[str, Any], key: str, where: str, absent: float | None = None) -> float | None:
    value = keys.get(key)
    if value is None:
        return absent
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(f"{where}: {key} must be a finite number, got {value!r}")
    return float(value)


def _image_size(file: Path) -> tuple[float, float]:
    try:
        with Image.open(file) as image:
            return image.size
    except OSError as error:
        raise UserError(f"{file} cannot be read as an image ({error}): replace it or drop the frame") from None
