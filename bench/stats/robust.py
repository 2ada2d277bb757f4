"""Aggregates over many tasks or samples that one odd run does not carry: interquartile mean, probability of improvement.

What both arms share is drawn together (the same seed on both sides), and every draw is seeded. Definitions after Agarwal et
al., Deep Reinforcement Learning at the Edge of the Statistical Precipice (NeurIPS 2021); the intervals are our own, because
theirs are unpaired and much too narrow at few runs (docs/statistics.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats as distributions

from bench.errors import UserError
from bench.stats.intervals import (
    CONFIDENCE,
    NUMBERS_AT_ONCE,
    RESAMPLES,
    Array,
    Estimate,
    Interval,
    bootstrap_interval,
    pull_apart,
)

T = TypeVar("T", float, Array)
Columns = Literal["tasks", "samples"]
"""What the columns of a matrix of runs are. Of ``tasks`` every cell is a run of its own: runs are drawn anew in each column
(stratified). Of ``samples`` a row is one trained network on all of them: whole rows are drawn, never cells, which would count
samples as runs."""


def interquartile_mean(values: ArrayLike) -> float:
    """Mean of the middle half of all `values` (of any shape): a quarter is left out at either end, rounded down."""
    data = np.asarray(values, dtype=np.float64).ravel()
    return float(_middle_means(data[None])[0]) if data.size else math.nan


def iqm_interval(values: ArrayLike, *, columns: Columns, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """Interquartile mean over all of `values` [runs, columns], with an interval over runs; no interval of one run.

    Raises:
        UserError: not a matrix of finite numbers.
    """
    (data,) = _matrices(values)
    return _over_runs([data], columns, resamples, seed)


def iqm_difference(
    first: ArrayLike, second: ArrayLike, *, columns: Columns, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """Interquartile mean of `first` minus that of `second`, both [runs, columns], with an interval over paired runs.

    Row i is the same seed on both sides and column j the same task or sample. Exchanging the sides turns the signs.

    Raises:
        UserError: not matrices of finite numbers, or of different shapes.
    """
    return _over_runs(_matrices(first, second), columns, resamples, seed)


def probability_of_improvement(
    first: ArrayLike,
    second: ArrayLike,
    *,
    higher_is_better: bool = True,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Probability that a run of `first` beats one of `second`, both [runs, tasks], on a task drawn at random.

    On every task all runs of one side meet all of the other, a tie counts half, and tasks count the same. The interval is
    Wilson's for a share, over as many comparisons as the paired, stratified bootstrap's variance amounts to, at least runs x
    tasks: where one side wins every time the bootstrap never varies, and its own interval would have no width. No interval of
    one run.

    Raises:
        UserError: not matrices of finite numbers, or of different shapes.
    """
    one, other = _matrices(first, second)
    ahead = one.T[:, :, None] - other.T[:, None, :]  # tasks x runs x runs
    wins = 0.5 + 0.5 * np.sign(ahead if higher_is_better else -ahead)
    (runs, tasks), share = one.shape, float(wins.mean())
    if runs < 2:
        return Estimate(share, None, runs)
    weights = np.random.default_rng(seed).multinomial(runs, [1 / runs] * runs, size=(resamples, tasks)) / runs
    draws = np.einsum("bti,tij,btj->b", weights, wins, weights, optimize=True) / tasks
    variance = pull_apart(runs) ** 2 * float(draws.var())
    fewest, most = runs * tasks, runs * runs * tasks
    comparisons = min(max(share * (1 - share) / variance, fewest), most) if variance > 1e-12 else fewest
    found = _wilson(share, comparisons)
    return Estimate(share, found, runs)


def _over_runs(matrices: list[Array], columns: Columns, resamples: int, seed: int) -> Estimate:
    """Interquartile mean of the first matrix, less that of the second where there is one."""
    runs, width = matrices[0].shape
    value = _signed([interquartile_mean(data) for data in matrices])
    if runs < 2:
        return Estimate(value, None, runs)
    generator = np.random.default_rng(seed)
    step = max(1, NUMBERS_AT_ONCE // (runs * width))
    pieces = []
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        rows = generator.integers(runs, size=(count, runs, width if columns == "tasks" else 1))
        drawn = [data[rows, np.arange(width)].reshape(count, -1) for data in matrices]
        pieces.append(_signed([_middle_means(data) for data in drawn]))
    groups = width if columns == "tasks" else 1
    return Estimate(value, bootstrap_interval(value, np.concatenate(pieces), runs, groups), runs)


def _middle_means(data: Array) -> Array:
    """Interquartile mean [B] of each row of `data` [B, N]. SciPy's trim_mean gives the same and takes 15 times as long."""
    cut = data.shape[1] // 4
    return np.asarray(np.sort(data, axis=1)[:, cut : data.shape[1] - cut].mean(axis=1), dtype=np.float64)


def _signed(values: Sequence[T]) -> T:
    """The first less the second, where there is a second."""
    return values[0] - values[1] if len(values) == 2 else values[0]


def _matrices(*values: ArrayLike) -> list[Array]:
    found = [np.asarray(part, dtype=np.float64) for part in values]
    for data in found:
        if data.ndim != 2 or not data.size:
            raise UserError(f"values must be a matrix [runs, columns], got the shape {list(data.shape)}")
        if not np.isfinite(data).all():
            raise UserError("values must be finite: leave out runs that did not finish, on both sides")
        if data.shape != found[0].shape:
            raise UserError(
                f"both sides need the same runs and columns, got {list(found[0].shape)} and {list(data.shape)}"
            )
    return found


def _wilson(share: float, count: float) -> Interval:
    """Wilson's score interval of a share of `count` trials."""
    z = float(distributions.norm.ppf(0.5 + CONFIDENCE / 2))
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return Interval(max(0.0, centre - half), min(1.0, centre + half))
