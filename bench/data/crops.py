"""Square crops and mirroring of images for training and evaluation: functions of a sample's own draw, resized by Pillow."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.data.draws import Salt, below, stream

SCALE = (0.2, 1.0)
"""Share of the image's area that a random crop keeps, as MAE is trained."""
RATIO = (3 / 4, 4 / 3)
"""Width over height of a random crop, log-uniform."""
TRIES = 10
"""Draws of a crop that may miss the image before it is taken from the middle."""
CENTRE = 224 / 256
"""Side of the centre crop over the shorter side of the image, as ImageNet is evaluated."""

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom lie outside."""


def random_box(draw: np.uint64, height: int, width: int) -> Box:
    """Part of an image, a function of the draw and the image's size alone: torchvision's RandomResizedCrop.

    Area uniform in `SCALE`, aspect uniform in the logarithm of `RATIO`, place uniform; after `TRIES` misses the largest part
    about the middle whose aspect lies in `RATIO`.
    """
    hashes = stream(np.array([draw]), Salt.TASK_CROP, 4 * TRIES)[0].reshape(TRIES, 4)
    for area, aspect, column, row in hashes:
        kept = height * width * (SCALE[0] + (SCALE[1] - SCALE[0]) * _fraction(area))
        ratio = math.exp(math.log(RATIO[0]) + math.log(RATIO[1] / RATIO[0]) * _fraction(aspect))
        w, h = round(math.sqrt(kept * ratio)), round(math.sqrt(kept / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(below(column, width - w + 1)), int(below(row, height - h + 1))
            return left, top, left + w, top + h
    w, h = min(width, round(height * RATIO[1])), min(height, round(width / RATIO[0]))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def flips(draws: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """[B]: whether the image of each draw [B] is mirrored, one in two."""
    mirrored: NDArray[np.bool_] = stream(draws, Salt.TASK_FLIP, 1)[:, 0] >> np.uint64(63) == 1
    return mirrored


def crop_randomly(image: NDArray[np.uint8], draw: np.uint64, size: int) -> NDArray[np.uint8]:
    """The part `random_box` of an image [h, w, 3], resized bicubically to [size, size, 3].

    The part is cut out first: nothing beyond its border is mixed in.
    """
    part = Image.fromarray(image).crop(random_box(draw, *image.shape[:2]))
    return np.asarray(part.resize((size, size), Image.Resampling.BICUBIC))


def crop_centre(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The middle of an image [h, w, 3], `CENTRE` of its shorter side wide, resized bicubically to [size, size, 3]."""
    height, width = image.shape[:2]
    side = min(height, width) * CENTRE
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC, box=box))


def _fraction(value: np.uint64) -> float:
    """A hash as a number in 0..1, 1 excluded."""
    return int(value >> np.uint64(11)) * 2.0**-53
