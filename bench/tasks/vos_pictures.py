"""What clips look like: frames with their masks in colour, true and as models see them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bench.data.video.clips import VOID
from bench.tasks.grid import labelled_grid

TIMES = 3
"""Frames of a clip that are shown: of the annotated ones the first, the last and what lies evenly between."""

COLOURS = np.array(
    [[230, 75, 53], [77, 187, 213], [240, 201, 60], [0, 160, 135], [140, 90, 200], [240, 140, 190], [120, 200, 80]]
)
"""RGB of the objects 1, 2, ..; further ones begin again."""
VOID_COLOUR = (160, 160, 160)

OPACITY = 0.55


def picture(clips: Sequence[tuple[NDArray[np.uint8], Mapping[str, NDArray[np.uint8]]]]) -> NDArray[np.uint8]:
    """Grid with a row for each clip and time, and a column for the plain frame and each kind of masks.

    Args:
        clips: of each, its frames [n, H, W, 3] and label to masks [n, H, W]: 0 background, 1.. objects, 255 void; all have the same
            labels. Clips of other sizes than the first are resized to it.

    Returns:
        uint8 [height, width, 3].
    """
    size = clips[0][0].shape[1:3]
    columns: dict[str, list[Tensor]] = {}
    for frames, masks in clips:
        tiles = {"frame": frames, **{label: overlay(frames, mask) for label, mask in masks.items()}}
        for label, images in tiles.items():
            columns.setdefault(label, []).append(_tile(images, size))
    return labelled_grid({label: torch.cat(parts) for label, parts in columns.items()})


def overlay(frames: NDArray[np.uint8], masks: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Frames [n, H, W, 3] in grey with the masks [n, H, W] laid over them in colour, which none of a frame's own can be taken for."""
    table = np.zeros((256, 3))
    table[1:] = COLOURS[np.arange(255) % len(COLOURS)]
    table[VOID] = VOID_COLOUR
    weight = OPACITY * (masks > 0)[..., None]
    grey = frames.mean(axis=-1, keepdims=True)
    mixed: NDArray[np.uint8] = (grey * (1 - weight) + table[masks] * weight).round().astype(np.uint8)
    return mixed


def _tile(images: NDArray[np.uint8], size: tuple[int, int]) -> Tensor:
    """Images [n, h, w, 3] as [n, 3, H, W] in 0..1."""
    tiles = torch.from_numpy(images).movedim(-1, 1).float() / 255
    return tiles if tiles.shape[2:] == size else F.interpolate(tiles, size, mode="bilinear", antialias=True)
