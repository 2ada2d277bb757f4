"""Where one set of learning curves takes the lead over another for good."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from bench.stats.intervals import CONFIDENCE, RESAMPLES, Array, Interval
from bench.stats.paired import Key, probability_positive

Curve = tuple[ArrayLike, ArrayLike]
"""Positions (increasing) and quality at them, both [N]."""


@dataclass(frozen=True)
class Crossover:
    """Which of two sets of curves is ahead at the end, and since when."""

    winner: int | None
    """0: the first set, 1: the second, None: they end level."""
    position: float
    """Where the winner takes the lead for good, in the units of the curves; NaN without a winner."""
    from_start: bool
    """Whether the winner already leads at the first compared position: there is no crossover."""
    interval: Interval | None
    """95 % given the seeds; an end is infinite where the winner does not win in more than 2.5 % of the draws."""
    probability: float | None
    """Probability that the winner is ahead at the end, given the seeds; see `probability_positive`."""
    count: int
    start: float
    end: float
    """First and last compared position."""


def crossover(
    first: Mapping[Key, Curve],
    second: Mapping[Key, Curve],
    *,
    higher_is_better: bool = True,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Crossover | None:
    """Find where one set of curves takes the lead over the other for good.

    Curves are paired by seed, interpolated linearly on the union of their positions and averaged over seeds; untrained
    points (position 0) only serve to interpolate. The interval comes from a seeded multiplier bootstrap over seeds
    whose lead at every position is Student's t around the mean lead, as in `mean_interval`: drawing seeds with replacement
    covers 74 % with 3 of them, this 95 to 96 % (docs/statistics.md).

    Returns:
        None if no seed is on both sides.
    """
    keys = [key for key in first if key in second]
    if not keys:
        return None
    pairs = [(_curve(first[key]), _curve(second[key])) for key in keys]
    grid = _common_grid([curve for pair in pairs for curve in pair])
    sign = 1.0 if higher_is_better else -1.0
    ahead = np.array([sign * (np.interp(grid, *one) - np.interp(grid, *other)) for one, other in pairs])  # seeds x grid
    start, end, count = float(grid[0]), float(grid[-1]), len(keys)
    final = float(ahead.mean(axis=0)[-1])
    if final == 0:
        return Crossover(None, math.nan, False, None, None, count, start, end)
    ahead = ahead * np.sign(final)
    position = float(_lead_since(ahead.mean(axis=0, keepdims=True), grid)[0])
    from_start = bool((ahead.mean(axis=0) >= 0).all())
    interval = probability = None
    if count >= 2:
        since = _lead_since(_student_means(ahead, resamples, seed), grid)
        ends = np.quantile(since, [0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2], method="inverted_cdf")
        interval = Interval(float(ends[0]), float(ends[1]))
        probability = probability_positive(ahead[:, -1], seed=seed)
    return Crossover(0 if final > 0 else 1, position, from_start, interval, probability, count, start, end)


def _curve(curve: Curve) -> tuple[Array, Array]:
    positions, quality = (np.asarray(part, dtype=np.float64) for part in curve)
    if (
        positions.ndim != 1
        or positions.shape != quality.shape
        or positions.size == 0
        or (np.diff(positions) <= 0).any()
    ):
        raise ValueError("curve: needs strictly increasing positions [N] and as many values, N >= 1")
    return positions, quality


def _common_grid(curves: Sequence[tuple[Array, Array]]) -> Array:
    """Positions that all curves reach, without the untrained 0."""
    low = max(float(positions[0]) for positions, _ in curves)
    high = min(float(positions[-1]) for positions, _ in curves)
    grid = np.unique(np.concatenate([positions for positions, _ in curves]))
    grid = grid[(grid >= low) & (grid <= high) & (grid > 0)]
    return grid if grid.size else np.array([high])


def _student_means(ahead: Array, resamples: int, seed: int) -> Array:
    """Mean leads [resamples, G] that scatter as t with S - 1 degrees of freedom around that of `ahead` [S, G], S >= 2.

    Normal weights on the seeds' deviations give the mean's scatter and what positions have in common; chi-square over it how
    little S seeds tell of that scatter.
    """
    seeds, generator = len(ahead), np.random.default_rng(seed)
    mean = ahead.mean(axis=0)
    weights = generator.standard_normal((resamples, seeds)) / math.sqrt(seeds * (seeds - 1))
    uncertain = np.sqrt(generator.chisquare(seeds - 1, size=(resamples, 1)) / (seeds - 1))
    return mean + weights @ (ahead - mean) / uncertain


def _lead_since(ahead: Array, grid: Array) -> Array:
    """Position [B] since which each row of `ahead` [B, G] is not negative and ends positive; inf if it never is."""
    negative = ahead < 0
    last = grid.size - 1 - np.argmax(negative[:, ::-1], axis=1)  # last negative point, where there is one
    after = np.minimum(last + 1, grid.size - 1)
    rows = np.arange(len(ahead))
    below, above = ahead[rows, last], ahead[rows, after]
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = grid[last] + (grid[after] - grid[last]) * -below / (above - below)
    since = np.where(negative.any(axis=1), crossing, grid[0])
    return np.asarray(np.where(ahead[:, -1] > 0, since, np.inf), dtype=np.float64)
