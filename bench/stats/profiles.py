"""Performance profiles: in how many comparisons an arm comes within so much of the best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from bench.errors import UserError
from bench.stats.intervals import CONFIDENCE, RESAMPLES, Array, pull_apart
from bench.stats.paired import Key


@dataclass(frozen=True)
class Profile:
    """One arm's profile, all [T] at the tolerances asked for."""

    shares: Array
    """Share of the comparisons, 0 to 1, in which the arm is within the tolerance of the best; never falls."""
    low: Array | None
    high: Array | None
    """95 % band of the shares over resampled seeds, each tolerance by itself; None where a comparison has a single seed."""


def performance_profiles(
    values: Mapping[str, Mapping[str, Mapping[Key, float]]],
    within: ArrayLike,
    *,
    by: Literal["factor", "gap"] = "factor",
    higher_is_better: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Profile]:
    """Profile of every arm across comparisons.

    After Dolan and Moré, Benchmarking Optimization Software with Performance Profiles (Mathematical Programming 91(2), 2002).

    Within a comparison arms are compared by their means over the seeds that all arms with a result share. An arm without a
    result in a comparison is never within any tolerance there. The band says what other seeds would change, not what other
    comparisons would: these are taken as given.

    Args:
        values: comparison -> arm -> seed -> number.
        within: tolerances [T]: factors >= 1 of the best's number (``by="factor"``, numbers must be > 0), or absolute gaps >= 0
            to it (``by="gap"``, same unit in all comparisons).
        by: what a tolerance is.
        higher_is_better: of the numbers.
        resamples: of the bootstrap over seeds, stratified by comparison and paired over its arms.
        seed: of the bootstrap.

    Raises:
        UserError: no comparison, a comparison without a result or without a seed in common, a tolerance or number out of range.
    """
    tolerances = np.asarray(within, dtype=np.float64)
    least = 1.0 if by == "factor" else 0.0
    if tolerances.ndim != 1 or not (tolerances >= least).all():
        raise UserError(f"within must be a list of {by}s >= {least:g}, got {tolerances.tolist()}")
    if not values:
        raise UserError("values must hold at least one comparison, got none")
    arms = list(dict.fromkeys(arm for comparison in values.values() for arm in comparison))
    generator = np.random.default_rng(seed)
    reached = np.zeros((resamples + 1, len(arms), tolerances.size))  # row 0: the means themselves
    banded = True
    for name, comparison in values.items():
        present, table = _shared_seeds(name, comparison)
        if by == "factor" and not (table > 0).all():
            raise UserError(f"{name}: factors of the best need numbers > 0, got {table.min():g}; use gaps")
        means = np.repeat(table.mean(axis=1)[None], resamples + 1, axis=0)
        seeds = table.shape[1]
        if seeds < 2:
            banded = False
        else:
            weights = generator.multinomial(seeds, [1 / seeds] * seeds, size=resamples) / seeds
            means[1:] += pull_apart(seeds) * (weights @ table.T - means[1:])
        behind = _behind(means, by, higher_is_better)
        reached[:, [arms.index(arm) for arm in present]] += behind[..., None] <= tolerances
    shares = reached / len(values)
    low, high = np.quantile(shares[1:], [0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2], axis=0)
    return {
        arm: Profile(shares[0, index], low[index] if banded else None, high[index] if banded else None)
        for index, arm in enumerate(arms)
    }


def _shared_seeds(name: str, comparison: Mapping[str, Mapping[Key, float]]) -> tuple[list[str], Array]:
    """The arms with a result, and their numbers [arms, seeds] on the seeds that all of them have."""
    present = [arm for arm, by_seed in comparison.items() if by_seed]
    if not present:
        raise UserError(f"{name}: no arm has a result; leave the comparison out")
    seeds = [seed for seed in comparison[present[0]] if all(seed in comparison[arm] for arm in present)]
    if not seeds:
        raise UserError(f"{name}: its arms have no seed in common; leave out the arm that lacks them")
    return present, np.array([[comparison[arm][seed] for seed in seeds] for arm in present], dtype=np.float64)


def _behind(means: Array, by: str, higher_is_better: bool) -> Array:
    """How far each of `means` [B, arms] is from the best of its row: a factor >= 1 or a gap >= 0."""
    best = (means.max if higher_is_better else means.min)(axis=1, keepdims=True)
    if by == "gap":
        return np.abs(means - best)
    with np.errstate(divide="ignore", invalid="ignore"):
        # pulled apart, the mean of a few positive numbers may fall below 0: as a cost nothing beats it
        positive, best = np.maximum(means, 0), np.maximum(best, 0)
        ratios = best / positive if higher_is_better else positive / best
    return np.where(positive == best, 1.0, ratios)
