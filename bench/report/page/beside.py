"""What a page shows of published tables of trained results: ours beside them, with the runs behind each row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bench.report.page.provenance import (
    LEARNS_NOTHING,
    QUALITY_FILES,
    UNKNOWN,
    Origin,
    Source,
    of_source,
    origin,
    seeds,
    shown_folder,
)
from bench.report.paper.layout import PaperTable
from bench.report.paper.trained import tables_trained
from bench.store.read import Comparison

PUBLISHED = Source(("bench/published/trained: published numbers",), ("no run of ours stands beside it",))
NOWHERE = Origin("none of ours", UNKNOWN, UNKNOWN, UNKNOWN)


@dataclass(frozen=True)
class BesidePage:
    """All that is shown of them."""

    tables: tuple[tuple[PaperTable, tuple[int, ...], str], ...]
    """Each with the numbers of its rows' sources, and what the result beside it is called; empty where there is none."""
    data: dict[str, Any]
    """What the script reads: where the numbers come from."""


def gather(comparisons: Sequence[Path]) -> BesidePage:
    """Set every published table that `comparisons` have something to set beside."""
    sources: dict[Source, int] = {}
    tables = []
    for table, trial, policy in tables_trained(comparisons):
        found = [_source(row, trial.comparison, policy) if trial else PUBLISHED for row in table.rows]
        behind = tuple(sources.setdefault(source, len(sources)) for source in found)
        tables.append((table, behind, shown_folder(trial.comparison.folder) if trial else ""))
    return BesidePage(tuple(tables), {"origin": asdict(NOWHERE), "sources": [of_source(source) for source in sources]})


def _source(row: Mapping[str, Any], comparison: Comparison, policy: str) -> Source:
    """Of a row whose ``arm`` is a label, a predictor that learns nothing, or none."""
    record, label = comparison.record, row.get("arm")
    if not label:
        return PUBLISHED
    told = origin(comparison.folder, record.device, record.protocol)
    arm = next((arm for arm in comparison.arms if (arm.label, arm.policy) == (label, policy)), None)
    if arm is None:
        return replace(LEARNS_NOTHING, origin=told)
    runs = (f"{arm.name}: {seeds([run for run in comparison.runs_of(arm) if run.finished])}",)
    return Source((*(file.format(arm=arm.name) for file in QUALITY_FILES), *PUBLISHED.files), runs, told)
