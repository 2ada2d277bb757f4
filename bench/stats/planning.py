"""What so many seeds can find, and how many seeds a difference needs: the exact power of the two-sided paired t-test.

Exact means the noncentral t distribution (Cohen, Statistical Power Analysis for the Behavioral Sciences, 1988, ch. 2; as in
G*Power). The usual normal approximation promises far too much at 3 seeds.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize
from scipy import stats as distributions

from bench.errors import UserError
from bench.stats.intervals import CONFIDENCE, Estimate, Interval, standard_error

FAR = 1000.0
"""Critical values from 0: there nothing misses a mean."""
MOST_SEEDS = 1_000_000
"""Where the search for a number of seeds gives up."""


def power(seeds: int, *, difference: float, scatter: float, alpha: float = 0.05) -> float:
    """Probability that `seeds` paired seeds find a true mean difference, two-sided at `alpha`.

    Args:
        seeds: pairs, >= 2.
        difference: true mean difference; its sign does not matter.
        scatter: standard deviation of the differences between paired seeds, >= 0, in the same unit.
        alpha: share of wrong alarms, between 0 and 1.

    Raises:
        UserError: a value outside its range.
    """
    if seeds < 2:
        raise UserError(f"seeds must be >= 2, got {seeds}: one pair says nothing about its scatter")
    _check(difference, scatter, alpha)
    if scatter == 0:
        return 1.0 if difference else alpha
    return _power(math.sqrt(seeds) * abs(difference) / scatter, seeds - 1, alpha)


def seeds_needed(scatter: float | ArrayLike, difference: float, *, power: float = 0.8, alpha: float = 0.05) -> int:
    """Smallest number of paired seeds that find a true mean difference with `power`, two-sided at `alpha`; at least 2.

    Args:
        scatter: standard deviation of the differences between paired seeds, or such differences [N >= 2] of a pilot. With
            few of these their scatter is a guess itself (docs/statistics.md).
        difference: true mean difference worth finding, not 0; its sign does not matter.
        power: between `alpha` and 1.
        alpha: share of wrong alarms, between 0 and 1.

    Raises:
        UserError: a value outside its range, or more than a million seeds.
    """
    pilot = np.asarray(scatter, dtype=np.float64)
    if pilot.ndim and pilot.size < 2:
        raise UserError(f"scatter needs at least 2 differences, got {pilot.size}: one says nothing about its scatter")
    deviation = float(standard_error(pilot) * math.sqrt(pilot.size) if pilot.ndim else pilot)
    _check(difference, deviation, alpha)
    if difference == 0:
        raise UserError("difference must not be 0: no number of seeds finds nothing")
    if not alpha < power < 1:
        raise UserError(f"power must lie between alpha ({alpha:g}) and 1, got {power:g}")
    shift = abs(difference) / deviation if deviation else math.inf

    def enough(seeds: int) -> bool:
        return math.isinf(shift) or _power(math.sqrt(seeds) * shift, seeds - 1, alpha) >= power

    high = 2
    while not enough(high):
        high *= 2
        if high > MOST_SEEDS:
            raise UserError(
                f"difference {difference:g} is too small against a scatter of {deviation:g}: "
                f"more than {MOST_SEEDS:,} seeds; ask for a larger one"
            )
    low = high // 2  # not enough, or 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def detectable_difference(differences: ArrayLike, *, power: float = 0.8, alpha: float = 0.05) -> float | None:
    """Smallest true mean difference that a two-sided paired t-test of this many pairs finds with `power`.

    The scatter is that of `differences` [N]. None below two values.
    """
    data = np.asarray(differences, dtype=np.float64)
    if data.size < 2:
        return None
    return detectable_shift(data.size - 1, power=power, alpha=alpha) * standard_error(data)


def detectable_at(seeds: int, *, power: float = 0.8, alpha: float = 0.05) -> float:
    """What so many paired seeds >= 2 detect, in standard deviations of their differences."""
    return detectable_shift(seeds - 1, power=power, alpha=alpha) / math.sqrt(seeds)


@lru_cache
def detectable_shift(freedom: float, *, power: float = 0.8, alpha: float = 0.05) -> float:
    """How many standard errors away from 0 a mean must be for a two-sided t-test of `freedom` > 0 to find it with `power`."""
    most = 20.0 + 2 * float(distributions.t.ppf(1 - alpha / 2, freedom))
    return float(optimize.brentq(lambda shift: _power(shift, freedom, alpha) - power, 1e-6, most, xtol=1e-10))


def scatter_interval(differences: ArrayLike) -> Estimate:
    """Standard deviation of `differences` [N] with a 95 % interval (chi-square, for normal ones). None below two values.

    Wide at few: with 3 values from half to more than six times what was seen.
    """
    data = np.asarray(differences, dtype=np.float64)
    if data.size < 2:
        return Estimate(math.nan, None, data.size)
    deviation, freedom = standard_error(data) * math.sqrt(data.size), data.size - 1
    high, low = distributions.chi2.ppf([0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2], freedom)
    ends = Interval(deviation * math.sqrt(freedom / low), deviation * math.sqrt(freedom / high))
    return Estimate(deviation, ends, data.size)


def _power(shift: float, freedom: float, alpha: float) -> float:
    """Of a mean `shift` standard errors away from 0."""
    critical = float(distributions.t.ppf(1 - alpha / 2, freedom))
    if shift > FAR * (critical + 1):
        return 1.0  # SciPy's tail is NaN or 0 out there
    wrong_side = np.nan_to_num(distributions.nct.cdf(-critical, freedom, shift))  # SciPy: NaN where it underflows
    return float(distributions.nct.sf(critical, freedom, shift) + wrong_side)


def _check(difference: float, scatter: float, alpha: float) -> None:
    if not math.isfinite(difference):
        raise UserError(f"difference must be finite, got {difference}")
    if not (math.isfinite(scatter) and scatter >= 0):
        raise UserError(f"scatter must be finite and >= 0, got {scatter}")
    if not 0 < alpha < 1:
        raise UserError(f"alpha must lie between 0 and 1, got {alpha:g}")
