"""Two sets of values that share nothing to pair them by: Welch's t."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats as distributions

from bench.stats.intervals import CONFIDENCE, Interval, standard_error
from bench.stats.planning import detectable_shift


class Difference(NamedTuple):
    """Second mean minus first."""

    mean: float
    """NaN where a side is empty."""
    interval: Interval | None
    """95 %; None where a side has fewer than two values."""
    detectable: float | None
    """Minimum detectable difference (80 % power, two-sided 5 %); None without an interval."""


def unpaired_difference(first: ArrayLike, second: ArrayLike) -> Difference:
    """Compare the means of `first` [N] and `second` [M], whatever the scatter of each.

    Welch, The Generalization of Student's Problem when Several Different Population Variances are Involved, Biometrika 34,
    1947. Where both sides have pairs in common, `paired_difference` finds more.
    """
    sides = [np.asarray(side, dtype=np.float64) for side in (first, second)]
    if not all(side.size for side in sides):
        return Difference(math.nan, None, None)
    mean = float(sides[1].mean() - sides[0].mean())
    if min(side.size for side in sides) < 2:
        return Difference(mean, None, None)
    shares = np.array([standard_error(side) ** 2 for side in sides])
    if not shares.any():
        return Difference(mean, Interval(mean, mean), 0.0)
    error = math.sqrt(shares.sum())
    freedom = float(shares.sum() ** 2 / (shares**2 / [side.size - 1 for side in sides]).sum())
    half = float(distributions.t.ppf(0.5 + CONFIDENCE / 2, freedom)) * error
    return Difference(mean, Interval(mean - half, mean + half), detectable_shift(freedom) * error)
