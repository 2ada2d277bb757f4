"""Parameters, FLOPs, latency and memory of a task's architectures: what the tables need that no training gives.

Two kinds of measurement. Rows are *counted* at the published size on the meta device, wherever this runs. Groups of calls
are *timed* in turn at the size of a preset: ``paper`` in bf16 on a GPU, ``tiny`` in fp32 on a CPU, by default.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bench import PROTOCOL
from bench.console import Console
from bench.contracts import Clock
from bench.engine.blocks import Interrupted
from bench.engine.clock import SystemClock
from bench.engine.memory import CudaMeter, available, steady_allocator
from bench.errors import UserError
from bench.experiment import resolve
from bench.experiment.efficiency.count import count
from bench.experiment.efficiency.spec import Row, Sizes, TaskEfficiency, TimedCall, task_efficiency
from bench.experiment.efficiency.sweep import Sweep, SweptEfficiency
from bench.experiment.efficiency.timing import Foresight, Limits, measure_group
from bench.machine import look_at_processor
from bench.store.efficiency import COUNTS, RECORD, SCHEMA, TIMINGS
from bench.store.files import LineFile, read_json, read_lines, write_json, write_manifest
from bench.store.provenance import code_hash, write_provenance
from bench.store.write import ComparisonFolder

PRESETS = ("tiny", "small", "paper")
MEMORY_SHARE = 0.7
"""Share of the memory that is free now which one call may take."""
SEED = 0
PROCESSOR_TIME = "processor time"


def measure(
    task: str = "nvs",
    *,
    preset: str | None = None,
    device: str = "auto",
    out: Path | None = None,
    console: Console,
    stop_requested: Callable[[], bool] = lambda: False,
    clock: Clock | None = None,
    threads: int | str | None = None,
    sweep: Sweep | None = None,
) -> Path:
    """Count and time the architectures of `task`; an interrupted folder given as `out` is gone on with.

    Args:
        task: one that has a part in `bench.experiment.efficiency.spec.TASKS`.
        preset: size at which is timed; by default ``paper`` on CUDA, ``tiny`` on a CPU.
        device: auto, cpu, cuda or cuda:N.
        out: folder of the records; a new one under ``runs/`` by default.
        console: says lines and shows progress.
        stop_requested: asked between two rows or groups.
        clock: times the calls; the machine's by default.
        threads: of torch, or ``auto``; by default 1 on a CPU. One thread is timed by the processor time that it takes, which
            other work on the machine hardly moves; several are timed by the wall, and wait for one another where others work.
        sweep: measure this instead of all.

    Returns:
        The folder.

    Raises:
        UserError: unknown task, preset or device; `out` holds other measurements; a counter disagrees.
        Interrupted: `stop_requested()` turned true; everything measured so far is stored.
    """
    steady_allocator()
    whole, where = task_efficiency(task), resolve.pick_device(device)
    spec = SweptEfficiency(whole, sweep) if sweep else whole
    preset = preset or ("paper" if where.type == "cuda" else "tiny")
    if preset not in PRESETS:
        raise UserError(f"preset {preset!r}: is none of {', '.join(PRESETS)}")
    folder = out or Path("runs") / f"efficiency-{task}-{preset}-{time.strftime('%Y%m%d-%H%M%S')}"
    with ComparisonFolder(folder).locked():
        threads = threads or (1 if where.type == "cpu" else "auto")
        name = sweep.name if sweep else ""
        record = _open(folder, spec, task, preset, where, resolve.pick_threads(threads), name)
        if record["status"] == "finished":
            console.say(f"{folder}: is finished; nothing to measure")
            return folder
        torch.set_num_threads(record["device"]["threads"])
        console.say(f"Measuring {task} ({preset}) into {folder}")

        def stop_if_asked() -> None:
            if stop_requested():
                raise Interrupted(f"stopped and saved; go on with `isochron measure-efficiency {task} --out {folder}`")

        _count_rows(folder, task, spec, console, stop_if_asked)
        _time_groups(folder, record, spec, where, console, stop_if_asked, clock or SystemClock())
        write_json(folder / RECORD, {**record, "status": "finished", "load_at_end": look_at_processor().load})
        write_manifest(folder, exclude=(".lock",))
    return folder


def _open(
    folder: Path, spec: TaskEfficiency, task: str, preset: str, device: torch.device, threads: int, sweep: str
) -> dict[str, Any]:
    """The stored record of a folder that is gone on with, or a new one, with its provenance."""
    if (folder / RECORD).exists():
        record: dict[str, Any] = read_json(folder / RECORD)
        described = resolve.describe_device(device, record["device"]["threads"], record["limit_bytes"], load=False)
        ours = {"task": task, "preset": preset, "code_sha256": code_hash(), "device": described}
        stored = {**record, "device": {key: record["device"].get(key) for key in described}}
        for key, value in ours.items():
            if stored[key] != value:
                raise UserError(f"{folder}: holds measurements with another {key}; give another folder with --out")
        return record
    limit = _memory_limit(device)
    record = {
        "schema": SCHEMA,
        "protocol": PROTOCOL,
        "name": f"efficiency-{task}",
        "task": task,
        "preset": preset,
        "status": "running",
        "device": resolve.describe_device(device, threads, limit),
        "precision": "bf16 autocast" if device.type == "cuda" else "fp32",
        "timed_by": PROCESSOR_TIME if device.type == "cpu" and threads == 1 else "wall time",
        "rounds": spec.rounds,
        "seed": SEED,
        "limit_seconds": spec.limit_seconds[device.type],
        "limit_bytes": limit,
        **({"sweep": sweep} if sweep else {}),
        **spec.setting(preset),
        "architectures": [
            {
                "label": label,
                "parameters": sum(weight.numel() for weight in model.parameters() if weight.requires_grad),
                "options": _options(model),
            }
            for label, model in _on_meta(spec, preset).items()
        ],
        "code_sha256": code_hash(),
    }
    write_provenance(folder / "provenance")
    write_json(folder / RECORD, record)
    return record


def _on_meta(spec: TaskEfficiency, preset: str) -> dict[str, torch.nn.Module]:
    with torch.device("meta"):
        return spec.models(preset)


def _options(model: torch.nn.Module) -> dict[str, Any]:
    values = vars(model.config) if hasattr(model, "config") else {}
    return {name: value for name, value in values.items() if isinstance(value, bool | int | float | str | None)}


def _memory_limit(device: torch.device) -> int:
    return int(MEMORY_SHARE * (CudaMeter(device).limit() if device.type == "cuda" else available()))


def _count_rows(
    folder: Path, task: str, spec: TaskEfficiency, console: Console, stop_if_asked: Callable[[], None]
) -> None:
    if not spec.rows:
        return
    done = {_row_key(line) for line in read_lines(folder / COUNTS)}
    lines = LineFile(folder / COUNTS)
    try:
        with console.progress("Counting on the meta device", float(len(spec.rows))) as update:
            for number, row in enumerate(spec.rows):
                if _row_key(vars(row)) in done:
                    continue
                stop_if_asked()
                update(number, _named(row))
                lines.append(count(task, row))
    finally:
        lines.close()


def _row_key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["label"], row["mode"], *sorted(row["sizes"].items())


def _named(row: Row) -> str:
    return f"{row.label} {' '.join(f'{name} {value}' for name, value in row.sizes.items())}"


def _time_groups(
    folder: Path,
    record: Mapping[str, Any],
    spec: TaskEfficiency,
    device: torch.device,
    console: Console,
    stop_if_asked: Callable[[], None],
    clock: Clock,
) -> None:
    """Time the groups, cheap ones first: each tells how long the next will take."""
    now = clock.cpu if record["timed_by"] == PROCESSOR_TIME else clock.now
    if not spec.groups(record["preset"]):
        return
    limits = Limits(record["limit_seconds"], record["limit_bytes"])
    foresight, preset, bf16 = Foresight(), record["preset"], record["precision"] != "fp32"
    torch.manual_seed(record["seed"])
    models = {label: model.to(device).train(spec.training) for label, model in spec.models(preset).items()}

    def calls(sizes: Sizes) -> Any:
        return spec.calls(models, sizes, preset, device, record["seed"])

    def timed(group: Sequence[TimedCall]) -> list[dict[str, Any]]:
        return measure_group(
            group,
            limits,
            foresight,
            device,
            now,
            bf16=bf16,
            training=spec.training,
            rounds=record["rounds"],
        )

    def cost(sizes: Sizes) -> int:
        return sum(call.flops + call.start_flops for call in calls(sizes))

    costs = sorted(((cost(sizes), sizes) for sizes in spec.groups(preset)), key=lambda item: item[0])
    stored = {tuple(sorted(line["sizes"].items())): line for line in read_lines(folder / TIMINGS)}
    lines = LineFile(folder / TIMINGS)
    try:
        with console.progress("Timing", float(sum(number for number, _ in costs))) as update:
            done = 0
            for number, sizes in costs:
                update(done, " ".join(f"{name} {value}" for name, value in sizes.items()))
                done += number
                line = stored.get(tuple(sorted(sizes.items())))
                group = calls(sizes)
                if line is None:
                    stop_if_asked()
                    load = look_at_processor().load
                    lines.append({"sizes": dict(sizes), "load": load, "calls": timed(group)})
                else:
                    foresight.recall(group, line["calls"])
    finally:
        lines.close()
