"""Two results beside each other as data (`Contrast`), and set as Markdown or CSV. The same contrasts give the same bytes."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UserError
from bench.report import text
from bench.report.comparable import Apart, Difference
from bench.report.paper.layout import Column, PaperTable, to_markdown
from bench.report.tables import Raw
from bench.stats import Estimate
from bench.store.files import write_bytes

COLUMNS = (
    "result", "row", "policy", "quantity", "a", "a_low", "a_high", "b", "b_low", "b_high", "change", "value", "low", "high",
    "mde", "seeds_a", "seeds_b", "method", "verdict", "not_comparable",
)  # fmt: skip
"""Of the CSV file. ``change`` says what ``value`` is: ``difference`` (b - a) or ``quotient`` (b / a)."""
TIMES_NOTE = (
    "Times and rates: medians, and B / A [far ends of both intervals divided: wider than 95 %]. The two were measured one after "
    "the other, not in turn: what the machine did in between is in no interval. Compare the sentinel's rates above first."
)
DEVICES_NOTE = "Devices or threads differ: quotients of times and rates compare the machines as much as the code, and have no verdict."


@dataclass(frozen=True)
class Contrast:
    """Two results beside each other."""

    title: str
    differing: tuple[Difference, ...]
    apart: tuple[Apart, ...]
    """What is not joined, and why."""
    verdicts: tuple[str, ...]
    tables: tuple[PaperTable, ...]
    rows: tuple[dict[str, Raw], ...]
    """What the CSV holds, with the keys of `COLUMNS`."""


def csv_row(quantity: str, a: Estimate | None, b: Estimate | None, kind: str, found: Estimate | None) -> dict[str, Raw]:
    """Both sides and what lies between them, with the keys of `COLUMNS`."""
    row: dict[str, Raw] = {"quantity": quantity, "change": kind if found else None}
    for name, value, ends in (("a", a, "a_"), ("b", b, "b_"), ("value", found, "")):
        interval = value.interval if value else None
        row |= {name: value.value if value else None}
        row |= {f"{ends}low": interval.low if interval else None, f"{ends}high": interval.high if interval else None}
    return row


def table(
    name: str,
    title: str,
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    notes: tuple[str, ...],
    names: int = 2,
) -> PaperTable:
    """A table of texts; its first `names` columns are set left."""
    columns = tuple(Column(str(number), heading) for number, heading in enumerate(headings))
    cells: tuple[Mapping[str, str], ...] = tuple({str(i): cell for i, cell in enumerate(row)} for row in rows)
    return PaperTable(name, title, columns, cells, notes, names=names)


def render(contrasts: Sequence[Contrast]) -> str:
    """Markdown."""
    parts = []
    for found in contrasts:
        parts.append(f"# {text.escape_markdown(found.title)}\n")
        if found.tables or found.differing:
            rows = found.differing or [Difference("nothing that the results tell", text.NOTHING, text.NOTHING)]
            parts.append(to_markdown(table("differs", "What differs", ("what", "A", "B"), rows, (), 3)))
        if found.verdicts:
            lines = "\n".join(f"- {text.escape_markdown(line)}" for line in found.verdicts)
            parts.append(f"## Verdicts: B beside A\n\n{lines}\n")
        if found.apart:
            parts.append(to_markdown(table("apart", "Not comparable", ("row", "why"), found.apart, ())))
        parts += map(to_markdown, found.tables)
    return "\n".join(parts)


def to_csv(contrasts: Sequence[Contrast]) -> str:
    """The raw numbers, one a line; floats are written so that reading them gives the same float."""
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    for found in contrasts:
        for row in found.rows:
            writer.writerow({key: _csv_cell(value) for key, value in row.items()})
    return out.getvalue()


def _csv_cell(value: Raw) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return repr(value) if isinstance(value, float) else str(value)


def write(contrasts: Sequence[Contrast], out: Path) -> None:
    """Write `out` as Markdown or CSV, as its name ends.

    Raises:
        UserError: it ends otherwise, or cannot be written.
    """
    kinds = {".md": render, ".csv": to_csv}
    if out.suffix not in kinds:
        raise UserError(f"--out must end in {' or '.join(kinds)}, got {out}")
    write_bytes(out, kinds[out.suffix](contrasts).encode())
