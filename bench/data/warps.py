"""Random warps of an image and its mask: rotation, scale and shear about the middle, and a thin-plate spline now and then.

The bounds are those with which video object segmentation is published to train on still images. Pillow samples on a mesh: one
480 x 854 image in 50 ms on a busy 2.6 GHz core, where SciPy takes 160 ms for the samples and 320 ms for a spline at every pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.interpolate import RBFInterpolator

ROTATION = 20.0
"""Degrees either way."""
SCALE = (0.9, 1.1)
SHEAR = 10.0
"""Degrees either way, along the rows."""
SPLINE_SHARE = 1 / 3
"""Of the frames, those that are bent too."""
CONTROL = 4
"""Points of the spline along each side."""
BEND = 0.04
"""How far a control point moves at most, as a share of the shorter side."""
MESH = 17
"""Lines of the mesh along each side on which the spline is evaluated."""
NUMBERS = 4 + 2 * CONTROL**2
"""Random numbers of one warp."""


@dataclass(frozen=True, eq=False)
class Warp:
    """Where each part of a warped image comes from: a mesh of quadrilaterals, bilinear within each.

    `make_warp` makes one. Coordinates are pixels, the corner of the first pixel is the origin.
    """

    rows: NDArray[np.int64]
    """[R] from 0 to the height: lines of the mesh in the warped image."""
    columns: NDArray[np.int64]
    """[C] from 0 to the width."""
    source: NDArray[np.float64]
    """[2, R, C] row and column in the image that the crossings of these lines come from."""

    def image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """RGB [H, W, 3], sampled bilinearly; beyond the border lies the image's mean colour."""
        colour = tuple(int(value) for value in np.rint(image.mean((0, 1))))
        return self._apply(image, Image.Resampling.BILINEAR, colour)

    def mask(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Object numbers [H, W] of the nearest pixels; beyond the border lies background."""
        return self._apply(mask, Image.Resampling.NEAREST, 0)

    def _apply(
        self, image: NDArray[np.uint8], how: Image.Resampling, beyond: int | tuple[int, ...]
    ) -> NDArray[np.uint8]:
        # Pillow asks for the corners north-west, south-west, south-east, north-east, each as x, y.
        nodes = self.source[::-1].transpose(1, 2, 0)
        quads = np.concatenate([nodes[:-1, :-1], nodes[1:, :-1], nodes[1:, 1:], nodes[:-1, 1:]], -1)
        (tops, bottoms), (lefts, rights) = ((lines[:-1], lines[1:]) for lines in (self.rows, self.columns))
        mesh = [
            ((int(left), int(top), int(right), int(bottom)), quads[row, column].tolist())
            for row, (top, bottom) in enumerate(zip(tops, bottoms, strict=True))
            for column, (left, right) in enumerate(zip(lefts, rights, strict=True))
        ]
        extent = (int(self.columns[-1]), int(self.rows[-1]))
        warped = Image.fromarray(image).transform(extent, Image.Transform.MESH, mesh, how, fillcolor=beyond)
        return np.asarray(warped)


def make_warp(numbers: NDArray[np.float64], shape: tuple[int, int]) -> Warp:
    """The warp of an image of `shape` (height, width) about its middle.

    Args:
        numbers: [`NUMBERS`] in 0..1: rotation, scale, shear, whether to bend, and by how much each control point moves.
        shape: height and width.
    """
    bent = numbers[3] < SPLINE_SHARE
    rows, columns = (np.unique(np.linspace(0, side, MESH if bent else 2).round().astype(np.int64)) for side in shape)
    angle = math.radians(ROTATION * (2 * numbers[0] - 1))
    scale = SCALE[0] + (SCALE[1] - SCALE[0]) * numbers[1]
    shear = math.tan(math.radians(SHEAR * (2 * numbers[2] - 1)))
    cosine, sine = math.cos(angle), math.sin(angle)
    # In (row, column): sheared along the rows, turned, scaled; the mesh needs the inverse.
    forward = scale * np.array([[cosine, sine], [-sine, cosine]]) @ np.array([[1.0, 0.0], [shear, 1.0]])
    middle = np.array(shape) / 2
    nodes = _lattice(rows, columns)
    source = (nodes - middle) @ np.linalg.inv(forward).T + middle
    if bent:
        points = _lattice(*(np.linspace(0, side, CONTROL) for side in shape))
        moves = BEND * min(shape) * (2 * numbers[4:].reshape(-1, 2) - 1)
        source += RBFInterpolator(points, moves, kernel="thin_plate_spline")(nodes)
    return Warp(rows, columns, source.T.reshape(2, len(rows), len(columns)))


def _lattice(rows: NDArray[Any], columns: NDArray[Any]) -> NDArray[np.float64]:
    """[R * C, 2] all pairs of a row and a column."""
    return np.stack(np.meshgrid(rows, columns, indexing="ij")).reshape(2, -1).T.astype(np.float64)
