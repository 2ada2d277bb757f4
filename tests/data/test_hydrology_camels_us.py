"""CAMELS-US in its text layout: numbers checked by hand, the spellings of its headers, and what is wrong is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.data.hydrology.camels_us import SERIES, open_camels_us
from bench.data.hydrology.tables import calendar_days, read_spaced
from bench.errors import UserError
from tests.data.hydrology_files import (
    BARE_HEADER,
    NLDAS_HEADER,
    flow_file,
    forcing_file,
    write,
    write_camels_us,
    write_flow,
    write_forcing,
)

BASIN, OTHER = "01022500", "02064000"
MM_PER_FOOT3 = 0.028316846592 * 86400 / 100_000_000 * 1000
"""ft³/s to mm/d over the 100 km² of the written files."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_camels_us(tmp_path / "camels")


def refusal(root: Path, **options) -> str:
    with pytest.raises(UserError) as error:
        open_camels_us(root, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.shared
def test_real_files_give_the_numbers_that_stand_in_them(shared_dir):
    folder = shared_dir / "data" / "camels_us"
    if not folder.is_dir():
        pytest.skip("no CAMELS-US files beside the reference fixtures")
    data = open_camels_us(folder, series=list(SERIES))
    gauges = data.gauges
    assert gauges.ids == ("01022500", "01547700", "02064000", "03015500")
    assert data.dates[0] == np.datetime64("2000-01-01")
    assert data.dates[-1] == np.datetime64("2003-12-31")
    assert data.notices == ()
    day = {str(d): n for n, d in enumerate(data.dates)}
    # 214 ft³/s over 114,169,652 m²: 6.059805 m³/s, 523,567 m³ a day
    leap = gauges.values[1, :, day["2000-02-29"]]
    np.testing.assert_allclose(leap, [4.585870, 0, (9.28 - 3.97) / 2, 9.28, -3.97, 428.6, 442.5, 0, 39744], rtol=1e-6)
    # 1150 ft³/s over 831,030,801 m²
    np.testing.assert_allclose(gauges.values[3, 0, day["2002-12-31"]], 3.385629, rtol=1e-6)
    # gauges end a year before the longest forcing does; only 01022500 has forcing of 2003
    assert np.isnan(gauges.values[:, 0, day["2003-01-01"] :]).all()
    assert np.isfinite(gauges.values[0, 1:]).all()
    assert np.isnan(gauges.values[1:, :, day["2003-01-01"] :]).all()
    assert np.isfinite(gauges.values[:, :, : day["2003-01-01"]]).all()
    known = dict(zip(gauges.static_names, gauges.statics[2], strict=True))
    assert known["gauge_lat"] == pytest.approx(37.12681)
    assert known["area_gages2"] == pytest.approx(427.77)
    assert np.isfinite(gauges.statics).all()


def test_flow_is_in_mm_a_day_over_the_area_of_the_header(root):
    data = open_camels_us(root, series=["flow", "temperature", "precipitation"])
    assert data.gauges.units == ("mm/d", "degC", "mm/d")
    expected = (np.array([[100], [200]]) + np.arange(10)) * MM_PER_FOOT3
    np.testing.assert_allclose(data.gauges.values[:, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(data.gauges.values[:, 1:], np.broadcast_to(np.arange(10), (2, 2, 10)))
    assert str(data.dates[4]) == "2000-02-29"
    np.testing.assert_array_equal(data.gauges.statics, [np.arange(11), np.arange(10, 21)] + np.r_[[0] * 7, [1] * 4])


@pytest.mark.parametrize("header", [NLDAS_HEADER, BARE_HEADER])
def test_headers_of_all_products_are_read(root, header):
    for basin in (BASIN, OTHER):
        write_forcing(forcing_file(root, basin, "nldas"), "2000-02-25", 10, header=header, separator="   ")
    daymet, nldas = open_camels_us(root), open_camels_us(root, "nldas")
    assert daymet.fingerprint == nldas.fingerprint


def test_columns_follow_the_header(root):
    header = "Year Mnth Day Hr prcp(mm/day) dayl(s) srad(W/m2) swe(mm) tmin(C) tmax(C) vp(Pa)"
    write_forcing(forcing_file(root, BASIN), "2000-02-25", 10, header=header)
    values = open_camels_us(root, series=["precipitation", "temperature_max"]).gauges.values
    np.testing.assert_allclose(values[0, :, 1], [30000, -9])


def test_missing_is_nan_by_value_and_by_flag(root):
    flow = [5.0, -999.0, 5.0, -999.0, 7.0]
    write_flow(flow_file(root, BASIN), BASIN, "2000-02-25", flow, "AMMAA")
    data = open_camels_us(root, series=["flow"])
    np.testing.assert_array_equal(np.isfinite(data.gauges.values[0, 0]), [1, 0, 0, 0, 1] + [0] * 5)
    assert data.notices == ()


def test_text_that_says_nan_and_blank_lines_at_the_end_are_no_mistakes(root):
    file = forcing_file(root, BASIN)
    lines = file.read_text().splitlines()
    lines[4] = lines[4].replace("500.0", "NaN")
    write(file, *lines, "", "")
    values = open_camels_us(root, series=["vapour_pressure"]).gauges.values[0, 0]
    np.testing.assert_array_equal(values, [np.nan] + [500] * 9)


def test_negative_flow_is_missing_and_said(root):
    write_flow(flow_file(root, BASIN), BASIN, "2000-02-25", [5.0, -3.0, 5.0])
    data = open_camels_us(root)
    assert np.isnan(data.gauges.values[0, data.gauges.names.index("flow"), 1])
    assert data.notices == (f"CAMELS-US: 1 negative values of flow are taken as missing ({BASIN})",)


def test_records_of_other_years_share_one_calendar(root):
    write_forcing(forcing_file(root, BASIN), "2000-02-20", 3)
    write_flow(flow_file(root, BASIN), BASIN, "2000-03-10", [1.0])
    data = open_camels_us(root, series=["precipitation", "flow"])
    assert (str(data.dates[0]), str(data.dates[-1])) == ("2000-02-20", "2000-03-10")
    assert np.flatnonzero(np.isfinite(data.gauges.values[0, 0])).tolist() == [0, 1, 2]
    assert np.flatnonzero(np.isfinite(data.gauges.values[0, 1])).tolist() == [19]
    assert np.isfinite(data.gauges.values[1]).sum() == 20


def test_basins_without_flow_or_forcing_are_left_out_and_named(root):
    write_forcing(forcing_file(root, "03000001"), "2000-02-25", 3)
    write_flow(flow_file(root, "03000002"), "03000002", "2000-02-25", [1.0])
    data = open_camels_us(root)
    assert data.gauges.ids == (BASIN, OTHER)
    assert data.notices == (
        "CAMELS-US: 1 catchments without flow are left out (03000001)",
        "CAMELS-US: 1 catchments without daymet are left out (03000002)",
    )


def test_a_gauge_without_flow_at_all_is_said(root):
    write_flow(flow_file(root, BASIN), BASIN, "2000-02-25", [-999.0] * 10)
    assert f"flow is missing on every day of 1 catchments ({BASIN})" in open_camels_us(root).notices[0]
    write_flow(flow_file(root, OTHER), OTHER, "2000-02-25", [-999.0] * 10)
    assert "flow is missing on every day of every catchment" in refusal(root)


def test_the_fingerprint_is_of_the_content(root, tmp_path):
    first = open_camels_us(root)
    moved = tmp_path / "elsewhere" / "basin_dataset_public_v1p2"
    shutil.copytree(root, moved)
    for file in moved.rglob("*_qc.txt"):  # other folders, another order
        target = moved / "usgs_streamflow" / ("17" if BASIN in file.name else "03") / file.name
        target.parent.mkdir(exist_ok=True)
        file.rename(target)
    assert open_camels_us(moved.parent).fingerprint == first.fingerprint
    assert open_camels_us(root, basins=[OTHER, BASIN]).fingerprint == first.fingerprint
    assert open_camels_us(root, basins=[OTHER]).fingerprint != first.fingerprint
    assert open_camels_us(root, statics=["area_gages2"]).fingerprint != first.fingerprint
    soil = root / "camels_attributes_v2.0" / "camels_soil.txt"
    soil.write_text(soil.read_text().replace(";20", ";20.5"))
    assert open_camels_us(root).fingerprint != first.fingerprint
    soil.write_text(soil.read_text().replace(";20.5", ";20"))
    assert open_camels_us(root).fingerprint == first.fingerprint
    write_flow(flow_file(root, BASIN), BASIN, "2000-02-25", [100.0 + k + (k == 7) * 0.01 for k in range(10)])
    assert open_camels_us(root).fingerprint != first.fingerprint


def test_the_cache_gives_the_same_and_notices_a_change(root, tmp_path):
    cache, told = tmp_path / "cache", []
    plain = open_camels_us(root)
    first = open_camels_us(root, cache_dir=cache, progress=lambda *call: told.append(call))
    assert told == [("reading CAMELS-US", done, 2) for done in (0, 1, 2)]
    again = open_camels_us(root, cache_dir=cache, progress=lambda *call: told.append(call))
    assert len(told) == 3
    assert plain.fingerprint == first.fingerprint == again.fingerprint
    write_flow(flow_file(root, BASIN), BASIN, "2000-02-25", [1.0] * 9)
    assert open_camels_us(root, cache_dir=cache).fingerprint != first.fingerprint
    for file in cache.rglob("*.npz"):
        file.write_bytes(file.read_bytes()[:-40])
    assert "delete it" in refusal(root, cache_dir=cache)


def test_a_catchment_without_attributes_is_said(root):
    topo = root / "camels_attributes_v2.0" / "camels_topo.txt"
    for name in ("topo", "clim", "vege", "soil", "geol"):
        file = topo.with_name(f"camels_{name}.txt")
        write(file, *[line for line in file.read_text().splitlines() if not line.startswith(BASIN)])
    data = open_camels_us(root)
    assert np.isnan(data.gauges.statics[0]).all()
    assert data.notices == (f"CAMELS-US: 1 catchments have no attributes ({BASIN})",)


@pytest.mark.parametrize(
    ("line", "text", "message"),
    [
        (3, " none", "line 3 must be the area in m2, got 'none'"),
        (3, " -999", "line 3 must be the area in m2, got '-999'"),
        (4, "Year Mnth Day Hr rain(mm)", "line 4 must name the columns"),
        (7, "2000 02 27 12 30000 2.0 200", "line 7 has 7 columns instead of 11"),
        (14, "2000 03 05 12 30000.0 9.00 200.0 0.0 19.00", "line 14 has 9 columns instead of 11"),
        (7, "2000 02 27 12 30000 2.0 200 0 12 -8 500 1", "line 7 has 12 columns instead of 11"),
        (8, "2000 02 28 12 30000 3.0 n/a? 0 13 -7 500", "line 8: srad is 'n/a?', not a number"),
        (9, "2000 02 30 12 30000 4.0 200 0 14 -6 500", "line 9: 2000-2-30 is no day of the calendar"),
        (9, "2000 02 28 12 30000 4.0 200 0 14 -6 500", "has 2000-02-28 twice"),
    ],
)
def test_a_damaged_forcing_file_is_named_with_its_line(root, line, text, message):
    file = forcing_file(root, BASIN)
    lines = file.read_text().splitlines()
    lines[line - 1] = text
    write(file, *lines)
    said = refusal(root)
    assert str(file) in said
    assert message in said


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no rows"),
        (f"{BASIN} 2000 02 25 1.0 A\n{OTHER} 2000 02 26 1.0 A\n", f"line 2 is of the gauge '{OTHER}', not '{BASIN}'"),
        (f"{BASIN} 2000 02 25 1.0 A\n{BASIN} 2000 02 26 1.", "line 2 has 5 columns instead of 6"),
        (f"{BASIN} 2000 02 25 1.0 A\n{BASIN} 2000 02 26 Ice A\n", "line 2: flow is 'Ice', not a number"),
    ],
)
def test_a_damaged_flow_file_is_named_with_its_line(root, content, message):
    flow_file(root, BASIN).write_text(content)
    said = refusal(root)
    assert str(flow_file(root, BASIN)) in said
    assert message in said


def test_a_cut_header_is_named(root):
    forcing_file(root, BASIN).write_text(" 44.8\n 133\n")
    assert "instead of 4 before its rows" in refusal(root)


def test_other_folders_say_what_was_looked_for(root, tmp_path):
    assert "no folder; it should hold CAMELS-US" in refusal(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "no catchment with forcing and flow (0 with daymet, 0 with flow)" in refusal(tmp_path / "empty")
    assert "got 'era5'; there are daymet" in refusal(root, forcing="era5")


def test_wrong_choices_say_what_there_is(root):
    assert "no catchment 1022500" in refusal(root, basins=["1022500"])
    assert "series must be different names among flow, " in refusal(root, series=["rain"])
    assert "no table has the attribute bfihost" in refusal(root, statics=["bfihost"])
    assert "no table has the attribute gauge_id" in refusal(root, statics=["gauge_id"])
    assert "high_prec_timing of 01022500 is 'son', not a number" in refusal(root, statics=["high_prec_timing"])


def test_two_files_of_one_catchment_must_be_copies(root):
    copy = forcing_file(root, BASIN, huc="02")
    copy.parent.mkdir()
    shutil.copy(forcing_file(root, BASIN), copy)
    assert len(open_camels_us(root).gauges.ids) == 2
    write_forcing(copy, "2000-02-25", 9)
    assert f"{BASIN} has two files that differ" in refusal(root)


@given(st.lists(st.dates().filter(lambda date: date.year > 1), min_size=1, max_size=30, unique=True))
def test_days_are_those_of_the_calendar(dates):
    data = "\n".join(f"{d.year} {d.month:02d} {d.day:02d}" for d in dates).encode()
    table = read_spaced(Path("f"), data, ("year", "month", "day"), header_lines=0)
    assert calendar_days(Path("f"), table, header_lines=0).tolist() == dates
