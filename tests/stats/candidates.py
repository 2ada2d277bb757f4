"""Intervals for a mean that bench/stats uses, or might: each takes rows of values [R, N] and gives both ends, [R] each."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import stats as distributions

from bench import stats
from bench.stats.intervals import pull_apart

Array = NDArray[np.float64]
Ends = tuple[Array, Array]
Method = Callable[[Array, np.random.Generator], Ends]


def student(data: Array, _: np.random.Generator) -> Ends:
    """Student's t of `data` [R, N]."""
    count = data.shape[1]
    half = distributions.t.ppf(0.975, count - 1) * data.std(axis=1, ddof=1) / math.sqrt(count)
    return data.mean(axis=1) - half, data.mean(axis=1) + half


def welch(first: Array, second: Array) -> Ends:
    """Welch's interval of second minus first, of the rows of `first` [R, N] and `second` [R, M]; `stats.unpaired_difference`."""
    shares = np.stack([side.var(axis=1, ddof=1) / side.shape[1] for side in (first, second)])
    freedom = shares.sum(axis=0) ** 2 / (shares**2 / [[first.shape[1] - 1], [second.shape[1] - 1]]).sum(axis=0)
    half = distributions.t.ppf(0.975, freedom) * np.sqrt(shares.sum(axis=0))
    mean = second.mean(axis=1) - first.mean(axis=1)
    return mean - half, mean + half


def johnson(data: Array, rng: np.random.Generator) -> Ends:
    """Student's t shifted by the skewness (Johnson, Journal of the American Statistical Association 73, 1978)."""
    low, high = student(data, rng)
    centred = data - data.mean(axis=1, keepdims=True)
    shift = (centred**3).mean(axis=1) / (6 * data.shape[1] * data.var(axis=1))
    return low + shift, high + shift


def resampled(data: Array, rng: np.random.Generator, resamples: int) -> tuple[Array, Array]:
    """Means and standard deviations [R, resamples] of the rows of `data` drawn with replacement."""
    count = data.shape[1]
    weights = rng.multinomial(count, [1 / count] * count, size=resamples).T / count
    centre = data.mean(axis=1, keepdims=True)
    means = (data - centre) @ weights
    variance = np.maximum((data - centre) ** 2 @ weights - means**2, 0)
    return means + centre, np.sqrt(variance)


def percentile(data: Array, rng: np.random.Generator) -> Ends:
    """Quantiles of the bootstrap means."""
    low, high = np.quantile(resampled(data, rng, 1000)[0], [0.025, 0.975], axis=1)
    return low, high


def bca(data: Array, rng: np.random.Generator) -> Ends:
    """Bias-corrected and accelerated (Efron, Journal of the American Statistical Association 82, 1987)."""
    means = np.sort(resampled(data, rng, 1000)[0], axis=1)
    mean = data.mean(axis=1, keepdims=True)
    below = ((means < mean) + 0.5 * (means == mean)).mean(axis=1)
    bias = distributions.norm.ppf(np.clip(below, 1e-3, 1 - 1e-3))
    centred = data - mean
    acceleration = (centred**3).sum(axis=1) / (6 * (centred**2).sum(axis=1) ** 1.5)
    ends = []
    for z in distributions.norm.ppf([0.025, 0.975]):
        level = distributions.norm.cdf(bias + (bias + z) / (1 - acceleration * (bias + z)))
        ends.append(means[np.arange(len(means)), np.round(level * (means.shape[1] - 1)).astype(int)])
    return ends[0], ends[1]


def studentised(data: Array, rng: np.random.Generator) -> Ends:
    """Bootstrap-t. A draw of equal values has no scatter: its t is infinite."""
    means, scatter = resampled(data, rng, 1000)
    mean, own = data.mean(axis=1), data.std(axis=1)
    away = means - mean[:, None]
    t = np.where(scatter > 1e-9, away / np.maximum(scatter, 1e-9), np.sign(away) * 1e9)
    low, high = np.quantile(t, [0.025, 0.975], axis=1)
    return mean - high * own, mean - low * own


def expanded(data: Array, rng: np.random.Generator) -> Ends:
    """Expanded percentile, what `stats.mean_interval` takes from `stats.BOOTSTRAP_FROM` values on."""
    count, mean = data.shape[1], data.mean(axis=1, keepdims=True)
    means = mean + pull_apart(count) * (resampled(data, rng, 1000)[0] - mean)
    tail = distributions.norm.sf(distributions.t.ppf(0.975, count - 1))
    low, high = np.quantile(means, [tail, 1 - tail], axis=1)
    return low, high


def now(data: Array, rng: np.random.Generator) -> Ends:
    """`stats.mean_interval`, row by row, with resamples of its own (tests hold the two together)."""
    return (student if data.shape[1] < stats.BOOTSTRAP_FROM else expanded)(data, rng)


METHODS: dict[str, Method] = {
    "now": now,
    "Student's t": student,
    "Johnson's t": johnson,
    "percentile": percentile,
    "BCa": bca,
    "bootstrap-t": studentised,
    "expanded percentile": expanded,
}
