"""What stands for a run: one number of a metric from what its samples have of it. Knows no torch."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from bench.class_counts import DEFINITIONS, Counts
from bench.contracts import Metric

Value = float | Mapping[str, Sequence[float]]
"""What a sample has of a metric: a number; part -> [numerator, denominator]; or class -> [hits, true, predicted]."""


def aggregate(values: Collection[Any], how: str = "mean") -> float:
    """One number for a run from the `Value`s of its samples, as `Metric.aggregate` says; NaN of none.

    ``pooled``: for each part the sum of numerators over the sum of denominators, in percent; their mean over the parts that
    have any denominator. A definition of `bench.class_counts`, perhaps behind a colon the group of classes that it is
    confined to (``miou-gt:seen``): of the counts of each class summed over samples.
    """
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
            sums[part] = [a + b for a, b in zip(sums.get(part, [0] * len(entries)), entries, strict=True)]
    return sums


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
