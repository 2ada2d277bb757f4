"""Every table that published numbers stand in, from whatever results there are: measurements, trained comparisons, curves."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.report import paper, plots, scaling
from bench.report.claims.folders import name
from bench.report.paper.trained import write_trained
from bench.store.derived import write_derived
from bench.store.efficiency import RECORD as EFFICIENCY
from bench.store.efficiency import RENDERED
from bench.store.results import COMPARISON, expand, record_of
from bench.store.scaling import RECORD as SCALING

RESULTS = Path("results")
PROCESSES = os.cpu_count() or 1
"""That draw at once: most of the time goes into figures."""
Job = tuple[Callable[[Any, Path], object], Any, Path]
"""What writes, from which results, where to."""


@dataclass(frozen=True)
class Results:
    """Result folders by kind."""

    efficiency: tuple[Path, ...]
    comparisons: tuple[Path, ...]
    scaling: tuple[Path, ...]


def find_results(folders: Sequence[Path]) -> Results:
    """Results among `folders`, and below those that are none. What lies inside a folder of curves is part of it.

    Raises:
        UserError: a folder holds none.
    """
    kinds: dict[str | None, list[Path]] = {EFFICIENCY: [], COMPARISON: [], SCALING: []}
    for folder in expand(folders):
        kinds[record_of(folder)].append(folder)
    return Results(tuple(kinds[EFFICIENCY]), tuple(kinds[COMPARISON]), tuple(kinds[SCALING]))


def write_all(folders: Sequence[Path] | None, out: Path | None = None) -> list[Path]:
    """Write the tables and figures of all results, and return the folders that they lie in.

    Args:
        folders: results, or folders that hold some; None: all that are published, or else the newest measurement under ``runs``.
        out: where to, several measurements as ``DEVICE/NAME`` below it; by default trained tables of all that is published go
            to ``results/paper``, those of a measurement or of curves into it. Curves stay there whatever `out` is.

    Raises:
        UserError: there is no result, one is unfinished or damaged, or `out` is missing where trained tables are of some alone.
    """
    if folders is None:
        published = [RESULTS] if any(RESULTS.glob(f"*/*/{COMPARISON}")) else []
        found = find_results(published or paper.find())
    else:
        found = find_results(folders)
    if out is None and found.comparisons and folders is not None and [*folders] != [RESULTS]:
        raise UserError(f"--out: is missing; {RESULTS / RENDERED} holds the tables of all results, these are some")
    alone = len(found.efficiency) == 1 and not found.comparisons
    jobs: list[Job] = []
    if found.comparisons:
        jobs.append((write_trained, found.comparisons, RESULTS / RENDERED if out is None else out))
    jobs += [(scaling.write, folder, folder / RENDERED) for folder in found.scaling]  # the longest first
    for folder in found.efficiency:
        place = folder / RENDERED if out is None else out if alone else out / name(folder)
        jobs.append((paper.write if out is None else _write_elsewhere, [folder], place))
    if min(PROCESSES, len(jobs)) == 1:
        for job in jobs:
            _do(job)
    else:
        plots.load()  # once, before the forks; no torch is among what they inherit, and no thread runs
        context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
        with ProcessPoolExecutor(min(PROCESSES, len(jobs)), context) as pool:
            list(pool.map(_do, jobs))
    return sorted(place for _, _, place in jobs)


def _do(job: Job) -> None:
    write, source, place = job
    write(source, place)


def _write_elsewhere(folders: Sequence[Path], place: Path) -> None:
    """Tables of measurements outside their folder, with what they are made from."""
    paper.write(folders, place)
    write_derived(place, "measurement", folders)
