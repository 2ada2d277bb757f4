"""CAMELS-GB as csv, both versions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.data.hydrology.camels_gb import SERIES, STATICS, open_camels_gb
from bench.errors import UserError
from tests.data.hydrology_files import gb_file, write, write_camels_gb


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_camels_gb(tmp_path / "8344e4f3")


def refusal(root: Path, **options) -> str:
    with pytest.raises(UserError) as error:
        open_camels_gb(root, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def edit(file: Path, line: int, text: str) -> None:
    lines = file.read_text().splitlines()
    lines[line - 1] = text
    write(file, *lines)


def test_series_attributes_and_gaps(root):
    data = open_camels_gb(root)
    gauges = data.gauges
    assert gauges.ids == ("1001", "39001")
    assert gauges.names == ("precipitation", "temperature", "potential_evaporation", "flow")
    assert gauges.units == ("mm/d", "degC", "mm/d", "mm/d")
    assert (str(data.dates[0]), len(data.dates)) == ("1970-10-01", 6)
    days = np.arange(6.0)
    np.testing.assert_array_equal(
        gauges.values[1], [110 + days, 130 + days, 120 + days, [np.nan] * 2 + [142, 143, 144, 145]]
    )
    assert gauges.static_names == STATICS
    np.testing.assert_array_equal(gauges.statics, [np.arange(11), np.arange(10, 21)])
    assert data.notices == ()


def test_all_that_is_offered_can_be_read(root):
    values = open_camels_gb(root, series=list(SERIES)).gauges.values[0, :, 5]
    np.testing.assert_array_equal(values, [45, 15, 25, 35, 55, 65, 75, 85, 95, 105])


def test_version_2_is_read_by_the_columns_that_reach_to_its_end(root):
    first = open_camels_gb(root)
    for gauge in first.gauges.ids:
        old = gb_file(root, gauge)
        text = old.read_text().replace(
            ",precipitation,pet,temperature,", ",precipitation_haduk,pet_hydrope,temperature_haduk,"
        )
        text = text.replace("\n", ",\n").replace("windspeed,", "windspeed,precipitation_cehgear")
        folder = root / "Catchment_Timeseries" / "hydro-meteorological" / "daily"
        new = folder / f"camels_gb_v2_hydromet_daily_timeseries_{gauge}_19701001-20220930.csv"
        new.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(text)
        (folder.parent / f"camels_gb_v2_hydromet_hourly_timeseries_{gauge}_19701001-20220930.csv").write_text("")
        old.unlink()
    assert open_camels_gb(root).fingerprint == first.fingerprint


def test_rows_in_any_order_and_missing_days(root):
    first = open_camels_gb(root)
    file = gb_file(root, "1001")
    header, *rows = file.read_text().splitlines()
    file.write_bytes("\r\n".join([header, *reversed(rows)]).encode())  # Windows, and no newline at the end
    assert open_camels_gb(root).fingerprint == first.fingerprint
    write(file, header, *rows[:2], *rows[3:])
    assert np.isnan(open_camels_gb(root).gauges.values[0]).all(0).tolist() == [0, 0, 1, 0, 0, 0]


def test_negative_flow_is_missing_and_said(root):
    edit(gb_file(root, "39001"), 5, "1970-10-04,1,2,-3,-0.1,-5,6,7,8,9,10")
    data = open_camels_gb(root)
    np.testing.assert_array_equal(data.gauges.values[1, :, 3], [1, -3, 2, np.nan])
    assert data.notices == ("CAMELS-GB: 1 negative values of flow are taken as missing (39001)",)


@pytest.mark.parametrize(
    ("line", "text", "message"),
    [
        (7, "1970-10-06,15,25", "line 7 has 3 columns instead of 11"),
        (4, "1970-10-03,1,2,3,4,5,6,7,8,9,10,11", "line 4 has 12 columns instead of 11"),
        (4, "1970-10-03,1,2,warm,4,5,6,7,8,9,10", "line 4: temperature is 'warm', not a number"),
        (4, "03/10/1970,1,2,3,4,5,6,7,8,9,10", "line 4: date is '03/10/1970', not a date"),
        (4, "1970-10-02,1,2,3,4,5,6,7,8,9,10", "has 1970-10-02 twice"),
        (1, "date,rain,pet,temperature,discharge_spec,a,b,c,d,e,f", "no column precipitation or precipitation_haduk"),
    ],
)
def test_a_damaged_file_is_named_with_its_line(root, line, text, message):
    edit(gb_file(root, "1001"), line, text)
    said = refusal(root)
    assert str(gb_file(root, "1001")) in said
    assert message in said


def test_a_column_that_another_file_lacks_is_named(root):
    edit(gb_file(root, "39001"), 1, "date,precipitation,PET,temperature,discharge_spec,a,b,c,d,e,f")
    assert "has no column pet; it has date, precipitation, PET" in refusal(root)


def test_an_empty_file_is_cut_short(root):
    write(gb_file(root, "1001"), gb_file(root, "1001").read_text().splitlines()[0])
    assert "has no rows" in refusal(root)


def test_other_folders_and_ids(root, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "no catchment; it should hold CAMELS-GB" in refusal(tmp_path / "empty")
    assert "no catchment 01001" in refusal(root, basins=["01001"])
    for file in root.rglob("*_attributes.csv"):
        write(
            file,
            *[line.replace("1001,", "01001,").replace("39001", "039001") for line in file.read_text().splitlines()],
        )
    assert "compare the ids, leading zeros included" in refusal(root)
    assert open_camels_gb(root, statics=[]).gauges.statics.shape == (2, 0)


def test_loose_commas_in_remarks_do_no_harm(root):
    file = root / "data" / "CAMELS_GB_climatic_attributes.csv"
    write(file, "gauge_id,aridity,remark", "1001,9,moved", "39001,19,moved, twice")
    np.testing.assert_array_equal(open_camels_gb(root).gauges.statics[:, -2], [9, 19])


def test_a_catchment_twice_in_a_table_is_refused(root):
    file = root / "data" / "CAMELS_GB_climatic_attributes.csv"
    write(file, *file.read_text().splitlines(), "1001,3")
    assert "has gauge_id 1001 twice" in refusal(root)
