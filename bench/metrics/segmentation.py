"""Which pixels of labelled pictures are right: counts of each class, of all its pixels or of those near an edge.

Scores are made from counts by `bench.class_counts`, in which there is no torch. Label maps are whole numbers of any kind, NumPy's or
torch's, also uint16; a prediction on an ignored pixel vanishes, as in detectron2's evaluator.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, minimum_filter
from torch import Tensor

from bench.class_counts import miou_gt

LabelMap = NDArray[Any] | Tensor

NOTHING = -1
"""What stands for void here, and for what lies outside an image."""
BOUNDARY = 0.02
"""Share of the image's diagonal within which a pixel is near an edge."""
BOUNDARY_NOTE = (
    f"IoU of the pixels of a class that lie within {BOUNDARY:.0%} of the diagonal of its edge, which the edge of the image and void "
    "pixels are too; mean over the classes that the image has (Cheng et al. 2021)"
)
"""Definition of `boundary_iou`, for notes under tables."""


def counts(predictions: LabelMap, labels: LabelMap, classes: int, ignore_index: int) -> Tensor:
    """Pixels of each class: hits (predicted as it and of it), true (of it), predicted (as it).

    Args:
        predictions: whole numbers [..], a class each; anything where `labels` are `ignore_index`.
        labels: whole numbers [..] of the same shape, a class or `ignore_index` each; moved to where `predictions` are.
        classes: how many there are, K.
        ignore_index: label of pixels that count for nothing; any number.

    Returns:
        [K, 3] int64.

    Raises:
        ValueError: the shapes differ, or a pixel that counts has a label or a prediction outside 0 .. K - 1.
    """
    return _count(*_checked(predictions, labels, classes, ignore_index), classes)


def named_counts(table: Tensor, parts: Sequence[str]) -> dict[str, list[int]]:
    """Counts [K, 3] as a sample's record has them: part -> [hits, true, predicted] of the classes that are there at all.

    Args:
        table: see `counts`.
        parts: a name of each class [K], all different, such as ``seen/striped red cone``.

    Raises:
        ValueError: not a name for each class, or a name stands twice.
    """
    if len(parts) != len(table) or len(set(parts)) < len(parts):
        raise ValueError(f"{len(table)} classes need as many different names, got {len(set(parts))}")
    return {part: row for part, row in zip(parts, table.tolist(), strict=True) if row[1] + row[2]}


def boundary_iou(
    predictions: LabelMap, labels: LabelMap, classes: int, ignore_index: int, distance: int | None = None
) -> float:
    """Boundary IoU of one image in percent, see `BOUNDARY_NOTE`; NaN where all of it is void.

    A pixel is near an edge if one of another class, of none or outside the image is at most `distance` rows and columns away: so
    does iterated erosion by a 3 x 3 square define it, in the published code. Void pixels belong to no class in either map.

    Args:
        predictions: whole numbers [H, W], see `counts`.
        labels: whole numbers [H, W].
        classes: how many there are.
        ignore_index: label of void pixels.
        distance: in pixels; by default `BOUNDARY` of the diagonal, rounded, at least 1.

    Raises:
        ValueError: as `counts`, or not [H, W].
    """
    guess, truth = _checked(predictions, labels, classes, ignore_index)
    if truth.ndim != 2:
        raise ValueError(f"boundaries are of one image [H, W], got {list(truth.shape)}")
    distance = max(1, round(BOUNDARY * math.hypot(*truth.shape))) if distance is None else distance
    guess, truth = (values.where(_near_edge(values, distance), NOTHING) for values in (guess.cpu(), truth.cpu()))
    return miou_gt({str(index): row for index, row in enumerate(_count(guess, truth, classes).tolist())})


def _checked(predictions: LabelMap, labels: LabelMap, classes: int, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Both maps as int64 on one device, `NOTHING` where the labels are void."""
    guess = torch.as_tensor(predictions).long()
    truth = torch.as_tensor(labels).to(guess.device).long()
    if guess.shape != truth.shape:
        raise ValueError(f"predictions are {list(guess.shape)}, but labels are {list(truth.shape)}")
    void = truth == ignore_index
    for name, values in (("label", truth), ("prediction", guess)):
        if len(wrong := values[((values < 0) | (values >= classes)) & ~void]):
            raise ValueError(
                f"a {name} is {int(wrong[0])}, but classes are 0 to {classes - 1} and {ignore_index} is void"
            )
    return guess.masked_fill(void, NOTHING), truth.masked_fill(void, NOTHING)


def _count(guess: Tensor, truth: Tensor, classes: int) -> Tensor:
    """See `counts`; `NOTHING` is of no class."""
    columns = (truth[truth == guess], truth, guess)
    return torch.stack([torch.bincount(values[values != NOTHING], minlength=classes) for values in columns], dim=1)


def _near_edge(values: Tensor, distance: int) -> Tensor:
    """Where a square of `distance` pixels to each side holds anything but the pixel's own value, [H, W] bool."""
    highest, lowest = (
        one(values.numpy(), size=2 * distance + 1, mode="constant", cval=NOTHING)
        for one in (maximum_filter, minimum_filter)
    )
    return torch.from_numpy(highest != lowest)
