"""A small region whose rain comes and goes, whose soil moisture hardly moves within a week, and whose rivers follow the rain.

Also the task on it, and a model of it whose answers are known.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from bench.data.hydrology import Gauges, Grids, HydrologyData
from bench.data.hydrology.region import STATIC_NAMES
from bench.tasks.hydrology import Hydrology, HydrologyConfig

CPU = torch.device("cpu")
HEIGHT, WIDTH, CATCHMENTS = 16, 20, 6
SEA_COLUMNS = 5
"""With patches of 4 cells the first column of patches is sea, and the second one is so for a quarter."""
PATCHES = 16
"""Of 20 the 4 in the first column are sea."""
SMALL = {"patch_cells": 4, "days": 8, "test_years": 1, "held_out_catchments": 2}


def small_region(years: int = 4, seed: int = 0) -> HydrologyData:
    """Daily values from January 1, 2001; every test gets arrays of its own."""
    generator = np.random.default_rng(seed)
    dates = np.arange(np.datetime64("2001-01-01"), np.datetime64(f"{2001 + years}-01-01"))
    days = len(dates)
    season = np.sin(2 * np.pi * np.arange(days) / 365.25)[:, None, None]
    coarse = generator.standard_normal((days, HEIGHT // 4, WIDTH // 4)).repeat(4, axis=1).repeat(4, axis=2)
    rain = np.maximum(coarse, 0) ** 1.5 * generator.uniform(2, 4, (HEIGHT, WIDTH))
    walk = np.cumsum(generator.standard_normal((days, HEIGHT // 4, WIDTH // 4)), axis=0) / np.sqrt(days)
    soil = 0.5 + 0.2 * walk.repeat(4, axis=1).repeat(4, axis=2)
    warmth = 10 + 8 * season + generator.standard_normal((days, 1, 1)) + np.linspace(0, 2, WIDTH)
    temperature = np.broadcast_to(warmth, rain.shape)
    land = np.ones((HEIGHT, WIDTH), bool)
    land[:, :SEA_COLUMNS] = False
    values = np.stack([rain, soil, temperature]).astype(np.float32)
    values[:, :, ~land] = -999
    wet = rain[:, land].reshape(days, CATCHMENTS, -1).mean(axis=-1).T
    flow = np.stack([np.convolve(own, 0.5 ** np.arange(1, 12), "full")[:days] for own in wet]) + 0.2
    evaporation = np.broadcast_to(2 + season[:, 0, 0], flow.shape) + 0.2 * generator.standard_normal(flow.shape)
    statics = generator.standard_normal((CATCHMENTS, 11)) * 5 + 3
    return HydrologyData(
        dates=dates,
        grids=Grids(("rain", "soil_moisture", "temperature"), ("mm/d", "1", "degC"), values, land),
        gauges=Gauges(
            tuple(f"g{number}" for number in range(CATCHMENTS)),
            ("evaporation", "flow"),
            ("mm/d", "mm/d"),
            np.stack([evaporation, flow], axis=1).astype(np.float32),
            STATIC_NAMES,
            statics.astype(np.float32),
        ),
        fingerprint="small",
        notices=("a region for tests",),
    )


def small_task(cache_dir: Path, data: HydrologyData | None = None, **options) -> Hydrology:
    """The task on the small region, or on other data, with windows of 8 days."""
    region = small_region() if data is None else data
    return Hydrology(HydrologyConfig(**{**SMALL, **options}), cache_dir, lambda: region)


def some(task: Hydrology, count: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Indices and draws of random training samples."""
    generator = np.random.default_rng(seed)
    return generator.integers(0, task.training_size(), count), generator.integers(0, 2**64, count, dtype=np.uint64)


class Guess(nn.Module):
    """Predicts one value everywhere."""

    def __init__(self, value: float = 0.0) -> None:
        super().__init__()
        self.value = value

    def forward(self, image_predicted=None, series_predicted=None, image_values=None, **others):
        found = {}
        if image_predicted is not None:
            found["image_prediction"] = torch.full((*image_predicted.shape, image_values.shape[-1]), self.value)
        if series_predicted is not None:
            found["series_prediction"] = torch.full(series_predicted.shape, self.value)
        return found
