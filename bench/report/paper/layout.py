"""A table of published numbers beside ours: raw values by column, set as Markdown, LaTeX (booktabs) and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.report import text
from bench.stats import Estimate

WIDE = 7
"""Tables with more columns are scaled to the width of a LaTeX page."""


def number(digits: int = 3) -> Callable[[Any], str]:
    """Shows a number, or an estimate with its interval, with so many significant digits."""

    def show(value: Any) -> str:
        if not isinstance(value, Estimate):
            return text.significant(value, digits)
        ends = value.interval and tuple(text.significant(end, digits) for end in value.interval)
        return text.with_interval(text.significant(value.value, digits), ends)

    return show


def whole(value: Any) -> str:
    """Shows a whole number with all its digits."""
    return text.fixed(value, 0)


def as_printed(value: Any) -> str:
    """Shows a published number with the digits that it has."""
    return f"{value:,.12g}"


def ratio(value: Any) -> str:
    """Shows a quotient of two numbers that should be equal."""
    return text.fixed(value, 4)


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    key: str
    """Heading in the CSV file; an `Estimate` has two more, with ``_low`` and ``_high``."""
    heading: str
    show: Callable[[Any], str] = str


@dataclass(frozen=True)
class PaperTable:
    """Rows of raw values; None shows as a dash."""

    name: str
    """Stem of its files."""
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...] = ()
    """What a reader must know; in the caption."""
    sources: tuple[str, ...] = ()
    """Where the published numbers come from."""
    names: int = 1
    """Leading columns that name the row."""

    def cells(self) -> list[list[str]]:
        """Rows as text."""
        return [
            [text.NOTHING if row.get(column.key) is None else column.show(row[column.key]) for column in self.columns]
            for row in self.rows
        ]


def to_markdown(table: PaperTable) -> str:
    """The table for people."""
    headings = [column.heading for column in table.columns]
    rule = ["---" if index < table.names else "--:" for index in range(len(headings))]
    lines = [f"## {text.escape_markdown(table.title)}", ""]
    lines += [f"| {' | '.join(map(text.escape_markdown, row))} |" for row in (headings, rule, *table.cells())]
    lines += ["", *(f"- {text.escape_markdown(note)}" for note in (*table.notes, *table.sources))]
    return "\n".join(lines).rstrip() + "\n"


def to_latex(table: PaperTable) -> str:
    """The table for a paper (needs booktabs, and graphicx where it is wide)."""
    escape = text.escape_latex

    def line(cells: list[str]) -> str:
        return " & ".join(map(escape, cells)) + r" \\"

    wide = len(table.columns) > WIDE
    lines = [
        r"% Needs \usepackage{booktabs" + (",graphicx" if wide else "") + "}.",
        *(f"% {source}" for source in table.sources),
        r"\begin{table}[t]",
        r"\centering",
        r"\small",
        rf"\caption{{{escape(table.title)}.{''.join(' ' + escape(note) for note in table.notes)}}}",
        *([r"\resizebox{\linewidth}{!}{%"] if wide else []),
        rf"\begin{{tabular}}{{{'l' * table.names}{'r' * (len(table.columns) - table.names)}}}",
        r"\toprule",
        line([column.heading for column in table.columns]),
        r"\midrule",
        *map(line, table.cells()),
        r"\bottomrule",
        r"\end{tabular}",
        *(["}"] if wide else []),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def to_csv(table: PaperTable) -> str:
    """The raw numbers; floats are written so that reading them gives the same float."""
    rows = [
        {key: cell for column in table.columns for key, cell in _csv_cells(column.key, row.get(column.key))}
        for row in table.rows
    ]
    # An estimate may be missing in some rows: the keys of all rows, in the order of the columns.
    present = {key for row in rows for key in row}
    ordered = [f"{column.key}{end}" for column in table.columns for end in ("", "_low", "_high")]
    keys = [key for key in ordered if key in present]
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=keys, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _csv_cells(key: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, Estimate):
        ends = value.interval or (math.nan, math.nan)
        return [(key, _plain(value.value)), (f"{key}_low", _plain(ends[0])), (f"{key}_high", _plain(ends[1]))]
    return [(key, _plain(value))]


def _plain(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return repr(float(value)) if isinstance(value, float) else str(value)
