"""Options of the task ``hydrology``: wrong ones are refused in one line, and so are data that they do not fit."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from bench.data.hydrology.spec import HydrologySpec
from bench.errors import UserError
from bench.registry import make_config
from bench.tasks.hydrology import PRESETS, Hydrology, HydrologyConfig
from tests.tasks.hydrology_data import small_task


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"data": "era5"}, "task.data must be one of generated, camels-us, camels-gb, caravan, generic, got 'era5'"),
        ({"data_path": "there"}, "task.data_path is 'there', but task.data: generated makes its own"),
        (
            {"data": "camels-us", "data_path": "a"},
            "task.images is ['rain', 'soil_moisture', 'temperature'], but task.grids",
        ),
        ({"data": "camels-us", "images": (), "grids_path": "a.nc"}, "task.images is [], but task.grids_path is 'a.nc'"),
        ({"forcing": "maurer"}, "task.forcing: only camels-us has it, task.data is generated"),
        ({"caravan_source": "camels"}, "task.caravan_source: only caravan has it"),
        ({"days": 0}, "task.days must be a whole number of at least 1, got 0"),
        ({"days": 3}, "task.days: of a window of 3 days a mask ratio of 0.75 keeps none"),
        ({"window_jitter": 0.8}, "task.days: of a window of 3 days a mask ratio of 0.75 keeps none"),
        ({"mask_ratio": 1.0}, "task.mask_ratio must be between 0 and 1, got 1.0"),
        ({"missing_modality": 1}, "task.missing_modality must be at least 0 and less than 1, got 1"),
        (
            {"missing_modality": 0.1, "images": (), "series": ("flow",)},
            "task.missing_modality must be 0: there is only one",
        ),
        ({"image_mask": "grid"}, "task.image_mask must be one of auto, per-day, tube, block, got 'grid'"),
        ({"image_mask": ("tube", "tube")}, "task.image_mask must have 3 entries, one for each of task.images, got 2"),
        ({"series_mask": "tube"}, "task.series_mask must be one of days, block, got 'tube'"),
        ({"images": ("rain", "rain")}, "task.images must name nothing twice"),
        ({"images": ("flow",)}, "task.series must not have a name of task.images, got flow"),
        ({"images": (), "series": ()}, "task.images and task.series are both empty"),
        ({"series": ()}, "task.series is empty, so there are no catchments: set task.statics: []"),
        ({"unified_masks": 1}, "task.unified_masks must be true or false, got 1"),
        ({"held_out_catchments": -1}, "task.held_out_catchments must be a whole number of at least 0, got -1"),
        ({"data": "camels-us", "images": (), "data_path": ""}, "task.data_path is empty"),
        (
            {"data": "generic", "images": (), "data_path": "a"},
            "task.series is not set: with task.data: generic name the",
        ),
        ({"test_years": 0}, "task.test_years must be a whole number of at least 1, got 0"),
    ],
)
def test_wrong_options_are_refused_in_one_line(options: dict, line: str) -> None:
    with pytest.raises(UserError, match=re.escape(line)):
        HydrologyConfig(**options)


def test_presets_are_legal_and_options_come_from_a_comparison() -> None:
    assert PRESETS.keys() == {"tiny", "small", "paper"}
    options = {"region": {"years": 12}, "image_mask": ["tube", "per-day", "block"], "series": ["flow"]}
    config = make_config(Hydrology, options, "task")
    assert config.region == HydrologySpec(years=12)
    assert config.image_masks == ("tube", "per-day", "block")
    # A resumed comparison reads back what it wrote.
    assert make_config(Hydrology, dataclasses.asdict(config), "task") == config


def test_architectures_are_told_what_the_data_has() -> None:
    shared = HydrologyConfig().shared_options()
    assert shared == {"image_modalities": 3, "patch_pixels": 64, "series_modalities": 2, "static_attributes": 11}
    gauges = HydrologyConfig(data="camels-us", images=(), data_path="a").shared_options()
    assert (gauges["image_modalities"], gauges["series_modalities"], gauges["static_attributes"]) == (0, 5, 11)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"images": ("snow",)}, "task.images: the data have no snow; they have rain, soil_moisture, temperature"),
        ({"series": ("level",)}, "task.series: the data have no level"),
        ({"statics": ("colour",)}, "task.statics: the data have no colour"),
        ({"held_out_catchments": 6}, "task.held_out_catchments must be less than the 6 catchments, got 6"),
        ({"test_years": 3}, "task.days: a window of 8 days does not fit into the 0 days of train"),
        ({"patch_cells": 8}, "keeps none; make patches smaller"),
    ],
)
def test_data_that_do_not_fit_the_options_are_refused(tmp_path: Path, options: dict, line: str) -> None:
    with pytest.raises(UserError, match=re.escape(line)):
        small_task(tmp_path, **options).training_size()


def test_files_that_are_not_there_are_asked_for(tmp_path: Path) -> None:
    gauges = {"data": "camels-gb", "images": ()}
    with pytest.raises(UserError, match=r"task\.data_path is not set: give the folder of camels-gb"):
        Hydrology(HydrologyConfig(**gauges), tmp_path).prepare()
    with pytest.raises(UserError, match="is no folder"):
        Hydrology(HydrologyConfig(**gauges, data_path=str(tmp_path / "no")), tmp_path).prepare()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            {"images": ("rain", "snow")},
            r"task\.images: the data have no snow; they have rain, soil_moisture, temperature",
        ),
        ({"series": ("level",)}, r"task\.series: the data have no level"),
        ({"held_out_catchments": 24}, r"task\.held_out_catchments must be less than the 24 catchments, got 24"),
        ({"days": 800}, r"task\.days: a window of 800 days does not fit"),
    ],
)
def test_what_the_generated_region_cannot_have_is_refused_before_it_is_made(tmp_path, options, line) -> None:
    with pytest.raises(UserError, match=line):
        Hydrology(dataclasses.replace(PRESETS["tiny"], **options), tmp_path)
    assert not list(tmp_path.iterdir())
