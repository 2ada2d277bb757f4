"""Smooth random fields, made of random waves: still, or drifting with the wind."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Spectrum = NDArray[np.complex128]
Field = NDArray[np.float64]

SHORTEST = 4.5
"""Waves beyond this wave number times the correlation length hold 2e-9 of the power at its peak and are left out."""


class Smoother:
    """Draws Gaussian fields of mean 0, variance 1 and one correlation length on a grid of H x W.

    The field lives on a larger, periodic plane of which the grid is a corner, so that opposite edges of the grid are strangers.
    Only the waves that are long enough to matter are kept: a spectrum is small, however fine the grid.
    """

    def __init__(self, shape: tuple[int, int], length: float) -> None:
        """Prepare for `shape` (H, W); the correlation falls as exp(-(distance / `length`)^2 / 4), in cells."""
        self.shape = shape
        self.plane = tuple(_smooth_number(size + math.ceil(4 * length)) for size in shape)
        rows, columns = 2 * np.pi * np.fft.fftfreq(self.plane[0]), 2 * np.pi * np.fft.rfftfreq(self.plane[1])
        shortest = min(SHORTEST / length, 0.99 * np.pi)
        self._kept = np.flatnonzero(np.abs(rows) <= shortest)
        self._rows, self._columns = rows[self._kept, None], columns[None, columns <= shortest]
        gain = np.exp(-0.5 * (self._rows**2 + self._columns**2) * length**2)
        # A column stands for itself and its mirror image, but the first for itself alone: of it, the real half counts.
        gain[:, 0] *= np.sqrt(2)
        twice = np.full(gain.shape[1], 2.0)
        twice[0] = 0.5
        self._gain = gain * (self.plane[0] * self.plane[1] / np.sqrt((twice * gain**2).sum()))

    def draw(self, rng: np.random.Generator) -> Spectrum:
        """The waves of a new field."""
        real, imaginary = rng.standard_normal((2, *self._gain.shape)) * (self._gain / np.sqrt(2))
        return real + 1j * imaginary

    def field(self, spectrum: Spectrum) -> Field:
        """[H, W]: the grid's corner of the plane."""
        waves = np.zeros((self.plane[0], spectrum.shape[1]), np.complex128)
        waves[self._kept] = spectrum
        rows = np.fft.ifft(waves, axis=0)[: self.shape[0]]
        return np.fft.irfft(rows, n=self.plane[1], axis=1)[:, : self.shape[1]]

    def shift(self, wind: NDArray[np.float64]) -> Spectrum:
        """The factor that moves a field by `wind`, [2] in cells (down, right); parts of a cell are exact."""
        return np.exp(-1j * self._rows * wind[0]) * np.exp(-1j * self._columns * wind[1])


def smooth_field(
    rng: np.random.Generator, shape: tuple[int, int], lengths: Sequence[float], weights: Sequence[float]
) -> Field:
    """[H, W] Gaussian field of variance 1: a mixture of correlation `lengths` whose variances are as `weights`."""
    total = np.zeros(shape)
    for length, weight in zip(lengths, weights, strict=True):
        smoother = Smoother(shape, length)
        total += np.sqrt(weight / sum(weights)) * smoother.field(smoother.draw(rng))
    return total


class DriftingField:
    """A Gaussian field of variance 1 that the wind carries while it fades and grows anew: AR(1) along its path."""

    def __init__(self, shape: tuple[int, int], length: float, persistence: float, start: np.random.Generator) -> None:
        """Start at random. `persistence` is the share of a day's pattern that is left on the next (0..1)."""
        self._smoother, self._persistence = Smoother(shape, length), persistence
        self.spectrum: Spectrum = self._smoother.draw(start)
        """All that the next day depends on."""

    def step(self, wind: NDArray[np.float64], rng: np.random.Generator) -> Field:
        """Move on by a day with `wind` [2] cells a day (down, right) and return the field [H, W]."""
        fresh = self._smoother.draw(rng) * np.sqrt(1 - self._persistence**2)
        self.spectrum = self._persistence * self._smoother.shift(wind) * self.spectrum + fresh
        return self._smoother.field(self.spectrum)


def _smooth_number(least: int) -> int:
    """The next whole number without a prime factor above 5: fast to transform."""
    while True:
        rest = least
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return least
        least += 1
