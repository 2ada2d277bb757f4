"""How values are normalised and raised again, and what is usual at a time of the year."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float32]

LARGEST_LOGARITHM = 20.0
"""Predictions are cut here before they are raised: 5e8 mm/d is wrong enough, and a finite score."""

CLIMATOLOGY_REACH = 15
"""Days to either side that a day's climatology is averaged over."""


@dataclass(frozen=True)
class Scale:
    """How one variable is normalised: a logarithm where it is skewed, then to mean 0 and variance 1."""

    mean: float
    std: float
    offset: float | None = None
    """Added before the logarithm; None takes none."""

    @classmethod
    def of(cls, values: Values, offset: float | None) -> Scale:
        """The scale that gives the finite ones of `values` mean 0 and variance 1; one that never changes is only shifted."""
        whole = cls(0.0, 1.0, offset).normalise(values)
        std = float(np.nanstd(whole, dtype=np.float64))
        return cls(float(np.nanmean(whole, dtype=np.float64)), std if std > 1e-6 else 1.0, offset)

    def normalise(self, values: Values) -> Values:
        """Physical to normalised values; NaN stays."""
        if self.offset is not None:
            values = np.log(np.maximum(values, 0) + np.float32(self.offset))
        return (values - np.float32(self.mean)) / np.float32(self.std)

    def physical(self, values: Values) -> Values:
        """Normalised to physical values; skewed ones are at least 0. No correction for the mean of the logarithms' error."""
        raised = values * np.float32(self.std) + np.float32(self.mean)
        if self.offset is None:
            return raised
        return np.maximum(np.exp(np.minimum(raised, LARGEST_LOGARITHM)) - np.float32(self.offset), 0)


def climatology(values: Values, day_of_year: NDArray[np.int64]) -> Values:
    """Mean of values [D, ...] over the days of the year around each of 366, [366, ...]; NaN counts for nothing.

    Normalised values without any observation around are taken to be 0, the mean.
    """
    sums, counts = (np.zeros((366, *values.shape[1:]), np.float64) for _ in range(2))
    for day in range(366):
        own = values[day_of_year == day]
        sums[day], counts[day] = np.nansum(own, axis=0), np.isfinite(own).sum(axis=0)
    reach = np.arange(-CLIMATOLOGY_REACH, CLIMATOLOGY_REACH + 1)
    total, number = (sum(np.roll(part, shift, axis=0) for shift in reach) for part in (sums, counts))
    return (total / np.maximum(number, 1)).astype(np.float32)
