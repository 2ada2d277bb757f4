"""Segmentation scores from pixel counts of each class, by the definitions of detectron2's evaluator. Knows no torch.

Counts: class -> ``[hits, true, predicted]`` in pixels: predicted as the class and of it; of it; predicted as it. All scores are in
percent, NaN where there is nothing to score.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

Counts = Mapping[str, Sequence[float]]


def miou_gt(counts: Counts) -> float:
    """Mean IoU over the classes that the ground truth has."""
    return _mean(100 * hits / (true + predicted - hits) for hits, true, predicted in counts.values() if true)


def miou_union(counts: Counts) -> float:
    """Mean IoU over the classes that the ground truth or the prediction has; one that is only predicted has 0."""
    return _mean(
        100 * hits / (true + predicted - hits) for hits, true, predicted in counts.values() if true or predicted
    )


def fwiou(counts: Counts) -> float:
    """IoU of each class, weighted by its share of the ground truth."""
    total = math.fsum(true for _, true, _ in counts.values())
    shares = (true * hits / (true + predicted - hits) for hits, true, predicted in counts.values() if true)
    return 100 * math.fsum(shares) / total if total else math.nan


def mean_accuracy(counts: Counts) -> float:
    """Share of a class that is found, mean over the classes that the ground truth has."""
    return _mean(100 * hits / true for hits, true, _ in counts.values() if true)


def pixel_accuracy(counts: Counts) -> float:
    """Share of all pixels that are right."""
    total = math.fsum(true for _, true, _ in counts.values())
    return 100 * math.fsum(hits for hits, _, _ in counts.values()) / total if total else math.nan


def harmonic(counts: Counts) -> float:
    """Harmonic mean of `miou_gt` over the classes named ``seen/..`` and over those named ``unseen/..``.

    Where the ground truth has none of one kind, as a validation split that shows nothing unseen, it is that of the other.
    """
    seen, unseen = (
        miou_gt({name: of for name, of in counts.items() if name.startswith(group)}) for group in ("seen/", "unseen/")
    )
    if math.isnan(seen) or math.isnan(unseen):
        return unseen if math.isnan(seen) else seen
    return 0.0 if seen + unseen == 0 else 2 * seen * unseen / (seen + unseen)


DEFINITIONS: dict[str, Callable[[Counts], float]] = {
    "miou-gt": miou_gt,
    "miou-union": miou_union,
    "fwiou": fwiou,
    "mean-accuracy": mean_accuracy,
    "pixel-accuracy": pixel_accuracy,
    "harmonic": harmonic,
}
"""Values of `Metric.aggregate`; ``miou-gt:seen`` confines one to the classes named ``seen/..``."""


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return math.fsum(found) / len(found) if found else math.nan
