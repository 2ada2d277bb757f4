"""The verdicts as ``claims.md``, ``claims.csv`` and ``claims.tex``. The same verdicts give the same bytes."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bench.report import text
from bench.report.claims.judge import STATUSES, Verdict
from bench.report.claims.measures import Trained
from bench.report.claims.read import TASKS
from bench.report.paper.layout import Column, PaperTable, to_latex
from bench.store.derived import write_derived
from bench.store.files import write_bytes

TITLES = {
    "nvs": "View synthesis",
    "masked-image": "Masked images",
    "hydrology": "Masked hydrology",
    "vos": "Video object segmentation",
    "tracking": "Tracking",
    "openvocab": "Open-vocabulary segmentation",
}
HEADING = """# Claims

{counts}

**Reproduced**: the 95 % interval lies where the claim says (for a quoted value: holds it; an exact count equals it within the
rounding of its print), at or above the smallest scale for the claim, with at least five seeds where something was trained.
**(direction)**: the source quotes a size, and the direction alone was tested.
**Not reproduced**: it lies elsewhere. **Not testable here**: everything else, with what would test it and what that takes.
How to read and extend this: docs/claims.md.
"""


CSV = (
    *("id", "task", "says", "source", "table", "value", "unit", "scale"),
    *("status", "shown", "reason", "device", "folders", "command", "cost", "note"),
)
"""Columns of ``claims.csv``."""


def write(verdicts: Sequence[Verdict], folders: Sequence[Path], out: Path) -> list[Path]:
    """Write ``claims.md``, ``claims.csv`` and ``claims.tex`` into `out`, and return their paths.

    Beside them, ``derived.json`` names the `folders` of the results that the verdicts are from.

    Raises:
        UserError: one of `folders` is no result folder.
    """
    write_derived(out, "claims", folders)
    made = contents(verdicts)
    for name, content in made.items():
        write_bytes(out / name, content.encode())
    return [out / name for name in made]


def contents(verdicts: Sequence[Verdict]) -> dict[str, str]:
    """File name to content."""
    return {"claims.md": to_markdown(verdicts), "claims.csv": to_csv(verdicts), "claims.tex": to_tex(verdicts)}


def counts(verdicts: Sequence[Verdict]) -> str:
    """``61 claims: 20 reproduced (3 of them in direction alone), 9 not reproduced, 32 not testable here``."""
    found = Counter(verdict.status for verdict in verdicts)
    said = [f"{found[status]} {status}" for status in STATUSES]
    alone = sum(verdict.status == STATUSES[0] and verdict.claim.of_direction for verdict in verdicts)
    said[0] += f" ({alone} of them in direction alone)" if alone else ""
    return f"{len(verdicts)} claims: {', '.join(said)}"


def to_markdown(verdicts: Sequence[Verdict]) -> str:
    """For people: a table a task, verdict first, and below it what would test the rest."""
    parts = [HEADING.format(counts=f"{counts(verdicts)}.")]
    for task, group in _groups(verdicts):
        parts += [f"## {TITLES[task]}\n", "| verdict | claim | quoted | measured here | on | results | source |"]
        parts.append("| --- | --- | --: | --- | --- | --- | --- |")
        parts += [f"| {' | '.join(text.escape_markdown(cell) for cell in _cells(verdict))} |" for verdict in group]
        notes = [
            f"- **{verdict.claim.id}**: {text.escape_markdown(_note(verdict))}" for verdict in group if _note(verdict)
        ]
        parts += ["", *notes, ""] if notes else [""]
        untested = [verdict for verdict in group if verdict.status == STATUSES[2]]
        if untested:
            parts += ["What would test the rest:\n", *(_how(verdict) for verdict in untested), ""]
    return "\n".join(parts).rstrip() + "\n"


def to_csv(verdicts: Sequence[Verdict]) -> str:
    """One line a claim."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV)
    for verdict in verdicts:
        claim = verdict.claim
        value = "" if claim.value is None else repr(claim.value)
        row = [claim.id, claim.task, claim.says, claim.source, claim.table, value, claim.unit, claim.scale]
        row += [verdict.told, verdict.shown, verdict.reason, verdict.device, " ".join(verdict.folders)]
        writer.writerow([" ".join(cell.split()) for cell in [*row, verdict.command, verdict.cost, claim.note]])
    return out.getvalue()


def to_tex(verdicts: Sequence[Verdict]) -> str:
    """For a paper: a table a task (needs booktabs), with the notes of its claims below."""
    columns = tuple(Column(name, name) for name in ("verdict", "claim", "quoted", "measured"))
    tables = []
    for task, group in _groups(verdicts):
        rows = [
            dict(zip((column.key for column in columns), _cells(verdict)[: len(columns)], strict=True))
            for verdict in group
        ]
        title = f"{TITLES[task]}: {counts(group)}"
        table = to_latex(PaperTable("claims", title, columns, tuple(rows), names=len(columns)))
        tables.append(_with_notes(table, group))
    return "\n".join(tables)


def _with_notes(table: str, group: Sequence[Verdict]) -> str:
    """A LaTeX table with the notes of its claims under it."""
    escape = text.escape_latex
    notes = [
        rf"\par\textbf{{{escape(verdict.claim.id)}}}: {escape(_note(verdict))}" for verdict in group if _note(verdict)
    ]
    end = "\\end{table}\n"
    return "\n".join([table.removesuffix(f"\n{end}"), r"\footnotesize\raggedright", *notes, end]) if notes else table


def _groups(verdicts: Sequence[Verdict]) -> list[tuple[str, list[Verdict]]]:
    grouped = [(task, [verdict for verdict in verdicts if verdict.claim.task == task]) for task in TASKS]
    return [(task, group) for task, group in grouped if group]


def _cells(verdict: Verdict) -> list[str]:
    claim = verdict.claim
    return [
        verdict.told,
        f"{claim.says} ({claim.id})",
        claim.quoted or text.NOTHING,
        verdict.shown or text.NOTHING,
        verdict.device or text.NOTHING,
        ", ".join(verdict.folders) or text.NOTHING,
        f"{claim.source}; {claim.table}",
    ]


def _note(verdict: Verdict) -> str:
    return " ".join(verdict.claim.note.split())


def _how(verdict: Verdict) -> str:
    reason = text.escape_markdown(verdict.reason)
    if not verdict.command:
        trained = isinstance(verdict.claim.measure, Trained)  # then it is the seeds that are too many
        return f"- **{verdict.claim.id}**: {reason}{'' if trained else '; no command of Isochron does'}."
    commands = ", then ".join(f"`{command}`" for command in verdict.command.split("; "))
    return f"- **{verdict.claim.id}**: {reason}. {commands}: {text.escape_markdown(verdict.cost)}."
