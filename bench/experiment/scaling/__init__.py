"""Measures scaling curves: costs without training, and quality with a comparison a point. What is done is not done again."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
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
from bench.store.efficiency import RENDERED, open_efficiency
from bench.store.files import read_json, write_json
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
            efficiency.SweptEfficiency(efficiency.task_efficiency(curve.task), sweep_of(curve))
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
            return scaling
        raw = read_json(folder / RECORD)
        if "device_asked" not in raw:
            raise UserError(f"{folder}: was being drawn from stored measurements; delete it and give --from again")
        if raw["code_sha256"] != code_hash():
            raise UserError(
                f"{folder}: was started by other code; check out that code, or give another folder with --out"
            )
        try:
            for curve in scaling.record.curves:
                console.say(f"{curve.title} ({curve.name})")
                if isinstance(curve, CostCurve):
                    efficiency.measure(
                        curve.task,
                        preset=curve.preset,
                        device=raw["device_asked"],
                        out=scaling.costs(curve),
                        console=console,
                        stop_requested=stop_requested,
                        sweep=sweep_of(curve),
                    )
                    continue
                for point in curve.points:
                    if stop_requested():
                        raise Interrupted
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
        tuple({**curve.counted_at, first: value} for value in curve.values),
    )


def _run_point(curve: QualityCurve, point: QualityPoint, folder: Path, **parts: Any) -> None:
    """Run a point's comparison, or what is left of it, and set its table and figures."""
    from bench.report import plots, tables

    if (folder / "comparison.json").is_file() and open_comparison(folder).record.status == "finished":
        return
    parts["console"].say(f"{curve.axis_label}: point {point.value:g}")
    if (folder / "provenance" / "git.json").is_file():
        session = execute.reopen(folder, **parts)
    else:
        shutil.rmtree(folder, ignore_errors=True)  # what a start that was cut short has left
        session = execute.start(comparison_of(curve, point), folder, **parts)
    session.execute()
    made = open_comparison(folder)
    tables.write(made, folder)
    plots.write(made, folder)


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
        resolve.make_task(comparison, cache_dir)


def _device(device: str) -> dict[str, Any]:
    where = resolve.pick_device(device)
    described = resolve.describe_device(where, resolve.pick_threads("auto"), 0)
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
