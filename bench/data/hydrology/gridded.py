"""Daily grids in NetCDF files: one file or many (a month, a year or a variable each), of dimensions time, y and x."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.data.hydrology.catchments import some
from bench.data.hydrology.data import Grids
from bench.data.hydrology.netcdf import SUFFIXES, days_of, open_netcdf
from bench.errors import UserError

if TYPE_CHECKING:
    import xarray

    from bench.data.cache_folder import Progress

GRIDS_VERSION = 1
AXES = {
    "t": ("time", "date", "day", "t", "valid_time"),
    "y": ("y", "lat", "latitude", "northing", "projection_y_coordinate", "rlat", "grid_latitude"),
    "x": ("x", "lon", "longitude", "easting", "projection_x_coordinate", "rlon", "grid_longitude"),
}
"""What the axes are called; the attribute `axis` of a coordinate says it too."""
MISSING_BELOW = -1000
"""Lower values are codes for missing, such as -9999, whatever the file says."""
BLOCK_BYTES = 2**26


class _Grid(NamedTuple):
    """Where the cells of a variable lie."""

    file: Path
    shape: tuple[int, int]
    rows: NDArray[Any] | None
    """Their coordinate from north to south; None where the file has none."""
    columns: NDArray[Any] | None
    """Their coordinate from west to east; None where the file has none."""


class _Part(NamedTuple):
    """One variable in one file."""

    days: NDArray[np.datetime64]
    unit: str
    grid: _Grid


def open_grids(
    path: Path,
    variables: Sequence[str] | Mapping[str, str],
    land: str | None = None,
    *,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> tuple[NDArray[np.datetime64], Grids]:
    """Read daily fields; days come in any order, rows from north to south, columns from west to east.

    Fill values and values below -1000 are missing. A day that a variable lacks between the first of any and the last is NaN.

    Args:
        path: a file, or a folder that is searched with all that is in it.
        variables: names in the files, or a name of ours for each of them: ``{"rain": "rainfall"}``.
        land: variable [y, x] that is 0.5 or more on land; by default land is wherever there ever is a value.
        cache_dir: where the fields are kept as one memory-mapped file, made if missing; without it they are held in memory
            (46 years of 3 fields of 290 x 180: 10 GB).
        progress: told of every finished file and variable.

    Returns:
        datetime64[D] [D] without gaps, and the grids [K, D, H, W].

    Raises:
        UserError: no such file or variable, grids that differ, a day that is there twice (names files and date), a calendar
            that is none, or an extra that is not installed.
    """
    wanted = dict(variables) if isinstance(variables, Mapping) else {name: name for name in variables}
    if not wanted:
        raise UserError("variables must name one variable of the files or more")
    files = _files(Path(path))
    if cache_dir is None:
        return _read(files, wanted, land, None, progress)
    status = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    key = hashlib.sha256(repr((GRIDS_VERSION, wanted, land, status)).encode()).hexdigest()[:12]
    folder = Path(cache_dir) / f"grids-v{GRIDS_VERSION}" / key
    if not folder.is_dir():
        _fill_cache(folder, files, wanted, land, progress)
    try:
        made = json.loads((folder / "grids.json").read_text())
        values = np.load(folder / "values.npy", mmap_mode="r", allow_pickle=False)
        mask = np.load(folder / "land.npy", allow_pickle=False)
        dates = np.datetime64(made["first"], "D") + np.arange(values.shape[1])
        return dates, Grids(tuple(wanted), tuple(made["units"]), values, mask)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder} is damaged ({error}); delete it and run again") from error


def _fill_cache(
    folder: Path, files: Sequence[Path], wanted: Mapping[str, str], land: str | None, progress: Progress | None
) -> None:
    """Make `folder` with all that is in it, or nothing; another process may be doing the same."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
            made = Path(temporary) / folder.name
            made.mkdir()
            dates, grids = _read(files, wanted, land, made / "values.npy", progress)
            np.save(made / "land.npy", grids.land)
            (made / "grids.json").write_text(json.dumps({"first": str(dates[0]), "units": grids.units}))
            try:
                made.rename(folder)
            except OSError:
                if not folder.is_dir():  # else another process was first, with the same
                    raise
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}; choose another cache folder") from error


def _files(path: Path) -> list[Path]:
    """The files at `path`, sorted."""
    if path.is_file():
        return [path]
    files = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES)
    if not files:
        raise UserError(f"{path} is no NetCDF file and no folder of them ({', '.join(SUFFIXES)})")
    return files


def _read(
    files: Sequence[Path], wanted: Mapping[str, str], land: str | None, target: Path | None, progress: Progress | None
) -> tuple[NDArray[np.datetime64], Grids]:
    """Read all parts into memory, or into the file `target`."""
    parts, mask = _scan(files, wanted, land)
    every = [part for name in wanted for part in parts[name]]
    shape = every[0].grid.shape
    first = min(part.days.min() for part in every)
    dates = np.arange(first, max(part.days.max() for part in every) + 1)
    values = _allocate((len(wanted), len(dates), *shape), target)
    ever, done = np.zeros(shape, bool), 0
    step = max(1, BLOCK_BYTES // (4 * shape[0] * shape[1]))
    if progress:
        progress("reading grids", 0, len(every))
    for field, (name, variable) in zip(values, wanted.items(), strict=True):
        lacking = np.ones(len(dates), bool)
        for part in parts[name]:
            rows = (part.days - first).astype(int)
            lacking[rows] = False
            with open_netcdf(part.grid.file) as dataset:
                array = _oriented(part.grid.file, dataset, variable, ("t", "y", "x"))
                for start in range(0, len(rows), step):
                    block = array[start : start + step].values.astype(np.float32)
                    block[~(block >= MISSING_BELOW) | np.isinf(block)] = np.nan
                    field[rows[start : start + step]] = block
                    ever |= np.isfinite(block).any(0)
            done += 1
            if progress:
                progress("reading grids", done, len(every))
        field[lacking] = np.nan
    units = tuple(parts[name][0].unit for name in wanted)
    return dates, Grids(tuple(wanted), units, values, ever if mask is None else mask)


def _allocate(size: tuple[int, ...], target: Path | None) -> NDArray[np.float32]:
    if target is None:
        return np.empty(size, np.float32)
    need, free = 4 * int(np.prod(size)), shutil.disk_usage(target.parent).free
    if free < 1.02 * need + 2**20:  # on a full disk a memory map ends the process
        raise UserError(
            f"the grids need {need / 2**20:.0f} MiB in the cache folder, but only {free / 2**20:.0f} MiB are free; "
            "free some or choose another cache folder"
        )
    return np.lib.format.open_memmap(target, mode="w+", dtype=np.float32, shape=size)


def _scan(
    files: Sequence[Path], wanted: Mapping[str, str], land: str | None
) -> tuple[dict[str, list[_Part]], NDArray[np.bool_] | None]:
    """What is where, by our names, and the mask of land; all grids agree and no day is there twice."""
    parts: dict[str, list[_Part]] = {name: [] for name in wanted}
    mask: NDArray[np.bool_] | None = None
    grids: list[_Grid] = []
    seen = set[str]()
    for file in files:
        with open_netcdf(file) as dataset:
            seen.update(str(name) for name in dataset.data_vars)
            for name, variable in wanted.items():
                if variable in dataset.data_vars:
                    array = _oriented(file, dataset, variable, ("t", "y", "x"))
                    grids.append(_grid(file, array))
                    unit = str(dataset[variable].attrs.get("units", "1"))
                    parts[name].append(_Part(days_of(file, dataset[array.dims[0]]), unit, grids[-1]))
            if land is not None and mask is None and land in dataset.data_vars:
                array = _oriented(file, dataset, land, ("y", "x"))
                grids.append(_grid(file, array))
                mask = np.asarray(array.values >= 0.5)
    missing = [variable for name, variable in wanted.items() if not parts[name]]
    if missing or (land is not None and mask is None):
        missing = missing or [str(land)]
        raise UserError(f"no file has the variable {', '.join(missing)}; there are {some(sorted(seen), 20) or 'none'}")
    for grid in grids:
        _refuse_other_grid(grid, grids[0])
    for name, found in parts.items():
        _refuse_disagreement(wanted[name], found)
    return parts, mask


def _oriented(file: Path, dataset: xarray.Dataset, variable: str, order: tuple[str, ...]) -> xarray.DataArray:
    """The variable with its axes in `order`, from north to south and from west to east; nothing is read yet.

    Other axes of one entry (a height, a band; the time of a mask) are left out. Axes that are not known by name or by their
    attribute `axis` count in the order of the file.
    """
    array = dataset[variable]
    role = {dimension: _role(dataset, str(dimension)) for dimension in array.dims}
    array = array.squeeze([d for d in array.dims if array.sizes[d] == 1 and role[d] not in order])
    place = {role[dimension]: dimension for dimension in array.dims}
    if len(array.dims) != len(order) or ("t" in order and "t" not in place):
        raise UserError(
            f"{file}: {variable} must have the dimensions {', '.join({'t': 'time'}.get(o, o) for o in order)}, "
            f"got {', '.join(map(str, array.dims)) or 'none'}"
        )
    array = (
        array.transpose(*(place[o] for o in order))
        if set(place) == set(order)
        else array.transpose(place.get("t"), ...)
    )
    for dimension, ascending in ((array.dims[-2], False), (array.dims[-1], True)):
        if dimension not in array.coords:
            continue
        along = array.coords[dimension].values
        if bool(along[0] < along[-1]) is not ascending:
            array = array.isel({dimension: slice(None, None, -1)})
    return array


def _role(dataset: xarray.Dataset, dimension: str) -> str | None:
    axis = str(dataset[dimension].attrs.get("axis", "")).lower() if dimension in dataset.variables else ""
    return next((role for role, names in AXES.items() if axis == role or dimension.lower() in names), None)


def _grid(file: Path, array: xarray.DataArray) -> _Grid:
    rows, columns = (array.coords[d].values if d in array.coords else None for d in array.dims[-2:])
    return _Grid(file, (array.shape[-2], array.shape[-1]), rows, columns)


def _refuse_other_grid(grid: _Grid, like: _Grid) -> None:
    """Raise `UserError` if the two do not lie on the same cells, as far as the files say."""
    same = grid.shape == like.shape and all(
        one is None or other is None or np.allclose(one, other, rtol=1e-5, atol=0)
        for one, other in ((grid.rows, like.rows), (grid.columns, like.columns))
    )
    if not same:
        raise UserError(
            f"{grid.file} has another grid ({grid.shape[0]} x {grid.shape[1]}) than {like.file} ({like.shape[0]} x "
            f"{like.shape[1]}) or its cells lie elsewhere; bring both on one grid first"
        )


def _refuse_disagreement(variable: str, parts: Sequence[_Part]) -> None:
    """Raise `UserError` if two parts have different units or the same day."""
    for part in parts:
        if part.unit != parts[0].unit:
            raise UserError(
                f"{variable} is in {part.unit!r} in {part.grid.file} but in {parts[0].unit!r} in {parts[0].grid.file}; "
                "convert one of them"
            )
    days = np.concatenate([part.days for part in parts])
    owner = np.repeat(np.arange(len(parts)), [len(part.days) for part in parts])
    order = days.argsort(kind="stable")
    if (twice := days[order][1:] == days[order][:-1]).any():
        at = int(twice.argmax())
        one, other = (parts[owner[order[at + k]]].grid.file for k in (0, 1))
        raise UserError(f"{variable} of {days[order[at]]} is in {one} and in {other}; remove one of them")
