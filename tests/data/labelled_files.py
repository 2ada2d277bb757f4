"""Pictures with index masks made up, as files in the published layouts and in a user's own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from bench.data.labelled_sets import LAYOUTS
from tests.data.video_files import picture, save_frame

SHAPE = (6, 8)


def indices(*values: int, dtype: type = np.uint8) -> np.ndarray:
    """A mask [6, 8] whose upper half has these values in turn, one a column; the lower half has the first one."""
    mask = np.full(SHAPE, values[0], dtype)
    mask[:3] = np.resize(np.array(values, dtype), SHAPE[1])
    return mask


def save_pair(images: Path, masks: Path, stem: str, mask: np.ndarray, number: int = 0) -> None:
    """A JPEG and its mask: 16 bits as .tif, 8 as .png."""
    save_frame(images / f"{stem}.jpg", picture(number, shape=SHAPE))
    masks.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(masks / f"{stem}{'.tif' if mask.dtype == np.uint16 else '.png'}")


def save_names(path: Path, names: list[str]) -> list[str]:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(names) if path.suffix == ".json" else "".join(f"{name}\n" for name in names))
    return names


def save_set(root: Path, data: str, split: str = "test", count: int = 3) -> Path:
    """A published data set below `root`: the masks hold the first and the last index that labels have, and void."""
    layout = LAYOUTS[data]
    home = root / layout.home
    last = layout.background_from or layout.classes - 1
    dtype = np.uint16 if max(last, layout.ignore_index) > 255 else np.uint8
    images, masks = layout.test if split == "test" else layout.train
    for number in range(count):
        mask = indices(0, last, layout.ignore_index, dtype=dtype)
        save_pair(home / images, home / masks, f"{split}_{number}", mask, number)
    save_names(home / f"{layout.class_list}.json", [f"thing {index}" for index in range(layout.classes)])
    return home


def save_folder(root: Path, count: int, sub: str = "", names: str = "classes.txt") -> Path:
    """A user's own: classes sky, grass, tree."""
    for number in range(count):
        save_pair(root / "images" / sub, root / "masks" / sub, f"{sub}{number}", indices(number % 3, 2, 255), number)
    save_names(root / names, ["sky", "grass", "tree"])
    return root
