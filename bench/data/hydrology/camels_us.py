"""CAMELS-US: 671 catchments of the contiguous United States, daily, 1980 to 2014.

    <root>/**/basin_mean_forcing/<product>/[<HUC>/]<id>_lump_<source>_forcing_leap.txt
    <root>/**/usgs_streamflow/[<HUC>/]<id>_streamflow_qc.txt
    <root>/**/camels_{topo,clim,soil,vege,geol,...}.txt

A forcing file begins with latitude, elevation in m and area in m²; the header after it differs between products and files,
and four Maurer files leave out the names of the date. A streamflow file has no header: id, year, month, day, ft³/s, flag.

Sources: Newman et al. 2015 (HESS 19, 209), Addor et al. 2017 (HESS 21, 5293).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.data.hydrology.catchments import Series, by_id, choose_basins, choose_series, find_folder, gather, some
from bench.data.hydrology.data import HydrologyData
from bench.data.hydrology.tables import Record, calendar_days, read_attributes, read_file, read_spaced
from bench.errors import UserError

if TYPE_CHECKING:
    from bench.data.cache_folder import Progress

LAYOUT = (
    "CAMELS-US: basin_mean_forcing/<product>/**/<id>_lump_<source>_forcing_leap.txt and "
    "usgs_streamflow/**/<id>_streamflow_qc.txt"
)
SERIES = {
    "flow": Series(("flow",), "mm/d"),
    "precipitation": Series(("prcp",), "mm/d"),
    "temperature": Series(("tmean",), "degC"),
    "temperature_max": Series(("tmax",), "degC"),
    "temperature_min": Series(("tmin",), "degC"),
    "shortwave_radiation": Series(("srad",), "W/m2"),
    "vapour_pressure": Series(("vp",), "Pa"),
    "snow_water_equivalent": Series(("swe",), "mm"),
    "day_length": Series(("dayl",), "s"),
}
"""What can be asked for; `temperature` is the mean of the day's maximum and minimum."""
DEFAULT_SERIES = ("precipitation", "temperature", "shortwave_radiation", "vapour_pressure", "flow")
STATICS = (
    "gauge_lat",
    "gauge_lon",
    "elev_mean",
    "slope_mean",
    "area_gages2",
    "aridity",
    "frac_snow",
    "frac_forest",
    "soil_porosity",
    "soil_conductivity",
    "geol_permeability",
)
"""Place, altitude, slope, area, wetness, and what holds the water back. No signature of the flow: it would be the answer."""
FORCING = ("dayl", "prcp", "srad", "swe", "tmax", "tmin", "vp")
DATE = ("year", "mnth", "day", "hr")
CUBIC_MM_PER_CUBIC_FOOT = 28_316_846.592


def open_camels_us(
    path: Path,
    forcing: str = "daymet",
    *,
    series: Sequence[str] | None = None,
    statics: Sequence[str] = STATICS,
    basins: Sequence[str] | None = None,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> HydrologyData:
    """Read CAMELS-US in its text layout. Flow is in mm/d over the area in the header of the forcing file.

    Args:
        path: the folder above `basin_mean_forcing` and `usgs_streamflow`, however far above.
        forcing: the product: ``daymet``, ``maurer``, ``nldas`` or another folder of `basin_mean_forcing`.
        series: names among `SERIES`; by default `DEFAULT_SERIES`.
        statics: numeric attributes of the `camels_*.txt` tables; may be empty.
        basins: ids to read, 8 digits; by default every one that has forcing and flow.
        cache_dir: where what was read is kept, so that the next time takes a second; None keeps nothing.
        progress: told of every finished catchment.

    Raises:
        UserError: another layout, a basin that is not there, a damaged file (names file and line).
    """
    root = find_folder(path, LAYOUT)
    chosen = choose_series(SERIES, series, DEFAULT_SERIES)
    products = [
        folder for parent in _folders(root, "basin_mean_forcing") for folder in parent.iterdir() if folder.is_dir()
    ]
    forcings = by_id(
        (f for folder in products if folder.name == forcing for f in folder.rglob("*_forcing_leap.txt")), _id
    )
    flows = by_id((f for folder in _folders(root, "usgs_streamflow") for f in folder.rglob("*_streamflow_qc.txt")), _id)
    if products and not forcings:
        names = ", ".join(sorted({folder.name for folder in products}))
        raise UserError(
            f"forcing must be a folder of files in {products[0].parent}, got {forcing!r}; there are {names}"
        )
    if not forcings.keys() & flows.keys():
        raise UserError(
            f"{root} has no catchment with forcing and flow ({len(forcings)} with {forcing}, {len(flows)} with flow); "
            f"it should hold {LAYOUT}"
        )
    ids = choose_basins(forcings.keys() & flows.keys(), basins, f"CAMELS-US with {forcing} and flow")
    notices = [
        f"CAMELS-US: {len(lonely)} catchments without {lacks} are left out ({some(sorted(lonely))})"
        for lacks, lonely in (("flow", forcings.keys() - flows.keys()), (forcing, flows.keys() - forcings.keys()))
        if lonely and basins is None
    ]
    known = read_attributes(sorted(root.rglob("camels_*.txt")), statics, ids, separator=";")

    def read(basin: str) -> Record:
        return _read(basin, forcings[basin], flows[basin], [s.columns[0] for s in chosen.values()])

    files = {basin: (forcings[basin], flows[basin]) for basin in ids}
    return gather(
        "CAMELS-US", files, read, chosen, statics, known, notices=notices, cache_dir=cache_dir, progress=progress
    )


def _folders(root: Path, name: str) -> list[Path]:
    return sorted({folder for folder in (root, *root.rglob(name)) if folder.name == name and folder.is_dir()})


def _id(file: Path) -> str:
    return file.name.split("_", 1)[0]


def _read(basin: str, forcing: Path, flow: Path, columns: Sequence[str]) -> Record:
    """Columns of both files on the days that either has."""
    area, forced_days, forced = _read_forcing(forcing)
    gauged_days, gauged = _read_flow(flow, basin)
    forced["tmean"] = (forced["tmax"] + forced["tmin"]) / 2
    first = min(forced_days.min(), gauged_days.min())
    dates = np.arange(first, max(forced_days.max(), gauged_days.max()) + 1)
    values = np.full((len(columns), len(dates)), np.nan, np.float32)
    for row, column in zip(values, columns, strict=True):
        if column == "flow":
            row[(gauged_days - first).astype(int)] = gauged * (CUBIC_MM_PER_CUBIC_FOOT * 86400 / (area * 1e6))
        else:
            row[(forced_days - first).astype(int)] = forced[column]
    return Record(dates, values)


def _read_forcing(file: Path) -> tuple[float, np.ndarray, dict[str, np.ndarray]]:
    """Area in m², days and columns of a forcing file."""
    data = read_file(file)
    head = data.split(b"\n", 4)[:4]
    if len(head) < 4:
        raise UserError(f"{file} has {len(head)} lines instead of 4 before its rows: it is cut short; fetch it again")
    try:
        area = float(head[2])
    except ValueError:
        area = 0.0
    if not 0 < area < np.inf:
        raise UserError(f"{file}, line 3 must be the area in m2, got {head[2].decode('utf-8', 'replace').strip()!r}")
    header = [name.split("(")[0].lower() for name in head[3].decode("utf-8", "replace").split()]
    columns = [name for name in header if name not in DATE]
    if sorted(columns) != sorted(FORCING):
        raise UserError(f"{file}, line 4 must name the columns {', '.join(FORCING)}, got {', '.join(header) or 'none'}")
    names = ["year", "month", "day", "hour", *columns]
    table = read_spaced(file, data, names, header_lines=4)
    values = {name: table[name].to_numpy() for name in columns}
    return (
        area,
        calendar_days(file, table, header_lines=4),
        {name: np.where(column <= -999, np.nan, column) for name, column in values.items()},
    )


def _read_flow(file: Path, basin: str) -> tuple[np.ndarray, np.ndarray]:
    """Days and flow in ft³/s; missing are -999 and the flag M."""
    names = ("id", "year", "month", "day", "flow", "flag")
    table = read_spaced(file, read_file(file), names, header_lines=0, text=("id", "flag"))
    if (other := (table["id"] != basin).to_numpy()).any():
        row = int(other.argmax())
        raise UserError(
            f"{file}, line {row + 1} is of the gauge {table['id'].iloc[row]!r}, not {basin!r}; fetch it again"
        )
    flow = table["flow"].to_numpy()
    missing = (flow <= -999) | (table["flag"] == "M").to_numpy()
    return calendar_days(file, table, header_lines=0), np.where(missing, np.nan, flow)
