"""Measures scaling curves: costs without training, and quality with a comparison a point. What is done is not done again."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import PROTOCOL
from bench import config as configuration
from bench.config import BudgetConfig, Comparison, merge
from bench.console import Console
from bench.engine.blocks import Interrupted
from bench.errors import UserError
from bench.experiment import efficiency, execute, resolve
from bench.experiment.efficiency.sweep import Sweep
from bench.experiment.scaling.curves import read_curves
from bench.experiment.scaling.outlook import Outlook, Piece
from bench.store.efficiency import RENDERED, open_efficiency
from bench.store.files import MANIFEST, read_json, write_json, write_manifest
from bench.store.provenance import code_hash
from bench.store.read import open_comparison
from bench.store.scaling import (
    RECORD,
    SCHEMA,
    CostCurve,
    QualityCurve,
    QualityPoint,
    Scaling,
    open_scaling,
    seal,
)
from bench.store.write import ComparisonFolder

AnyCurve = CostCurve | QualityCurve
TABLE = "table.tex"
"""Is written last of a point's tables."""


def start(
    curves: Sequence[AnyCurve],
    folder: Path,
    *,
    budget: str | None = None,
    seeds: int | None = None,
    device: str = "auto",
    cache_dir: Path,
) -> Scaling:
    """A new folder for `curves`, every point of which has been checked.

    Args:
        curves: as `read_curves` gives them.
        folder: where to; must be empty.
        budget: of every run, instead of the comparisons' own; of the largest point where the axis is the budget, whose other
            points keep their proportion to it.
        seeds: of every point, instead of the comparisons' own.
        device: auto, cpu, cuda or cuda:N.
        cache_dir: where rendered scenes are kept.

    Raises:
        UserError: the folder holds something, or a point is no comparison.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"--out {folder}: the folder is not empty; give a new one, or one that holds a {RECORD}")
    where = resolve.pick_device(device)
    overrides: dict[str, Any] = {"device": str(where)}
    if seeds is not None:
        overrides["seeds"] = seeds
    asked = tuple(_changed(curve, budget, overrides) for curve in curves)
    for curve in asked:
        if isinstance(curve, QualityCurve):
            _check_points(curve, cache_dir)
        else:
            _check_costs(curve, str(where))
    return _write(folder, asked, _device(str(where)), {"device_asked": str(where)})


def collect(curves: Sequence[AnyCurve], sources: Sequence[Path], folder: Path) -> Scaling:
    """A finished folder of the cost curves that stored measurements hold: nothing is measured again.

    Args:
        curves: those of quality, and of other tasks, are left out.
        sources: folders of `measure-efficiency`, one a task, all of one device.
        folder: where to; must be empty.

    Raises:
        UserError: `folder` holds something, a source is unfinished or of another device, or no curve can be drawn.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"--out {folder}: the folder is not empty; give a new one")
    by_task: dict[str, Path] = {}
    devices = []
    for source in sources:
        record = open_efficiency(source).record
        if record.status != "finished":
            raise UserError(f"{source}: is {record.status}, not finished; finish it first")
        if record.task in by_task:
            raise UserError(f"--from {source}: {by_task[record.task]} is of task {record.task} too; give one of them")
        by_task[record.task] = source
        devices.append(record.device.model_dump())
        if devices[0]["name"] != devices[-1]["name"] or devices[0]["kind"] != devices[-1]["kind"]:
            raise UserError(
                f"--from {source}: was measured on {record.device.name}, another device; draw it on its own"
            )
    chosen = [curve for curve in curves if isinstance(curve, CostCurve) and curve.task in by_task]
    if not chosen:
        raise UserError(f"--from: no cost curve is about {', '.join(sorted(by_task))}; see bench/curves")
    scaling = _write(folder, chosen, devices[0], {})
    for curve in chosen:
        target = scaling.costs(curve)
        shutil.copytree(by_task[curve.task], target, ignore=shutil.ignore_patterns(RENDERED, ".lock"))
    return _finish(scaling)


def go_on(
    folder: Path, *, console: Console, cache_dir: Path, stop_requested: Callable[[], bool] = lambda: False
) -> Scaling:
    """Measure what is left of a folder's curves.

    Raises:
        Interrupted: `stop_requested()` turned true; everything so far is stored.
        UserError: the code has changed since, or a point cannot be run.
    """
    scaling = open_scaling(folder)
    with ComparisonFolder(folder).locked():
        if scaling.record.status == "finished":
            console.say(f"{folder}: is finished; nothing to measure")
            return scaling if (folder / MANIFEST).is_file() else _finish(scaling)
        raw = read_json(folder / RECORD)
        if "device_asked" not in raw:
            raise UserError(f"{folder}: was being drawn from stored measurements; delete it and give --from again")
        if raw["code_sha256"] != code_hash():
            raise UserError(
                f"{folder}: was started by other code; check out that code, or give another folder with --out"
            )
        try:
            work = list(_work(scaling))
            outlook = Outlook([piece for *_, piece in work])
            for number, (curve, point, piece) in enumerate(work):
                if stop_requested():
                    raise Interrupted
                with outlook.at(number) as line:
                    if piece.done:
                        continue
                    console.say(line)
                    if isinstance(curve, CostCurve):
                        _measure_costs(
                            curve,
                            scaling.costs(curve),
                            raw["device_asked"],
                            console=console,
                            stop_requested=stop_requested,
                        )
                    else:
                        _run_point(
                            curve,
                            point,
                            scaling.point(curve, point),
                            console=console,
                            cache_dir=cache_dir,
                            stop_requested=stop_requested,
                        )
        except Interrupted:
            raise Interrupted(f"stopped and saved; go on with `isochron scaling-curve --out {folder}`") from None
        return _finish(scaling)


def comparison_of(curve: QualityCurve, point: QualityPoint) -> Comparison:
    """The comparison of a point, under a name of its own."""
    change = merge(curve.set, point.set)
    if curve.x == "budget":
        change = merge(change, {"budget": f"{point.value:g}s"})
    name = f"{curve.name}-{point.value:g}".replace(".", "_").replace("+", "")
    try:
        return configuration.load(curve.comparison, preset=curve.preset, overrides={**change, "name": name})
    except UserError as error:
        raise UserError(f"curve {curve.name}, point {point.value:g}: {error}") from None


def sweep_of(curve: CostCurve) -> Sweep:
    """What has to be measured for a cost curve."""
    first = curve.axis[0]
    wants_times = bool({"latency", "memory"} & set(curve.quantities))
    timed = [arm.timed for arm in curve.arms if arm.timed]
    counted = [arm.counted for arm in curve.arms if arm.counted] if "flops" in curve.quantities else []
    groups = (
        tuple({**curve.timed_at, first: value} for value in curve.values)
        if timed and (wants_times or not counted)
        else ()
    )
    return Sweep(
        curve.name,
        groups,
        frozenset((call.label, call.mode) for call in timed),
        frozenset((row.label, row.mode) for row in counted),
        tuple({**curve.counted_at, first: value} for value in curve.counted_values or curve.values),
        first,
    )


def _work(scaling: Scaling) -> Iterator[tuple[AnyCurve, Any, Piece]]:
    """Curve, point (of quality) and piece, in the order in which they are measured."""
    for number, curve in enumerate(scaling.record.curves, start=1):
        if isinstance(curve, CostCurve):
            done = (scaling.costs(curve) / MANIFEST).is_file()
            yield curve, None, Piece(number, f"{curve.title} ({curve.name})", None, trains=False, done=done)
            continue
        for place, point in enumerate(curve.points, start=1):
            comparison = resolve.expand(comparison_of(curve, point))
            runs = len(comparison.arms) * len(comparison.batch) * len(comparison.seeds)
            charged = runs * comparison.budget.amount if comparison.budget.unit == "seconds" else None
            name = f"{curve.title} ({curve.name}), point {place} of {len(curve.points)}, {point.value:g}"
            done = (scaling.point(curve, point) / TABLE).is_file()
            yield curve, point, Piece(number, name, charged, trains=True, done=done)


def _measure_costs(curve: CostCurve, folder: Path, device: str, **parts: Any) -> None:
    """Measure a cost curve, or what is left of it."""
    efficiency.measure(curve.task, preset=curve.preset, device=device, out=folder, sweep=sweep_of(curve), **parts)
    if not (folder / MANIFEST).is_file():  # cut short behind the last measurement
        write_manifest(folder, exclude=(".lock",))


def _run_point(curve: QualityCurve, point: QualityPoint, folder: Path, **parts: Any) -> None:
    """Run a point's comparison, or what is left of it, and set its table and figures."""
    from bench.report import plots, tables

    if not (folder / MANIFEST).is_file():
        if (folder / "provenance" / "git.json").is_file():
            session = execute.reopen(folder, **parts)
        else:
            shutil.rmtree(folder, ignore_errors=True)  # what a start that was cut short has left
            session = execute.start(comparison_of(curve, point), folder, **parts)
        session.execute()
    made = open_comparison(folder)
    plots.write(made, folder)
    tables.write(made, folder)  # last: it tells that the point is done


def _changed(curve: AnyCurve, budget: str | None, overrides: Mapping[str, Any]) -> AnyCurve:
    """`curve` with what the command line changes."""
    if isinstance(curve, CostCurve):
        return curve
    changed = merge(curve.set, overrides)
    if budget is None:
        return curve.model_copy(update={"set": changed})
    if curve.x != "budget":
        return curve.model_copy(update={"set": merge(changed, {"budget": budget})})
    try:
        wanted = BudgetConfig.model_validate(budget)
    except ValueError:
        wanted = None
    if wanted is None or wanted.unit != "seconds":
        raise UserError(f"--budget {budget!r}: the axis of {curve.name} is seconds; give a duration such as 45s or 10m")
    factor = wanted.amount / curve.points[-1].value
    points = tuple(point.model_copy(update={"value": point.value * factor}) for point in curve.points)
    return curve.model_copy(update={"set": changed, "points": points})


def _check_points(curve: QualityCurve, cache_dir: Path) -> None:
    """Raise the first mistake of any point before hours have gone into another."""
    for point in curve.points:
        comparison = resolve.expand(comparison_of(curve, point))
        metrics = [metric.name for metric in resolve.make_task(comparison, cache_dir).metrics]
        where = f"curve {curve.name}, point {point.value:g}"
        if curve.metric and curve.metric not in metrics:
            raise UserError(f"{where}: metric: {curve.metric!r} is none of {', '.join(metrics)}")
        arms = [arm.name for arm in comparison.arms]
        if curve.reference and curve.reference not in arms:
            raise UserError(f"{where}: reference: {curve.reference!r} is none of the arms {', '.join(arms)}")


def _check_costs(curve: CostCurve, device: str) -> None:
    """Raise a mistake in a curve of costs before anything is measured: a call, a row or a size that the task does not have."""
    preset = curve.preset or ("paper" if device.startswith("cuda") else "tiny")
    if preset not in efficiency.PRESETS:
        raise UserError(f"{curve.name}: preset: must be one of {', '.join(efficiency.PRESETS)}, got {preset!r}")
    efficiency.SweptEfficiency(efficiency.task_efficiency(curve.task), sweep_of(curve)).check(preset)


def _device(device: str) -> dict[str, Any]:
    described = resolve.describe_device(resolve.pick_device(device), 1, 0)
    return {key: value for key, value in described.items() if key not in ("memory_limit_bytes", "threads")}


def _write(folder: Path, curves: Sequence[AnyCurve], device: Mapping[str, Any], more: Mapping[str, Any]) -> Scaling:
    """Write ``scaling.json`` of a folder that is begun."""
    names = [curve.name for curve in curves]
    shipped = sorted(names) == sorted(curve.name for curve in read_curves())
    write_json(
        folder / RECORD,
        {
            "schema": SCHEMA,
            "protocol": PROTOCOL,
            "name": "scaling" if shipped else f"scaling-{'-'.join(names)}",
            "preset": "tiny" if device["kind"] == "cpu" else "paper",
            "status": "running",
            "device": dict(device),
            "curves": [curve.model_dump(mode="json") for curve in curves],
            "code_sha256": code_hash(),
            **more,
        },
    )
    return open_scaling(folder)


def _finish(scaling: Scaling) -> Scaling:
    write_json(scaling.folder / RECORD, {**read_json(scaling.folder / RECORD), "status": "finished"})
    seal(scaling)
    return open_scaling(scaling.folder)
