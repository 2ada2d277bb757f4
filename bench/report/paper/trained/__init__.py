"""Published tables of trained results, our numbers beside them: how far order and sign of differences agree.

Everything is a function of the result folders, of ``bench/published/trained`` and of ``bench/claims.yaml``: the same ones give
the same bytes. How to read the tables: docs/paper-tables.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UserError
from bench.report.claims.folders import Shelf, Trial
from bench.report.claims.measures import Reached
from bench.report.claims.read import read_claims
from bench.report.paper.layout import PaperTable, to_files
from bench.report.paper.trained.figures import write_figures
from bench.report.paper.trained.lines import Line, make_lines
from bench.report.paper.trained.published import PublishedTable, read_not_set, read_tables
from bench.report.paper.trained.tables import agreement_counts, not_set_table, paper_table
from bench.store.derived import write_derived
from bench.store.files import write_bytes
from bench.store.results import COMPARISON, expand, record_of

HEAD = """# Published tables of trained results, ours beside them

{counts}.

A row is a published one; where an arm of ours is the same, what it reaches stands beside it [95 % interval over seeds].
*Difference*: to the row that a table compares with, ours paired by seed. *Agreement*: **same direction** or **opposite** where our
interval excludes 0, **not settled** where it holds 0, **published as equal** where theirs is 0 and ours is not, **published unclear**
where theirs is within its own uncertainty (after ±), **no interval** where ours has none (one seed, or nothing is learned: neither same
nor opposite), **inconclusive** where the arms may not be ranked; each by itself, so that one interval in twenty is expected to miss.
Bold: not significantly worse than the best trained arm of ours in the table, after rounding (Holm). †: a predictor that learns nothing is
better than that arm; the caption names it, and oracles do not count. Fewer than five seeds are a first look. Nothing is called reproduced here;
docs/claims.md is about that.
[README]: the authors' own; [note]: a third party quotes a paper; [run]: an independent run. How to read on: docs/paper-tables.md.
"""


@dataclass(frozen=True)
class Made:
    """A published table with its lines and the result beside it."""

    table: PublishedTable
    lines: tuple[Line, ...]
    trial: Trial | None
    others: tuple[Trial, ...]
    """Results that are left out."""


def write_trained(folders: Sequence[Path], out: Path) -> list[Path]:
    """Write ``tables.md``, a ``.tex`` and a ``.csv`` for each table, the figures and ``derived.json`` into `out`.

    Args:
        folders: comparisons, or folders that hold results.
        out: where to.

    Returns:
        The files of tables and figures.

    Raises:
        UserError: there is no comparison among the folders, or one is damaged or lacks a metric that a table names.
    """
    comparisons = _comparisons(folders)
    made = _make(comparisons)
    contents = _contents(made)
    for name, content in contents.items():
        write_bytes(out / name, content.encode())
    panels = {family: [(each.table, each.lines) for each in tables] for family, tables in made.items()}
    figures = write_figures(panels, out)
    write_derived(out, "paper", comparisons)
    return [*(out / name for name in contents), *figures]


def render_trained(folders: Sequence[Path]) -> dict[str, str]:
    """File name to content of all tables.

    Raises:
        UserError: as `write_trained`.
    """
    return _contents(_make(_comparisons(folders)))


def tables_trained(folders: Sequence[Path]) -> list[tuple[PaperTable, Trial | None, str]]:
    """All tables, each with the result and its batch policy beside it; None where nothing of ours stands there.

    Raises:
        UserError: as `write_trained`.
    """
    return _tables(_make(_comparisons(folders)))


def _comparisons(folders: Sequence[Path]) -> list[Path]:
    found = [folder for folder in expand(folders) if record_of(folder) == COMPARISON]
    if not found:
        raise UserError(f"{', '.join(map(str, folders))}: hold no {COMPARISON}; give comparisons, or results")
    return found


def _make(comparisons: Sequence[Path]) -> dict[str, list[Made]]:
    shelf = Shelf(comparisons)
    return {family: [_beside(table, shelf) for table in tables] for family, tables in read_tables().items()}


def _beside(table: PublishedTable, shelf: Shelf) -> Made:
    arm = next(row.arm for row in table.rows if row.arm)
    wanted = Reached(kind="reached", comparison=table.comparison, arm=arm, metric="", policy=table.policy)
    trials = shelf.trials(wanted)
    trial = trials[0] if trials else None
    return Made(table, make_lines(table, trial), trial, tuple(trials[1:]))


def _tables(families: Mapping[str, Sequence[Made]]) -> list[tuple[PaperTable, Trial | None, str]]:
    made = [each for tables in families.values() for each in tables]
    found: list[tuple[PaperTable, Trial | None, str]] = []
    for each in made:
        policy = each.table.policy or (each.trial.comparison.policies[0] if each.trial else "")
        found.append((paper_table(each.table, each.lines, each.trial, each.others), each.trial, policy))
    return [*found, (not_set_table(read_not_set(), read_claims()), None, "")]


def _contents(families: Mapping[str, Sequence[Made]]) -> dict[str, str]:
    tables = [table for table, _, _ in _tables(families)]
    counts = agreement_counts([line for made in families.values() for each in made for line in each.lines])
    return to_files("tables.md", HEAD.format(counts=counts), tables)


__all__ = ["render_trained", "tables_trained", "write_trained"]
