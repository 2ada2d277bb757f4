"""Finds the result folders that a command is given, whatever kind they are of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.errors import UserError
from bench.store.efficiency import RECORD as EFFICIENCY
from bench.store.scaling import RECORD as SCALING

COMPARISON = "comparison.json"
RECORDS = (COMPARISON, EFFICIENCY, SCALING)
"""A result folder holds one of them, which tells its kind."""
ELSEWHERE = "elsewhere/"
"""Stands in published results for the folders that the data and the weights of a run lay in."""


def record_of(folder: Path) -> str | None:
    """The one of `RECORDS` that `folder` holds; None where it is no result folder."""
    return next((name for name in RECORDS if (folder / name).is_file()), None)


def expand(paths: Sequence[Path]) -> list[Path]:
    """Every result folder among `paths` and below those that are none, each once.

    `paths` keep their order; what lies below one is sorted. A result folder is not searched: the parts of a scaling folder are
    listed only where they are given themselves.

    Raises:
        UserError: a path holds no result, or cannot be read.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        if not path.is_dir():
            raise UserError(f"{path}: is no folder; give a result folder, or one that holds some")
        here = list(_results(path, set()))
        if not here:
            *some, last = RECORDS
            raise UserError(
                f"{path}: holds no {', '.join(some)} or {last}; give a result folder, or one that holds some"
            )
        for folder in here:
            found.setdefault(folder.resolve(), folder)
    return list(found.values())


def _results(folder: Path, seen: set[Path]) -> Iterator[Path]:
    if record_of(folder):
        yield folder
        return
    seen.add(folder.resolve())  # a link may lead back
    try:
        below = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror}); give the result folders themselves") from error
    for path in below:
        if path.resolve() not in seen:
            yield from _results(path, seen)
