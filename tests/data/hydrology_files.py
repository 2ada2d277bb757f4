"""Hydrological files made up: a few catchments and fields in the published layouts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

DAYMET_HEADER = "Year Mnth Day Hr dayl(s) prcp(mm/day) srad(W/m2) swe(mm) tmax(C) tmin(C) vp(Pa)"
NLDAS_HEADER = "Year Mnth Day\tHr\tDayl(s)\tPRCP(mm/day)\tSRAD(W/m2)\tSWE(mm)\tTmax(C)\tTmin(C)\tVp(Pa)"
BARE_HEADER = "dayl(s) prcp(mm/day) srad(W/m2) swe(mm) tmax(C) tmin(C) vp(Pa)"
"""Of four published Maurer files."""
US_ATTRIBUTES = {
    "topo": ("gauge_lat", "gauge_lon", "elev_mean", "slope_mean", "area_gages2"),
    "clim": ("aridity", "frac_snow", "high_prec_timing"),
    "vege": ("frac_forest",),
    "soil": ("soil_porosity", "soil_conductivity"),
    "geol": ("geol_permeability",),
    "hydro": ("q_mean",),
}
GB_COLUMNS = (
    "date,precipitation,pet,temperature,discharge_spec,discharge_vol,peti,humidity,shortwave_rad,longwave_rad,windspeed"
)
GB_ATTRIBUTES = {
    "topographic": [
        "gauge_lat",
        "gauge_lon",
        "elev_min",
        "elev_10",
        "elev_50",
        "elev_90",
        "elev_max",
        "area",
        "dpsbar",
    ],
    "climatic": ["aridity"],
    "hydrogeology": ["no_gw_perc"],
}
CARAVAN_COLUMNS = (
    "streamflow",
    "total_precipitation_sum",
    "potential_evaporation_sum",
    "temperature_2m_mean",
    "volumetric_soil_water_layer_1_mean",
)
CARAVAN_ATTRIBUTES = {
    "other": ("gauge_lat", "gauge_lon", "area"),
    "hydroatlas": (
        "ele_mt_smn",
        "ele_mt_sav",
        "ele_mt_smx",
        "slp_dg_sav",
        "ari_ix_sav",
        "for_pc_sse",
        "cly_pc_sav",
        "snd_pc_sav",
    ),
    "caravan": ("p_mean", "aridity"),
}


def days(first: str, count: int) -> np.ndarray:
    return np.datetime64(first) + np.arange(count)


def write(file: Path, *lines: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n")
    return file


def write_attributes(folder: Path, pattern: str, groups: Mapping, ids: list[str], separator: str) -> None:
    """Attribute j of catchment i is 10 i + j, counted over all groups; q_mean and the timing are text."""
    number = 0
    for group, names in groups.items():
        rows = [separator.join(["gauge_id", *names])]
        for i, gauge in enumerate(ids):
            cells = ["son" if name == "high_prec_timing" else f"{10 * i + number + j}" for j, name in enumerate(names)]
            rows.append(separator.join([gauge, *cells]))
        number += len(names)
        write(folder / pattern.format(group), *rows)


def forcing_file(root: Path, gauge: str, product: str = "daymet", huc: str = "01") -> Path:
    source = "cida" if product == "daymet" else product
    return root / "basin_mean_forcing" / product / huc / f"{gauge}_lump_{source}_forcing_leap.txt"


def flow_file(root: Path, gauge: str, huc: str = "01") -> Path:
    return root / "usgs_streamflow" / huc / f"{gauge}_streamflow_qc.txt"


def write_forcing(
    file: Path, first: str, count: int, *, area: str = "100000000", header: str = DAYMET_HEADER, separator: str = "\t"
) -> Path:
    """Precipitation is the number of the day, tmax that plus 10, tmin that minus 10."""
    rows = [
        separator.join(
            [
                f"{day} 12".replace("-", " "),
                "30000.0",
                f"{k:.2f}",
                "200.0",
                "0.0",
                f"{k + 10:.2f}",
                f"{k - 10:.2f}",
                "500.0",
            ]
        )
        for k, day in enumerate(days(first, count))
    ]
    return write(file, "  44.82", f" {133:.2f}", f" {area}", header, *rows)


def write_flow(file: Path, gauge: str, first: str, values: list[float], flags: str | None = None) -> Path:
    rows = [
        f"{gauge} {str(day).replace('-', ' ')} {value:8.2f} {flag}"
        for day, value, flag in zip(days(first, len(values)), values, flags or "A" * len(values), strict=True)
    ]
    return write(file, *rows)


def write_camels_us(root: Path, ids: tuple[str, ...] = ("01022500", "02064000"), count: int = 10) -> Path:
    """Flow of day k is 100 (i + 1) + k ft³/s."""
    for i, gauge in enumerate(ids):
        write_forcing(forcing_file(root, gauge), "2000-02-25", count)
        write_flow(flow_file(root, gauge), gauge, "2000-02-25", [100.0 * (i + 1) + k for k in range(count)])
    write_attributes(root / "camels_attributes_v2.0", "camels_{}.txt", US_ATTRIBUTES, list(ids), ";")
    return root


def gb_file(root: Path, gauge: str) -> Path:
    return root / "data" / "timeseries" / f"CAMELS_GB_hydromet_timeseries_{gauge}_19701001-20150930.csv"


def write_camels_gb(root: Path, ids: tuple[str, ...] = ("1001", "39001"), count: int = 6) -> Path:
    """Column j of day k of catchment i is 100 i + 10 j + k; the first two days have no discharge."""
    for i, gauge in enumerate(ids):
        rows = [GB_COLUMNS]
        for k, day in enumerate(days("1970-10-01", count)):
            cells = [f"{100 * i + 10 * j + k}" for j in range(1, 11)]
            cells[3:5] = ["NaN", ""] if k < 2 else cells[3:5]
            rows.append(",".join([str(day), *cells]))
        write(gb_file(root, gauge), *rows)
    write_attributes(root / "data", "CAMELS_GB_{}_attributes.csv", GB_ATTRIBUTES, list(ids), ",")
    return root


def caravan_values(i: int, count: int) -> np.ndarray:
    """[columns, days]: column j of day k of catchment i is 100 i + 10 j + k."""
    return 100.0 * i + 10.0 * np.arange(len(CARAVAN_COLUMNS))[:, None] + np.arange(count)


def write_caravan(root: Path, kind: str, source: str, numbers: tuple[str, ...] = ("1", "2"), count: int = 5) -> Path:
    """`kind` is csv or netcdf."""
    ids = [f"{source}_{number}" for number in numbers]
    for i, gauge in enumerate(ids):
        dates, values = days("1990-01-01", count), caravan_values(i, count)
        folder = root / "timeseries" / kind / source
        if kind == "csv":
            rows = [f"{day}," + ",".join(f"{v:g}" for v in row) for day, row in zip(dates, values.T, strict=True)]
            write(folder / f"{gauge}.csv", ",".join(["date", *CARAVAN_COLUMNS]), *rows)
        else:
            write_netcdf(folder / f"{gauge}.nc", dates, dict(zip(CARAVAN_COLUMNS, values, strict=True)), "date")
    write_attributes(root / "attributes" / source, f"attributes_{{}}_{source}.csv", CARAVAN_ATTRIBUTES, ids, ",")
    return root


def write_netcdf(
    file: Path,
    dates: np.ndarray,
    variables: Mapping[str, np.ndarray],
    time: str = "time",
    *,
    y: np.ndarray | None = None,
    x: np.ndarray | None = None,
    dims: tuple[str, ...] | None = None,
    units: str | None = None,
    fill: float | None = None,
    **flat: np.ndarray,
) -> Path:
    """Variables over time (and y and x, where they have them); `flat` has none of time."""
    import xarray

    file.parent.mkdir(parents=True, exist_ok=True)
    attributes = {} if units is None else {"units": units}
    content = {
        name: (dims or (time, "y", "x")[: values.ndim], values, attributes) for name, values in variables.items()
    } | {name: (("y", "x"), values) for name, values in flat.items()}
    coords: dict = {time: dates.astype("datetime64[ns]")}
    coords |= {} if y is None else {"y": y}
    coords |= {} if x is None else {"x": x}
    encoding = {time: {"units": "hours since 1970-01-01", "dtype": "int64"}}
    encoding |= {name: {"_FillValue": fill} for name in variables if fill is not None}
    xarray.Dataset(content, coords).to_netcdf(file, engine="h5netcdf", encoding=encoding)
    return file
