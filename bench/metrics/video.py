"""How well masks follow objects through a clip: region similarity J, boundary accuracy F, and what they do over time.

By the definitions of DAVIS (Perazzi et al. 2016; Pont-Tuset et al. 2017). Masks are stacks [N, H, W] bool of one object, one
entry a frame. Void pixels must be taken out of both masks first (`without_void`): they are in no object.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Masks = NDArray[np.bool_]
Values = NDArray[np.float64]

TOLERANCE = 0.008
"""Share of the image's diagonal by which two boundaries may lie apart and still match."""
RECALLED = 0.5
"""A frame is recalled whose value is above this."""
CHUNK_PIXELS = 1 << 22
"""Frames are taken together up to so many pixels: all of a small clip, a few of a large one."""

CONVENTIONS = (
    "per object the mean over its frames, without the one in which its mask is given and the last one of the clip; then the mean "
    "over objects; void pixels belong to no object"
)
"""What J, F and their mean share, for notes under tables."""


def tolerance(height: int, width: int) -> int:
    """Pixels by which boundaries may lie apart: `TOLERANCE` of the diagonal, rounded up."""
    return math.ceil(TOLERANCE * math.hypot(height, width))


def without_void(masks: Masks, void: Masks) -> Masks:
    """Masks [N, H, W] of an object, predicted or true, less the pixels that are void in the truth."""
    return masks & ~void


def jaccard(predicted: Masks, truth: Masks) -> Values:
    """Region similarity J of each frame, [N] in 0..1: intersection over union, 1 where both are empty.

    Raises:
        ValueError: the shapes differ.
    """
    intersection, union = overlap(predicted, truth)
    return np.divide(intersection, union, out=np.ones(len(union)), where=union > 0)


def overlap(predicted: Masks, truth: Masks) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pixels of intersection and of union of each frame, [N] each.

    Raises:
        ValueError: the shapes differ.
    """
    _check(predicted, truth)
    return np.count_nonzero(predicted & truth, axis=(1, 2)), np.count_nonzero(predicted | truth, axis=(1, 2))


def boundary_f(predicted: Masks, truth: Masks, radius: int | None = None) -> Values:
    """Boundary accuracy F of each frame, [N] in 0..1: the harmonic mean of how many boundary pixels of one have one of the other near.

    Of boundaries (not of masks: one that fills the frame has none) both empty count as 1, one empty as 0.

    Args:
        predicted: [N, H, W].
        truth: [N, H, W].
        radius: pixels that count as near; by default `tolerance` of the frame.

    Raises:
        ValueError: the shapes differ.
    """
    _check(predicted, truth)
    frames, height, width = truth.shape
    radius = tolerance(height, width) if radius is None else radius
    step = max(1, CHUNK_PIXELS // (height * width))
    parts = [
        _boundary_f(predicted[start : start + step], truth[start : start + step], radius)
        for start in range(0, frames, step)
    ]
    return np.concatenate(parts) if parts else np.ones(0)


def _boundary_f(predicted: Masks, truth: Masks, radius: int) -> Values:
    edges = boundaries(np.stack([predicted, truth]))
    near = dilate(edges, radius)
    count = np.count_nonzero(edges, axis=(2, 3)).astype(np.float64)
    matched = np.count_nonzero(edges & near[::-1], axis=(2, 3))
    share = np.divide(matched, count, out=np.zeros_like(count), where=count > 0)
    above, below = 2 * share[0] * share[1], share[0] + share[1]
    value = np.divide(above, below, out=np.zeros_like(below), where=below > 0)
    value[(count == 0).all(axis=0)] = 1.0
    return value


def boundaries(masks: Masks) -> Masks:
    """Boundaries [.., H, W], one pixel wide: where a pixel differs from its neighbour to the right, below or right below.

    The last row and column only have the neighbours that lie in the frame; the last pixel has none.
    """
    edges = np.zeros_like(masks)
    edges[..., :-1] = masks[..., :-1] ^ masks[..., 1:]
    edges[..., :-1, :] |= masks[..., :-1, :] ^ masks[..., 1:, :]
    edges[..., :-1, :-1] |= masks[..., :-1, :-1] ^ masks[..., 1:, 1:]
    return edges


def dilate(masks: Masks, radius: int) -> Masks:
    """Masks [.., H, W] grown by a disk of so many pixels: where a set pixel lies at most `radius` away."""
    height = masks.shape[-2]
    grown, wide, reach = masks.copy(), masks.copy(), 0
    rows = {offset: math.isqrt(radius**2 - offset**2) for offset in range(radius + 1)}
    # From the disk's narrow ends to its middle, each row is the one before, made wider.
    for offset in range(min(radius, height - 1), -1, -1):
        while reach < rows[offset]:
            reach += 1
            wide[..., reach:] |= masks[..., :-reach]
            wide[..., :-reach] |= masks[..., reach:]
        if offset == 0:
            grown |= wide
        else:
            grown[..., offset:, :] |= wide[..., :-offset, :]
            grown[..., :-offset, :] |= wide[..., offset:, :]
    return grown


def recall(values: Values) -> float:
    """Share of the frames [N] whose value is above `RECALLED`."""
    return float(np.mean(values > RECALLED))


def decay(values: Values) -> float:
    """How much of the value is lost in time: the mean of the first quarter of the frames [N] less that of the last.

    Quarters share the frame where they meet, as in DAVIS's own evaluation; the places are whole numbers of any size (there they
    overflow beyond 255 frames).
    """
    last = len(values) - 1
    first_end, last_start = ((quarter * last + 2) // 4 for quarter in (1, 3))
    return float(np.mean(values[: first_end + 1]) - np.mean(values[last_start:]))


def _check(predicted: Masks, truth: Masks) -> None:
    if predicted.shape != truth.shape or truth.ndim != 3:
        raise ValueError(f"masks must both be [N, H, W], got {list(predicted.shape)} and {list(truth.shape)}")
