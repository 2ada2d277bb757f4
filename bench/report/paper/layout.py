"""A table of published numbers beside ours: raw values by column, set as Markdown, LaTeX (booktabs) and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

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


class Shown(NamedTuple):
    """A value beside the text that a reader sees, where rows of a column have digits of their own."""

    text: str
    value: float | Estimate | None
    """What the CSV file holds."""

    def __str__(self) -> str:
        """What a reader sees."""
        return self.text


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    key: str
    """Heading in the CSV file; an `Estimate` has two more, with ``_low`` and ``_high``."""
    heading: str
    show: Callable[[Any], str] | None = str
    """None: the column is for the CSV file alone."""


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
    bold: frozenset[tuple[int, str]] = frozenset()
    """Number of the row, and key of the column."""
    ruled: str = ""
    """Key of a column: LaTeX has a rule wherever that changes from row to row."""
    prose: bool = False
    """Whether cells are sentences: LaTeX breaks them into lines, all columns being of one width."""

    @property
    def shown(self) -> tuple[Column, ...]:
        """The columns that a reader sees."""
        return tuple(column for column in self.columns if column.show is not None)

    def cells(self) -> list[list[str]]:
        """Rows as text."""
        return [
            [
                text.NOTHING if row.get(column.key) is None or column.show is None else column.show(row[column.key])
                for column in self.shown
            ]
            for row in self.rows
        ]

    def marked(self, mark: Callable[[str], str], escape: Callable[[str], str]) -> list[list[str]]:
        """`cells`, escaped, and marked where they are bold."""
        return [
            [
                mark(escape(cell)) if (number, column.key) in self.bold else escape(cell)
                for column, cell in zip(self.shown, row, strict=True)
            ]
            for number, row in enumerate(self.cells())
        ]


def to_markdown(table: PaperTable) -> str:
    """The table for people."""
    headings = [text.escape_markdown(column.heading) for column in table.shown]
    rule = ["---" if index < table.names else "--:" for index in range(len(headings))]
    cells = table.marked("**{}**".format, text.escape_markdown)
    lines = [f"## {text.escape_markdown(table.title)}", ""]
    lines += [f"| {' | '.join(row)} |" for row in (headings, rule, *cells)]
    lines += ["", *(f"- {text.escape_markdown(note)}" for note in (*table.notes, *table.sources))]
    return "\n".join(lines).rstrip() + "\n"


def to_files(name: str, head: str, tables: Sequence[PaperTable]) -> dict[str, str]:
    """File name to content: all tables as Markdown behind `head` in the file `name`, each as LaTeX and as CSV."""
    contents = {name: "\n".join([head, *map(to_markdown, tables)])}
    for table in tables:
        contents[f"{table.name}.tex"] = to_latex(table)
        contents[f"{table.name}.csv"] = to_csv(table)
    return contents


def to_latex(table: PaperTable) -> str:
    """The table for a paper (needs booktabs, and graphicx where it is wide)."""
    escape = text.escape_latex

    def line(cells: list[str]) -> str:
        return " & ".join(cells) + r" \\"

    wide = len(table.shown) > WIDE
    body = [line(row) for row in table.marked(r"\textbf{{{}}}".format, escape)]
    for number in range(len(body) - 1, 0, -1):
        if table.ruled and table.rows[number][table.ruled] != table.rows[number - 1][table.ruled]:
            body.insert(number, r"\midrule")
    lines = [
        r"% Needs \usepackage{booktabs" + (",graphicx" if wide else "") + "}.",
        *(f"% {source}" for source in table.sources),
        r"\begin{table}[t]",
        r"\centering",
        r"\small",
        rf"\caption{{{escape(table.title)}.{''.join(' ' + escape(note) for note in table.notes)}}}",
        *([r"\resizebox{\linewidth}{!}{%"] if wide else []),
        rf"\begin{{tabular}}{{{_alignment(table)}}}",
        r"\toprule",
        line([escape(column.heading) for column in table.shown]),
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        *(["}"] if wide else []),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _alignment(table: PaperTable) -> str:
    columns = len(table.shown)
    if table.prose:
        return rf"p{{{0.9 / columns:.3f}\linewidth}}" * columns
    return "l" * table.names + "r" * (columns - table.names)


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
    if isinstance(value, Shown):
        value = value.value
    if isinstance(value, Estimate):
        ends = value.interval or (math.nan, math.nan)
        return [(key, _plain(value.value)), (f"{key}_low", _plain(ends[0])), (f"{key}_high", _plain(ends[1]))]
    return [(key, _plain(value))]


def _plain(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return repr(float(value)) if isinstance(value, float) else str(value)
