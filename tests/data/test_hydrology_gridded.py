"""Daily grids in NetCDF: files, days, axes, missing values, land, the cache; and grids beside catchments."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import xarray
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.data.hydrology.camels_us import open_camels_us
from bench.data.hydrology.combine import combine
from bench.data.hydrology.data import Grids
from bench.data.hydrology.gridded import open_grids
from bench.errors import UserError
from tests.data.hydrology_files import days, write_camels_us, write_netcdf

ROWS, COLUMNS = np.array([300.0, 200, 100]), np.array([10.0, 20, 30, 40])
"""From north to south, from west to east."""


def fields(first: int, count: int, offset: float = 0.0) -> np.ndarray:
    """[days, 3, 4]: the number of the day since `first`, and the cell in hundredths."""
    return offset + np.arange(first, first + count)[:, None, None] + np.arange(12).reshape(3, 4) / 100


def write_months(folder: Path, **options) -> Path:
    """One file a month of rain and temperature, January and February of 1999."""
    for name, first, count in (("1999-01", 0, 31), ("1999-02", 31, 28)):
        variables = {"rainfall": fields(first, count), "tas": fields(first, count, -5)}
        write_netcdf(folder / f"{name}.nc", days(f"{name}-01", count), variables, y=ROWS, x=COLUMNS, **options)
    return folder


def refusal(path: Path, *args, **options) -> str:
    with pytest.raises(UserError) as error:
        open_grids(path, *args, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_file_a_month(tmp_path):
    dates, grids = open_grids(write_months(tmp_path, units="mm/day"), {"rain": "rainfall", "temperature": "tas"})
    assert grids.names == ("rain", "temperature")
    assert grids.units == ("mm/day", "mm/day")
    np.testing.assert_array_equal(dates, days("1999-01-01", 59))
    np.testing.assert_array_equal(grids.values, np.stack([fields(0, 59), fields(0, 59, -5)]).astype(np.float32))
    assert grids.values.dtype == np.float32
    assert grids.land.all()


def test_one_file_and_one_file_a_variable_give_the_same(tmp_path):
    _, expected = open_grids(write_months(tmp_path / "months"), ["tas", "rainfall"])
    rain, tas = {"rainfall": fields(0, 59)}, {"tas": fields(0, 59, -5)}
    dates = days("1999-01-01", 59)
    one = write_netcdf(tmp_path / "one.nc", dates, rain | tas, y=ROWS, x=COLUMNS)
    write_netcdf(tmp_path / "two" / "rain.nc4", dates, rain, y=ROWS, x=COLUMNS)
    write_netcdf(tmp_path / "two" / "old" / "tas.nc", dates, tas, y=ROWS, x=COLUMNS)
    for path in (one, tmp_path / "two"):
        _, grids = open_grids(path, ["tas", "rainfall"])
        np.testing.assert_array_equal(grids.values, expected.values)
        assert grids.units == ("1", "1")


def test_rows_run_from_north_to_south_and_columns_from_west_to_east(tmp_path):
    value = fields(0, 2)
    for name, options in {
        "as it is": {"y": ROWS, "x": COLUMNS},
        "south first": {"y": ROWS[::-1], "x": COLUMNS, "flip": (1,)},
        "east first": {"y": ROWS, "x": COLUMNS[::-1], "flip": (2,)},
        "without coordinates": {},
    }.items():
        flip = options.pop("flip", ())
        file = write_netcdf(tmp_path / f"{name}.nc", days("2000-01-01", 2), {"v": np.flip(value, flip)}, **options)
        np.testing.assert_array_equal(open_grids(file, ["v"])[1].values[0], value.astype(np.float32), err_msg=name)
    turned = write_netcdf(
        tmp_path / "turned.nc",
        days("2000-01-01", 2),
        {"v": value.transpose(2, 1, 0)},
        dims=("x", "y", "time"),
        y=ROWS,
        x=COLUMNS,
    )
    np.testing.assert_array_equal(open_grids(turned, ["v"])[1].values[0], value.astype(np.float32))


def test_other_names_of_axes_and_axes_of_one_entry(tmp_path):
    dataset = xarray.Dataset(
        {"v": (("Time", "height", "latitude", "longitude"), fields(0, 2)[:, None])},
        {
            "Time": days("2000-01-01", 2).astype("datetime64[ns]"),
            "latitude": ROWS[::-1],
            "longitude": COLUMNS,
            "height": [2.0],
        },
    )
    dataset.to_netcdf(tmp_path / "v.nc", engine="h5netcdf")
    np.testing.assert_array_equal(open_grids(tmp_path, ["v"])[1].values[0], fields(0, 2)[:, ::-1].astype(np.float32))


@settings(max_examples=8)
@given(st.permutations(range(8)), st.sets(st.integers(1, 6), max_size=4), st.sampled_from([0, 2, 5]))
def test_days_in_any_order_and_missing_ones(tmp_path_factory, order, gaps, cut):
    folder = tmp_path_factory.mktemp("any")
    kept = np.array([day for day in order if day not in gaps])
    for name, part in (("b", kept[:cut]), ("a", kept[cut:])):
        if len(part):
            write_netcdf(folder / f"{name}.nc", days("2000-02-26", 8)[part], {"v": fields(0, 8)[part]})
    dates, grids = open_grids(folder, ["v"])
    expected = fields(0, 8).astype(np.float32)
    expected[list(gaps)] = np.nan
    np.testing.assert_array_equal(dates, days("2000-02-26", 8))
    np.testing.assert_array_equal(grids.values[0], expected)


def test_variables_of_other_years_share_one_calendar(tmp_path):
    write_netcdf(tmp_path / "a.nc", days("2000-01-01", 2), {"a": fields(0, 2)})
    write_netcdf(tmp_path / "b.nc", days("2000-01-02", 2), {"b": fields(0, 2)})
    dates, grids = open_grids(tmp_path, ["a", "b"])
    assert len(dates) == 3
    assert np.isnan(grids.values).all((2, 3)).tolist() == [[False, False, True], [True, False, False]]


def test_fill_values_and_codes_are_missing_and_land_is_where_there_ever_is_a_value(tmp_path):
    value = fields(0, 3).astype(np.float32)
    value[:, 0] = 1e20  # the fill value: sea
    value[:, 1, 1] = -9999.0  # a code of no attribute: sea
    value[1, 2, 2], value[2, 2, 3] = np.nan, np.inf  # land that was not observed
    file = write_netcdf(tmp_path / "v.nc", days("2000-01-01", 3), {"v": value}, fill=np.float32(1e20))
    _, grids = open_grids(file, ["v"])
    np.testing.assert_array_equal(grids.land, [[0, 0, 0, 0], [1, 0, 1, 1], [1, 1, 1, 1]])
    assert np.isnan(grids.values[0, 1, 2, 2])
    assert np.isnan(grids.values[0, 2, 2, 3])
    assert np.isfinite(grids.values[0][:, grids.land]).sum() == 3 * 7 - 2


def test_packed_numbers_are_unpacked(tmp_path):
    packed = np.array([[[10, -32768], [30, 40]]], np.int16)
    dataset = xarray.Dataset(
        {"v": (("time", "y", "x"), packed, {"scale_factor": 0.5, "add_offset": 1.0, "_FillValue": np.int16(-32768)})},
        {"time": days("2000-01-01", 1).astype("datetime64[ns]")},
    )
    dataset.to_netcdf(tmp_path / "v.nc", engine="h5netcdf")
    np.testing.assert_array_equal(open_grids(tmp_path, ["v"])[1].values[0, 0], [[6, np.nan], [16, 21]])


def test_a_classic_file_is_read_too(tmp_path):
    dataset = xarray.Dataset(
        {"v": (("time", "y", "x"), fields(0, 2))}, {"time": days("2000-01-01", 2).astype("datetime64[ns]")}
    )
    dataset.to_netcdf(tmp_path / "v.nc", engine="scipy")
    np.testing.assert_array_equal(open_grids(tmp_path, ["v"])[1].values[0], fields(0, 2).astype(np.float32))


def test_a_mask_of_land(tmp_path):
    mask = np.eye(3, 4) * 0.6
    write_months(tmp_path)
    write_netcdf(tmp_path / "mask.nc", days("1999-01-01", 1), {}, y=ROWS[::-1], x=COLUMNS, lsm=mask[::-1])
    np.testing.assert_array_equal(open_grids(tmp_path, ["tas"], land="lsm")[1].land, np.eye(3, 4, dtype=bool))
    said = refusal(tmp_path, ["tas"], land="mask")
    assert said == "no file has the variable mask; there are lsm, rainfall, tas"
    write_netcdf(tmp_path / "mask.nc", days("1999-01-01", 1), {}, y=ROWS + 50, x=COLUMNS, lsm=mask)
    assert "has another grid (3 x 4)" in refusal(tmp_path, ["tas"], land="lsm")


def test_the_cache_is_memory_mapped_gives_the_same_and_notices_a_change(tmp_path):
    folder, cache, told = write_months(tmp_path / "data", units="K"), tmp_path / "cache", []
    expected = open_grids(folder, ["tas", "rainfall"])
    first = open_grids(folder, ["tas", "rainfall"], cache_dir=cache, progress=lambda *call: told.append(call))
    assert told == [("reading grids", done, 4) for done in range(5)]
    again = open_grids(folder, ["tas", "rainfall"], cache_dir=cache, progress=lambda *call: told.append(call))
    assert len(told) == 5
    for dates, grids in (first, again):
        assert isinstance(grids.values, np.memmap)
        np.testing.assert_array_equal(dates, expected[0])
        np.testing.assert_array_equal(grids.values, expected[1].values)
        np.testing.assert_array_equal(grids.land, expected[1].land)
        assert grids.units == ("K", "K")
    write_netcdf(folder / "1999-03.nc", days("1999-03-02", 1), {"tas": fields(0, 1)}, y=ROWS, x=COLUMNS, units="K")
    dates, grids = open_grids(folder, ["tas", "rainfall"], cache_dir=cache)
    assert len(dates) == 61
    assert np.isnan(grids.values).all((2, 3)).sum(1).tolist() == [1, 2]
    for file in cache.rglob("values.npy"):
        file.write_bytes(file.read_bytes()[:99])
    assert "delete it and run again" in refusal(folder, ["tas", "rainfall"], cache_dir=cache)
    assert sorted(path.name[0] for path in (cache / "grids-v1").iterdir()) != ["."]


def test_a_full_disk_is_said_before_anything_is_written(tmp_path, monkeypatch):
    folder = write_months(tmp_path / "data")
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    assert "only 0 MiB are free" in refusal(folder, ["tas"], cache_dir=tmp_path / "cache")
    assert list((tmp_path / "cache" / "grids-v1").iterdir()) == []


def test_a_day_twice_is_refused_with_files_and_date(tmp_path):
    write_months(tmp_path)
    write_netcdf(tmp_path / "more.nc", days("1999-02-28", 3), {"tas": fields(0, 3)}, y=ROWS, x=COLUMNS)
    said = refusal(tmp_path, ["tas", "rainfall"])
    assert (
        said == f"tas of 1999-02-28 is in {tmp_path / '1999-02.nc'} and in {tmp_path / 'more.nc'}; remove one of them"
    )
    hours = days("2000-01-01", 2).astype("datetime64[h]")[[0, 0, 1]] + np.array([0, 12, 0])
    file = write_netcdf(tmp_path / "hours" / "h.nc", hours, {"v": fields(0, 3)})
    assert refusal(file, ["v"]) == f"{file} has 2000-01-01 twice; remove one of them"


def test_grids_that_differ_are_refused(tmp_path):
    write_months(tmp_path)
    write_netcdf(tmp_path / "small.nc", days("1999-03-01", 1), {"tas": np.zeros((1, 2, 4))})
    assert "small.nc has another grid (2 x 4) than" in refusal(tmp_path, ["tas"])
    write_netcdf(
        tmp_path / "small.nc", days("1999-03-01", 1), {"tas": np.zeros((1, 3, 4))}, y=ROWS, x=COLUMNS, units="degF"
    )
    assert "tas is in 'degF'" in refusal(tmp_path, ["tas"])


def test_wrong_paths_files_and_variables_are_named(tmp_path):
    assert "is no NetCDF file and no folder of them" in refusal(tmp_path / "nowhere", ["v"])
    write_months(tmp_path)
    assert refusal(tmp_path, ["rain"]) == "no file has the variable rain; there are rainfall, tas"
    assert "variables must name" in refusal(tmp_path, [])
    cut = tmp_path / "1999-02.nc"
    content = cut.read_bytes()
    cut.write_bytes(content[:3000])
    assert f"{cut} cannot be read, is it cut short?" in refusal(tmp_path, ["tas"])
    cut.write_bytes(b"date,value\n")
    assert f"{cut} is no NetCDF file that can be read" in refusal(tmp_path, ["tas"])


def test_fields_without_time_and_other_calendars_are_refused(tmp_path):
    write_netcdf(tmp_path / "v.nc", days("2000-01-01", 2), {"v": fields(0, 2)}, flat=np.zeros((3, 4)))
    assert "flat must have the dimensions time, y, x, got y, x" in refusal(tmp_path, ["flat"])
    for attributes, message in (
        ({"units": "days since 2000-01-01", "calendar": "360_day"}, "real calendar"),
        ({}, "must have units such as 'days since 1970-01-01', got 'none'"),
        ({"units": "days since the flood"}, "cannot be read as dates"),
    ):
        dataset = xarray.Dataset({"v": (("time", "y", "x"), fields(0, 2))}, {"time": ("time", [0, 1], attributes)})
        dataset.to_netcdf(tmp_path / "v.nc", engine="h5netcdf")
        assert message in refusal(tmp_path, ["v"])


def test_a_missing_extra_is_one_line(tmp_path, monkeypatch):
    write_months(tmp_path)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "xarray" else find(name))
    assert (
        refusal(tmp_path, ["tas"])
        == "NetCDF files need xarray, which is not installed: pip install 'isochron[hydrology]'"
    )


def some_grids(first: str, count: int) -> tuple[np.ndarray, Grids]:
    values = np.stack([fields(0, count), fields(0, count, 7)]).astype(np.float32)
    return days(first, count), Grids(("rain", "temperature"), ("mm/d", "degC"), values, np.eye(3, 4, dtype=bool))


def test_combine_takes_the_days_that_both_have(tmp_path):
    gauges = open_camels_us(write_camels_us(tmp_path), series=["precipitation"])  # 2000-02-25 to 2000-03-05
    data = combine(gauges, some_grids("2000-02-20", 8))
    np.testing.assert_array_equal(data.dates, days("2000-02-25", 3))
    np.testing.assert_array_equal(data.grids.values[0], fields(0, 8)[5:].astype(np.float32))
    np.testing.assert_array_equal(data.gauges.values[0, 0], [0, 1, 2])
    assert data.gauges.ids == gauges.gauges.ids
    later = combine(gauges, some_grids("2000-03-01", 30))
    np.testing.assert_array_equal(later.dates, days("2000-03-01", 5))
    np.testing.assert_array_equal(later.gauges.values[0, 0], [5, 6, 7, 8, 9])
    with pytest.raises(
        UserError, match=r"\(2001-01-01 to 2001-01-02\) and catchments \(2000-02-25 to 2000-03-05\) have no day"
    ):
        combine(gauges, some_grids("2001-01-01", 2))
    with pytest.raises(UserError, match="have grids already"):
        combine(data, some_grids("2000-02-20", 8))


def test_combine_says_which_days_are_missing_and_refuses_a_grid_of_sea():
    dates, grids = some_grids("2000-02-20", 8)
    grids.values[1, 3:5] = np.nan
    data = combine(None, (dates, grids))
    assert data.gauges is None
    assert data.notices == ("grids: temperature is missing on 2 of 8 days",)
    with pytest.raises(UserError, match="no cell of 3 x 4 is land"):
        combine(None, (dates, Grids(grids.names, grids.units, grids.values, np.zeros((3, 4), bool))))


def test_the_fingerprint_of_both_is_of_what_is_kept(tmp_path):
    gauges = open_camels_us(write_camels_us(tmp_path))
    dates, grids = some_grids("2000-02-20", 8)
    first = combine(gauges, (dates, grids)).fingerprint
    assert first not in (gauges.fingerprint, combine(None, (dates, grids)).fingerprint)
    grids.values[0, 0] = 5  # before the catchments begin
    grids.values[0, 7, 0, 1] = 5  # in the sea
    assert combine(gauges, (dates, grids)).fingerprint == first
    grids.values[0, 7, 1, 1] = 5
    assert combine(gauges, (dates, grids)).fingerprint != first
    grids.values[0, 7, 1, 1] = 7.05
    assert combine(gauges, (dates, grids)).fingerprint == first
    gauges.gauges.values[0, 0, 9] = 5  # after the grids end
    assert combine(gauges, (dates, grids)).fingerprint == first
    gauges.gauges.values[0, 0, 0] = 5
    assert combine(gauges, (dates, grids)).fingerprint != first
