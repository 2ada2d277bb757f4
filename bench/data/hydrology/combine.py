"""Gauged catchments and grids on the days that both have."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bench.data.hydrology.catchments import digest_gauges, update_digest
from bench.data.hydrology.data import Grids, HydrologyData
from bench.errors import UserError

BLOCK_DAYS = 256


def combine(gauges: HydrologyData | None, grids: tuple[NDArray[np.datetime64], Grids]) -> HydrologyData:
    """Put the grids of `open_grids` beside the catchments of a reader, or beside nothing.

    Args:
        gauges: what a reader of catchments gave; None for grids alone.
        grids: their days, and the grids. They may be memory-mapped and stay so.

    Raises:
        UserError: no day in common, no land at all, or `gauges` has grids already.
    """
    days, fields = grids
    if not fields.land.any():
        raise UserError(
            f"grids: no cell of {fields.land.shape[0]} x {fields.land.shape[1]} is land; name the variable of land"
        )
    first, last = days[0], days[-1]
    if gauges is not None:
        if gauges.gauges is None or gauges.grids is not None:
            raise UserError("combine takes catchments without grids, got data that have grids already or no catchments")
        first, last = max(first, gauges.dates[0]), min(last, gauges.dates[-1])
        if first > last:
            raise UserError(
                f"grids ({days[0]} to {days[-1]}) and catchments ({gauges.dates[0]} to {gauges.dates[-1]}) have no day in "
                "common; take data of the same years"
            )
    dates = np.arange(first, last + 1)
    kept = int((first - days[0]).astype(int))
    fields = replace(fields, values=fields.values[:, kept : kept + len(dates)])
    digest = hashlib.sha256(repr((fields.names, fields.units, fields.values.shape, str(first))).encode())
    digest.update(np.packbits(fields.land).tobytes())
    notices = []
    for name, field in zip(fields.names, fields.values, strict=True):
        empty = 0
        for start in range(0, len(dates), BLOCK_DAYS):
            block = field[start : start + BLOCK_DAYS][:, fields.land]  # what stands in the sea is no content
            update_digest(digest, block)
            empty += int(np.isnan(block).all(1).sum())
        if empty:
            notices.append(f"grids: {name} is missing on {empty} of {len(dates)} days")
    if gauges is None or gauges.gauges is None:
        return HydrologyData(dates, fields, None, digest.hexdigest(), tuple(notices))
    kept = int((first - gauges.dates[0]).astype(int))
    series = replace(gauges.gauges, values=gauges.gauges.values[:, :, kept : kept + len(dates)])
    digest.update(digest_gauges(dates, series).encode())
    return HydrologyData(dates, fields, series, digest.hexdigest(), (*gauges.notices, *notices))
