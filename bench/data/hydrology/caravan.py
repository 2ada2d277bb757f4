"""Caravan: thousands of catchments of many sources, with forcing from ERA5-Land.

    <root>/**/timeseries/csv/<source>/<gauge>.csv         or
    <root>/**/timeseries/netcdf/<source>/<gauge>.nc
    <root>/**/attributes/<source>/attributes_{caravan,hydroatlas,other}_<source>.csv

Extensions have the same layout, each under a root of its own. Source: Kratzert et al. 2023 (Scientific Data 10, 61).
"""

from __future__ import annotations

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
from bench.data.hydrology.netcdf import SUFFIXES, open_netcdf, read_daily_netcdf
from bench.data.hydrology.tables import Record, csv_header, read_attributes, read_daily_csv, read_file
from bench.errors import UserError

if TYPE_CHECKING:
    from bench.data.cache_folder import Progress

PET_NOTICE = "Caravan: potential evaporation of ERA5-Land is far too high in many catchments (HESS 28, 4219)"
LAYOUT = "Caravan: timeseries/{csv,netcdf}/<source>/<gauge>.{csv,nc} and attributes/<source>/attributes_*_<source>.csv"
PENMAN_MONTEITH = "potential_evaporation_sum_FAO_PENMAN_MONTEITH"
SERIES = {
    "flow": Series(("streamflow",), "mm/d"),
    "precipitation": Series(("total_precipitation_sum",), "mm/d"),
    "potential_evaporation": Series(
        (PENMAN_MONTEITH, "potential_evaporation_sum_ERA5_LAND", "potential_evaporation_sum"), "mm/d"
    ),
    "temperature": Series(("temperature_2m_mean",), "degC"),
    "temperature_max": Series(("temperature_2m_max",), "degC"),
    "temperature_min": Series(("temperature_2m_min",), "degC"),
    "snow_water_equivalent": Series(("snow_depth_water_equivalent_mean",), "mm"),
    "soil_moisture": Series(("volumetric_soil_water_layer_1_mean",), "m3/m3"),
    "soil_moisture_2": Series(("volumetric_soil_water_layer_2_mean",), "m3/m3"),
    "soil_moisture_3": Series(("volumetric_soil_water_layer_3_mean",), "m3/m3"),
    "soil_moisture_4": Series(("volumetric_soil_water_layer_4_mean",), "m3/m3"),
    "shortwave_radiation": Series(("surface_net_solar_radiation_mean",), "W/m2"),
    "longwave_radiation": Series(("surface_net_thermal_radiation_mean",), "W/m2"),
    "surface_pressure": Series(("surface_pressure_mean",), "kPa"),
    "wind_east": Series(("u_component_of_wind_10m_mean",), "m/s"),
    "wind_north": Series(("v_component_of_wind_10m_mean",), "m/s"),
}
"""What can be asked for; `soil_moisture` is the uppermost layer of four, radiation is net."""
DEFAULT_SERIES = ("precipitation", "temperature", "soil_moisture", "flow")
STATICS = (
    "gauge_lat",
    "gauge_lon",
    "area",
    "ele_mt_smn",
    "ele_mt_sav",
    "ele_mt_smx",
    "slp_dg_sav",
    "ari_ix_sav",
    "for_pc_sse",
    "cly_pc_sav",
    "snd_pc_sav",
)
"""Place, area, altitudes, slope, wetness, forest, clay and sand. No signature of the flow: it would be the answer."""


def open_caravan(
    path: Path,
    source: str | None = None,
    *,
    series: Sequence[str] | None = None,
    statics: Sequence[str] = STATICS,
    basins: Sequence[str] | None = None,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> HydrologyData:
    """Read Caravan as csv or, where there is no csv, as NetCDF (an extra).

    Args:
        path: the folder above `timeseries` and `attributes`, however far above.
        source: e.g. ``camels``, ``camelsgb``, ``hysets``; by default all. The whole of Caravan does not fit most memories.
        series: names among `SERIES`; by default `DEFAULT_SERIES`.
        statics: numeric attributes; may be empty.
        basins: gauges to read, such as ``camels_01022500``; by default all.
        cache_dir: where what was read is kept, so that the next time takes a second; None keeps nothing.
        progress: told of every finished catchment.

    Raises:
        UserError: another layout, a source or basin that is not there, a damaged file (names file and line).
    """
    root = find_folder(path, LAYOUT)
    chosen = choose_series(SERIES, series, DEFAULT_SERIES)
    found = sorted(
        file
        for kind, suffixes in (("csv", (".csv",)), ("netcdf", SUFFIXES))
        for file in root.glob(f"**/timeseries/{kind}/*/*")
        if file.suffix in suffixes
    )
    sources = sorted({file.parent.name for file in found})
    if not found:
        raise UserError(f"{root} has no catchment; it should hold {LAYOUT}")
    if source is not None and source not in sources:
        raise UserError(f"source must be one of {', '.join(sources)} in {root}, got {source!r}")
    taken = [file for file in found if source in (None, file.parent.name)]
    if any(file.suffix == ".csv" for file in taken):
        taken = [file for file in taken if file.suffix == ".csv"]
    files = by_id(taken, lambda file: file.stem)
    ids = choose_basins(files, basins, "Caravan")
    tables = sorted(
        file
        for file in root.glob("**/attributes/*/attributes_*.csv")
        if file.parent.name in {files[basin].parent.name for basin in ids}
    )
    known = read_attributes(tables, statics, ids, separator=",")
    columns = columns_of(chosen, _header(files[ids[0]]), files[ids[0]])

    def read(basin: str) -> Record:
        file = files[basin]
        return read_daily_csv(file, columns) if file.suffix == ".csv" else read_daily_netcdf(file, columns)

    warned = "potential_evaporation" in chosen and PENMAN_MONTEITH not in columns
    return gather(
        "Caravan",
        {basin: (files[basin],) for basin in ids},
        read,
        chosen,
        statics,
        known,
        notices=(PET_NOTICE,) if warned else (),
        cache_dir=cache_dir,
        progress=progress,
    )


def _header(file: Path) -> list[str]:
    if file.suffix == ".csv":
        return csv_header(read_file(file))
    with open_netcdf(file) as dataset:
        return [str(name) for name in dataset.variables]
