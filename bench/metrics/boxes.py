"""How much two boxes agree: IoU, and the GIoU and CIoU that boxes are learned by.

Boxes are [..., 4], two corners (x1, y1, x2, y2) unless a name says otherwise. A box whose second corner lies before its first
is legal and has no area: a network may predict one. Everything is finite, and so is its gradient, for any finite boxes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SMALLEST_SIDE = 1e-3
"""Sides below this count as this where `ciou` compares shapes: width over height has no gradient to go by near a point. Of boxes
as fractions of a crop this is a tenth of a pixel or less."""
TINY = 1e-12
"""Least area, or squared length, that is divided by."""


def corners_of_centres(boxes: Tensor) -> Tensor:
    """(centre x, centre y, width, height) -> corners; a negative size swaps them."""
    centre, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat([centre - size / 2, centre + size / 2], dim=-1)


def area(boxes: Tensor, margin: float = 0.0) -> Tensor:
    """[...]: width times height, each at least 0 and `margin` longer than the corners are apart."""
    return (boxes[..., 2:] - boxes[..., :2] + margin).clamp_min(0).prod(-1)


def intersection(first: Tensor, second: Tensor, margin: float = 0.0) -> Tensor:
    """[...]: the area that both cover."""
    shared = torch.cat(
        [torch.maximum(first[..., :2], second[..., :2]), torch.minimum(first[..., 2:], second[..., 2:])], dim=-1
    )
    return area(shared, margin)


def iou(first: Tensor, second: Tensor, *, inclusive: bool = False) -> Tensor:
    """Intersection over union [...], 0..1; 0 where neither box has an area.

    Args:
        first: boxes.
        second: as many.
        inclusive: corners are numbers of pixels that both belong to the box, so that each side is 1 longer.
    """
    margin = float(inclusive)
    shared = intersection(first, second, margin)
    return shared / (area(first, margin) + area(second, margin) - shared).clamp_min(TINY)


def giou(first: Tensor, second: Tensor) -> Tensor:
    """Generalised IoU [...] (Rezatofighi et al. 2019), -1..1: IoU less the share of the smallest enclosing box that is in neither."""
    shared = intersection(first, second)
    union = area(first) + area(second) - shared
    around = area(_enclosing(first, second))
    return shared / union.clamp_min(TINY) - (around - union) / around.clamp_min(TINY)


def ciou(predicted: Tensor, target: Tensor) -> Tensor:
    """Complete IoU [...] (Zheng et al. 2020), at most 1: IoU - d^2 / c^2 - a v.

    d is the distance of the centres, c the diagonal of the smallest enclosing box, v = 4 / pi^2 (atan(w / h) - atan(w' / h'))^2
    and a = v / (1 - IoU + v), a constant to the gradient. Shapes are compared by sides of at least `SMALLEST_SIDE`.
    """
    overlap = iou(predicted, target)
    distance = ((predicted[..., :2] + predicted[..., 2:] - target[..., :2] - target[..., 2:]) / 2).square().sum(-1)
    enclosing = _enclosing(predicted, target)
    diagonal = (enclosing[..., 2:] - enclosing[..., :2]).square().sum(-1)
    v = (_angle(predicted) - _angle(target)).square() * (4 / math.pi**2)
    with torch.no_grad():
        a = v / (1 - overlap + v).clamp_min(TINY)
    return overlap - distance / diagonal.clamp_min(TINY) - a * v


def _enclosing(first: Tensor, second: Tensor) -> Tensor:
    """The smallest box around both, whichever way their corners lie."""
    corners = torch.stack([first[..., :2], first[..., 2:], second[..., :2], second[..., 2:]])
    return torch.cat([corners.amin(0), corners.amax(0)], dim=-1)


def _angle(boxes: Tensor) -> Tensor:
    """[...]: atan(width / height)."""
    width, height = (boxes[..., 2:] - boxes[..., :2]).clamp_min(SMALLEST_SIDE).unbind(-1)
    return torch.atan(width / height)
