"""Packs finished, verified results into one file, as they would be published: without the paths of this machine."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.report.publish import RECORDS, device_folder, make_portable
from bench.report.verify import WEIGHTS, strangers, verify
from bench.store.bundle import pack
from bench.store.files import read_json

SUFFIX = ".tar.gz"


def bundle(folders: Sequence[Path], out: Path | None = None, *, weights: bool = False, replace: bool = False) -> Path:
    """Pack result folders (of comparisons, `measure-efficiency` or `scaling-curve`) into one file and return it.

    Each must be finished and verify. What no manifest names stays behind, unless it is a table or a figure.

    Args:
        folders: made here, or published.
        out: the file; by default named after the comparison, in the current folder.
        weights: whether trained weights come along.
        replace: whether a file that is there already gives way.

    Raises:
        UserError: a folder is no result, unfinished or does not verify, it lacks the weights that are asked for, or `out` is
            there already.
    """
    records = [_record(folder) for folder in folders]
    with tempfile.TemporaryDirectory(prefix="isochron-") as place:
        packed: list[dict[str, Any]] = []
        for folder, record in zip(folders, records, strict=True):
            plain = name = f"{device_folder(record['device'])}/{record['name']}-{record['preset']}"
            number = 1
            while any(name == other["folder"] for other in packed):
                number += 1
                name = f"{plain}-{number}"
            _copy(folder, Path(place) / name, record, weights)
            rendered = sorted(
                path for path in (Path(place) / name).rglob("*") if path.suffix in (".md", ".csv", ".tex")
            )
            packed.append(
                {
                    "folder": name,
                    **{key: record[key] for key in ("name", "preset", "protocol", "device")},
                    "tables": [path.relative_to(Path(place) / name).as_posix() for path in rendered],
                }
            )
        stem = f"{records[0]['name']}-{records[0]['preset']}" if len(records) == 1 else "isochron-results"
        return pack(Path(place), packed, out or Path(stem + SUFFIX), replace=replace)


def _record(folder: Path) -> dict[str, Any]:
    """What a folder says of itself, if it may be shared."""
    name = next((name for name in RECORDS if (folder / name).is_file()), None)
    if name is None:
        raise UserError(f"{folder}: holds no {' or '.join(RECORDS)}; give the folder that `isochron run` printed")
    record: dict[str, Any] = read_json(folder / name)
    if record["status"] != "finished":
        again = {
            "comparison.json": f"resume {folder}",
            "efficiency.json": f"measure-efficiency {record.get('task')} --out {folder}",
            "scaling.json": f"scaling-curve --out {folder}",
        }[name]
        raise UserError(f"{folder}: is {record['status']}, not finished; go on with `isochron {again}`")
    if problems := verify(folder).problems:
        raise UserError(f"{folder}: does not verify ({problems[0]}); see `isochron verify {folder}`")
    return record


def _copy(folder: Path, to: Path, record: dict[str, Any], weights: bool) -> None:
    left = ("resume", "*.tmp", ".lock", *(() if weights else (WEIGHTS,)))
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns(*left))
    if weights and not any(to.rglob(WEIGHTS)):
        raise UserError(f"{folder}: holds no {WEIGHTS}; leave --weights out")
    for name in strangers(to):
        (to / name).unlink()
    make_portable(to, record)
