"""Published tables of trained results: ``bench/published/trained/*.yaml``, read and checked."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bench.errors import UserError
from bench.parse import checking, read_yaml
from bench.report import text
from bench.report.paper.layout import as_printed
from bench.report.paper.published import FOLDER as PUBLISHED

FOLDER = PUBLISHED / "trained"
FAMILIES = ("nvs", "masked-image", "hydrology", "vos", "tracking", "openvocab")
"""A file each, in the order of the tables."""
NOT_SET = "not-set.yaml"

Text = Field(min_length=3)
Source = Field(pattern=r"^\[(README|note|run|inferred)\] ")
"""Begins with a status of `bench.report.paper.published`."""
EntryT = TypeVar("EntryT", bound=BaseModel)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Measure(_Part):
    """A column of published values, and our metric beside it."""

    column: str = Text
    unit: str = ""
    digits: int = Field(ge=0)
    """Behind the point, as printed; a value with more of them shows them all."""
    ours: str = ""
    """Name of the metric in the comparison; empty: nothing of ours stands beside it."""
    factor: float = Field(1.0, gt=0)
    """What ours is multiplied by to have the published unit."""
    convention: str = ""
    """How theirs is measured, where the source says so."""
    uncertainty: float = Field(0.0, ge=0)
    """Of a published difference, in `unit`: one that is not larger says nothing. A row may have its own."""

    @property
    def heading(self) -> str:
        """``PSNR (dB)``."""
        return f"{self.column} ({self.unit})" if self.unit else self.column

    def printed(self, value: float, digits: int = 0, *, signed: bool = False) -> str:
        """A published value, or difference of two, as the source prints it: with `digits` behind the point at least."""
        behind = len(as_printed(abs(value)).partition(".")[2])
        return text.fixed(value, max(self.digits, digits, behind), signed=signed)


class Row(_Part):
    """A published row, and the arm or the baseline of ours that is the same."""

    label: str = Text
    arm: str = ""
    baseline: str = ""
    """Predictor of ours that learns nothing."""
    source: str = ""
    """Where it differs from that of the table."""
    sources: dict[str, str] = {}
    """Column -> its source, where that differs from the row's."""
    against: str = ""
    """Label of the row that differences are taken from; empty: the reference of the table."""
    values: dict[str, float | tuple[float, ...]] = {}
    """Column -> what is printed; several runs as a list."""
    differences: dict[str, float] = {}
    """Column -> what is published as a difference alone."""
    digits: dict[str, int] = {}
    """Column -> digits behind the point, where the source prints more than the column has and the last is 0."""
    uncertainty: dict[str, float] = {}
    """Column -> that of the published difference, where it is not the measure's."""

    def value(self, measure: Measure) -> float | None:
        """The published value, mean over its runs; None without."""
        found = self.values.get(measure.column)
        return round(sum(found) / len(found), 9) if isinstance(found, tuple) else found


class PublishedTable(_Part):
    """A published table, the comparison of ours with the same arms, and which is which."""

    name: str = Field(pattern=r"^[a-z0-9-]+$")
    """Stem of its files."""
    title: str = Text
    source: str = Source
    data: str = Text
    budget: str = Text
    comparison: str = Text
    policy: str = ""
    """Batch policy of ours; empty: the first of the comparison."""
    reference: str = ""
    """Label of the row that others are compared with; empty: there is none."""
    measures: tuple[Measure, ...] = Field(min_length=1)
    rows: tuple[Row, ...] = Field(min_length=1)
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> PublishedTable:
        labels = [row.label for row in self.rows]
        columns = {measure.column for measure in self.measures}
        if len(set(labels)) < len(labels):
            raise ValueError("rows: two have the same label")
        if self.reference and self.reference not in labels:
            raise ValueError(f"reference: {self.reference!r} is no row")
        for row in self.rows:
            if row.against and row.against not in labels:
                raise ValueError(f"rows: {row.label}: against: {row.against!r} is no row")
            if row.arm and row.baseline:
                raise ValueError(f"rows: {row.label}: give an arm or a baseline, not both")
            named = (row.values, row.differences, row.sources, row.digits, row.uncertainty)
            if unknown := {column for part in named for column in part} - columns:
                raise ValueError(f"rows: {row.label}: {sorted(unknown)[0]!r} is no column")
        if not any(row.arm for row in self.rows):
            raise ValueError("rows: none has an arm of ours; such a table belongs into not-set.yaml")
        return self

    def against(self, row: Row) -> Row | None:
        """The row that `row` is compared with; None where it is the reference, or there is none."""
        label = row.against or self.reference
        return next((other for other in self.rows if other.label == label and other is not row), None)

    def published_difference(self, row: Row, measure: Measure) -> float | None:
        """Published value less that of the row it is compared with, or what is published as a difference; None without."""
        if measure.column in row.differences:
            return row.differences[measure.column]
        other = self.against(row)
        theirs = row.value(measure), other.value(measure) if other else None
        if theirs[0] is None or theirs[1] is None:
            return None
        return round(theirs[0] - theirs[1], 9)  # 28.93 - 29.67 is not -0.74 to the last bit

    def uncertainty(self, row: Row, measure: Measure) -> float:
        """Of the published difference; 0 where the source says nothing of it."""
        return row.uncertainty.get(measure.column, measure.uncertainty)


class NotSet(_Part):
    """A published table of which nothing can be set here."""

    table: str = Text
    source: str = Source
    says: str = Text
    reason: str = Text
    claim: str = ""
    """Entry of ``bench/claims.yaml`` whose command would come near."""
    commands: tuple[str, ...] = ()
    """What would, where no claim says so."""


def read_tables(folder: Path = FOLDER) -> dict[str, tuple[PublishedTable, ...]]:
    """All published tables by family.

    Raises:
        UserError: a file is missing, an entry lacks something or contradicts itself, or two tables share a name.
    """
    found = {family: tuple(_read(folder / f"{family}.yaml", PublishedTable)) for family in FAMILIES}
    names = [table.name for tables in found.values() for table in tables]
    if double := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"{folder}: the name {double!r} is taken twice; give one of the tables another")
    return found


def read_not_set(folder: Path = FOLDER) -> tuple[NotSet, ...]:
    """Published tables that are not set here.

    Raises:
        UserError: as `read_tables`.
    """
    return tuple(_read(folder / NOT_SET, NotSet))


def _read(path: Path, kind: type[EntryT]) -> list[EntryT]:
    entries = read_yaml(path)
    if not isinstance(entries, list):
        raise UserError(f"{path}: must hold a list, holds {type(entries).__name__}; see docs/paper-tables.md")
    made = []
    for number, entry in enumerate(entries, start=1):
        with checking(f"{path}: entry {number}", "mend the entry"):
            made.append(kind.model_validate(entry))
    return made
