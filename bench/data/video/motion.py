"""Random numbers, waves and paths, in arithmetic that rounds the same on every machine.

Only sums, products, quotients, roots and comparisons of IEEE numbers are used, each of which is rounded correctly wherever it
runs; sines of the system's library are not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.data.draws import stream

Track = NDArray[np.float64]
"""A number in each frame, [F]."""


class Uniforms:
    """Numbers in 0..1, 1 excluded, one after another: a function of a draw and a salt."""

    def __init__(self, draw: np.uint64, salt: int, count: int) -> None:
        """Prepare `count` numbers."""
        self._values = (stream(np.array([draw], np.uint64), salt, count)[0] >> np.uint64(11)).astype(
            np.float64
        ) * 2.0**-53
        self._used = 0

    def __call__(self, low: float = 0.0, high: float = 1.0) -> float:
        """The next number, between `low` and `high`."""
        return low + (high - low) * float(self.array(1)[0])

    def array(self, *shape: int) -> NDArray[np.float64]:
        """The next numbers, as an array of this shape."""
        count = int(np.prod(shape))
        if self._used + count > len(self._values):
            raise IndexError(f"only {len(self._values)} numbers were prepared")
        self._used += count
        return self._values[self._used - count : self._used].reshape(shape)


def sine(turns: Track) -> Track:
    """sin(2 pi turns), to 1e-8 or better."""
    x = turns - np.floor(turns + 0.5)  # -1/2 .. 1/2
    x = np.where(np.abs(x) > 0.25, np.where(x > 0, 0.5, -0.5) - x, x) * (2 * np.pi)  # -pi/2 .. pi/2
    square = x * x
    total = np.zeros_like(x)
    for n in range(15, 1, -2):  # Horner's scheme of the Taylor series
        total = (1 + total) * (-square / (n * (n - 1)))
    return x * (1 + total)


def cosine(turns: Track) -> Track:
    """cos(2 pi turns), to 1e-8 or better."""
    return sine(turns + 0.25)


def bounce(place: Track, low: float, high: float) -> Track:
    """Fold numbers into low..high, as a ball between two walls."""
    span = high - low
    period = (place - low) - 2 * span * np.floor((place - low) / (2 * span))
    return low + np.where(period > span, 2 * span - period, period)
