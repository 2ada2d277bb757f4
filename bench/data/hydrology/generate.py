"""The embedded hydrology: generated once, then read through memory maps.

    cache_dir/hydrology-v1/<years>y-<height>x<width>-<catchments>c-<key>/
        manifest.json    the spec and each file's SHA-256; written last
        grids.npy        float32 [K, D, H, W]
        series.npy       float32 [C, S, D]
        statics.npy      float32 [C, A]
        land.npy         bool [H, W]
        .state.npz       while unfinished: where the next year goes on
        .lock            held (fcntl) by the process that generates

The key is a hash of the spec and the generator's version. Values are written year by year, so memory holds one year whatever
the length of the record, and a run that is killed goes on from the last finished year.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.cache_folder import Progress, check_space, digest, seal, sole_writer, unseal
from bench.data.hydrology.data import Gauges, Grids, HydrologyData
from bench.data.hydrology.day_file import DayFile
from bench.data.hydrology.region import STATIC_NAMES
from bench.data.hydrology.simulate import GRID_NAMES, GRID_UNITS, SERIES_NAMES, SERIES_UNITS, Simulation
from bench.data.hydrology.spec import HYDROLOGY_VERSION, HydrologySpec
from bench.data.shards import refuse_damage, write_array, write_atomically
from bench.errors import UserError

FILES = ("grids.npy", "series.npy", "statics.npy", "land.npy")
NOTICE = (
    "The hydrology is generated (weather by a random process, water by GR4J, in a region that does not exist): "
    "numbers compare architectures on this data and say nothing of a real river."
)


def data_folder(spec: HydrologySpec, cache_dir: Path) -> Path:
    """Where the data of `spec` lies, or will lie."""
    key = digest(spec.describe())[:12]
    name = f"{spec.years}y-{spec.height}x{spec.width}-{spec.catchments}c-{key}"
    return Path(cache_dir) / f"hydrology-v{HYDROLOGY_VERSION}" / name


def prepare(spec: HydrologySpec, cache_dir: Path, progress: Progress | None = None) -> None:
    """Generate the data of `spec` unless it is there.

    A file that is there but damaged is an error, not generated again in silence: who trusts the numbers wants to know that the
    disk does not keep what is written to it. Idempotent, and safe when several processes call it at once: one generates, the others wait for it.

    Args:
        spec: what to generate.
        cache_dir: folder that is made if it is missing.
        progress: told of every finished year.

    Raises:
        UserError: too many catchments for the land, a damaged file or manifest, a full disk or a folder that cannot be
            written.
    """
    folder = data_folder(spec, cache_dir)
    with sole_writer(folder, "generates hydrology", progress):
        if (folder / "manifest.json").is_file():
            entries = unseal(folder / "manifest.json", spec.describe(), "hydrology")["files"]
            if all((folder / name).is_file() for name in FILES):
                refuse_damage(folder, entries, "hydrology", "generate", checksum=True)
                return
        _generate(spec, folder, progress)


def open_generated(spec: HydrologySpec, cache_dir: Path, *, verify: bool = True) -> HydrologyData:
    """Open what `prepare` has generated; the grids are memory-mapped.

    File sizes are always checked, SHA-256 sums if `verify` (a fraction of a second for the default region).

    Raises:
        UserError: the data is not there, not complete, or damaged; the message names the file and the mend.
    """
    folder = data_folder(spec, cache_dir)
    if not (folder / "manifest.json").is_file():
        raise UserError(f"hydrology: {folder.name} is not in the cache ({folder}); prepare it first")
    entries = unseal(folder / "manifest.json", spec.describe(), "hydrology")["files"]
    refuse_damage(folder, entries, "hydrology", "generate", checksum=verify)
    grids, series, statics, land = (
        np.load(folder / name, mmap_mode="r" if name == "grids.npy" else None, allow_pickle=False) for name in FILES
    )
    content = {"spec": spec.describe(), "files": {name: entries[name]["sha256"] for name in FILES}}
    return HydrologyData(
        dates=spec.calendar(),
        grids=Grids(GRID_NAMES, GRID_UNITS, grids, land),
        gauges=Gauges(
            tuple(f"g{number:04d}" for number in range(spec.catchments)),
            SERIES_NAMES,
            SERIES_UNITS,
            series,
            STATIC_NAMES,
            statics,
        ),
        fingerprint=digest(content),
        notices=(NOTICE,),
    )


def _generate(spec: HydrologySpec, folder: Path, progress: Progress | None) -> None:
    """Generate all files and, last, the manifest; the caller holds the lock."""
    dates, years = spec.calendar(), spec.generated_years()
    simulation = Simulation(spec)
    files = {
        "grids.npy": DayFile(folder / "grids.npy", (len(GRID_NAMES), len(dates), spec.height, spec.width), axis=1),
        "series.npy": DayFile(folder / "series.npy", (spec.catchments, len(SERIES_NAMES), len(dates)), axis=2),
    }
    done = _resume(simulation, folder) if all(file.begun() for file in files.values()) else 0
    for leftover in folder.glob(".*.tmp"):  # of a process that was killed; the lock says that it is gone
        leftover.unlink(missing_ok=True)
    if not done:
        check_space(folder, sum(file.bytes for file in files.values()), "hydrology")
        for file in files.values():
            file.begin()
    if progress:
        progress("generating hydrology", done, len(years))
    for number, year in enumerate(years[done:], start=done + 1):
        grids, series = simulation.year(year)
        if year >= spec.first_year:
            first = int((np.datetime64(f"{year}-01-01") - dates[0]).astype(int))
            files["grids.npy"].write(first, grids)
            files["series.npy"].write(first, series)
        _save_state(simulation, folder, number)
        if progress and number < len(years):
            progress("generating hydrology", number, len(years))
    entries = {name: file.finish() for name, file in files.items()}
    entries["statics.npy"] = write_array(folder / "statics.npy", simulation.statics)
    entries["land.npy"] = write_array(folder / "land.npy", simulation.region.land)
    manifest = {"spec": spec.describe(), "software": {"numpy": np.__version__}, "files": entries}
    write_atomically(folder / "manifest.json", seal(manifest))
    (folder / ".state.npz").unlink(missing_ok=True)
    if progress:
        progress("generating hydrology", len(years), len(years))


def _save_state(simulation: Simulation, folder: Path, done: int) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, done=np.int64(done), **simulation.state)  # type: ignore[arg-type] # its stub takes no names
    write_atomically(folder / ".state.npz", buffer.getvalue())


def _resume(simulation: Simulation, folder: Path) -> int:
    """Set `simulation` to where a killed run stood and return the number of its finished years; 0 if that is not known."""
    try:
        with np.load(folder / ".state.npz", allow_pickle=False) as saved:
            arrays: dict[str, NDArray[Any]] = dict(saved)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return 0
    simulation.state = arrays
    return int(arrays["done"])
