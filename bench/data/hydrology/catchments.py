"""From one record a catchment to `HydrologyData`: a common calendar, missing values, notices, a digest of the content."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.data.hydrology.data import Gauges, HydrologyData
from bench.data.hydrology.tables import Record
from bench.errors import UserError
from bench.machine import usable_cores

if TYPE_CHECKING:
    from bench.data.cache_folder import Progress

NEVER_NEGATIVE = ("flow", "discharge")
"""Series whose negative values are codes or mistakes: they are taken as missing, and a notice says so."""


CATCHMENTS_VERSION = 1
"""Of what is kept in the cache."""


@dataclass(frozen=True)
class Series:
    """One series that a source offers."""

    columns: tuple[str, ...]
    """What it is called in the files; the first one that a file has is taken (releases rename their columns)."""
    unit: str


def choose_series(
    offered: Mapping[str, Series], names: Sequence[str] | None, default: Sequence[str]
) -> dict[str, Series]:
    """The series `names` in their order; None is `default`.

    Raises:
        UserError: none, one twice, or one that the source does not offer.
    """
    chosen = tuple(default if names is None else names)
    if not chosen or len(set(chosen)) != len(chosen) or not set(chosen) <= set(offered):
        raise UserError(f"series must be different names among {', '.join(offered)}, got {', '.join(chosen) or 'none'}")
    return {name: offered[name] for name in chosen}


def columns_of(series: Mapping[str, Series], there: Collection[str], file: Path) -> list[str]:
    """What the chosen series are called in a file that has the columns `there`.

    Raises:
        UserError: a series that has no column.
    """
    columns = []
    for name, one in series.items():
        found = [column for column in one.columns if column in there]
        if not found:
            raise UserError(
                f"{file} has no column {' or '.join(one.columns)} for {name}; leave it out with series=, "
                f"or take the file of another release (it has {', '.join(there)})"
            )
        columns.append(found[0])
    return columns


def find_folder(path: Path, layout: str) -> Path:
    """`path` as a folder that is there.

    Raises:
        UserError: it is not; says which layout it should have.
    """
    if not Path(path).is_dir():
        raise UserError(f"{path} is no folder; it should hold {layout}")
    return Path(path)


def by_id(files: Iterable[Path], read_id: Callable[[Path], str]) -> dict[str, Path]:
    """Files by catchment; a copy of the same bytes in another folder counts once.

    Raises:
        UserError: two different files for one catchment.
    """
    found: dict[str, Path] = {}
    for file in sorted(files):
        known = found.setdefault(read_id(file), file)
        if known != file and known.read_bytes() != file.read_bytes():
            raise UserError(f"{read_id(file)} has two files that differ, {known} and {file}; remove one of them")
    return found


def choose_basins(found: Iterable[str], basins: Sequence[str] | None, label: str) -> list[str]:
    """Sorted ids of those of `found` that `basins` asks for; None asks for all.

    Raises:
        UserError: one that is not there, or none at all.
    """
    there = sorted(found)
    if basins is None:
        return there
    if missing := sorted(set(basins) - set(there)):
        raise UserError(
            f"{label} has no catchment {some(missing)}; ids are text, leading zeros included ({some(there)})"
        )
    if not basins:
        raise UserError("basins must name one catchment or more; None takes all")
    return sorted(set(basins))


def some(ids: Sequence[str], most: int = 5) -> str:
    """The first few, and how many more."""
    return ", ".join(ids[:most]) + (f" and {len(ids) - most} more" if len(ids) > most else "")


def _some_of(ids: Sequence[str], numbers: NDArray[np.intp]) -> str:
    return some([ids[number] for number in numbers.tolist()])


def gather(
    label: str,
    files: Mapping[str, Sequence[Path]],
    read: Callable[[str], Record],
    series: Mapping[str, Series],
    static_names: Sequence[str],
    statics: NDArray[np.float32],
    *,
    notices: Sequence[str] = (),
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> HydrologyData:
    """Read every catchment, in threads, and lay the records on one calendar from the first day of any to the last.

    Args:
        label: of the source, for messages.
        files: of each of the C catchments, by its id.
        read: gives the record of one; pandas parses without Python's lock.
        series: of the records, in order.
        static_names: of the A attributes.
        statics: float32 [C, A].
        notices: to stand before those that are found here.
        cache_dir: where what was read is kept as long as the files stay as they are; None keeps nothing.
        progress: told of every finished catchment.

    Raises:
        UserError: from `read`; a series that no catchment has; a cache that cannot be written or is damaged.
    """
    ids = tuple(files)

    def read_all() -> tuple[NDArray[np.datetime64], NDArray[np.float32]]:
        return _read_all(f"reading {label}", ids, read, len(series), progress)

    if cache_dir is None:
        dates, values = read_all()
    else:
        status = [(str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns) for group in files.values() for f in group]
        key = hashlib.sha256(repr((CATCHMENTS_VERSION, ids, dict(series), status)).encode()).hexdigest()[:12]
        dates, values = _cached(Path(cache_dir) / f"catchments-v{CATCHMENTS_VERSION}" / f"{key}.npz", read_all)

    found = list(notices)
    for number, name in enumerate(series):
        if name in NEVER_NEGATIVE and (negative := values[:, number] < 0).any():
            values[:, number][negative] = np.nan
            where = _some_of(ids, np.flatnonzero(negative.any(1)))
            found.append(f"{label}: {negative.sum()} negative values of {name} are taken as missing ({where})")
        empty = np.isnan(values[:, number]).all(1)
        if empty.all():
            raise UserError(f"{label}: {name} is missing on every day of every catchment; leave it out with series=")
        if empty.any():
            where = _some_of(ids, np.flatnonzero(empty))
            found.append(f"{label}: {name} is missing on every day of {empty.sum()} catchments ({where})")
    if static_names:
        unknown = np.isnan(statics).all(1)
        if unknown.all():
            raise UserError(
                f"{label}: no table of attributes lists {some(ids)}; compare the ids, leading zeros included"
            )
        if unknown.any():
            found.append(
                f"{label}: {unknown.sum()} catchments have no attributes ({_some_of(ids, np.flatnonzero(unknown))})"
            )
    gauges = Gauges(ids, tuple(series), tuple(s.unit for s in series.values()), values, tuple(static_names), statics)
    return HydrologyData(dates, None, gauges, digest_gauges(dates, gauges), tuple(found))


def _read_all(
    told: str, ids: Sequence[str], read: Callable[[str], Record], series: int, progress: Progress | None
) -> tuple[NDArray[np.datetime64], NDArray[np.float32]]:
    """The calendar [D] and the values [C, S, D] as they stand in the files."""
    records = []
    if progress:
        progress(told, 0, len(ids))
    with ThreadPoolExecutor(usable_cores()) as pool:
        for done, record in enumerate(pool.map(read, ids), 1):
            records.append(record)
            if progress:
                progress(told, done, len(ids))
    first = min(record.dates.min() for record in records)
    dates = np.arange(first, max(record.dates.max() for record in records) + 1)
    values = np.full((len(ids), series, len(dates)), np.nan, np.float32)
    for number, record in enumerate(records):
        values[number][:, (record.dates - first).astype(int)] = record.values
    return dates, values


def _cached(
    file: Path, read_all: Callable[[], tuple[NDArray[np.datetime64], NDArray[np.float32]]]
) -> tuple[NDArray[np.datetime64], NDArray[np.float32]]:
    """What `read_all` gives, from `file` if it is there, else kept in it."""
    if file.is_file():
        try:
            with np.load(file, allow_pickle=False) as kept:
                return kept["dates"], kept["values"]
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise UserError(f"{file} is damaged ({error}); delete it and run again") from error
    dates, values = read_all()
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as stream:
            np.savez(stream, dates=dates, values=values)
        temporary.replace(file)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"cannot write {file}: {error.strerror}; choose another cache folder") from error
    return dates, values


def digest_gauges(dates: NDArray[np.datetime64], gauges: Gauges) -> str:
    """SHA-256 of all that `gauges` says and of its calendar, wherever it was read from."""
    names = (gauges.ids, gauges.names, gauges.units, gauges.static_names, str(dates[0]), len(dates))
    digest = hashlib.sha256(repr(names).encode())
    for array in (gauges.statics, *gauges.values):
        update_digest(digest, array)
    return digest.hexdigest()


def update_digest(digest: Any, array: NDArray[np.float32]) -> None:
    """Add `array` to a digest; a NaN is a NaN, whatever bits it has."""
    digest.update(np.where(np.isnan(array), np.nan, array).astype("<f4").tobytes())
