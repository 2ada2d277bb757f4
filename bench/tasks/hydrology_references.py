"""Predictors that learn nothing, for the task ``hydrology``: from visible tokens and training climatology alone.

All work on normalised values with the season in them, whether or not architectures are given anomalies, and answer in the form
of an architecture. Axes as in `hydrology_masks`; P pixels a patch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from bench.contracts import Batch
    from bench.tasks.hydrology_batches import Chosen
    from bench.tasks.hydrology_data import Region

Values = NDArray[np.float32]


class Seen(NamedTuple):
    """One modality of a batch, or all of one shape, on the whole window."""

    values: Values
    """[G, T, N, P]; NaN where hidden or not observed."""
    climatology: Values
    """The same shape, without NaN."""
    distance: NDArray[np.float32]
    """[N, N] between patches."""


@dataclass(frozen=True)
class Reference:
    """One predictor: how it fills a window of images, and of series (one patch of one pixel)."""

    name: str
    label: str
    images: Callable[[Seen], Values]
    series: Callable[[Seen], Values]

    def predict(self, region: Region, batch: Batch, chosen: Chosen) -> dict[str, Tensor]:
        """What it makes of a host batch of `chosen` windows of `region`."""
        outputs = {}
        if "image_visible" in batch:
            # Windows that start on one day show the same images, whatever their catchment.
            _, some, back = np.unique(chosen.starts, return_index=True, return_inverse=True)
            outputs["image_prediction"] = _images(batch, chosen, region, self.images, some)[back]
        if "series_visible" in batch:
            outputs["series_prediction"] = _series(batch, chosen, region, self.series)
        return outputs


def _images(
    batch: Batch, chosen: Chosen, region: Region, fill: Callable[[Seen], Values], some: NDArray[np.int64]
) -> Tensor:
    """Predictions [B', K, M, P] for the samples `some` [B']."""
    visible, predicted, values = (batch[f"image_{name}"][some].numpy() for name in ("visible", "predicted", "values"))
    days, patches = batch["day_of_year"].shape[1], len(region.patch_positions)
    samples, fields, _, pixels = values.shape
    day = batch["day_of_year"][some].numpy().astype(np.int64)
    usual = region.patch_climatology if region.season is None else region.season[0]
    climatology = usual[:, day].swapaxes(0, 1)  # [B', K, T, N, P]
    window = _spread(values, visible, days * patches).reshape(climatology.shape)
    # What stands for the sea or for a gap inside a visible patch is 0, no observation.
    seen = np.broadcast_to(region.patch_seen, region.patches.shape)
    window[~seen[:, chosen.starts[some][:, None] + np.arange(days)].swapaxes(0, 1)] = np.nan
    gaps = region.patch_positions[:, None] - region.patch_positions
    filled = _fill(fill, window, climatology, region, np.hypot(gaps[..., 0], gaps[..., 1]))
    flat = filled.reshape(samples, fields, days * patches, pixels)
    return torch.from_numpy(np.take_along_axis(flat, np.maximum(predicted, 0)[..., None], axis=2))


def _series(batch: Batch, chosen: Chosen, region: Region, fill: Callable[[Seen], Values]) -> Tensor:
    """Predictions [B, S, M]."""
    visible, predicted, values = (batch[f"series_{name}"].numpy() for name in ("visible", "predicted", "values"))
    day = batch["day_of_year"].numpy().astype(np.int64)
    samples, count, days = *visible.shape[:2], day.shape[1]
    usual = region.series_climatology if region.season is None else region.season[1]
    climatology = usual[chosen.catchments[:, None], :, day].swapaxes(1, 2)[..., None, None]  # [B, S, T, 1, 1]
    window = _spread(values[..., None], visible, days).reshape(climatology.shape)
    filled = _fill(fill, window, climatology, region, np.zeros((1, 1), np.float32))
    flat = filled.reshape(samples, count, days)
    return torch.from_numpy(np.take_along_axis(flat, np.maximum(predicted, 0), axis=2))


def _fill(
    fill: Callable[[Seen], Values],
    window: Values,
    climatology: Values,
    region: Region,
    distance: NDArray[np.float32],
) -> Values:
    """What `fill` makes of windows [B, G, T, N, P]; of anomalies with the season put back, which is taken off the answer."""
    season = 0 if region.season is None else climatology
    values, usual = (part.reshape(-1, *window.shape[2:]) for part in (window + season, climatology))
    return fill(Seen(values, usual, distance)).reshape(window.shape) - season


def _spread(values: Values, number: NDArray[np.int64], tokens: int) -> Values:
    """Values [B, G, V, P] of the tokens `number` [B, G, V] on their places among all, [B, G, tokens, P]; NaN elsewhere."""
    # Padding has the number -1: it falls on one place behind the last, which is cut off.
    window = np.full((*number.shape[:2], tokens + 1, values.shape[-1]), np.nan, np.float32)
    np.put_along_axis(window, np.where(number < 0, tokens, number)[..., None], values, axis=2)
    return window[:, :, :tokens]


def climatology(seen: Seen) -> Values:
    """Mean of the training years around that day of the year, of every pixel."""
    return seen.climatology


def nearest_patch(seen: Seen) -> Values:
    """Mean of the nearest patch that is visible on that day; on a day without any, climatology."""
    return _nearest(seen.values, seen.distance, seen.climatology)


def nearest_anomaly(seen: Seen) -> Values:
    """Climatology and how much the nearest patch that is visible on that day differs from it."""
    anomaly = seen.values - seen.climatology
    return seen.climatology + _nearest(anomaly, seen.distance, np.zeros_like(anomaly))


def _nearest(values: Values, distance: NDArray[np.float32], otherwise: Values) -> Values:
    """Patch means [G, T, N, P] of the nearest patch that has any value on the day, `otherwise` on days without one."""
    there = np.isfinite(values)
    count = there.sum(axis=-1)
    means = np.where(there, values, 0).sum(axis=-1) / np.maximum(count, 1)
    nearest = np.where(count[:, :, None] > 0, distance, np.inf).argmin(axis=-1)
    found = np.take_along_axis(means, nearest, axis=-1)[..., None].astype(np.float32)
    return np.where(count.any(axis=-1)[..., None, None], found, otherwise)


def in_time(seen: Seen) -> Values:
    """On a straight line between the days on which the pixel is visible; climatology where it never is."""
    return _between(seen.values, seen.climatology)


def anomaly_in_time(seen: Seen) -> Values:
    """Climatology and, on a straight line between visible days, how much the pixel differs from it."""
    anomaly = seen.values - seen.climatology
    return seen.climatology + _between(anomaly, np.zeros_like(anomaly))


def nearest_day(seen: Seen) -> Values:
    """The value of the nearest visible day; climatology where there is none."""
    before, after, gap_before, gap_after = _neighbours(seen.values)
    found = np.where(gap_before <= gap_after, before, after)
    return np.where(np.isfinite(found), found, seen.climatology)


def _between(values: Values, otherwise: Values) -> Values:
    """Linear interpolation along T of values [G, T, ...] with NaN; beyond the first and last one they stay as these are."""
    before, after, gap_before, gap_after = _neighbours(values)
    with np.errstate(invalid="ignore"):  # of two gaps that have no end, which make nothing
        middle = before + gap_before / np.maximum(gap_before + gap_after, 1) * (after - before)
    found = np.where(np.isnan(before), after, np.where(np.isnan(after), before, middle))
    return np.where(np.isfinite(found), found, otherwise).astype(np.float32)


def _neighbours(values: Values) -> tuple[Values, Values, Values, Values]:
    """Last value at or before each day and first one at or after it (NaN: none), and the days to each (infinite: none)."""
    days = values.shape[1]
    day = np.arange(days, dtype=np.int64).reshape(1, -1, *[1] * (values.ndim - 2))
    there = np.isfinite(values)
    last = np.maximum.accumulate(np.where(there, day, -1), axis=1)
    first = np.minimum.accumulate(np.where(there, day, days)[:, ::-1], axis=1)[:, ::-1]
    before = np.where(last >= 0, np.take_along_axis(values, np.maximum(last, 0), axis=1), np.nan)
    after = np.where(first < days, np.take_along_axis(values, np.minimum(first, days - 1), axis=1), np.nan)
    gap_before = np.where(last >= 0, day - last, np.inf).astype(np.float32)
    gap_after = np.where(first < days, first - day, np.inf).astype(np.float32)
    return before, after, gap_before, gap_after


REFERENCES = (
    Reference("climatology", "day-of-year climatology", climatology, climatology),
    Reference("nearest", "nearest visible patch; series: nearest visible day", nearest_patch, nearest_day),
    Reference("nearest-anomaly", "climatology + nearest visible anomaly", nearest_anomaly, anomaly_in_time),
    Reference("time-interpolation", "interpolation between visible days", in_time, in_time),
)
