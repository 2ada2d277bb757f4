"""Statistics for few seeds: paired differences, intervals, crossover. NumPy and SciPy only.

Everything is paired: values come as mappings from what they share (a seed, a sample) to a number, and only what both sides
have is compared. Below `BOOTSTRAP_FROM` pairs an interval is Student's t (a percentile bootstrap covers only 75 % with 3
seeds and 84 % with 5); from there on it is a seeded percentile bootstrap. One pair has no interval: it is None.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize
from scipy import stats as distributions

CONFIDENCE = 0.95
BOOTSTRAP_FROM = 20
"""Number of pairs from which the bootstrap replaces the t-interval."""
RESAMPLES = 10_000

Key = TypeVar("Key", bound=Hashable)
"""What pairs are matched by."""
Array = NDArray[np.float64]
Curve = tuple[ArrayLike, ArrayLike]
"""Positions (increasing) and quality at them, both [N]."""


class Interval(NamedTuple):
    """Closed 95 % interval."""

    low: float
    high: float

    def contains(self, value: float) -> bool:
        """Whether `value` lies inside."""
        return self.low <= value <= self.high


class Estimate(NamedTuple):
    """A mean or a median with its interval, and the number of values behind it. No value: NaN."""

    value: float
    interval: Interval | None
    number: int


@dataclass(frozen=True)
class PairedDifference:
    """First minus second, over what both have."""

    mean: float
    interval: Interval | None
    count: int
    p_better: float | None
    """Probability that the mean difference is on the better side, given the pairs; see `probability_positive`. None where no
    side is."""
    detectable: float | None
    """Minimum detectable difference (80 % power, two-sided 5 %) with this many pairs; see `detectable_difference`."""

    @property
    def significant(self) -> bool:
        """Whether the interval excludes 0."""
        return self.interval is not None and not self.interval.contains(0.0)


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
    """95 % over resampled seeds; an end is infinite where the winner does not win in more than 2.5 % of them."""
    probability: float | None
    """Probability that the winner is ahead at the end, given the seeds; see `probability_positive`."""
    count: int
    start: float
    end: float
    """First and last compared position."""


def mean_interval(values: ArrayLike, *, seed: int = 0) -> Estimate:
    """Mean of `values` [N] with a 95 % interval: t below `BOOTSTRAP_FROM` values, percentile bootstrap from there."""
    data = np.asarray(values, dtype=np.float64)
    count = data.size
    if count == 0:
        return Estimate(math.nan, None, 0)
    mean = float(data.mean())
    if count == 1:
        return Estimate(mean, None, 1)
    if count < BOOTSTRAP_FROM:
        half = float(distributions.t.ppf(0.5 + CONFIDENCE / 2, count - 1)) * _standard_error(data)
        return Estimate(mean, Interval(mean - half, mean + half), count)
    low, high = np.quantile(bootstrap_means(data, seed=seed), [0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2])
    return Estimate(mean, Interval(float(low), float(high)), count)


def median_interval(values: ArrayLike) -> Estimate:
    """Median of `values` [N] with a distribution-free interval of at least 95 % (order statistics; from 6 values on)."""
    data = np.sort(np.asarray(values, dtype=np.float64))
    if data.size == 0:
        return Estimate(math.nan, None, 0)
    # the k-th smallest and k-th largest of N enclose the median with probability 1 - 2 P(Binomial(N, 1/2) < k)
    rank = int(distributions.binom.ppf((1 - CONFIDENCE) / 2, data.size, 0.5))
    interval = Interval(float(data[rank - 1]), float(data[-rank])) if rank >= 1 else None
    return Estimate(float(np.median(data)), interval, data.size)


def bootstrap_means(values: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0) -> Array:
    """Means [resamples] of `values` [N] drawn with replacement. Pass differences to keep pairs together."""
    data = np.asarray(values, dtype=np.float64)
    generator = np.random.default_rng(seed)
    # in pieces, so that thousands of samples do not need gigabytes of indices
    step = max(1, 4_000_000 // max(1, data.size))
    pieces = [
        data[generator.integers(data.size, size=(min(step, resamples - start), data.size))].mean(axis=1)
        for start in range(0, resamples, step)
    ]
    return np.concatenate(pieces)


def paired_difference(
    first: Mapping[Key, float], second: Mapping[Key, float], *, higher_is_better: bool | None = True, seed: int = 0
) -> PairedDifference:
    """Compare two sets of values by what they share (seeds, or test samples). Exchanging them only turns the signs.

    Where neither side of 0 is better (None), there is no `p_better`.
    """
    keys = [key for key in first if key in second]
    differences = np.array([first[key] - second[key] for key in keys], dtype=np.float64)
    mean, interval, count = mean_interval(differences, seed=seed)
    p_positive = probability_positive(differences, seed=seed)
    if p_positive is None or higher_is_better is None:
        p_better = None
    else:
        p_better = p_positive if higher_is_better else 1.0 - p_positive
    return PairedDifference(mean, interval, count, p_better, detectable_difference(differences))


def probability_positive(differences: ArrayLike, *, seed: int = 0) -> float | None:
    """Probability that the mean of the population behind `differences` [N] is > 0. None below two values.

    Below `BOOTSTRAP_FROM` values: the posterior under a flat prior and normal differences, Student's t with N - 1 degrees
    of freedom around the observed mean (one minus the one-sided p-value). The mere share of seeds won would say 0 or 100 %
    in one of four experiments of three seeds on noise; this one weighs how large the differences are against their scatter. From there
    on: the share of bootstrap means above 0, ties halved.
    """
    data = np.asarray(differences, dtype=np.float64)
    if data.size < 2:
        return None
    if data.size >= BOOTSTRAP_FROM:
        means = bootstrap_means(data, seed=seed)
        return float((means > 0).mean() + 0.5 * (means == 0).mean())
    error = _standard_error(data)
    if error == 0:
        return 0.5 + 0.5 * float(np.sign(data.mean()))
    return float(distributions.t.cdf(data.mean() / error, data.size - 1))


def detectable_difference(differences: ArrayLike, *, power: float = 0.8, alpha: float = 0.05) -> float | None:
    """Smallest true mean difference that a two-sided paired t-test of this many pairs finds with `power`.

    The scatter is that of `differences` [N]; the power is exact (noncentral t), not the normal approximation, which
    promises far too much at 3 seeds. None below two values.
    """
    data = np.asarray(differences, dtype=np.float64)
    if data.size < 2:
        return None
    freedom = data.size - 1
    critical = float(distributions.t.ppf(1 - alpha / 2, freedom))

    def shortfall(shift: float) -> float:
        wrong_side = np.nan_to_num(distributions.nct.cdf(-critical, freedom, shift))  # SciPy: NaN where it underflows
        return float(distributions.nct.sf(critical, freedom, shift) + wrong_side) - power

    return float(optimize.brentq(shortfall, 1e-6, 20.0 + 2 * critical, xtol=1e-10)) * _standard_error(data)


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
    points (position 0) only serve to interpolate. The interval comes from a seeded bootstrap over seeds, which
    with 3 to 5 seeds is rough (too narrow).

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
        draws = np.random.default_rng(seed).integers(count, size=(resamples, count))
        since = _lead_since(ahead[draws].mean(axis=1), grid)
        ends = np.quantile(since, [0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2], method="inverted_cdf")
        interval = Interval(float(ends[0]), float(ends[1]))
        probability = probability_positive(ahead[:, -1], seed=seed)
    return Crossover(0 if final > 0 else 1, position, from_start, interval, probability, count, start, end)


def not_worse_than_best(
    values: Sequence[Mapping[Key, float]], *, higher_is_better: bool | None = True, digits: int = 2
) -> list[bool]:
    """Which rows of a column deserve bold: not significantly worse than the best, after rounding.

    ``values[i]`` maps seeds to numbers. A seed that an arm did not finish is as a rule a hard one, so means over different
    seeds are never compared:

    - *Best* are the rows with most seeds, by their rounded means over the seeds that all of these rows have (several may
      tie). So a row that lacks a seed is never the best against rows that have it.
    - Every other row is compared with the best on common seeds. A row with all the seeds of the best is bold unless it is
      significantly worse; one that lacks a seed only if it is significantly better on those that it has.
    - Nothing is bold where fewer than two seeds can be compared, or where no side is better (None).
    """
    if higher_is_better is None:
        return [False] * len(values)
    sign = 1.0 if higher_is_better else -1.0
    most = max((len(row) for row in values), default=0)
    candidates = [index for index, row in enumerate(values) if row and len(row) == most]
    common = (
        [seed for seed in values[candidates[0]] if all(seed in values[index] for index in candidates)] if most else []
    )
    if len(common) < 2:
        return [False] * len(values)
    means = {i: sign * round(float(np.mean([values[i][seed] for seed in common])), digits) for i in candidates}
    best = [index for index in candidates if means[index] == max(means.values())]

    def deserves(row: Mapping[Key, float], other: Mapping[Key, float]) -> bool:
        difference = paired_difference(row, other)
        if difference.count < 2:
            return False
        better = sign * difference.mean > 0
        return difference.significant and better if other.keys() - row.keys() else not difference.significant or better

    return [index in best or any(deserves(row, values[other]) for other in best) for index, row in enumerate(values)]


def _standard_error(data: Array) -> float:
    if np.ptp(data) == 0:  # the sum of equal numbers rounds: their scatter is 0, not 1e-17
        return 0.0
    return float(data.std(ddof=1)) / math.sqrt(data.size)


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
