"""Text tables of hydrological data sets, read with pandas' C reader; what is wrong is named with file and line."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.errors import UserError


class Record(NamedTuple):
    """One catchment's series on its own days."""

    dates: NDArray[np.datetime64]
    """datetime64[D] [n], in any order, no day twice."""
    values: NDArray[np.float32]
    """float32 [S, n]; NaN is missing."""


def read_file(file: Path) -> bytes:
    """The whole file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error


def read_spaced(file: Path, data: bytes, names: Sequence[str], *, header_lines: int, text: Collection[str] = ()) -> Any:
    """Table of a file whose columns are parted by blanks or tabs; every row must have all of them.

    Args:
        file: named in errors.
        data: its content.
        names: of all columns, in order.
        header_lines: how many lines come before the first row.
        text: columns that are no numbers.

    Raises:
        UserError: a row with too few or too many columns, or a value that is no number; names file and line.
    """
    data = data.rstrip()
    options: dict[str, Any] = {"sep": r"\s+", "header": None, "skiprows": header_lines, "skip_blank_lines": False}
    columns = [*names, "beyond"]  # the reader fills short rows and cuts long ones in silence: this column shows both
    kinds = {name: str if name in text or name == "beyond" else np.float64 for name in columns}
    try:
        table = pd.read_csv(io.BytesIO(data), names=columns, dtype=kinds, **options)
    except pd.errors.EmptyDataError:
        raise UserError(f"{file} has no rows: it is cut short; fetch it again") from None
    except ValueError:  # pandas' parser errors are ValueErrors too; neither says which line it was
        table = _numbers(file, io.BytesIO(data), kinds, header_lines, names=columns, **options)
    wrong = np.flatnonzero(table[names[-1]].isna() | table["beyond"].notna()).tolist()
    lines = data.split(b"\n") if wrong else []
    for number in (row + header_lines for row in wrong):
        if (found := len(lines[number].split())) != len(names):
            raise UserError(
                f"{file}, line {number + 1} has {found} columns instead of {len(names)}: the file is damaged or cut short; "
                "fetch it again"
            )
    return table


def read_daily_csv(file: Path, columns: Sequence[str], *, date: str = "date") -> Record:
    """Some columns of a comma-separated file with one row a day; an empty cell, NaN and NA are missing.

    Raises:
        UserError: the file cannot be read, lacks a column, has a row of another length (cut short), a value that is no
            number, a date that is none, or a day twice; names file and line.
    """
    data = read_file(file).replace(b"\r\n", b"\n").rstrip(b"\n")
    header = csv_header(data)
    if missing := [name for name in (date, *columns) if name not in header]:
        raise UserError(f"{file} has no column {', '.join(missing)}; it has {', '.join(header)}")
    commas = len(header) - 1
    if data.count(b",") != commas * (data.count(b"\n") + 1):
        number, line = next((n, x) for n, x in enumerate(data.split(b"\n"), 1) if x.count(b",") != commas)
        raise UserError(
            f"{file}, line {number} has {line.count(b',') + 1} columns instead of {commas + 1}: "
            "the file is damaged or cut short; fetch it again"
        )
    kinds: dict[str, type] = {date: str, **dict.fromkeys(columns, np.float64)}
    options: dict[str, Any] = {"usecols": list(kinds), "names": header, "skiprows": 1, "skip_blank_lines": False}
    try:
        table = pd.read_csv(io.BytesIO(data), dtype=kinds, **options)
    except pd.errors.EmptyDataError:
        raise UserError(f"{file} has no rows: it is cut short; fetch it again") from None
    except ValueError:
        table = _numbers(file, io.BytesIO(data), kinds, 1, **options)
    days = pd.to_datetime(table[date], format="ISO8601", errors="coerce").to_numpy().astype("datetime64[D]")
    if (wrong := np.isnat(days)).any():
        row = int(wrong.argmax())
        raise UserError(f"{file}, line {row + 2}: {date} is {table[date].iloc[row]!r}, not a date such as 1990-12-31")
    return Record(refuse_repeats(file, days), np.ascontiguousarray(table[list(columns)].to_numpy(np.float32).T))


def csv_header(data: bytes) -> list[str]:
    """Names of the columns of a comma-separated file."""
    line = data.removeprefix(b"\xef\xbb\xbf").split(b"\n", 1)[0]
    return [name.strip().strip('"') for name in line.decode("utf-8", "replace").split(",")]


def calendar_days(file: Path, table: Any, *, header_lines: int) -> NDArray[np.datetime64]:
    """datetime64[D] [n] of the columns `year`, `month` and `day`.

    Raises:
        UserError: a row is no day of the calendar, or a day stands there twice; names file and line.
    """
    year, month, day = (table[name].to_numpy() for name in ("year", "month", "day"))
    with np.errstate(invalid="ignore"):
        months = ((year - 1970) * 12 + month - 1).astype(np.int64).astype("datetime64[M]")
        days = months.astype("datetime64[D]") + (day - 1).astype(np.int64)
        whole = (year % 1 == 0) & (month % 1 == 0) & (day % 1 == 0)
    wrong = ~whole | (month < 1) | (month > 12) | (days.astype("datetime64[M]") != months)
    if wrong.any():
        row = int(wrong.argmax())
        raise UserError(
            f"{file}, line {row + header_lines + 1}: {year[row]:g}-{month[row]:g}-{day[row]:g} is no day of the calendar"
        )
    return refuse_repeats(file, days)


def refuse_repeats(file: Path, days: NDArray[np.datetime64]) -> NDArray[np.datetime64]:
    """`days` as they are.

    Raises:
        UserError: none at all, or a day stands there twice; names file and date.
    """
    if len(days) == 0:
        raise UserError(f"{file} has no rows: it is cut short; fetch it again")
    ordered = np.sort(days)
    if (twice := ordered[1:] == ordered[:-1]).any():
        raise UserError(f"{file} has {ordered[int(twice.argmax())]} twice; remove one of them")
    return days


def read_attributes(
    files: Sequence[Path], names: Sequence[str], ids: Sequence[str], *, separator: str, key: str | None = "gauge_id"
) -> NDArray[np.float32]:
    """float32 [C, A]: attributes `names` of the catchments `ids`, from the first file that has them; NaN is unknown.

    Args:
        files: tables with a header and one row a catchment; attributes and catchments may be spread over several.
        names: of the attributes.
        ids: of the catchments, spelt as in the files; they are read as text, so leading zeros count.
        separator: of the columns.
        key: the column that holds the ids; None is the first one.

    Raises:
        UserError: an attribute that no file has, a value that is no number, an id that stands in a file twice.
    """
    statics = np.full((len(ids), len(names)), np.nan, np.float32)
    seen = set[str]()
    for file in files:
        text = read_file(file).decode("utf-8-sig", "replace")
        header = [name.strip().strip('"') for name in text.split("\n", 1)[0].split(separator)]
        index = header[0] if key is None else key
        seen.update(name for name in header if name != index)
        here = [name for name in names if name in header and name != index]
        if not here:
            continue
        if index not in header:
            raise UserError(f"{file} has no column {index}; it has {', '.join(header)}")
        # Only what is asked for is read: published tables have loose commas in remarks that nobody needs.
        table = pd.read_csv(io.StringIO(text), sep=separator, dtype=str, usecols=[index, *here])
        rows = table.set_index(table[index].str.strip())
        if rows.index.has_duplicates:
            raise UserError(f"{file} has {index} {rows.index[rows.index.duplicated()][0]} twice; remove one of them")
        for name in here:
            column = rows[name].reindex(list(ids))
            numbers = pd.to_numeric(column, errors="coerce")
            if (wrong := (numbers.isna() & column.notna()).to_numpy()).any():
                at = int(wrong.argmax())
                raise UserError(
                    f"{file}: {name} of {ids[at]} is {column.iloc[at]!r}, not a number; choose other attributes with statics="
                )
            known = statics[:, list(names).index(name)]
            known[:] = np.where(np.isnan(known), numbers, known)
    if missing := [name for name in names if name not in seen]:
        raise UserError(
            f"no table has the attribute {', '.join(missing)}; choose with statics= among {', '.join(sorted(seen)) or 'none'}"
        )
    return statics


def _numbers(file: Path, data: io.BytesIO, kinds: Mapping[str, type], header_lines: int, **options: Any) -> Any:
    """The table read as text, then turned into numbers: slow, and it says which line is wrong."""
    try:
        table = pd.read_csv(data, dtype=str, **options)
    except ValueError as error:  # a row with more columns than the one before it, a quote that never ends
        raise UserError(f"{file} is no table: {str(error).strip()}; fetch it again") from error
    for name, kind in kinds.items():
        if kind is np.float64:
            numbers = pd.to_numeric(table[name], errors="coerce")
            if (wrong := (numbers.isna() & table[name].notna()).to_numpy()).any():
                row = int(wrong.argmax())
                raise UserError(
                    f"{file}, line {row + header_lines + 1}: {name} is {table[name].iloc[row]!r}, not a number"
                )
            table[name] = numbers.astype(np.float64)
    return table
