"""Predictors that learn nothing, for the task ``vos``: how far a mask is known from masks alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.data.video.clips import VOID

if TYPE_CHECKING:
    from bench.data.video.clips import ClipInfo

Labels = NDArray[np.uint8]


class Reference(NamedTuple):
    """One predictor."""

    name: str
    label: str
    predict: Callable[[Labels, ClipInfo], Labels]
    """``predict(truth, info)``: labels [F, H, W] from the masks [A, H, W] of the annotated frames."""


def copy_first(truth: Labels, info: ClipInfo) -> Labels:
    """Each object stays where it was given; of two in one place the later one is seen, in one frame the one of higher number."""
    annotated = np.flatnonzero(info.annotated)
    labels = np.zeros((info.frames, *truth.shape[1:]), np.uint8)
    for slot in np.argsort(info.first_frames, kind="stable"):
        start = info.first_frames[slot]
        given = truth[np.searchsorted(annotated, start)] == slot + 1
        labels[start:, given] = slot + 1
    return labels


def previous_truth(truth: Labels, info: ClipInfo) -> Labels:
    """Each frame has the true masks of the annotated frame before it: all that a tracker without error could copy."""
    annotated = np.flatnonzero(info.annotated)
    before = np.searchsorted(annotated, np.arange(info.frames)) - 1
    labels = truth[before.clip(0)]
    labels[labels == VOID] = 0
    return labels


REFERENCES = (
    Reference("copy-first", "the first mask, copied to every frame", copy_first),
    Reference("previous-truth", "the true mask of the frame before", previous_truth),
)
