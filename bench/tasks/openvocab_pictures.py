"""What answers look like: pictures with their classes in colour, true and as models see them."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bench.data.labelled import VOID
from bench.tasks.grid import labelled_grid

if TYPE_CHECKING:
    from bench.tasks.openvocab_evaluation import Scene

TURN = 0.61803398875
"""Of the hue from one class to the next: neighbours differ most."""
VOID_COLOUR = 0.6
OPACITY = 0.65


def grid(scenes: Sequence[Scene], columns: Mapping[str, Sequence[NDArray[np.int64]]]) -> NDArray[np.uint8]:
    """Grid with a row for each picture, and a column for it alone and for each kind of labels laid over it.

    Args:
        scenes: the pictures; those of another size than the first are resized to it.
        columns: heading -> labels [H, W] of each, a class or `VOID`.

    Returns:
        uint8 [height, width, 3].
    """
    size = scenes[0].labels.shape
    plain = [_picture(scene) for scene in scenes]
    tiles = {"picture": torch.stack([_fit(image, size) for image in plain])}
    for label, maps in columns.items():
        covered = [_overlay(image, torch.from_numpy(classes)) for image, classes in zip(plain, maps, strict=True)]
        tiles[label] = torch.stack([_fit(image, size) for image in covered])
    return labelled_grid(tiles)


def _picture(scene: Scene) -> Tensor:
    """RGB [3, H, W] in 0..1; of made-up features three channels of their finest guidance."""
    if "image" in scene.inputs:
        return scene.inputs["image"][0].float() / 255
    maps = scene.inputs["guidance_2"][0]
    return maps[torch.arange(3) % len(maps)].sigmoid()


def _overlay(image: Tensor, classes: Tensor) -> Tensor:
    """The picture in grey under the colours of its classes."""
    known = classes.masked_fill(classes == VOID, 0)
    table = torch.tensor([colorsys.hsv_to_rgb(number * TURN % 1, 0.85, 0.95) for number in range(int(known.max()) + 1)])
    colours = table[known].movedim(-1, 0)
    colours = torch.where(classes == VOID, VOID_COLOUR, colours)
    return image.mean(0) * (1 - OPACITY) + colours * OPACITY


def _fit(image: Tensor, size: tuple[int, ...]) -> Tensor:
    return image if image.shape[1:] == size else F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
