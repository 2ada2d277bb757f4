"""Caravan: csv and NetCDF give the same."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest

from bench.data.hydrology.caravan import PET_NOTICE, open_caravan
from bench.errors import UserError
from tests.data.hydrology_files import CARAVAN_COLUMNS, caravan_values, days, write, write_caravan, write_netcdf


def refusal(root: Path, *args, **options) -> str:
    with pytest.raises(UserError) as error:
        open_caravan(root, *args, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("kind", ["csv", "netcdf"])
def test_series_and_attributes(tmp_path, kind):
    data = open_caravan(write_caravan(tmp_path / "Caravan", kind, "camelsgb"))
    gauges = data.gauges
    assert gauges.ids == ("camelsgb_1", "camelsgb_2")
    assert gauges.names == ("precipitation", "temperature", "soil_moisture", "flow")
    assert gauges.units == ("mm/d", "degC", "m3/m3", "mm/d")
    assert (str(data.dates[0]), len(data.dates)) == ("1990-01-01", 5)
    for i in (0, 1):
        np.testing.assert_array_equal(gauges.values[i], caravan_values(i, 5)[[1, 3, 4, 0]])
    np.testing.assert_array_equal(gauges.statics[1], np.arange(10, 21))


def test_csv_and_netcdf_have_one_fingerprint(tmp_path):
    prints = {open_caravan(write_caravan(tmp_path / kind, kind, "camels")).fingerprint for kind in ("csv", "netcdf")}
    assert len(prints) == 1
    both = write_caravan(tmp_path / "csv", "netcdf", "camels")
    assert open_caravan(both).fingerprint in prints


def test_sources_can_be_chosen(tmp_path):
    root = write_caravan(tmp_path, "csv", "camels")
    write_caravan(root, "csv", "lamah", ("9",))
    assert open_caravan(root).gauges.ids == ("camels_1", "camels_2", "lamah_9")
    assert np.isfinite(open_caravan(root).gauges.statics).all()
    assert open_caravan(root, "lamah").gauges.ids == ("lamah_9",)
    assert open_caravan(root, basins=["camels_2"]).gauges.ids == ("camels_2",)
    assert "source must be one of camels, lamah" in refusal(root, "hysets")
    assert "no catchment camels_3" in refusal(root, basins=["camels_3"])


def test_era5_evaporation_is_warned_of_and_penman_monteith_is_preferred(tmp_path):
    root = write_caravan(tmp_path, "csv", "camels")
    assert open_caravan(root, series=["potential_evaporation", "flow"]).notices == (PET_NOTICE,)
    for file in root.rglob("timeseries/**/*.csv"):
        text = file.read_text()
        text = text.replace("potential_evaporation_sum", "potential_evaporation_sum_ERA5_LAND")
        file.write_text(text.replace("temperature_2m_mean", "potential_evaporation_sum_FAO_PENMAN_MONTEITH"))
    data = open_caravan(root, series=["potential_evaporation"])
    assert data.notices == ()
    np.testing.assert_array_equal(data.gauges.values[0, 0], caravan_values(0, 5)[3])


@pytest.mark.parametrize("kind", ["csv", "netcdf"])
def test_damaged_files_are_named(tmp_path, kind):
    root = write_caravan(tmp_path, kind, "camels")
    file = next(root.rglob("camels_2.*"))
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    said = refusal(root)
    assert str(file) in said
    assert "etch it again" in said


def test_a_release_without_a_series_says_so(tmp_path):
    root = write_caravan(tmp_path, "netcdf", "camels")
    assert "series must be different names among flow" in refusal(root, series=["wind"])
    assert "has no column u_component_of_wind_10m_mean for wind_east" in refusal(root, series=["wind_east"])
    shutil.rmtree(root / "timeseries")
    assert "no catchment; it should hold Caravan" in refusal(root)


def test_a_day_twice_in_a_netcdf_file_is_refused(tmp_path):
    root = write_caravan(tmp_path, "netcdf", "camels")
    file = next(root.rglob("camels_2.nc"))
    twice = days("1990-01-01", 5)
    twice[3] = twice[1]
    write_netcdf(file, twice, dict(zip(CARAVAN_COLUMNS, caravan_values(1, 5), strict=True)), "date")
    assert refusal(root) == f"{file} has 1990-01-02 twice; remove one of them"


def test_csv_needs_no_extra_and_netcdf_names_it(tmp_path, monkeypatch):
    csv = write_caravan(tmp_path / "csv", "csv", "camels")
    netcdf = write_caravan(tmp_path / "netcdf", "netcdf", "camels")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "h5netcdf" else find(name))
    assert len(open_caravan(csv).gauges.ids) == 2
    assert refusal(netcdf).endswith("pip install 'isochron[hydrology]'")


def test_an_attribute_of_text_is_named(tmp_path):
    root = write_caravan(tmp_path, "csv", "camels")
    file = next(root.rglob("attributes_other_camels.csv"))
    write(file, "gauge_id,gauge_lat,gauge_lon,area,country", "camels_1,1,2,3,USA", "camels_2,1,2,3,USA")
    assert "country of camels_1 is 'USA', not a number" in refusal(root, statics=["country"])
