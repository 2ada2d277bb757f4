"""The layout of NeuralHydrology's generic data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.data.hydrology.generic import open_generic
from bench.errors import UserError
from tests.data.hydrology_files import days, write, write_netcdf


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for i, basin in enumerate(("007", "12")):
        variables = {"discharge_obs": np.arange(4.0) + 10 * i - 1, "rain": np.arange(4.0) * 2}
        write_netcdf(tmp_path / "time_series" / f"{basin}.nc", days("2001-12-30", 4), variables, "date", units="mm/d")
    write(tmp_path / "attributes" / "a.csv", "basin,area,slope", "007,1,2", "12,3,4")
    write(tmp_path / "attributes" / "b.csv", "id,height", "12,6", "007,5")
    return tmp_path


def test_series_and_attributes(root):
    data = open_generic(root, {"flow": "discharge_obs", "rain": "rain"}, ["height", "area"])
    assert data.gauges.ids == ("007", "12")
    assert data.gauges.units == ("mm/d", "mm/d")
    np.testing.assert_array_equal(data.gauges.values[:, 0], [[np.nan, 0, 1, 2], [9, 10, 11, 12]])
    np.testing.assert_array_equal(data.gauges.statics, [[5, 1], [6, 3]])
    assert data.notices == (f"{root.name}: 1 negative values of flow are taken as missing (007)",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"series": ["snow"]}, "has no column snow"),
        ({"series": []}, "series must be different names"),
        ({"series": ["rain"], "statics": ["depth"]}, "no table has the attribute depth"),
        ({"series": ["rain"], "basins": ["7"]}, "no catchment 7"),
    ],
)
def test_what_is_not_there_is_named(root, options, message):
    with pytest.raises(UserError, match=message):
        open_generic(root, **options)


def test_another_layout_is_said(tmp_path):
    with pytest.raises(UserError, match="it should hold time_series"):
        open_generic(tmp_path, ["rain"])
