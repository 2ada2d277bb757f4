"""Clips of real video at the size that a model takes: the shorter side resized, then padded, and back again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.data.video.clips import VOID
from bench.errors import UserError

PADDING = (124, 116, 104)
"""Colour around a frame: ImageNet's mean, which is near 0 once normalised."""


@dataclass(frozen=True)
class Fit:
    """How frames of one size come to another: resized to (`height`, `width`), then padded about the middle.

    `make_fit` makes one.
    """

    source: tuple[int, int]
    """Height and width of the data set's frames."""
    height: int
    width: int
    padded: tuple[int, int]
    """Height and width of the result."""

    @property
    def inside(self) -> tuple[slice, slice]:
        """Rows and columns of the result that are picture, not padding."""
        top, left = (self.padded[0] - self.height) // 2, (self.padded[1] - self.width) // 2
        return slice(top, top + self.height), slice(left, left + self.width)

    def frames(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """RGB [n, H, W, 3] in the new size: bilinear with antialiasing, around it `PADDING`."""
        out = np.empty((len(frames), *self.padded, 3), np.uint8)
        out[:] = PADDING
        for new, frame in zip(out, frames, strict=True):
            new[self.inside] = self._resized(frame, Image.Resampling.BILINEAR)
        return out

    def masks(self, masks: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Object numbers [n, H, W] in the new size: nearest neighbour, around it void."""
        out = np.full((len(masks), *self.padded), VOID, np.uint8)
        for new, mask in zip(out, masks, strict=True):
            new[self.inside] = self._resized(mask, Image.Resampling.NEAREST)
        return out

    def undo(self, scores: NDArray[np.floating]) -> NDArray[np.float32]:
        """Scores [C, .., ..] of a result, one map a class, in the data set's size [C, H, W]: bilinear, without the padding."""
        rows, columns = self.inside
        maps = (Image.fromarray(one[rows, columns].astype(np.float32)) for one in scores)
        return np.stack([np.asarray(one.resize(self.source[::-1], Image.Resampling.BILINEAR)) for one in maps])

    def _resized(self, image: NDArray[np.uint8], how: Image.Resampling) -> NDArray[Any]:
        if image.shape[:2] != self.source:
            raise ValueError(f"made for {self.source}, got {image.shape[:2]}")
        return np.asarray(Image.fromarray(image).resize((self.width, self.height), how))


def make_fit(shape: tuple[int, int], size: int | None, multiple: int = 16) -> Fit:
    """Fit frames of `shape` (height, width): the shorter side to `size`, the other in proportion, both padded to a multiple.

    Args:
        shape: of the frames.
        size: pixels of the shorter side; None keeps the frames as they are, but for the padding.
        multiple: of both padded sides, at least 1: the stride of the model.

    Raises:
        UserError: a size or multiple below 1.
    """
    if (size is not None and size < 1) or multiple < 1:
        raise UserError(f"size and multiple must be >= 1, got {size} and {multiple}")
    scale = 1 if size is None else size / min(shape)
    height, width = (max(1, round(side * scale)) for side in shape)
    padded = (-(-height // multiple) * multiple, -(-width // multiple) * multiple)
    return Fit(shape, height, width, padded)
