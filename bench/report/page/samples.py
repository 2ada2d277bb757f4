"""What each test sample got from each arm: small arrays for the drill-down of a page."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from bench.aggregates import Value, aggregate
from bench.contracts import Metric, SampleRecord
from bench.report.summary import Summary
from bench.store.read import metric_values

EXTRA_DIGITS = 1
"""Digits beyond those of tables: small differences between samples matter here."""


def gather(summary: Summary) -> dict[str, Any] | None:
    """Every sample's value of every metric of the first table, mean over an arm's finished seeds; None without finished runs.

    Returns:
        ``names`` of the samples, ``metrics``, ``arms`` (those that learn nothing come last) and how many of them are
        ``compared``, and by metric the `pack`-ed ``values`` of every arm and sample.
    """
    arms: dict[str, Sequence[Sequence[SampleRecord]]] = {
        arm.title: [run.result.records for run in arm.finished] for arm in summary.arms if arm.finished
    }
    if not arms:
        return None
    compared = len(arms)
    for entry in summary.comparison.learn_nothing:
        if entry.records:
            arms[f"{entry.label} (learns nothing)"] = [entry.records]
    first = summary.comparison.headline.group
    metrics = [metric for metric in summary.comparison.metrics if metric.group == first]
    names = list(dict.fromkeys(str(record["sample"]) for records in next(iter(arms.values())) for record in records))
    values = [[_values(runs, metric, names) for runs in arms.values()] for metric in metrics]
    kept = [index for index, columns in enumerate(values) if any(value is not None for value in columns[0])]
    scored = [
        number
        for number in range(len(names))
        if any(values[index][arm][number] is not None for index in kept for arm in range(compared))
    ]
    return {
        "names": [names[number] for number in scored],
        "metrics": [_metric(metrics[index]) for index in kept],
        "arms": list(arms),
        "compared": compared,
        "values": [
            pack([[column[number] for number in scored] for column in values[index]], _digits(metrics[index]))
            for index in kept
        ],
    }


def pack(columns: Sequence[Sequence[float | None]], digits: int) -> dict[str, Any]:
    """Numbers of so many digits behind the point, arm by arm, as text that a page reads: a fifth of what JSON takes.

    Returns:
        ``least``, in units of the last digit; ``wide``; ``codes``: base64 of little-endian integers of 16 or, where wide, 32
        bits. Code 0 stands for None, any other for the number (least + code - 1) / 10^digits.
    """
    whole = [None if value is None else round(value * 10**digits) for column in columns for value in column]
    least = min((number for number in whole if number is not None), default=0)
    codes = np.array([0 if number is None else number - least + 1 for number in whole])
    wide = bool(codes.max(initial=0) > np.iinfo(np.uint16).max)
    packed = codes.astype("<u4" if wide else "<u2").tobytes()
    return {"least": least, "wide": wide, "codes": base64.b64encode(packed).decode()}


def _metric(metric: Metric) -> dict[str, Any]:
    return {"label": metric.label, "digits": _digits(metric), "higher": metric.higher_is_better}


def _digits(metric: Metric) -> int:
    return metric.digits + EXTRA_DIGITS


def _values(runs: Iterable[Sequence[SampleRecord]], metric: Metric, names: Sequence[str]) -> list[float | None]:
    found = [metric_values(tuple(records), metric.key) for records in runs]
    return [_mean([values[name] for values in found if name in values], metric) for name in names]


def _mean(values: Sequence[Value], metric: Metric) -> float | None:
    """Mean over seeds of what one sample has of a metric."""
    each = [_alone(value, metric) for value in values]
    if not each or not all(math.isfinite(value) for value in each):
        return None
    return round(math.fsum(each) / len(each), _digits(metric))


def _alone(value: Value, metric: Metric) -> float:
    """A metric of one sample as if it were the whole test set."""
    return aggregate([value], metric.aggregate) if isinstance(value, Mapping) else float(value)
