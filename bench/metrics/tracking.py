"""How well one target is followed, by the definitions of GOT-10k and LaSOT.

Boxes are [F, 4] float, one a frame of a clip: left upper corner (x, y), width and height in pixels, the origin at the corner of
the first pixel. A true box of NaN means that the target is not there.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from bench.contracts import Metric
from bench.metrics import boxes

Values = NDArray[np.float64]
Flags = NDArray[np.bool_]

SUCCESS_THRESHOLDS = np.arange(21) / 20
"""IoU, 0 to 1 by 0.05: of the success plot."""
NORMALISED_THRESHOLDS = np.arange(51) / 100
"""Centre error over the size of the true box, 0 to 0.5 by 0.01: of the normalised precision plot."""
PRECISION_PIXELS = 20
"""Centre error at which precision is read."""
NORMALISED_PRECISION = 0.2
"""Normalised centre error at which normalised precision is read."""

_POOLED = (
    "GOT-10k's convention: the first frame and frames where the target is not to be seen are left out, boxes are clipped to the "
    "image, the frames of all clips are pooled"
)
_IOU = "boxes are continuous: IoU without the inclusive pixel (+1)"
_LASOT = "LaSOT's convention: the first frame counts, a mean over the frames of each clip, then over clips"

AO = Metric(
    "ao", "AO (%)", higher_is_better=True, digits=1, aggregate="pooled", note=f"mean IoU over frames; {_POOLED}; {_IOU}"
)
SR50, SR75 = (
    Metric(
        f"sr{percent}",
        f"SR@.{percent} (%)",
        higher_is_better=True,
        digits=1,
        aggregate="pooled",
        note=f"share of frames of IoU > .{percent}; pooled as AO is",
    )
    for percent in (50, 75)
)


def lasot_metrics(*, exclude_absent: bool) -> tuple[Metric, ...]:
    """How to read the numbers of `lasot`, the first one the area under the success plot."""
    absent = "are left out" if exclude_absent else "count as failures"
    clips = f"{_LASOT}; frames where the target is not to be seen {absent}"
    auc = f"mean over 21 thresholds 0, .05 .. 1 of the share of frames of IoU > threshold, so that a perfect tracker has 20/21 = 95.2 % where the target is always to be seen; {clips}"
    centre = "share of frames whose centre is off by at most"
    size = "of the true box's width and height"
    return (
        Metric("auc", "AUC (%)", higher_is_better=True, digits=1, note=f"{auc}; {_IOU}"),
        Metric(
            "precision",
            f"precision, {PRECISION_PIXELS} px (%)",
            higher_is_better=True,
            digits=1,
            note=f"{centre} {PRECISION_PIXELS} px, whatever the size of the frame, so that it says little of small ones; frames as for AUC",
        ),
        Metric(
            "norm_precision",
            "norm. precision (%)",
            higher_is_better=True,
            digits=1,
            note=f"{centre} {NORMALISED_PRECISION} {size} (pytracking reads the curve there); frames as for AUC",
        ),
        Metric(
            "norm_precision_auc",
            "norm. precision, area (%)",
            higher_is_better=True,
            digits=1,
            note=f"the same share as a mean over 51 thresholds 0, .01 .. .5 {size} (the got10k toolkit's way); frames as for AUC",
        ),
    )


def by_factor(metric: Metric, factor: str) -> Metric:
    """A pooled metric over the clips that have one `factor`."""
    return metric._replace(
        name=f"{metric.name}_{factor}",
        label=f"{metric.label.removesuffix(' (%)')}, {factor} (%)",
        note=f"{metric.name.upper()} over clips with {factor}",
        group="by factor",
    )


def clip_to_image(xywh: Values, height: int, width: int) -> Values:
    """The part of each box that lies in the image; what lies outside altogether is left without an area."""
    limits = np.array([width, height], np.float64)
    low, high = np.clip(xywh[:, :2], 0, limits), np.clip(xywh[:, :2] + xywh[:, 2:], 0, limits)
    return np.concatenate([low, np.maximum(high - low, 0)], axis=1)


def overlaps(predicted: Values, truth: Values, *, inclusive: bool = False) -> Values:
    """IoU [F] of each frame; NaN where the true box is.

    Args:
        predicted: [F, 4], finite.
        truth: [F, 4].
        inclusive: each side counts the pixels at both of its ends, 1 more than they are apart.

    Raises:
        ValueError: the shapes differ.
    """
    if predicted.shape != truth.shape or predicted.ndim != 2 or predicted.shape[1] != 4:
        raise ValueError(
            f"predicted and true boxes must both be [F, 4], got {list(predicted.shape)} and {list(truth.shape)}"
        )
    # Rounding must not lift equal boxes above the last threshold, 1.
    found = boxes.iou(*(_corners(side) for side in (predicted, truth)), inclusive=inclusive).clamp_max(1).numpy()
    return np.where(np.isnan(truth).any(1), np.nan, found)


def got10k(predicted: Values, truth: Values, seen: Flags, height: int, width: int) -> dict[str, dict[str, list[float]]]:
    """AO, SR@.5 and SR@.75 of one clip in the form of a pooled metric: ``{"ao": {"frames": [sum of IoU, frames]}, ..}``.

    Args:
        predicted: [F, 4].
        truth: [F, 4].
        seen: [F], whether any part of the target is to be seen (``cover`` > 0); other frames are left out, and the first one.
        height: of the image, to which both boxes are clipped.
        width: of the image.

    Returns:
        Nothing where no frame is left.
    """
    counted = seen & ~np.isnan(truth).any(1) & (np.arange(len(truth)) > 0)
    if not counted.any():
        return {}
    iou = overlaps(*(clip_to_image(side[counted], height, width) for side in (predicted, truth)))
    sums = {AO.name: iou.sum(), SR50.name: (iou > 0.5).sum(), SR75.name: (iou > 0.75).sum()}
    return {name: {"frames": [float(total), len(iou)]} for name, total in sums.items()}


def lasot(predicted: Values, truth: Values, seen: Flags, *, exclude_absent: bool = False) -> dict[str, float]:
    """Success, precision and both normalised precisions of one clip, in percent; see `lasot_metrics`.

    Args:
        predicted: [F, 4].
        truth: [F, 4].
        seen: [F], whether any part of the target is to be seen.
        exclude_absent: leave other frames out, which otherwise are failures at every threshold.

    Returns:
        Nothing where no frame is left.
    """
    seen = seen & ~np.isnan(truth).any(1) & (truth[:, 2:] > 0).all(1)
    if exclude_absent:
        predicted, truth, seen = predicted[seen], truth[seen], seen[seen]
    if not len(seen):
        return {}
    iou = np.where(seen, overlaps(predicted, truth), -1.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        offset = (predicted[:, :2] + predicted[:, 2:] / 2) - (truth[:, :2] + truth[:, 2:] / 2)
        error = np.where(seen, np.linalg.norm(offset, axis=1), np.inf)
        normalised = np.where(seen, np.linalg.norm(offset / truth[:, 2:], axis=1), np.inf)
    found = {
        "auc": (iou[:, None] > SUCCESS_THRESHOLDS).mean(),
        "precision": (error <= PRECISION_PIXELS).mean(),
        "norm_precision": (normalised <= NORMALISED_PRECISION).mean(),
        "norm_precision_auc": (normalised[:, None] <= NORMALISED_THRESHOLDS).mean(),
    }
    return {name: 100 * float(value) for name, value in found.items()}


def _corners(xywh: Values) -> torch.Tensor:
    """Both corners [F, 4] of boxes."""
    return torch.from_numpy(np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1).astype(np.float64))
