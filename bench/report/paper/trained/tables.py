"""The lines of a published table set as a table with its caption, and the table of what is not set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.report import text
from bench.report.claims.commands import command, cost
from bench.report.claims.folders import Trial, name
from bench.report.claims.read import Claim
from bench.report.comparable import budget
from bench.report.fairness import checklist
from bench.report.paper.layout import Column, PaperTable, Shown
from bench.report.paper.trained.lines import AGREEMENTS, Line
from bench.report.paper.trained.published import NotSet, PublishedTable
from bench.report.sentences import gate_sentence
from bench.stats import Estimate

BOLD = "Bold: not significantly worse than the best trained arm of the table."
DAGGER = "†"
"""Beside trained arms where a predictor that learns nothing is better than the best of them."""
ORDER = "Absolute numbers are not comparable across data sets, sizes and budgets; order and sign of differences are."
DATA = {
    "scenes": "rendered scenes",
    "aligned": "made-up aligned features",
    "generated": "a generated region",
    "embedded": "procedural data",
}
"""Option ``data`` of a task -> what that is; a real data set goes by its own name."""
UNNAMED = {"nvs": "scenes", "masked-image": "scenes", "hydrology": "generated"}
"""Task -> the data of a record that does not name them; ``embedded`` otherwise."""
MASKS = {"auto": "auto (per-day for rain, tube for what changes slowly)"}
"""Option ``image_mask`` of a task -> what that is; the others go by their own name."""


def paper_table(
    table: PublishedTable, lines: Sequence[Line], trial: Trial | None, others: Sequence[Trial]
) -> PaperTable:
    """The lines as a table. `others` are results of the same comparison that it leaves out."""
    columns = (
        Column("row", "published row"),
        Column("measure", "published measure"),
        Column("arm", "arm of ours"),
        Column("metric", "our metric"),
        Column("published", "published"),
        Column("published_difference", "published difference"),
        Column("ours", "ours"),
        Column("our_difference", "our difference"),
        Column("agreement", "agreement"),
        Column("seeds", "seeds"),
        Column("flagged", "flagged"),
        Column("against", "against", None),
        Column("source", "source", None),
        Column("bold", "bold", None),
        Column("published_uncertainty", "published uncertainty", None),
        Column("dagger", "a predictor that learns nothing is better", None),
    )
    return PaperTable(
        table.name,
        table.title,
        columns,
        tuple(_cells(table, line) for line in lines),
        (*_conventions(table, lines), *_behind(table, lines, trial, others), *table.notes),
        (f"Published: {'; '.join(dict.fromkeys(_source(table, line) for line in lines))}.",),
        names=4,
        bold=frozenset((number, "ours") for number, line in enumerate(lines) if line.bold),
        ruled="measure",
    )


def not_set_table(entries: Sequence[NotSet], claims: Sequence[Claim]) -> PaperTable:
    """Published tables of which nothing can be set here, with what would come near."""
    by_id = {claim.id: claim for claim in claims}
    columns = (
        Column("table", "published table"),
        Column("says", "says"),
        Column("reason", "why it is not set here"),
        Column("command", "what would come near"),
        Column("cost", "takes"),
        Column("source", "source"),
    )
    rows = []
    for entry in entries:
        wanted = command(by_id[entry.claim]) if entry.claim else "; ".join(entry.commands)
        row = {"table": entry.table, "says": entry.says, "reason": entry.reason, "source": entry.source}
        rows.append({**row, "command": wanted or None, "cost": cost(wanted) or None})
    return PaperTable(
        "not-set", "Published tables that are not set here", columns, tuple(rows), names=len(columns), prose=True
    )


def _cells(table: PublishedTable, line: Line) -> dict[str, Any]:
    row, measure, arm = line.row, line.measure, line.arm
    against, theirs = table.against(row), line.published_difference
    printed, digits = row.values.get(measure.column), row.digits.get(measure.column, 0)
    runs = printed if isinstance(printed, tuple) else () if printed is None else (printed,)
    return {
        "row": row.label,
        "measure": measure.heading,
        "published": Shown(", ".join(measure.printed(run, digits) for run in runs), line.published) if runs else None,
        "published_difference": None if theirs is None else Shown(_theirs(line, theirs), theirs),
        "arm": (row.arm or f"{row.baseline} (learns nothing)") if line.metric else None,
        "metric": line.metric and line.metric.label + (f" × {measure.factor:g}" if measure.factor != 1 else ""),
        "ours": line.ours and Shown(_told(line.ours, line.digits) + f" {DAGGER}" * bool(line.beaten), line.ours),
        "our_difference": line.difference and Shown(_told(line.difference, line.digits, signed=True), line.difference),
        "agreement": line.agreement or None,
        "seeds": f"{len(arm.finished)}/{len(arm.runs)}" if arm and line.ours else None,
        "flagged": ", ".join(str(run.seed) for run in arm.finished if run.facts.flags) or None if arm else None,
        "against": against.label if against else None,
        "source": _source(table, line),
        "bold": int(line.bold) if line.ours else None,
        "published_uncertainty": line.uncertainty or None if theirs is not None else None,
        "dagger": int(line.beaten is not None) if line.ours else None,
    }


def _theirs(line: Line, difference: float) -> str:
    """``-0.4 ± 2.0``."""
    told = line.measure.printed(difference, signed=True)
    return f"{told} ± {line.measure.printed(line.uncertainty)}" if line.uncertainty else told


def _told(found: Estimate, digits: int, *, signed: bool = False) -> str:
    return text.with_interval(
        text.fixed(found.value, digits, signed=signed), text.ends(found.interval, digits, signed=signed)
    )


def _source(table: PublishedTable, line: Line) -> str:
    return line.row.sources.get(line.measure.column) or line.row.source or table.source


def _conventions(table: PublishedTable, lines: Sequence[Line]) -> Iterator[str]:
    """What theirs are, and how both are measured."""
    yield f"Theirs, data: {table.data}. Training: {table.budget}."
    told = [f"{measure.heading}: {measure.convention}" for measure in table.measures if measure.convention]
    if told:
        yield f"Theirs, {'; '.join(told)}."
    metrics = {line.metric.name: line.metric for line in lines if line.metric and line.metric.note}
    yield from (f"Ours, {metric.label}: {metric.note.rstrip('.')}." for metric in metrics.values())
    yield ORDER
    if any(line.bold for line in lines):
        yield BOLD
    beaten = {line.metric.name: line for line in lines if line.beaten and line.metric and line.ours}
    told = [_beaten(line) for line in beaten.values()]
    if told:
        yield f"{DAGGER} A predictor that learns nothing is better than the best trained arm: {'; '.join(told)}."


def _beaten(line: Line) -> str:
    """``PSNR (dB), 17.83 against 16.40 (harmonic interpolation)``."""
    assert line.metric is not None
    assert line.beaten is not None
    value, trained = (text.fixed(found, line.digits) for found in (line.beaten.value, line.beaten.trained))
    return f"{line.metric.label}, {value} against {trained} ({line.beaten.label})"


def _behind(
    table: PublishedTable, lines: Sequence[Line], trial: Trial | None, others: Sequence[Trial]
) -> Iterator[str]:
    """What is behind our numbers, and what a reader must be warned of."""
    if trial is None:
        yield f"Ours: no finished result of {table.comparison} with these arms; `isochron run {table.comparison}` makes one."
        return
    summary, record = trial.summary, trial.comparison.record
    device = record.device
    of_processor = device.kind == "cpu" and device.cores and device.threads
    about = f", {device.cores} cores, {device.threads} thread{'s' * (device.threads != 1)}" if of_processor else ""
    yield (
        f"Ours: {table.comparison} (preset {record.preset}) on {_data(trial)}, batch policy {_policy(table, trial)}; "
        f"{budget(summary)}{' charged' * (record.budget_s is not None)} a run, {len(record.seeds)} seeds, on {device.kind}: "
        f"{device.name}{about}; "
        f"{name(trial.comparison.folder)}."
    )
    if masks := _masks(trial.comparison.record.task.options):
        yield f"Ours, masks: {masks}."
    if others:
        left = ", ".join(f"{name(other.comparison.folder)} ({_size(other)})" for other in others)
        yield f"Of several results the one of the largest preset counts, then of most seeds. Left out: {left}."
    if not summary.conclusive:
        yield f"Inconclusive, no ranking: {gate_sentence(summary)}."
    arms = list({line.arm.arm.name: line.arm for line in lines if line.arm}.values())
    lost = [f"{arm.arm.label}, seed {run.seed}: {run.status}" for arm in arms for run in arm.runs if not run.finished]
    if lost:
        yield f"Runs that contribute no number: {'; '.join(lost)}."
    failed = [f"{check.name} ({check.value})" for check in checklist(trial.comparison, arms) if check.passed is False]
    if failed:
        yield f"Fairness checks that failed: {'; '.join(failed)}."
    absent = {line.row.arm for line in lines if line.row.arm and not line.arm and line.measure.ours}
    if absent:
        yield f"Arms that this result lacks: {', '.join(sorted(absent))}."


def _policy(table: PublishedTable, trial: Trial) -> str:
    return table.policy or trial.comparison.policies[0]


def _data(trial: Trial) -> str:
    task = trial.comparison.record.task
    data = str(task.options.get("data") or UNNAMED.get(task.name, "embedded"))
    side = task.options.get("image_size")
    return DATA.get(data, data) + (f", {side} px" if side else "")


def _masks(options: Mapping[str, Any]) -> str:
    """``75 % masked, masks of grids tube, windows of 14 days, patches of 8 x 8 cells``: what the options hold of these."""
    if not options.get("mask_ratio"):
        return ""
    told = [f"{100 * options['mask_ratio']:g} % masked"]
    if kinds := options.get("image_mask"):
        told.append(f"masks of grids {MASKS.get(kinds, kinds) if isinstance(kinds, str) else ', '.join(kinds)}")
    if kind := options.get("series_mask"):
        told.append(f"masks of series {kind}")
    if days := options.get("days"):
        told.append(f"windows of {days} days")
    if side := options.get("patch_cells"):
        told.append(f"patches of {side} x {side} cells")
    if side := options.get("patch_size"):
        told.append(f"patches of {side} x {side} px")
    return ", ".join(told)


def _size(trial: Trial) -> str:
    return f"{trial.comparison.record.preset}, {budget(trial.summary)}, {len(trial.comparison.record.seeds)} seeds"


def agreement_counts(lines: Sequence[Line]) -> str:
    """``40 published differences stand beside one of ours: 3 same direction, ...``, and how many of ours there are."""
    found = [line.agreement for line in lines if line.agreement]
    counts = [f"{found.count(kind)} {kind}" for kind in AGREEMENTS if kind in found]
    told = f"{len(found)} published differences stand beside one of ours: {', '.join(counts) or 'none'}"
    distinct = len({line.pair for line in lines if line.agreement})
    return f"{told}. Distinct differences of ours behind them: {distinct}, as one may stand beside several published columns"
