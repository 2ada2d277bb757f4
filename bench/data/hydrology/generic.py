"""Any catchments in the layout of NeuralHydrology's generic data set.

<root>/time_series/<basin>.nc       series over the coordinate `date`
<root>/attributes/*.csv             one row a basin, whose id is the first column
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.data.hydrology.catchments import Series, by_id, choose_basins, choose_series, columns_of, find_folder, gather
from bench.data.hydrology.data import HydrologyData
from bench.data.hydrology.netcdf import SUFFIXES, open_netcdf, read_daily_netcdf
from bench.data.hydrology.tables import read_attributes
from bench.errors import UserError

if TYPE_CHECKING:
    from bench.data.cache_folder import Progress

LAYOUT = "time_series/<basin>.nc and attributes/*.csv"


def open_generic(
    path: Path,
    series: Sequence[str] | Mapping[str, str],
    statics: Sequence[str] = (),
    *,
    basins: Sequence[str] | None = None,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> HydrologyData:
    """Read catchments in NetCDF files of their own; units are the attributes of the first one, else ``1``.

    Args:
        path: the folder that holds `time_series` and `attributes`.
        series: variables of the files, or a name of ours for each of them: ``{"flow": "discharge_obs"}``. Negative values of
            one called `flow` or `discharge` are missing.
        statics: numeric attributes.
        basins: ids to read; by default all.
        cache_dir: where what was read is kept, so that the next time takes a second; None keeps nothing.
        progress: told of every finished catchment.

    Raises:
        UserError: another layout, a basin, variable or attribute that is not there, a damaged file, or a missing extra.
    """
    root = find_folder(path, LAYOUT)
    names = dict(series) if isinstance(series, Mapping) else {name: name for name in series}
    files = by_id((f for f in root.glob("time_series/*") if f.suffix in SUFFIXES), lambda file: file.stem)
    if not files:
        raise UserError(f"{root} has no catchment; it should hold {LAYOUT}")
    ids = choose_basins(files, basins, str(root))
    with open_netcdf(files[ids[0]]) as dataset:
        there = [str(name) for name in dataset.variables]
        units = {name: str(dataset[name].attrs.get("units", "1")) for name in names.values() if name in there}
    offered = {name: Series((variable,), units.get(variable, "1")) for name, variable in names.items()}
    chosen = choose_series(offered, tuple(names), ())
    columns = columns_of(chosen, there, files[ids[0]])
    known = read_attributes(sorted(root.glob("attributes/*.csv")), statics, ids, separator=",", key=None)
    return gather(
        root.name,
        {basin: (files[basin],) for basin in ids},
        lambda basin: read_daily_netcdf(files[basin], columns),
        chosen,
        statics,
        known,
        cache_dir=cache_dir,
        progress=progress,
    )
