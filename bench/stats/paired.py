"""Two arms compared by what they share: values come as mappings from a seed, or a sample, to a number."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats as distributions

from bench.stats.intervals import BOOTSTRAP_FROM, Interval, bootstrap_means, mean_interval, pull_apart, standard_error
from bench.stats.planning import detectable_difference

Key = TypeVar("Key", bound=Hashable)
"""What pairs are matched by."""


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

    @property
    def p_value(self) -> float | None:
        """Two-sided p-value of no difference, below 5 % where the interval excludes 0; None without `p_better`.

        Below `BOOTSTRAP_FROM` pairs it is that of the paired t-test.
        """
        return None if self.p_better is None else 2 * min(self.p_better, 1 - self.p_better)


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
    on: the share of bootstrap means above 0, ties halved, with the tails of `mean_interval`.
    """
    data = np.asarray(differences, dtype=np.float64)
    if data.size < 2:
        return None
    if data.size >= BOOTSTRAP_FROM:
        mean = data.mean()
        means = mean + pull_apart(data.size) * (bootstrap_means(data, seed=seed) - mean)
        share = (means > 0).mean() + 0.5 * (means == 0).mean()
        return float(distributions.t.cdf(distributions.norm.ppf(share), data.size - 1))
    error = standard_error(data)
    if error == 0:
        return 0.5 + 0.5 * float(np.sign(data.mean()))
    return float(distributions.t.cdf(data.mean() / error, data.size - 1))
