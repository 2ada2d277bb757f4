"""What stands for a run: one number of a metric from what its samples have of it. Knows no torch."""

from __future__ import annotations

import base64
import math
import statistics
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.class_counts import DEFINITIONS, Counts
from bench.contracts import Metric

Value = float | Mapping[str, Sequence[float]] | Mapping[str, str]
"""What a sample has of a metric: a number; part -> [numerator, denominator]; class -> [hits, true, predicted]; or the features
of its ``prediction`` and its ``truth`` (`encode_features`)."""

FEATURE = np.dtype("<f2")
"""How a feature is kept: 11 significant bits in 2 bytes."""
ROWS = 1024
"""Of a kernel's matrix that are held at a time."""


def aggregate(values: Collection[Any], how: str = "mean") -> float:
    """One number for a run from the `Value`s of its samples, as `Metric.aggregate` says; NaN of none.

    ``pooled``: for each part the sum of numerators over the sum of denominators, in percent; their mean over the parts that
    have any denominator. A definition of `bench.class_counts`, perhaps behind a colon the group of classes that it is
    confined to (``miou-gt:seen``): of the counts of each class summed over samples. ``frechet`` and ``kernel``: the distance
    between the features of all predictions and those of all truths, NaN of features that are damaged.
    """
    if how in DISTANCES:
        sets = _feature_sets(values)
        return DISTANCES[how](*sets) if sets.size else math.nan
    name, _, group = how.partition(":")
    if name in DEFINITIONS:
        counts = _sums(values)
        return DEFINITIONS[name](
            {part: sums for part, sums in counts.items() if part.startswith(f"{group}/" * bool(group))}
        )
    if how == "pooled":
        values = [100 * above / below for above, below in _sums(values).values() if below]
    if not values:
        return math.nan
    return statistics.median(values) if how == "median" else math.fsum(values) / len(values)


def _sums(values: Iterable[Mapping[str, Sequence[float]]]) -> Counts:
    """Part -> its entries summed over `values`."""
    sums: dict[str, Sequence[float]] = {}
    for value in values:
        for part, entries in value.items():
            before = sums.get(part)
            sums[part] = entries if before is None else [a + b for a, b in zip(before, entries, strict=True)]
    return sums


def encode_features(features: NDArray[Any]) -> str:
    """The features [D] of one image as a record holds them: Base64 of little-endian half-precision floats.

    Raises:
        FloatingPointError: one is not finite, or beyond 65504.
    """
    with np.errstate(over="ignore"):
        kept = features.astype(FEATURE)
    if not np.isfinite(kept).all():
        raise FloatingPointError(f"a feature is {features[~np.isfinite(kept)][0]}, which half precision cannot hold")
    return base64.b64encode(kept.tobytes()).decode()


def _feature_sets(values: Collection[Mapping[str, str]]) -> NDArray[np.float64]:
    """Features [2, N, D] of predictions and truths of N samples; none where one cannot be read or is not finite."""
    try:
        rows = [
            [np.frombuffer(base64.b64decode(value[part], validate=True), FEATURE) for value in values]
            for part in ("prediction", "truth")
        ]
        sets = np.array(rows, dtype=np.float64)
    except (KeyError, TypeError, ValueError):
        return np.empty(0)
    return sets if np.isfinite(sets).all() else np.empty(0)


def frechet_distance(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Squared Fréchet distance between Gaussians that have mean and covariance of two sets (FID, Heusel et al. 2017).

    Args:
        first: features [N, D].
        second: features [M, D].

    Returns:
        0 or more; NaN unless both sets have more than D members, for their covariances would be singular.
    """
    if min(len(first), len(second)) <= first.shape[1]:
        return math.nan
    shift = first.mean(axis=0) - second.mean(axis=0)
    centred = [(features - features.mean(axis=0)) / math.sqrt(len(features) - 1) for features in (first, second)]
    roots = [np.asarray(np.linalg.qr(features, mode="r")) for features in centred]
    # The trace of the root of the covariances' product, without a root of eigenvalues that are zero but for rounding.
    common = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
    spread = sum(float(np.square(features).sum()) for features in centred)
    return max(0.0, float(shift @ shift) + spread - 2 * float(common))


def kernel_distance(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Unbiased squared MMD of two sets under the kernel (x.y / D + 1)^3 (KID, Binkowski et al. 2018), over all pairs at once.

    Args:
        first: features [N, D].
        second: features [M, D].

    Returns:
        About 0, on either side of it, where both are of one kind; NaN of fewer than two members.
    """
    n, m = len(first), len(second)
    if min(n, m) < 2:
        return math.nan
    within = (_kernel_sum(of, of) - math.fsum(_cubed(np.square(of).sum(axis=1), of.shape[1])) for of in (first, second))
    of_first, of_second = within
    return of_first / (n * (n - 1)) + of_second / (m * (m - 1)) - 2 * _kernel_sum(first, second) / (n * m)


def _kernel_sum(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Sum of the kernel over all pairs of rows."""
    blocks = (first[start : start + ROWS] @ second.T for start in range(0, len(first), ROWS))
    return math.fsum(float(_cubed(products, first.shape[1]).sum()) for products in blocks)


def _cubed(products: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    base = products / size + 1
    return base * base * base


DISTANCES: dict[str, Callable[[NDArray[np.float64], NDArray[np.float64]], float]] = {
    "frechet": frechet_distance,
    "kernel": kernel_distance,
}
"""Values of `Metric.aggregate` for features."""


def final_metrics(
    records: Sequence[Mapping[str, Any]], aggregates: Mapping[str, str], sources: Mapping[str, str]
) -> dict[str, float]:
    """Every metric over the records that have it: their mean, unless `aggregates` says otherwise. One that is undefined is left out.

    Args:
        records: of the samples.
        aggregates: metric -> `Metric.aggregate`.
        sources: metric -> `Metric.of`, of those that are computed from another key of the record.
    """
    keys = {key: key for record in records for key in record if key != "sample" and key not in sources.values()}
    found = {}
    for name, key in (keys | dict(sources)).items():
        value = aggregate([record[key] for record in records if key in record], aggregates.get(name, "mean"))
        if not math.isnan(value):
            found[name] = value
    return found


def summarise(metrics: Sequence[Metric], records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What stands for these records: every metric that they define."""
    values = {
        metric.name: aggregate([record[metric.key] for record in records if metric.key in record], metric.aggregate)
        for metric in metrics
    }
    return {name: value for name, value in values.items() if not math.isnan(value)}
