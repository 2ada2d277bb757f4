"""Published numbers with their sources: ``bench/published/*.yaml``, read and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from bench.errors import UserError
from bench.parse import checking, read_yaml

FOLDER = Path(__file__).parents[2] / "published"
Status = Literal["README", "note", "run", "inferred"]
"""The authors' own page; a third party that quotes a paper; an independent run of the authors' code; worked out from it."""

Text = Field(min_length=3)


class Published(BaseModel):
    """Numbers that share where they come from and what they count."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Text
    quantity: str = Text
    unit: str = Field(min_length=1)
    status: Status
    source: str = Text
    setting: str = Text
    convention: str = Text
    values: dict[str, float] = Field(min_length=1)
    digits: dict[str, int] = {}
    """Digits behind the point that the source prints, of values that do not show them (-2: rounded to hundreds)."""

    def __getitem__(self, key: str) -> float:
        """The number of a row; KeyError if there is none."""
        return self.values[key]

    def get(self, key: str) -> float | None:
        """The number of a row, or None."""
        return self.values.get(key)

    def sentence(self) -> str:
        """Where it comes from, for the notes under a table."""
        unit = "" if self.unit == self.quantity else f" in {self.unit}"
        return f"[{self.status}] {self.quantity}{unit}: {self.source}; {self.setting}; {self.convention}."


def read_published(task: str, folder: Path = FOLDER) -> dict[str, Published]:
    """The published numbers of a task by name.

    Raises:
        UserError: the file is missing or an entry lacks its source, unit, setting, convention or status.
    """
    path = folder / f"{task}.yaml"
    entries = read_yaml(path)
    found: dict[str, Published] = {}
    for number, entry in enumerate(entries, start=1):
        with checking(f"{path}: entry {number}", "mend the entry"):
            made = Published.model_validate(entry)
        if made.name in found:
            raise UserError(f"{path}: entry {number}: the name {made.name!r} is taken; give it another one")
        found[made.name] = made
    return found
