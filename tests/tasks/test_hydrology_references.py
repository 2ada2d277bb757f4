"""Predictors that learn nothing: known answers, and that they see what is visible and no more."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bench.tasks.hydrology_batches import Chosen, gather
from bench.tasks.hydrology_config import HydrologyConfig
from bench.tasks.hydrology_data import Region
from bench.tasks.hydrology_references import (
    REFERENCES,
    Seen,
    anomaly_in_time,
    in_time,
    nearest_anomaly,
    nearest_day,
    nearest_patch,
)
from tests.tasks.hydrology_data import small_region

NAN = np.nan


def seen(values, climatology=None) -> Seen:
    """A window [T, N] of patches of one pixel that lie in a row."""
    window = np.asarray(values, np.float32)[None, ..., None]
    usual = np.zeros_like(window) if climatology is None else np.asarray(climatology, np.float32)[None, ..., None]
    place = np.arange(window.shape[2], dtype=np.float32)
    return Seen(window, usual, abs(place[:, None] - place))


def filled(fill, *given) -> list:
    return fill(seen(*given))[0, ..., 0].tolist()


def test_time_is_interpolated_between_visible_days_and_held_beyond_them() -> None:
    column = np.array([[NAN], [1], [NAN], [NAN], [7], [NAN]])
    assert filled(in_time, column) == [[1], [1], [3], [5], [7], [7]]
    assert filled(in_time, np.full((2, 1), NAN), [[4], [5]]) == [[4], [5]]
    usual = [[10], [20], [30], [40], [50], [60]]
    assert filled(anomaly_in_time, column, usual) == [[-9], [1], [3], [5], [7], [17]]
    assert filled(nearest_day, column) == [[1], [1], [1], [7], [7], [7]]
    assert filled(nearest_day, np.full((2, 1), NAN), [[4], [5]]) == [[4], [5]]


def test_the_nearest_visible_patch_of_the_day_stands_for_the_others() -> None:
    day = [[NAN, 2, NAN, NAN, 8]]
    assert filled(nearest_patch, day) == [[2, 2, 2, 8, 8]]
    usual = [[0, 1, 2, 3, 4]]
    assert filled(nearest_anomaly, day, usual) == [[1, 2, 3, 7, 8]]
    assert filled(nearest_patch, [[NAN] * 5], usual) == usual
    assert filled(nearest_anomaly, [[NAN] * 5], usual) == usual


@pytest.mark.parametrize("options", [{}, {"missing_modality": 0.4}, {"image_mask": "block", "series_mask": "days"}])
def test_references_read_visible_tokens_alone(options) -> None:
    config = HydrologyConfig(patch_cells=4, days=8, test_years=1, held_out_catchments=2, **options)
    region = Region(small_region(), config)
    draws = np.random.default_rng(0).integers(0, 2**64, 4, dtype=np.uint64)
    starts = region.windows("test", 8)[[3, 3, 5, 9]]
    present = np.ones((4, 5), bool)
    present[1, [0, 3]] = not config.missing_modality
    draws[1] = draws[0]
    chosen = Chosen(np.array([0, 1, 2, 3]), starts, np.full(4, 8), draws, draws, present)
    batch = gather(config, region, chosen, longest=8)
    for reference in REFERENCES:
        plain = reference.predict(region, batch, chosen)
        assert plain["image_prediction"].shape == batch["image_targets"].shape
        assert plain["series_prediction"].shape == batch["series_targets"].shape
        assert all(value.isfinite().all() for value in plain.values())
        spoiled = {name: value * 0 - 5 if "targets" in name else value for name, value in batch.items()}
        again = reference.predict(region, spoiled, chosen)
        assert all(torch.equal(plain[name], again[name]) for name in plain)
        other = {name: value + 1 if name.endswith("values") else value for name, value in batch.items()}
        changed = {
            name
            for name, value in reference.predict(region, other, chosen).items()
            if not torch.equal(value, plain[name])
        }
        # On the days of a block no patch is visible, near or far.
        blind = reference.name.startswith("nearest") and config.image_mask == "block"
        expected = set() if reference.name == "climatology" else {"series_prediction"} if blind else set(plain)
        assert changed == expected


def test_a_soil_that_never_moves_is_known_from_any_day() -> None:
    data = small_region()
    data.grids.values[1] = data.grids.values[1, :1]
    config = HydrologyConfig(
        patch_cells=4, days=8, test_years=1, images=("soil_moisture",), image_mask="per-day", mask_ratio=0.5
    )
    region = Region(data, config)
    draws = np.zeros(1, np.uint64)
    chosen = Chosen(np.zeros(1, np.int64), region.windows("test", 8)[:1], np.full(1, 8), draws, draws)
    batch = gather(config, region, chosen, longest=8)
    found = REFERENCES[-1].predict(region, batch, chosen)["image_prediction"]
    error = (found - batch["image_targets"])[batch["image_target_mask"]]
    torch.testing.assert_close(error, torch.zeros_like(error), atol=1e-4, rtol=0)
