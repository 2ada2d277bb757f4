"""What a page shows of one comparison, gathered from its folder."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from bench.report import tables, text
from bench.report.page import curves, ledger, pictures, samples
from bench.report.page.curves import Chart, Look
from bench.report.page.ledger import Ledger
from bench.report.page.pictures import Grid
from bench.report.page.provenance import (
    CURVE_FILES,
    LEDGER_FILES,
    Origin,
    Source,
    of_arms,
    of_rows,
    of_samples,
    of_source,
    origin,
)
from bench.report.sections import Section
from bench.report.summary import Summary, summarise
from bench.report.tables import Table
from bench.store.read import Comparison


@dataclass(frozen=True)
class ComparisonPage:
    """All that is shown of one comparison."""

    id: str
    task: str
    table: Table
    facts: tuple[tuple[str, str], ...]
    """Name and value of what must be known at a glance."""
    failed: int
    """Checks of fairness that failed."""
    sections: tuple[tuple[Section, tuple[int, ...]], ...]
    """Each with the numbers of its rows' sources."""
    looks: tuple[Look, ...]
    charts: tuple[Chart, ...]
    ledger: Ledger | None
    grid: Grid | None
    origin: Origin
    runs: tuple[str, ...]
    """``arm: seeds 0, 1, 2``"""
    curve_source: int
    ledger_source: int
    data: dict[str, Any]
    """What the script reads: sources, samples, layout of the grid."""


def gather(comparison: Comparison, name: str) -> ComparisonPage:
    """Compute all of it; `name` is the address of its part of the page."""
    summary = summarise(comparison)
    table = tables.build(comparison, summary)
    record = comparison.record
    sources: dict[Source, int] = {}

    def number(source: Source) -> int:
        return sources.setdefault(source, len(sources))

    sections = tuple(
        (section, tuple(number(source) for source in of_rows(summary, section))) for section in table.sections
    )
    curve_source, ledger_source = (number(of_arms(summary.arms, files)) for files in (CURVE_FILES, LEDGER_FILES))
    told = origin(comparison.folder, record.device, record.protocol)
    found, grid = samples.gather(summary), _grid(summary)
    if found:
        found["sources"] = [number(source) for source in of_samples(summary, found["arms"])]
    return ComparisonPage(
        id=name,
        task=record.task.name,
        table=table,
        facts=_facts(comparison),
        failed=sum(check.passed is False for check in table.checks),
        sections=sections,
        looks=tuple(curves.looks(summary).values()),
        charts=curves.charts(summary),
        ledger=ledger.gather(summary.arms, record.budget_s),
        grid=grid,
        origin=told,
        runs=of_arms(summary.arms, ()).runs,
        curve_source=curve_source,
        ledger_source=ledger_source,
        data={
            "origin": asdict(told),
            "sources": [of_source(source) for source in sources],
            "samples": found,
            "grid": grid and {key: value for key, value in asdict(grid).items() if key != "uri"},
        },
    )


def _grid(summary: Summary) -> Grid | None:
    comparison = summary.comparison
    seed = comparison.record.seeds[0]
    shown = [run for run in comparison.runs if run.seed == seed and run.finished]
    if not shown:
        return None
    names = [str(record["sample"]) for record in shown[0].result.records]
    quick = next((one for one in shown[0].evaluations if one.quick), None)
    return pictures.read(
        comparison.folder / "pictures" / "grid.png",
        comparison.record.task.name,
        [run.arm.name for run in shown],
        names,
        [str(record["sample"]) for record in quick.records] if quick else [],
    )


def _facts(comparison: Comparison) -> tuple[tuple[str, str], ...]:
    record = comparison.record
    budget = f"{record.budget.get('amount', 0):g} {record.budget.get('unit', '')}"
    if record.budget_s is not None:
        budget = text.TimeScale(record.budget_s)(record.budget_s)
    finished = sum(run.finished for run in comparison.runs)
    return (
        ("budget a run", budget),
        ("arms", str(len(record.arms))),
        ("seeds", str(len(record.seeds))),
        ("runs finished", f"{finished} of {len(comparison.runs)}"),
        ("device", record.device.name),
        ("protocol", record.protocol),
    )
