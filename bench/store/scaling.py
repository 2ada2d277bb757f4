"""What `isochron scaling-curve` stores: cost and quality against an axis.

A folder holds ``scaling.json`` (the curves as they were asked for, the device, the protocol), ``costs/CURVE/`` (measurements as
those of `measure-efficiency`, of the curve's calls alone), ``points/CURVE/VALUE/`` (an ordinary comparison a point) and, once
finished, ``manifest.json``, which names ``scaling.json`` and the manifests of the folders below.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from bench.errors import UserError
from bench.parse import checking
from bench.store.efficiency import RECORD as EFFICIENCY
from bench.store.files import MANIFEST, read_json, require_version, sha256, write_json

SCHEMA = 1
RECORD, COSTS, POINTS = "scaling.json", "costs", "points"
NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"
FEWEST = 4
"""Points of a curve: three to fit a law through, and the largest, which it has to predict."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class CallName(_Section):
    """What `measure-efficiency` calls one kind of call or one row of counts."""

    label: str
    mode: str = "full"
    part: Literal["", "encoder", "decoder"] = ""
    """Of counts: the closed form of this part alone."""


class CostArm(_Section):
    """One line of a cost curve."""

    name: str
    timed: CallName | None = None
    """Gives latency and memory."""
    counted: CallName | None = None
    """Gives FLOPs, at the published size."""


class _Curve(_Section):
    name: str = Field("", pattern=NAME)
    """The file's name unless given."""
    title: str
    default: bool = False
    """Whether it belongs to those that are run when none is named."""
    axis_label: str
    """Of the horizontal axis, with its unit."""
    reference: str = ""
    """Arm with whose exponent the others' are compared; default: the first."""
    preset: str | None = None
    note: str = ""
    """What a reader must know; stands under the table."""


class CostCurve(_Curve):
    """Cost of calls against the size of what they are made on. Trains nothing."""

    kind: Literal["cost"]
    task: str
    axis: tuple[str, ...] = Field(min_length=1)
    """Sizes of a batch whose product is the axis; the first is varied."""
    values: tuple[int, ...]
    """Of the first size of `axis`."""
    counted_values: tuple[int, ...] | None = None
    """The same of the counted rows, which cost next to nothing at any size; null: `values`."""
    timed_at: dict[str, int] = {}
    """The other sizes of a timed call."""
    counted_at: dict[str, int] = {}
    """The other sizes of a counted row."""
    arms: tuple[CostArm, ...] = Field(min_length=1)
    quantities: tuple[Literal["latency", "memory", "flops"], ...] = ("latency", "memory", "flops")
    form: Literal["cost", "cost-with-offset"] = "cost"
    """``b x^c``, or ``a + b x^c``."""

    @field_validator("values", "counted_values")
    @classmethod
    def _ascend(cls, values: tuple[int, ...] | None) -> tuple[int, ...] | None:
        return values and _ascending(values)

    @model_validator(mode="after")
    def _consistent(self) -> CostCurve:
        names = [arm.name for arm in self.arms]
        _different(names, self.reference)
        for kind, sizes, used in (
            ("timed", self.timed_at, ("latency", "memory")),
            ("counted", self.counted_at, ("flops",)),
        ):
            wanted = set(used) & set(self.quantities) and any(getattr(arm, kind) for arm in self.arms)
            if wanted and (missing := [key for key in self.axis[1:] if key not in sizes]):
                raise ValueError(f"{kind}_at: {missing[0]!r} is a part of the axis; give its size")
            if self.axis[0] in sizes:
                raise ValueError(f"{kind}_at: {self.axis[0]!r} is what varies; give its values under 'values'")
        return self

    def x(self, value: int, fixed: dict[str, int]) -> float:
        """Place on the axis where its first size is `value`."""
        place = value
        for key in self.axis[1:]:
            place *= fixed[key]
        return float(place)


class QualityPoint(_Section):
    """One comparison."""

    value: float = Field(gt=0)
    """Place on the axis; seconds where the axis is the budget."""
    set: dict[str, Any] = {}
    """What differs from the comparison, key by key."""


class QualityCurve(_Curve):
    """What runs reach against an axis. Every point is a comparison whose runs are annealed on their own."""

    kind: Literal["quality"]
    comparison: str
    """A shipped one, or a YAML file."""
    set: dict[str, Any] = {}
    """What differs from it at all points."""
    points: tuple[QualityPoint, ...]
    x: Literal["value", "parameters", "training_flops", "budget"] = "value"
    """What the axis shows: the points' values, each arm's parameters or training FLOPs a sample, or the charged seconds (then
    a point's value is its budget)."""
    value_label: str = ""
    """What the points' values are, where the axis shows something else."""
    metric: str = ""
    """Default: the task's headline metric."""
    form: Literal["saturating"] = "saturating"
    """``a + b x^-c``."""

    @field_validator("points")
    @classmethod
    def _ascend(cls, points: tuple[QualityPoint, ...]) -> tuple[QualityPoint, ...]:
        values = _ascending(tuple(point.value for point in points))
        if len({f"{value:g}" for value in values}) < len(values):
            raise ValueError(
                f"values must differ in their first six digits, which name their folders, got {list(values)}"
            )
        return points

    @model_validator(mode="after")
    def _consistent(self) -> QualityCurve:
        if self.x == "budget" and any(
            "budget" in change for change in (self.set, *(point.set for point in self.points))
        ):
            raise ValueError("set: holds a budget, which the axis varies; the points' values are the seconds")
        if self.own_places and not self.value_label:
            raise ValueError(
                f"value_label: is missing; with x: {self.x}, say what the points' values are, such as width"
            )
        return self

    @property
    def own_places(self) -> bool:
        """Whether every arm has a place of its own on the axis at one point."""
        return self.x in ("parameters", "training_flops")


Curve = Annotated[CostCurve | QualityCurve, Field(discriminator="kind")]


def _ascending(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(values) < FEWEST or list(values) != sorted(set(values)) or values[0] <= 0:
        raise ValueError(f"must be at least {FEWEST} ascending numbers > 0, got {list(values)}")
    return values


def _different(names: list[str], reference: str) -> None:
    if len(set(names)) < len(names):
        raise ValueError(f"arms: names must differ, got {names}")
    if reference and reference not in names:
        raise ValueError(f"reference: {reference!r} is none of the arms {names}")


class Device(BaseModel):
    """Where it was measured."""

    model_config = ConfigDict(frozen=True, extra="allow")

    kind: str
    name: str
    cores: int


class ScalingRecord(BaseModel):
    """``scaling.json``."""

    model_config = ConfigDict(frozen=True, extra="allow")

    protocol: str
    name: str
    preset: str
    status: str
    device: Device
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class Scaling:
    """One folder, open for reading."""

    folder: Path
    record: ScalingRecord

    def costs(self, curve: CostCurve) -> Path:
        """Measurements of a cost curve."""
        return self.folder / COSTS / curve.name

    def point(self, curve: QualityCurve, point: QualityPoint) -> Path:
        """The comparison of a point."""
        return self.folder / POINTS / curve.name / f"{point.value:g}"

    def parts(self) -> Iterator[Path]:
        """The folders of all curves, whether they are there or not."""
        for curve in self.record.curves:
            if isinstance(curve, CostCurve):
                yield self.costs(curve)
            else:
                yield from (self.point(curve, point) for point in curve.points)


def open_scaling(folder: Path) -> Scaling:
    """Open a folder that `isochron scaling-curve` wrote.

    Raises:
        UserError: it holds no ``scaling.json``, a damaged one, or one of another schema or protocol.
    """
    path = folder / RECORD
    if not path.is_file():
        raise UserError(f"{folder}: holds no {RECORD}; give the folder that `isochron scaling-curve` printed")
    raw = read_json(path)
    require_version(path, raw, SCHEMA)
    with checking(path, "restore the file, or measure again"):
        return Scaling(folder, ScalingRecord.model_validate(raw))


def seal(scaling: Scaling) -> None:
    """Write the manifest: ``scaling.json`` and the manifest of every folder below."""
    files = [scaling.folder / RECORD, *(part / MANIFEST for part in scaling.parts())]
    write_json(
        scaling.folder / MANIFEST,
        {"sha256": {path.relative_to(scaling.folder).as_posix(): sha256(path) for path in files}},
    )


def is_cost(folder: Path) -> bool:
    """Whether `folder` holds the measurements of a cost curve, which are no tables of a task."""
    return (folder / EFFICIENCY).is_file() and bool(read_json(folder / EFFICIENCY).get("sweep"))
