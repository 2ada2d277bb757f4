"""The table of a comparison as data (`build`) and as files (`write`): Markdown, CSV and LaTeX.

`build` turns a result folder into cells; rendering adds nothing but layout, so that `verify` can compare cell by cell.
The same folder gives the same bytes.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import stats
from bench.report import text
from bench.report.fairness import Check, checklist
from bench.report.sections import (
    Section,
    cost_section,
    paired_section,
    quality_sections,
    unit_section,
    views_section,
)
from bench.report.sentences import caption, run_notes, verdicts
from bench.report.summary import ArmSummary, Pair, Summary, bold_arms, compare, standings, summarise
from bench.stats import Interval
from bench.store.read import MISSING, Comparison
from bench.store.schema import LearnNothing

Raw = float | int | str | None
"""What a CSV cell holds: full precision, nothing for None."""

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Table:
    """Everything that a table says."""

    title: str
    banner: str
    """First line of a table of an unfinished comparison, else empty."""
    headline: str
    """What the verdicts are about."""
    verdicts: tuple[str, ...]
    """Who won, one sentence an arm and batch policy; empty where no two arms are compared."""
    sections: tuple[Section, ...]
    checks: tuple[Check, ...]
    run_notes: tuple[str, ...]
    caption: tuple[str, ...]
    rows: tuple[dict[str, Raw], ...]
    """One an arm and policy, then the baselines that learn nothing: what ``table.csv`` holds. Same keys in each."""


def build(comparison: Comparison, summary: Summary | None = None) -> Table:
    """Compute every cell from the records of a result folder, or from its `summary`. Only finished runs contribute numbers."""
    summary = summary or summarise(comparison)
    pairs = compare(summary)
    bold = bold_arms(summary)
    record = comparison.record
    rows = [_arm_row(summary, arm, pairs, bold) for arm in summary.arms]
    rows += [_learn_nothing_row(summary, entry, list(rows[0])) for entry in comparison.learn_nothing]
    return Table(
        title=f"{record.name} ({record.preset})",
        banner=_banner(comparison),
        headline=f"{comparison.headline.label} at the end of the budget, paired by seed",
        verdicts=verdicts(summary, pairs),
        sections=(
            *quality_sections(summary, bold),
            cost_section(summary),
            paired_section(summary, pairs),
            *([unit_section(summary, pairs)] if record.task.pairing else []),
            views_section(summary, standings(summary)),
        ),
        checks=tuple(checklist(comparison, summary.arms)),
        run_notes=run_notes(summary),
        caption=caption(summary),
        rows=tuple(rows),
    )


def write(comparison: Comparison, out_dir: str | Path) -> list[Path]:
    """Write ``table.md``, ``table.csv`` and ``table.tex`` into `out_dir` and return their paths."""
    table = build(comparison)
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    contents = {"table.md": to_markdown(table), "table.csv": to_csv(table), "table.tex": to_latex(table)}
    paths = []
    for name, content in contents.items():
        path = out_dir / name
        path.write_text(content, encoding="utf-8", newline="\n")
        paths.append(path)
    return paths


def to_csv(table: Table) -> str:
    """The raw numbers; floats are written so that reading them gives the same float."""
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(table.rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in table.rows:
        writer.writerow({key: _csv_cell(value) for key, value in row.items()})
    return out.getvalue()


def read_csv(path: str | Path) -> list[dict[str, str]]:
    """The rows of a ``table.csv`` as they stand in the file; compare with `csv_cells` of a table built anew."""
    with Path(path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def csv_cells(table: Table) -> list[dict[str, str]]:
    """The rows of `table` as `read_csv` would read them."""
    return [{key: _csv_cell(value) for key, value in row.items()} for row in table.rows]


def to_markdown(table: Table) -> str:
    """The table for people."""
    return _render("table.md.jinja", table, text.escape_markdown, "{%", "%}", "{{", "}}")


def to_latex(table: Table) -> str:
    """The table for a paper (needs booktabs)."""
    return _render("table.tex.jinja", table, text.escape_latex, "<%", "%>", "<<", ">>")


def _render(name: str, table: Table, escape: object, *delimiters: str) -> str:
    import jinja2

    block_start, block_end, variable_start, variable_end = delimiters
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        block_start_string=block_start,
        block_end_string=block_end,
        variable_start_string=variable_start,
        variable_end_string=variable_end,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["e"] = escape
    return environment.get_template(name).render(table=table)


def _csv_cell(value: Raw) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return repr(float(value)) if isinstance(value, float) else str(value)


def _banner(comparison: Comparison) -> str:
    pending = [run for run in comparison.runs if run.status in (MISSING, "running")]
    if comparison.record.status == "finished" and not pending:
        return ""
    finished = sum(run.finished for run in comparison.runs)
    return f"incomplete: {finished} of {len(comparison.runs)} runs finished; only those count below"


def _ends(name: str, interval: Interval | None) -> dict[str, Raw]:
    return {
        f"{name}_low": interval.low if interval else None,
        f"{name}_high": interval.high if interval else None,
    }


def _arm_row(
    summary: Summary, arm: ArmSummary, pairs: Sequence[Pair], bold: dict[str, dict[str, bool]]
) -> dict[str, Raw]:
    measured, inference, steps = arm.measured, arm.measured.inference, [run.facts.steps for run in arm.finished]
    others = [run for run in arm.runs if not run.finished]
    latency = inference.latency_ms if inference else None
    row: dict[str, Raw] = {
        "kind": "arm",
        "label": arm.arm.label,
        "policy": arm.arm.policy,
        "seeds_finished": len(arm.finished),
        "seeds_total": len(arm.runs),
        "not_finished": "; ".join(f"seed {run.seed}: {run.status}" for run in others),
        "flagged_seeds": " ".join(str(run.seed) for run in arm.finished if run.facts.flags),
        "parameters": measured.parameters,
        "forward_flops_per_sample": measured.flops.forward_per_sample,
        "training_flops_per_sample": measured.flops.training_per_sample,
        "micro_batch": measured.batch.micro_batch,
        "optimizer_batch": measured.batch.optimizer_batch,
        "learning_rate_peak": measured.learning_rate.value if measured.learning_rate else None,
        "memory_filled": measured.batch.memory_filled,
        "train_samples_per_s": arm.train_rate.value,
        **_ends("train_samples_per_s", arm.train_rate.interval),
        "inference_samples_per_s": inference.samples_per_s.median if inference else None,
        "inference_samples_per_s_low": inference.samples_per_s.low if inference else None,
        "inference_samples_per_s_high": inference.samples_per_s.high if inference else None,
        "latency_ms": latency.median if latency else None,
        "latency_ms_low": latency.low if latency else None,
        "latency_ms_high": latency.high if latency else None,
        "inference_peak_bytes": inference.peak_bytes if inference else None,
        "steps_mean": sum(steps) / len(steps) if steps else None,
        "steps_min": min(steps, default=None),
    }
    for metric in summary.comparison.metrics:
        value = stats.mean_interval(list(arm.finals[metric.name].values()))
        row |= {metric.name: value.value, **_ends(metric.name, value.interval)}
        row[f"{metric.name}_bold"] = int(bold[metric.name][arm.arm.name])
    pair = next((pair for pair in pairs if pair.arm is arm), None)
    for metric in summary.comparison.metrics:
        difference = pair.differences[metric.name] if pair else None
        name = f"{metric.name}_difference"
        row |= {
            name: difference.mean if difference else None,
            **_ends(name, difference.interval if difference else None),
            f"{name}_pairs": difference.count if difference else None,
            f"{metric.name}_p_better": difference.p_better if difference else None,
            f"{metric.name}_mde": difference.detectable if difference else None,
        }
    if unit := summary.comparison.record.task.pairing:
        for metric in summary.comparison.metrics:
            difference = pair.unit_differences.get(metric.name) if pair else None
            name = f"{metric.name}_difference_by_{unit}"
            row |= {name: difference.mean if difference else None}
            row |= {**_ends(name, difference.interval if difference else None)}
            row[f"{name}_pairs"] = difference.count if difference else None
    if inference and inference.unit != "samples":
        row |= {"inference_unit": inference.unit, "inference_units_per_sample": inference.units_per_sample}
    return row | _crossover_cells(pair)


def _crossover_cells(pair: Pair | None) -> dict[str, Raw]:
    crossover = pair.crossover if pair else None
    if pair is None or crossover is None or crossover.winner is None:
        return {"leads_at_end": None, "leads_since_s": None, **_ends("leads_since_s", None), "leads_probability": None}
    return {
        "leads_at_end": (pair.arm, pair.reference)[crossover.winner].arm.label,
        "leads_since_s": crossover.position,
        **_ends("leads_since_s", crossover.interval),
        "leads_probability": crossover.probability,
    }


def _learn_nothing_row(summary: Summary, entry: LearnNothing, keys: Sequence[str]) -> dict[str, Raw]:
    row: dict[str, Raw] = dict.fromkeys(keys)
    row |= {"kind": "learns nothing", "label": entry.label}
    return row | {metric.name: entry.value(metric) for metric in summary.comparison.metrics}
