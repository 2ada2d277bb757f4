"""What every source of hydrological data promises is checked when it is made."""

from __future__ import annotations

import numpy as np
import pytest

from bench.data.hydrology import Gauges, Grids, HydrologyData
from bench.errors import UserError

DATES = np.arange("2001-01-01", "2001-01-06", dtype="datetime64[D]")


def grids(names=("rain", "warmth"), units=("mm/d", "degC"), days=5, land=(3, 4), dtype=bool) -> Grids:
    return Grids(names, units, np.zeros((2, days, 3, 4), np.float32), np.ones(land, dtype))


def gauges(ids=("01", "02", "03"), units=("mm/d",), values=(3, 1, 5), statics=(3, 2)) -> Gauges:
    return Gauges(ids, ("flow",), units, np.zeros(values, np.float32), ("area", "slope"), np.zeros(statics, np.float32))


def test_parts_that_fit_are_taken():
    data = HydrologyData(DATES, grids(), gauges(), "abc")
    assert data.notices == ()
    HydrologyData(DATES, None, gauges(), "abc")
    HydrologyData(DATES, grids(), None, "abc")


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: grids(names=("rain",)), "grids.values must be"),
        (lambda: grids(units=("mm/d",)), "grids.values must be"),
        (lambda: grids(land=(4, 3)), r"grids.land must be bool of shape \(3, 4\)"),
        (lambda: grids(dtype=np.uint8), "grids.land must be bool .*, got uint8"),
        (lambda: gauges(ids=("01", "02")), "gauges.values must have shape"),
        (lambda: gauges(values=(3, 2, 5)), "gauges.values must have shape"),
        (lambda: gauges(values=(3, 1)), "gauges.values must have shape"),
        (lambda: gauges(statics=(3, 1)), r"gauges.statics must have shape \(3, 2\)"),
        (lambda: gauges(units=("mm/d", "1")), "gauges.units must have 1 entries"),
        (lambda: gauges(ids=("01", "02", "01")), "gauges.ids must all differ"),
        (lambda: HydrologyData(DATES[[0, 2, 3]], None, None, ""), "without gaps"),
        (lambda: HydrologyData(DATES[::-1], None, None, ""), "ascending"),
        (lambda: HydrologyData(DATES[:0], None, None, ""), "daily"),
        (lambda: HydrologyData(DATES.astype("datetime64[s]"), None, None, ""), r"dates must be datetime64\[D\]"),
        (lambda: HydrologyData(DATES, grids(days=4), None, ""), "grids.values has 4 days, the calendar 5"),
        (lambda: HydrologyData(DATES, None, gauges(values=(3, 1, 6)), ""), "gauges.values has 6 days"),
    ],
)
def test_what_does_not_fit_is_named(make, complaint):
    with pytest.raises(UserError, match=complaint) as info:
        make()
    assert "\n" not in str(info.value)
