"""A table of claims: every published entry of a task beside what was tested here, or why it was not."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bench.report import text
from bench.report.paper.layout import Column, PaperTable, as_printed
from bench.report.paper.published import Published
from bench.report.paper.quantities import Theirs, sources
from bench.store.efficiency import Efficiency

Verdict = Callable[[Efficiency, Published], str]
"""What was counted or measured of an entry, or why it was not."""

MANY = 7
"""More values than this are shown by their number and their ends."""
CLOSE = 0.015
"""Relative distance within which a count agrees with a published, rounded one."""


def claims_table(
    title: str, published: Theirs, rules: Mapping[str, Verdict], efficiency: Efficiency, notes: tuple[str, ...]
) -> PaperTable:
    """One row an entry, in the order of the file; KeyError where an entry has no rule."""
    rows = tuple(
        {
            "claim": entry.quantity,
            "published": _values(entry),
            "status": entry.status,
            "tested": rules[name](efficiency, entry),
        }
        for name, entry in published.items()
    )
    columns = (
        Column("claim", "claim"),
        Column("published", "published"),
        Column("status", "status"),
        Column("tested", "what was tested here"),
    )
    return PaperTable("claims", title, columns, rows, notes, sources(*published.values()), names=len(columns))


def untested(reason: str) -> str:
    """The verdict on what cannot be tested, or was not."""
    return f"not testable here: {reason}"


def counted(
    pairs: Mapping[str, tuple[float | None, float]], what: str = "counted", digits: Mapping[str, int] | None = None
) -> str:
    """Ours against published numbers by key: how many agree, and the others.

    `digits` behind the point that the source prints, of keys whose value does not show them (-2: rounded to hundreds).
    """
    printed = digits or {}
    known = {key: (ours, theirs) for key, (ours, theirs) in pairs.items() if ours is not None}
    if not known:
        return untested("it was not counted")
    apart = {
        key: (ours, theirs)
        for key, (ours, theirs) in known.items()
        if abs(ours / theirs - 1) > _slack(theirs, printed.get(key))
    }
    said = f"{what}: {len(known) - len(apart)} of {len(known)} agree"
    others = ", ".join(
        f"{key}: {text.significant(ours, 4)}, not {as_printed(theirs)}" for key, (ours, theirs) in apart.items()
    )
    return f"{said} ({others})" if others else said


def _slack(theirs: float, digits: int | None) -> float:
    """Relative distance that the rounding of a printed number explains, and `CLOSE` at least."""
    decimals = len(as_printed(theirs).partition(".")[2]) if digits is None else digits
    return max(CLOSE, 0.5 * 10.0**-decimals / theirs)


def _values(entry: Published) -> str:
    unit = "" if entry.unit == entry.quantity else f" {entry.unit}"
    values = list(entry.values.values())
    if len(values) > MANY:
        return f"{len(values)} numbers, {as_printed(min(values))} to {as_printed(max(values))}{unit}"
    return "; ".join(f"{key} {as_printed(value)}" for key, value in entry.values.items()) + f" ({unit.strip()})"
