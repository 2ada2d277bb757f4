"""Statistics for few seeds: which differences are real, how sure, and what they follow. NumPy and SciPy only.

Everything is paired: values come as mappings from what they share (a seed, a sample) to a number, and only what both sides
have is compared. docs/statistics.md says which number answers which question, and shows by simulation that the intervals
cover what they promise.
"""

from bench.stats.crossovers import Crossover, Curve, crossover
from bench.stats.intervals import (
    BOOTSTRAP_FROM,
    CONFIDENCE,
    RESAMPLES,
    Array,
    Estimate,
    Interval,
    bootstrap_interval,
    bootstrap_means,
    mean_interval,
    median_interval,
)
from bench.stats.multiple import holm, not_worse_than_best, simultaneous_intervals
from bench.stats.paired import Key, PairedDifference, paired_difference, probability_positive
from bench.stats.planning import detectable_at, detectable_difference, power, scatter_interval, seeds_needed
from bench.stats.power_laws import Form, HeldOut, PowerLaw, fit_power_law, predict_largest
from bench.stats.profiles import Profile, performance_profiles
from bench.stats.robust import Columns, interquartile_mean, iqm_difference, iqm_interval, probability_of_improvement
from bench.stats.two_samples import Difference, unpaired_difference

__all__ = [
    "BOOTSTRAP_FROM",
    "CONFIDENCE",
    "RESAMPLES",
    "Array",
    "Columns",
    "Crossover",
    "Curve",
    "Difference",
    "Estimate",
    "Form",
    "HeldOut",
    "Interval",
    "Key",
    "PairedDifference",
    "PowerLaw",
    "Profile",
    "bootstrap_interval",
    "bootstrap_means",
    "crossover",
    "detectable_at",
    "detectable_difference",
    "fit_power_law",
    "holm",
    "interquartile_mean",
    "iqm_difference",
    "iqm_interval",
    "mean_interval",
    "median_interval",
    "not_worse_than_best",
    "paired_difference",
    "performance_profiles",
    "power",
    "predict_largest",
    "probability_of_improvement",
    "probability_positive",
    "scatter_interval",
    "seeds_needed",
    "simultaneous_intervals",
    "unpaired_difference",
]
