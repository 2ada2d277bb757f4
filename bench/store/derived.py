"""``derived.json``: which result folders a folder of tables was made from, so that `isochron verify` can make them again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from bench.errors import UserError
from bench.store.files import read_json, write_json
from bench.store.results import RECORDS, record_of
from bench.store.schema import SCHEMA

RECORD = "derived.json"
KINDS = ("claims", "paper", "measurement")
"""What can be derived: the verdicts on claims, the tables of trained results, those of one measurement that lie elsewhere."""


@dataclass(frozen=True)
class Derived:
    """What stands in ``derived.json``."""

    kind: str
    """One of `KINDS`."""
    folders: tuple[Path, ...]
    """The result folders; some may have gone since."""


def write_derived(out: Path, kind: str, folders: Sequence[Path]) -> None:
    """Write ``derived.json`` into `out`, with the paths of `folders` as seen from there, sorted. The same ones give the same bytes.

    Raises:
        UserError: another kind, no folder, or one that holds no result.
    """
    if kind not in KINDS:
        raise UserError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    if not folders:
        raise UserError("folders: there is none; give at least one result folder")
    for folder in folders:
        if not record_of(folder):
            raise UserError(f"{folder}: holds no {' or '.join(RECORDS)}; give result folders")
    here = out.resolve()
    seen = {Path(os.path.relpath(folder.resolve(), here)).as_posix() for folder in folders}
    write_json(out / RECORD, {"schema": SCHEMA, "kind": kind, "folders": sorted(seen)})


def read_derived(out: Path) -> Derived:
    """Read what `write_derived` wrote; the paths are those of the folders as seen from the current directory.

    Raises:
        UserError: the file is missing, damaged, or of another schema.
    """
    path = out / RECORD
    if not path.is_file():
        raise UserError(
            f"{out}: holds no {RECORD}; give a folder that `isochron claims` or `isochron paper-tables` wrote"
        )
    raw: Any = read_json(path)
    raw = raw if isinstance(raw, dict) else {}
    if raw.get("schema") != SCHEMA:
        raise UserError(f"{path}: schema is {raw.get('schema')}, this version reads {SCHEMA}; write the tables again")
    if raw.get("kind") not in KINDS:
        raise UserError(
            f"{path}: kind must be one of {', '.join(KINDS)}, got {raw.get('kind')!r}; write the tables again"
        )
    names = raw.get("folders")
    if not isinstance(names, list) or not names or not all(_is_relative(name) for name in names):
        raise UserError(f"{path}: folders must list relative paths, got {names!r}; write the tables again")
    return Derived(raw["kind"], tuple(Path(os.path.normpath(out / name)) for name in names))


def _is_relative(name: Any) -> bool:
    return isinstance(name, str) and bool(name) and not PurePosixPath(name).is_absolute()
