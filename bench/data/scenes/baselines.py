"""Three predictions that learn nothing: the floor that a trained model has to clear, and a geometric yardstick.

Each is a function `(inputs, c2w, intrinsics) -> uint8 [T, H, W, 3]` of one scene's `Inputs` and its T target cameras.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.data.scenes.cache import SceneSplit

Floats = NDArray[np.floating]
Bytes = NDArray[np.uint8]

OCCLUSION_MARGIN = 0.02
"""Points within this share of the nearest depth in a pixel belong to the same surface."""
FAR = 1e4
"""Where the sky is put, in world units, so that it only turns and never shifts."""


@dataclass(frozen=True)
class Inputs:
    """What is known of one scene: I posed views."""

    rgb: Bytes
    """[I, H, W, 3]"""
    depth: Floats | None
    """z-depth, 0 for the sky [I, H, W]; only `depth_warp` needs it."""
    c2w: Floats
    """[I, 4, 4]"""
    intrinsics: Floats
    """(fx, fy, cx, cy) in pixels [I, 4]"""


def mean_colour(inputs: Inputs, c2w: Floats, intrinsics: Floats) -> Bytes:
    """Paint every target in the mean colour of the input views."""
    colour = np.rint(inputs.rgb.mean(axis=(0, 1, 2))).astype(np.uint8)
    return np.broadcast_to(colour, (len(c2w), *inputs.rgb.shape[1:])).copy()


def nearest_view(inputs: Inputs, c2w: Floats, intrinsics: Floats) -> Bytes:
    """Repeat the input view whose camera centre is nearest to the target's."""
    return inputs.rgb[_by_distance(inputs, c2w)[:, 0]]


def depth_warp(inputs: Inputs, c2w: Floats, intrinsics: Floats) -> Bytes:
    """Carry the nearest input view's pixels to the target by their true depth.

    Holes are filled from the next nearest input, and what none of them saw with the inputs' mean colour. Shadows and
    diffuse colours do not depend on the view, so what is seen is exact up to resampling.
    """
    assert inputs.depth is not None, "the warp needs depth"
    result = mean_colour(inputs, c2w, intrinsics)
    for target, order in enumerate(_by_distance(inputs, c2w)):
        hole = np.ones(result.shape[1:3], bool)
        for view in order:
            image, covered = warp(
                inputs.rgb[view],
                inputs.depth[view],
                inputs.c2w[view],
                inputs.intrinsics[view],
                c2w[target],
                intrinsics[target],
            )
            take = hole & covered
            result[target][take] = image[take]
            hole &= ~covered
    return result


BASELINES: dict[str, Callable[[Inputs, Floats, Floats], Bytes]] = {
    "mean colour": mean_colour,
    "nearest input view": nearest_view,
    "input warped by true depth": depth_warp,
}


def warp(
    rgb: Bytes, depth: Floats, c2w: Floats, intrinsics: Floats, to_c2w: Floats, to_intrinsics: Floats
) -> tuple[Bytes, NDArray[np.bool_]]:
    """Splat one view [H, W, 3] into another camera; return the image and where it is covered [H, W].

    Each point is shared bilinearly among the four pixels around it; in each pixel the nearest surface wins.
    """
    height, width = depth.shape
    points = unproject(depth, c2w, intrinsics).reshape(-1, 3)
    x, y, z = project(points, to_c2w, to_intrinsics)
    left, top = np.floor(x - 0.5), np.floor(y - 0.5)
    best = np.full(height * width, np.inf)
    splats = []
    for column, row in ((left, top), (left + 1, top), (left, top + 1), (left + 1, top + 1)):
        weight = (1 - np.abs(x - 0.5 - column)) * (1 - np.abs(y - 0.5 - row))
        inside = (z > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height) & (weight > 0.02)
        source = np.flatnonzero(inside)
        pixel = (row[source] * width + column[source]).astype(np.int64)
        np.minimum.at(best, pixel, z[source])
        splats.append((source, pixel, weight[source]))
    colours = np.zeros((height * width, 4))
    for source, pixel, weight in splats:
        front = z[source] <= best[pixel] * (1 + OCCLUSION_MARGIN)
        values = np.concatenate([rgb.reshape(-1, 3)[source[front]], np.ones((front.sum(), 1))], axis=1)
        np.add.at(colours, pixel[front], values * weight[front, None])
    covered = colours[:, 3] > 0
    image = np.rint(colours[:, :3] / np.where(covered, colours[:, 3], 1)[:, None]).astype(np.uint8)
    return image.reshape(height, width, 3), covered.reshape(height, width)


def unproject(depth: Floats, c2w: Floats, intrinsics: Floats) -> NDArray[np.float64]:
    """World points [H, W, 3] at the pixel centres of a depth map [H, W]; sky pixels (0) are put very far away."""
    fx, fy, cx, cy = intrinsics.astype(np.float64)
    rows, columns = np.indices(depth.shape)
    z = np.where(depth > 0, depth, FAR).astype(np.float64)
    camera = np.stack([(columns + 0.5 - cx) / fx * z, (rows + 0.5 - cy) / fy * z, z], axis=-1)
    return camera @ c2w[:3, :3].T.astype(np.float64) + c2w[:3, 3]


def project(points: Floats, c2w: Floats, intrinsics: Floats) -> tuple[NDArray[np.float64], ...]:
    """Pixel coordinates x, y (centres at + 0.5) and z-depth of world points [N, 3]; x, y mean nothing where z <= 0."""
    fx, fy, cx, cy = intrinsics.astype(np.float64)
    camera = (points - c2w[:3, 3]) @ c2w[:3, :3].astype(np.float64)
    z = camera[:, 2]
    safe = np.where(z > 0, z, 1.0)
    return fx * camera[:, 0] / safe + cx, fy * camera[:, 1] / safe + cy, z


def _by_distance(inputs: Inputs, c2w: Floats) -> NDArray[np.intp]:
    """Input views from near to far for each target [T, I]."""
    distance = np.linalg.norm(c2w[:, None, :3, 3] - inputs.c2w[None, :, :3, 3], axis=-1)
    return np.argsort(distance, axis=1, kind="stable")


def score(split: SceneSplit, inputs: Sequence[int] = (0, 1)) -> dict[str, NDArray[np.float64]]:
    """PSNR in dB [N, T] of each baseline, with views `inputs` given and all others predicted."""
    given = np.asarray(inputs)
    targets = np.setdiff1d(np.arange(split.rgb.shape[1]), given)
    result: dict[str, list[NDArray[np.float64]]] = {name: [] for name in BASELINES}
    for scene in range(len(split)):
        rgb, c2w, intrinsics = split.rgb[scene], split.c2w[scene], split.intrinsics[scene]
        known = Inputs(rgb[given], split.depth[scene][given], c2w[given], intrinsics[given])
        for name, predict in BASELINES.items():
            error = predict(known, c2w[targets], intrinsics[targets]).astype(np.float64) - rgb[targets]
            result[name].append(-10 * np.log10(np.maximum(np.square(error / 255).mean(axis=(1, 2, 3)), 1e-10)))
    return {name: np.stack(values) for name, values in result.items()}
