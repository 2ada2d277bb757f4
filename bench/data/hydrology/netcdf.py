"""NetCDF files through xarray, which is an extra: ``pip install 'isochron[hydrology]'``."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bench.data.hydrology.tables import Record, refuse_repeats
from bench.errors import UserError

if TYPE_CHECKING:
    import xarray

EXTRA = ("xarray", "h5netcdf", "h5py")
SUFFIXES = (".nc", ".nc4")
ENGINES = {b"\x89HDF": "h5netcdf", b"CDF\x01": "scipy", b"CDF\x02": "scipy"}
"""By the first four bytes: NetCDF 4, and the two classic formats."""
REAL_CALENDARS = ("standard", "gregorian", "proleptic_gregorian")


@contextmanager
def open_netcdf(file: Path) -> Iterator[xarray.Dataset]:
    """The file with fill values as NaN and packed numbers unpacked; times stay as they are, see `days_of`.

    Raises:
        UserError: xarray or h5netcdf is not installed, or the file cannot be read; also while its data are read inside.
    """
    for extra in EXTRA:
        if importlib.util.find_spec(extra) is None:
            raise UserError(f"NetCDF files need {extra}, which is not installed: pip install 'isochron[hydrology]'")
    import xarray

    try:
        with open(file, "rb") as stream:
            start = stream.read(4)
        if start not in ENGINES:
            raise UserError(
                f"{file} is no NetCDF file that can be read (NetCDF 4 or classic): fetch it again or convert it"
            )
        with xarray.open_dataset(file, engine=ENGINES[start], decode_times=False) as dataset:
            yield dataset
    except (OSError, RuntimeError, EOFError) as error:
        raise UserError(f"{file} cannot be read, is it cut short? Fetch it again ({error})") from error


def days_of(file: Path, times: xarray.DataArray) -> NDArray[np.datetime64]:
    """datetime64[D] [n]: the days on which `times` lie.

    Raises:
        UserError: no time with units such as ``days since 1970-01-01`` and a real calendar, or a day twice.
    """
    import xarray

    units, calendar = str(times.attrs.get("units", "none")), str(times.attrs.get("calendar", "standard")).lower()
    if " since " not in units:
        raise UserError(f"{file}: {times.name} must have units such as 'days since 1970-01-01', got {units!r}")
    if calendar not in REAL_CALENDARS:
        raise UserError(
            f"{file}: {times.name} must be in a real calendar ({', '.join(REAL_CALENDARS)}), got {calendar!r}"
        )
    try:
        decoded = xarray.decode_cf(xarray.Dataset({"times": ("days", times.values, dict(times.attrs))}))["times"].values
    except (ValueError, OverflowError) as error:
        raise UserError(f"{file}: {times.name} in {units!r} cannot be read as dates") from error
    if np.isnat(decoded).any():
        raise UserError(f"{file}: {times.name} has a missing value at position {int(np.isnat(decoded).argmax())}")
    return refuse_repeats(file, decoded.astype("datetime64[D]"))


def read_daily_netcdf(file: Path, columns: list[str], *, date: str = "date") -> Record:
    """Some variables of one dimension, `date`.

    Raises:
        UserError: the file cannot be read, lacks a variable, or a day stands there twice.
    """
    with open_netcdf(file) as dataset:
        if missing := [name for name in (date, *columns) if name not in dataset.variables]:
            raise UserError(
                f"{file} has no variable {', '.join(missing)}; it has {', '.join(map(str, dataset.variables))}"
            )
        if other := [name for name in columns if dataset[name].dims != (date,)]:
            raise UserError(f"{file}: {other[0]} must have the one dimension {date}, got {dataset[other[0]].dims}")
        days = days_of(file, dataset[date])
        return Record(days, np.stack([dataset[name].values.astype(np.float32) for name in columns]))
