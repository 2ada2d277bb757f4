"""What a scaling folder holds, as points on curves: a number for every arm, place on the axis, and round or seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.contracts import Metric
from bench.errors import UserError
from bench.report.paper.quantities import memory
from bench.report.summary import ArmSummary, summarise
from bench.stats import Estimate, mean_interval, median_interval
from bench.store.efficiency import Call, Efficiency, open_efficiency
from bench.store.read import open_comparison
from bench.store.scaling import CallName, CostCurve, QualityCurve, Scaling

MIB, GIGA = 2.0**-20, 1e-9


@dataclass(frozen=True)
class Quantity:
    """What a panel shows."""

    key: str
    label: str
    """With its unit."""
    exact: bool
    """Whether it has no scatter: a count, or bytes."""
    digits: int = 3
    """Significant ones of a cost, digits behind the point of a quality."""
    centre: Callable[[list[float]], Estimate] = mean_interval
    """Of replicates: the median of rounds, as in all tables of timed calls, and the mean of seeds, as in those of trained arms."""

    def at(self, point: Point) -> Estimate:
        """Middle of a point's replicates, with its interval."""
        return self.centre(list(point.replicates.values()))


LATENCY = Quantity("latency_ms", "latency (ms)", exact=False, centre=median_interval)
MEMORY = Quantity("memory_mib", "memory (MiB)", exact=True)
FLOPS = Quantity("gflops", "GFLOPs (1 MAC = 2 FLOPs)", exact=True)


@dataclass(frozen=True)
class Point:
    """One arm at one place."""

    value: float
    """Of the axis as the curve names it."""
    x: float
    """Place on the axis that is fitted over."""
    replicates: Mapping[int, float]
    """Round or seed -> number; a single one where it is exact."""
    parameters: int | None = None
    training_flops: float | None = None
    """A sample; both of trained points."""


@dataclass(frozen=True)
class Series:
    """One arm's points, in ascending order."""

    arm: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Panel:
    """One quantity of a curve, for all arms that have it."""

    quantity: Quantity
    series: tuple[Series, ...]


@dataclass(frozen=True)
class CurveData:
    """A curve with everything that was measured for it."""

    curve: CostCurve | QualityCurve
    panels: tuple[Panel, ...]
    reference: str
    """Arm whose exponent the others' are compared with."""
    place: str
    """Where, how and with how many replicates it was measured."""
    device: str
    missing: tuple[str, ...] = ()
    """Points and runs that are not there, or may not be ranked, and why."""


def read_curve_data(scaling: Scaling, curve: CostCurve | QualityCurve) -> CurveData:
    """Everything that `scaling` holds of `curve`.

    Raises:
        UserError: a folder of the curve is missing, unfinished or damaged.
    """
    return _cost(scaling, curve) if isinstance(curve, CostCurve) else _quality(scaling, curve)


# ---------------------------------------------------------------------------------------------------------------- costs


def _cost(scaling: Scaling, curve: CostCurve) -> CurveData:
    measured = open_efficiency(scaling.costs(curve))
    record = measured.record
    missing: list[str] = []
    panels = []
    if "latency" in curve.quantities:
        panels.append(Panel(LATENCY, _timed(curve, measured, _times, missing)))
    if "memory" in curve.quantities:
        panels.append(Panel(MEMORY, _timed(curve, measured, _bytes, [])))
    if "flops" in curve.quantities:
        counted = any(arm.counted for arm in curve.arms)
        panels.append(
            Panel(FLOPS, _counted(curve, measured, missing) if counted else _timed(curve, measured, _closed_form, []))
        )
    threads = f"{record.device.threads} thread{'' if record.device.threads == 1 else 's'}"
    size = "FLOPs at the published size" if any(arm.counted for arm in curve.arms) else "FLOPs of the timed calls"
    place = (
        f"{record.device.name}, {threads}, {record.precision}, torch {record.device.torch}; {record.timed_by} at preset "
        f"{record.preset}, median of {record.rounds} interleaved rounds [95 % interval]; memory: tensors alive at once beyond "
        f"weights and inputs; {size}."
    )
    shown = tuple(Panel(panel.quantity, series) for panel in panels if (series := _filled(panel.series)))
    reference = curve.reference or curve.arms[0].name
    return CurveData(curve, shown, reference, place, record.device.name, tuple(dict.fromkeys(missing)))


def _filled(series: tuple[Series, ...]) -> tuple[Series, ...]:
    return tuple(each for each in series if each.points)


def _timed(
    curve: CostCurve, measured: Efficiency, read: Callable[[Call], dict[int, float]], missing: list[str]
) -> tuple[Series, ...]:
    """Series of timed calls; those that were skipped or not made are noted."""
    made = []
    for arm in curve.arms:
        if arm.timed is None:
            continue
        points, absent = [], []
        for value in curve.values:
            x = curve.x(value, curve.timed_at)
            call = measured.call(arm.timed.label, {**curve.timed_at, curve.axis[0]: value}, arm.timed.mode)
            if call is None:
                absent.append(f"{x:g}")
            elif call.skipped:
                missing.append(f"{arm.name} at {x:g}: {call.skipped}")
            if call is not None and (replicates := read(call)):
                points.append(Point(value, x, replicates))
        if absent:
            missing.append(f"{arm.name} at {', '.join(absent)}: no such call was timed")
        made.append(Series(arm.name, tuple(points)))
    return tuple(made)


def _times(call: Call) -> dict[int, float]:
    return dict(enumerate(call.times_ms))


def _bytes(call: Call) -> dict[int, float]:
    taken = memory(call)
    return {0: MIB * taken} if taken else {}


def _closed_form(call: Call) -> dict[int, float]:
    return {0: GIGA * call.flops}


def _counted(curve: CostCurve, measured: Efficiency, missing: list[str]) -> tuple[Series, ...]:
    """Series of counted rows; places at which no row was counted are noted."""
    made = []
    for arm in (arm for arm in curve.arms if arm.counted):
        points, absent = [], []
        for value in curve.counted_values or curve.values:
            x = curve.x(value, curve.counted_at)
            if flops := _flops(arm.counted, measured, {**curve.counted_at, curve.axis[0]: value}):
                points.append(Point(value, x, {0: GIGA * flops}))
            else:
                absent.append(f"{x:g}")
        if absent:
            missing.append(f"FLOPs of {arm.name} at {', '.join(absent)}: not counted there")
        made.append(Series(arm.name, tuple(points)))
    return tuple(made)


def _flops(name: CallName | None, measured: Efficiency, sizes: Mapping[str, int]) -> int | None:
    row = measured.count(name.label, sizes, name.mode) if name else None
    if row is None or name is None:
        return None
    return row.parts.get(name.part) if name.part else row.flops


# -------------------------------------------------------------------------------------------------------------- quality


def _quality(scaling: Scaling, curve: QualityCurve) -> CurveData:
    found: dict[str, list[Point]] = {}
    missing: list[str] = []
    seeds: list[int] = []
    budgets: list[float | None] = []
    metric: Metric | None = None
    reference = ""
    for point in curve.points:
        comparison = open_comparison(scaling.point(curve, point))
        record = comparison.record
        names = [known.name for known in comparison.metrics]
        if curve.metric and curve.metric not in names:
            raise UserError(f"{curve.name}: metric {curve.metric!r} is none of {', '.join(names)}")
        metric = next((known for known in comparison.metrics if known.name == curve.metric), comparison.headline)
        labels = [arm.label for arm in record.arms]
        if curve.reference and curve.reference not in labels:
            raise UserError(
                f"{curve.name}: reference {curve.reference!r} is none of {', '.join(dict.fromkeys(labels))}"
            )
        policy = comparison.policies[0]
        seeds.append(len(record.seeds))
        budgets.append(record.budget_s)
        summary = summarise(comparison)
        if not summary.conclusive:
            missing.append(
                f"at {point.value:g} the reference arm does not pass the task's gate: values say nothing of a rank"
            )
        for arm in summary.arms:
            several = len(comparison.policies) > 1
            name = arm.title if several else arm.arm.label
            if arm.arm.label == (curve.reference or record.reference) and arm.arm.policy == policy:
                reference = name
            values = dict(arm.finals[metric.name])
            missing += [
                f"{name} at {point.value:g}, seed {run.seed}: {run.status}" for run in arm.runs if not run.finished
            ]
            if values:
                flops = arm.measured.flops.training_per_sample
                x = _place(curve, point.value, arm, record.budget_s)
                found.setdefault(name, []).append(Point(point.value, x, values, arm.measured.parameters, flops))
    assert metric is not None  # a curve has points
    quantity = Quantity(metric.name, metric.label, exact=False, digits=metric.digits)
    series = tuple(Series(name, tuple(sorted(points, key=lambda point: point.x))) for name, points in found.items())
    first = open_comparison(scaling.point(curve, curve.points[0])).record
    given = sorted({budget for budget in budgets if budget is not None})
    spent = (
        f"{', '.join(f'{budget:g}' for budget in given)} charged seconds a run"
        if given
        else "a budget of counted steps or samples"
    )
    place = (
        f"{first.device.name}, {first.precision}, torch {first.device.torch}; comparison {Path(curve.comparison).stem} at preset "
        f"{first.preset}, {spent}, every point its own annealed runs; mean over {min(seeds)} seed{'' if min(seeds) == 1 else 's'} "
        "[95 % interval]; FLOPs: 1 MAC = 2 FLOPs."
    )
    return CurveData(
        curve, (Panel(quantity, series),) if series else (), reference, place, first.device.name, tuple(missing)
    )


def _place(curve: QualityCurve, value: float, arm: ArmSummary, budget: float | None) -> float:
    if curve.x == "parameters":
        return float(arm.measured.parameters)
    if curve.x == "training_flops":
        return float(arm.measured.flops.training_per_sample)
    return float(budget or value) if curve.x == "budget" else value
