"""The ledger of claims, ``bench/claims.yaml``, read and checked."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bench import config
from bench.errors import UserError
from bench.parse import checking, read_yaml
from bench.report.claims.measures import Measure, PublishedEntry, Trained, TwoBudgets
from bench.report.paper.layout import as_printed
from bench.report.paper.published import Published, read_published

PATH = Path(__file__).parents[2] / "claims.yaml"
CURVES = config.CONFIGS.with_name("curves")
Task = Literal["nvs", "masked-image", "hydrology", "vos", "tracking", "openvocab"]
TASKS: tuple[Task, ...] = get_args(Task)
Scale = Literal["tiny", "small", "paper"]
SCALES: tuple[Scale, ...] = get_args(Scale)
Text = Field(min_length=3)


class Claim(BaseModel):
    """One quoted claim."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    id: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    says: str = Text
    """In our words."""
    source: str = Text
    """Who says so: paper, README, note."""
    table: str = Text
    """Where in the source."""
    value: float | None = None
    """As quoted; None: a direction without a number."""
    unit: str = ""
    digits: int | None = Field(None, ge=-12, le=12)
    """Digits behind the point that the source prints (-3: rounded to thousands); None: those of `value`."""
    task: Task
    scale: Scale
    """Smallest preset at which it can be tested."""
    measure: Measure
    note: str = ""
    """What a reader must know: what the source leaves open, what the measure cannot see."""

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Claim:
        if getattr(self.measure, "expected", "nothing") is None and self.value is None:
            raise ValueError("value: is missing, which the measure expects; give it, or bounds under measure.expected")
        return self

    @property
    def rounding(self) -> float:
        """Half a unit of the last digit that the source prints."""
        if self.value is None:
            return 0.0
        digits = len(as_printed(self.value).partition(".")[2]) if self.digits is None else self.digits
        return 0.5 * 10.0**-digits

    @property
    def of_direction(self) -> bool:
        """Whether a size is quoted, and the direction alone is tested. The value of two budgets is their share, which is."""
        expected = getattr(self.measure, "expected", None)
        if self.value is None or expected is None or isinstance(self.measure, TwoBudgets):
            return False
        return expected.within is None and self.value not in expected.ends

    @property
    def quoted(self) -> str:
        """The quoted value with its unit; empty where none is."""
        return "" if self.value is None else f"{as_printed(self.value)} {self.unit}".strip()


def read_claims(path: Path = PATH) -> tuple[Claim, ...]:
    """Every claim, in the order of the file.

    Raises:
        UserError: the file cannot be read, or the first claim that is wrong: its id, the field, the mend.
    """
    entries = read_yaml(path)
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{path}: must be a list of claims; see docs/claims.md")
    claims: dict[str, Claim] = {}
    for number, entry in enumerate(entries, start=1):
        claim = _claim(path, number, entry)
        if claim.id in claims:
            raise UserError(f"{path}: {claim.id}: id: is taken by another claim; give it another one")
        _check_names(path, claim)
        claims[claim.id] = claim
    return tuple(claims.values())


def _claim(path: Path, number: int, entry: Any) -> Claim:
    name = entry.get("id") if isinstance(entry, dict) else None
    where = f"{path}: {name or f'claim {number}'}"
    with checking(where, "see docs/claims.md"):
        return Claim.model_validate(_with_published(where, entry))


def _with_published(where: str, entry: Any) -> Any:
    """A claim that names an entry of ``bench/published`` takes its source from there, and its value and unit by ``key``."""
    if not isinstance(entry, dict) or "published" not in entry:
        return entry
    rest = {key: value for key, value in entry.items() if key != "published"}
    reference, task = entry["published"], entry.get("task")
    if task not in TASKS or not isinstance(reference, dict) or not {"entry"} <= reference.keys() <= {"entry", "key"}:
        raise UserError(f"{where}: published: needs entry, and maybe key, beside a known task; see docs/claims.md")
    known = published_numbers(task)
    found = known.get(reference["entry"])
    if found is None:
        raise UserError(
            f"{where}: published.entry: {reference['entry']!r} is unknown; known: {', '.join(sorted(known))}"
        )
    taken: dict[str, Any] = {"source": f"[{found.status}] {found.source}"}
    if "key" in reference:
        value = found.get(str(reference["key"]))
        if value is None:
            raise UserError(f"{where}: published.key: {reference['key']!r} is none of {', '.join(found.values)}")
        taken |= {"value": value, "unit": found.unit}
    return {**taken, **rest}


@cache
def published_numbers(task: Task) -> dict[str, Published]:
    """The published numbers of a task by name."""
    return read_published(task)


@cache
def _shipped(comparison: str, scale: Scale) -> config.Comparison:
    return config.load(comparison, preset=scale)


def _check_names(path: Path, claim: Claim) -> None:
    """Comparisons, arms and published entries exist. What a metric is called, the results say."""
    where, measure = f"{path}: {claim.id}: measure", claim.measure
    if isinstance(measure, PublishedEntry) and measure.entry not in (known := published_numbers(claim.task)):
        raise UserError(f"{where}.entry: {measure.entry!r} is unknown; known: {', '.join(sorted(known))}")
    if not isinstance(measure, Trained):
        return
    if isinstance(measure, TwoBudgets) and measure.curve not in (
        curves := {"", *(path.stem for path in CURVES.glob("*.yaml"))}
    ):
        raise UserError(f"{where}.curve: {measure.curve!r} is unknown; known: {', '.join(sorted(curves - {''}))}")
    if measure.comparison not in (shipped := {path.stem for path in config.CONFIGS.glob("*.yaml")}):
        raise UserError(f"{where}.comparison: {measure.comparison!r} is unknown; known: {', '.join(sorted(shipped))}")
    comparison = _shipped(measure.comparison, claim.scale)
    if comparison.task["name"] != claim.task:
        raise UserError(f"{path}: {claim.id}: task: is {claim.task!r}, {measure.comparison} is of another one")
    arms = [arm.name for arm in comparison.arms]
    for arm in measure.arms:
        if arm not in arms:
            raise UserError(
                f"{where}: arm {arm!r} is none of {measure.comparison}'s at {claim.scale}: {', '.join(arms)}"
            )
