"""Predictors that learn nothing, for the task ``tracking``: boxes from other boxes, no pixel is looked at.

A tracker that answers with the middle of each search crop and the last size never moves: that is `copy_first`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


class Reference(NamedTuple):
    """One predictor."""

    name: str
    label: str
    boxes: Callable[[Values], Values]
    """``boxes(truth)``: the predicted boxes [F, 4] of a clip from its true ones, NaN where the target is not there."""


def copy_first(truth: Values) -> Values:
    """The first box in every frame."""
    return np.repeat(truth[:1], len(truth), axis=0)


def previous_truth(truth: Values) -> Values:
    """The last true box before each frame: how far an oracle gets that is a frame late."""
    known = np.where(np.isnan(truth).any(1), 0, np.arange(len(truth)))
    latest = np.maximum.accumulate(known)
    return truth[np.concatenate([latest[:1], latest[:-1]])]


REFERENCES = (
    Reference("copy-first", "the first box in every frame", copy_first),
    Reference("previous-truth", "oracle: the true box of the frame before", previous_truth),
)
