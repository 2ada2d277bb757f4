"""RealEstate10K as LVSM converts it: one PNG a frame and one JSON a clip.

    OUT/{train,test}/full_list.txt               paths of the JSON files, one a line
    OUT/{train,test}/metadata/<key>.json         {"scene_name", "frames": [{"image_path", "fxfycxcy", "w2c"}]}
    OUT/{train,test}/images/<key>/00042.png      frame 42 of the clip

``fxfycxcy`` is in pixels of the PNG, ``w2c`` a 4 x 4 world-to-camera matrix (OpenCV). Paths are those of the machine that
converted; where they lead nowhere, files are looked for at their places in the tree. A frame's number is its file's name,
never its place in the list: LVSM's converter leaves frames out that it cannot read, and whoever counts is off by one then.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.data.images import decode
from bench.data.re10k.index import FRAME, Part, Scene, SceneIndex, open_index, summarise
from bench.errors import UserError

if TYPE_CHECKING:
    from bench.data.scenes.cache import Progress

CLIPS_PER_PART = 64
"""JSON files of one part of the index."""


class Tree:
    """A split as a tree of PNG files."""

    normalised = False
    """Intrinsics are in pixels of the PNG."""

    def __init__(
        self, folder: Path, cache_dir: Path, *, workers: int | None = None, report: Progress | None = None
    ) -> None:
        """Open the tree in `folder`; the index is made if it is not in the cache.

        Raises:
            UserError: full_list.txt or a file that it names is missing or not of this layout.
        """
        self.folder = folder
        files = list_clips(folder)
        self.index: SceneIndex = open_index(
            folder,
            "tree",
            files,
            self._read,
            cache_dir,
            files_per_part=CLIPS_PER_PART,
            workers=workers,
            report=report,
        )

    def image(self, scene: Scene, frame: np.void) -> NDArray[np.uint8]:
        """One image [h, w, 3], decoded.

        Raises:
            UserError: it is missing or damaged; names it.
        """
        return decode(self.folder / scene.source / frame_name(int(frame["number"])))[..., :3]

    def _read(self, files: Sequence[Path]) -> Part:
        return [self._read_clip(path) for path in files]

    def _read_clip(self, path: Path) -> tuple[Scene, NDArray[np.void]]:
        try:
            clip = json.loads(path.read_text())
            key, images = str(clip["scene_name"]), [Path(frame["image_path"]) for frame in clip["frames"]]
            frames = np.zeros(len(images), FRAME)
            frames["number"] = [int(image.stem) for image in images]
            frames["intrinsics"] = [frame["fxfycxcy"] for frame in clip["frames"]]
            frames["w2c"] = np.array([frame["w2c"] for frame in clip["frames"]], np.float64)[:, :3]
            if (np.diff(frames["number"]) <= 0).any() or any(
                image.name != frame_name(int(image.stem)) for image in images
            ):
                raise ValueError("its images must be named 00000.png, 00001.png, ... in this order")
            source = Path("images") / key
            if not (self.folder / source / images[0].name).is_file() and images[0].is_file():
                source = images[0].resolve().parent
            there = set(os.listdir(self.folder / source))
            if missing := [image.name for image in images if image.name not in there]:
                raise UserError(f"{self.folder / source / missing[0]} is missing; convert the data again")
            with Image.open(self.folder / source / images[0].name) as image:
                shape = (image.height, image.width)
            scene = summarise(key, str(source), frames, shape, normalised=False)
            return replace(scene, damaged=len(clip.get("failed_frames", ()))), frames
        except FileNotFoundError as error:
            raise UserError(f"{error.filename} is missing; convert the data again") from error
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise UserError(f"{path} does not describe a clip ({type(error).__name__}: {error})") from error


def frame_name(number: int) -> str:
    """File of a frame."""
    return f"{number:05d}.png"


def list_clips(folder: Path) -> list[Path]:
    """The JSON files that ``full_list.txt`` names, each as it stands there or else at its place in the tree.

    Raises:
        UserError: full_list.txt is missing or names nothing.
    """
    path = folder / "full_list.txt"
    try:
        lines = path.read_text().split("\n")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); convert the data again") from error
    files = [Path(line.strip()) for line in lines if line.strip()]
    if not files:
        raise UserError(f"{path} names no clip; convert the data again")
    return [file if file.is_absolute() and file.is_file() else folder / "metadata" / file.name for file in files]
