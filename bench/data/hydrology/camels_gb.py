"""CAMELS-GB: 671 catchments of Great Britain, daily, from October 1970 to September 2015 (version 2: to 2022).

    <root>/**/CAMELS_GB_hydromet_timeseries_<id>_19701001-20150930.csv               version 1
    <root>/**/camels_gb_v2_hydromet_daily_timeseries_<id>_19701001-20220930.csv      version 2
    <root>/**/CAMELS_GB_*_attributes.csv, camels_gb_v2_*_attributes.csv

Sources: Coxon et al. 2020 (ESSD 12, 2459) and 2026 (ESSD 18, 4345).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.data.hydrology.catchments import (
    Series,
    by_id,
    choose_basins,
    choose_series,
    columns_of,
    find_folder,
    gather,
)
from bench.data.hydrology.data import HydrologyData
from bench.data.hydrology.tables import csv_header, read_attributes, read_daily_csv, read_file
from bench.errors import UserError

if TYPE_CHECKING:
    from bench.data.cache_folder import Progress

LAYOUT = "CAMELS-GB: **/CAMELS_GB_hydromet_timeseries_<id>_<from>-<to>.csv and **/CAMELS_GB_*_attributes.csv"
FILE = re.compile(r"camels_gb_(?:v2_)?hydromet_(?:daily_)?timeseries_([^_]+)_\d{8}-\d{8}\.csv", re.IGNORECASE)
SERIES = {
    "flow": Series(("discharge_spec",), "mm/d"),
    "precipitation": Series(("precipitation", "precipitation_haduk"), "mm/d"),
    "potential_evaporation": Series(("pet", "pet_hydrope"), "mm/d"),
    "temperature": Series(("temperature", "temperature_haduk"), "degC"),
    "discharge": Series(("discharge_vol",), "m3/s"),
    "potential_evaporation_intercepted": Series(("peti", "peti_hydrope"), "mm/d"),
    "humidity": Series(("humidity",), "g/kg"),
    "shortwave_radiation": Series(("shortwave_rad",), "W/m2"),
    "longwave_radiation": Series(("longwave_rad",), "W/m2"),
    "wind_speed": Series(("windspeed",), "m/s"),
}
"""What can be asked for. Of version 2 the HadUK and Hydro-PE columns, since those of CEH-GEAR and CHESS end in 2019."""
DEFAULT_SERIES = ("precipitation", "temperature", "potential_evaporation", "flow")
STATICS = (
    "gauge_lat",
    "gauge_lon",
    "elev_min",
    "elev_10",
    "elev_50",
    "elev_90",
    "elev_max",
    "area",
    "dpsbar",
    "aridity",
    "no_gw_perc",
)
"""Place, altitudes, area, slope, wetness, share of rocks without groundwater. No signature of the flow: the answer."""


def open_camels_gb(
    path: Path,
    *,
    series: Sequence[str] | None = None,
    statics: Sequence[str] = STATICS,
    basins: Sequence[str] | None = None,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> HydrologyData:
    """Read CAMELS-GB, version 1 or 2, in its csv layout.

    Args:
        path: the folder above the time series and the tables of attributes, however far above.
        series: names among `SERIES`; by default `DEFAULT_SERIES`.
        statics: numeric attributes of the `*_attributes.csv` tables; may be empty.
        basins: ids to read; by default all.
        cache_dir: where what was read is kept, so that the next time takes a second; None keeps nothing.
        progress: told of every finished catchment.

    Raises:
        UserError: another layout, a basin that is not there, a damaged file (names file and line).
    """
    root = find_folder(path, LAYOUT)
    chosen = choose_series(SERIES, series, DEFAULT_SERIES)
    csv = sorted(root.rglob("*.csv"))
    matches = {file: match for file in csv if (match := FILE.fullmatch(file.name))}
    files = by_id(matches, lambda file: matches[file].group(1))
    if not files:
        raise UserError(f"{root} has no catchment; it should hold {LAYOUT}")
    ids = choose_basins(files, basins, "CAMELS-GB")
    tables = [file for file in csv if re.fullmatch(r"camels_gb_.*_attributes\.csv", file.name, re.IGNORECASE)]
    known = read_attributes(tables, statics, ids, separator=",")
    columns = columns_of(chosen, csv_header(read_file(files[ids[0]])), files[ids[0]])
    return gather(
        "CAMELS-GB",
        {basin: (files[basin],) for basin in ids},
        lambda basin: read_daily_csv(files[basin], columns),
        chosen,
        statics,
        known,
        cache_dir=cache_dir,
        progress=progress,
    )
