"""Commands that train and measure."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.cli.app import app
from bench.cli.options import (
    Batch,
    BudgetOption,
    Device,
    Folder,
    Json,
    Out,
    Preset,
    Quiet,
    Seeds,
    Set,
    Source,
    cache_dir,
    load,
    new_folder,
    parts,
    set_tables,
    stop_on_signals,
)
from bench.errors import UserError


@app.command()
def run(
    source: Source,
    preset: Preset = None,
    budget: BudgetOption = None,
    seeds: Seeds = None,
    device: Device = None,
    batch: Batch = None,
    changes: Set = None,
    out: Out = None,
    quiet: Quiet = False,
    json_output: Json = False,
) -> None:
    """Run a comparison and set its table and figures."""
    comparison = load(source, preset, budget, seeds, device, batch, changes)
    from bench.experiment import execute

    folder = out or new_folder(comparison)
    session = execute.start(comparison, folder, stop_requested=stop_on_signals(), **parts(quiet, json_output))
    _execute(session, json_output)


@app.command()
def resume(folder: Folder, quiet: Quiet = False, json_output: Json = False) -> None:
    """Continue a comparison that was stopped, interrupted or killed."""
    from bench.experiment import execute

    _execute(execute.reopen(folder, stop_requested=stop_on_signals(), **parts(quiet, json_output)), json_output)


@app.command()
def extend(
    folder: Folder,
    seeds: Annotated[int, typer.Option(help="Number of seeds that the comparison shall have in all.")],
    quiet: Quiet = False,
    json_output: Json = False,
) -> None:
    """Add blocks (seeds) to a finished comparison."""
    from bench.experiment import execute

    _execute(execute.extend(folder, seeds, stop_requested=stop_on_signals(), **parts(quiet, json_output)), json_output)


@app.command()
def plan(
    source: Source,
    preset: Preset = None,
    budget: BudgetOption = None,
    seeds: Seeds = None,
    device: Device = None,
    batch: Batch = None,
    changes: Set = None,
    out: Out = None,
) -> None:
    """Print what would run, how long it takes, and how much memory and disk it needs. Starts nothing."""
    comparison = load(source, preset, budget, seeds, device, batch, changes)
    from bench.experiment import plan as planning

    print(planning.plan(comparison, cache_dir(), out or new_folder(comparison)))


@app.command()
def replay(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Folder of one run, DIR/runs/ARM/seed-S.")],
    quiet: Quiet = False,
) -> None:
    """Train a finished run again along its recorded progress and compare the weights bit for bit."""
    from bench.experiment.replay import replay as again

    result = again(run_dir, **parts(quiet, False))
    if result.identical:
        if not quiet:
            print(f"identical: {result.steps} steps gave the same weights to the last bit")
        return
    shown = (
        "its weights are not at hand"
        if result.largest_difference is None
        else f"largest difference of a weight {result.largest_difference:.3g}"
    )
    raise UserError(
        f"{run_dir}: the replay of {result.steps} steps gave other weights ({shown}); are device, threads and software the same?"
    )


@app.command()
def probe(
    source: Source, preset: Preset = None, device: Device = None, changes: Set = None, json_output: Json = False
) -> None:
    """Measure memory and throughput against batch for every arm, and say what each batch policy would choose."""
    comparison = load(source, preset, None, None, device, None, changes)
    from bench.experiment.survey import survey

    curves = survey(comparison, **parts(False, json_output))
    if json_output:
        print(json.dumps(curves))


@app.command()
def aa(
    source: Source,
    preset: Preset = None,
    budget: BudgetOption = "5s",
    seeds: Seeds = None,
    device: Device = None,
    batch: Batch = None,
    changes: Set = None,
    repetitions: Annotated[int, typer.Option(min=1, help="How often the gate is tried.")] = 5,
    arm: Annotated[str | None, typer.Option(help="The arm to put beside itself (default: the reference).")] = None,
    out: Out = None,
    quiet: Quiet = False,
    json_output: Json = False,
) -> None:
    """A/A gate: one arm under two names must tie. Reports how often it did not."""
    comparison = load(source, preset, budget, seeds, device, batch, changes)
    from bench.engine.blocks import Interrupted
    from bench.experiment.gate import run_gate

    folder, stop_requested = out or new_folder(comparison, "-aa"), stop_on_signals()
    try:
        outcome = run_gate(
            comparison,
            folder,
            repetitions=repetitions,
            arm=arm,
            stop_requested=stop_requested,
            **parts(quiet, json_output),
        )
    except Interrupted as stopped:
        print(f"isochron: {stopped}", file=sys.stderr)
        raise SystemExit(130) from None
    if json_output:
        print(json.dumps(outcome.to_dict()))
    elif not quiet:
        print(outcome.render())


@app.command("measure-efficiency")
def measure_efficiency(
    task: Annotated[str, typer.Argument(metavar="TASK", help="Task whose architectures are measured.")] = "nvs",
    preset: Preset = None,
    device: Device = None,
    out: Out = None,
    quiet: Quiet = False,
) -> None:
    """Count parameters and FLOPs at full size, time calls (inference, or training steps) and their memory; set the tables."""
    from bench.engine.blocks import Interrupted
    from bench.experiment.efficiency import measure
    from bench.report import paper

    console = parts(quiet, False)["console"]
    try:
        folder = measure(
            task, preset=preset, device=device or "auto", out=out, console=console, stop_requested=stop_on_signals()
        )
    except Interrupted as stopped:
        print(f"isochron: {stopped}", file=sys.stderr)
        raise SystemExit(130) from None
    paper.write([folder])
    console.say(f"Written to {folder / 'paper'}: tables.md, a .tex and a .csv for each table, figures")


@app.command("scaling-curve")
def scaling_curve(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME|FILE.yaml]...", help="Curves of bench/curves, or your own (default: a set of 15 minutes)."
        ),
    ] = None,
    budget: BudgetOption = None,
    seeds: Seeds = None,
    device: Device = None,
    sources: Annotated[
        list[Path] | None,
        typer.Option(
            "--from",
            metavar="DIR",
            help="Draw cost curves from this folder of measure-efficiency instead of measuring.",
        ),
    ] = None,
    out: Out = None,
    quiet: Quiet = False,
) -> None:
    """Measure cost or quality against an axis, and fit power laws that have to predict the largest point."""
    from bench.engine.blocks import Interrupted
    from bench.experiment import scaling
    from bench.experiment.scaling.curves import read_curves, shipped
    from bench.report import scaling as report
    from bench.store.scaling import open_scaling

    folder = out or Path("runs") / f"scaling-{time.strftime('%Y%m%d-%H%M%S')}"
    begun = (folder / "scaling.json").is_file()
    if begun and (names or budget or seeds or device or sources):
        raise UserError(
            f"--out {folder}: was begun with its own curves and options; give it alone to go on, or a new folder"
        )
    if sources:
        if budget or seeds or device:
            raise UserError("--from: nothing is measured; leave out --budget, --seeds and --device")
        curves = read_curves(names or list(shipped()))
        scaling.collect(curves, sources, folder)
    else:
        rest = {**parts(quiet, False), "stop_requested": stop_on_signals()}
        try:
            if not begun:
                scaling.start(
                    read_curves(names or []),
                    folder,
                    budget=budget,
                    seeds=seeds,
                    device=device or "auto",
                    cache_dir=rest["cache_dir"],
                )
            scaling.go_on(folder, **rest)
        except Interrupted as stopped:
            print(f"isochron: {stopped}", file=sys.stderr)
            raise SystemExit(130) from None
    report.write(folder)
    if not quiet:
        print(report.summary(folder))
        print(f"Written to {folder / 'paper'}: scaling.md, a .tex and a .csv for each table, figures")
    for part in open_scaling(folder).parts():
        if (part / "comparison.json").is_file():
            _require_finished(part)


@app.command()
def tokens(folder: Folder) -> None:
    """Measure the norms of the tokens behind every block of the trained arms, and paint their principal components."""
    from bench.experiment.tokens import diagnose
    from bench.report.tokens import write

    diagnose(folder, **parts(False, False))
    write(folder)
    print(f"Written to {folder / 'tokens'}: {', '.join(sorted(path.name for path in (folder / 'tokens').iterdir()))}")


def _execute(session: Any, json_output: bool) -> None:
    """Run a session to its end, set its tables, and say where everything is."""
    from bench.engine.blocks import Interrupted

    folder = session.folder.folder
    try:
        session.execute()
    except Interrupted:
        print(f"isochron: stopped and saved; go on with `isochron resume {folder}`", file=sys.stderr)
        raise SystemExit(130) from None
    set_tables(folder, session.console.say, json_output)
    _require_finished(folder)


def _require_finished(folder: Path) -> None:
    """Nobody who reads only the exit code may take a comparison with a diverged run for a clean one."""
    from bench.store.read import open_comparison

    others = [run for run in open_comparison(folder).runs if not run.finished]
    if others:
        first = others[0]
        reason = f" ({first.record.reason})" if first.record and first.record.reason else ""
        more = f", and {len(others) - 1} more" if len(others) > 1 else ""
        raise UserError(
            f"{folder}: {first.arm.name}, seed {first.seed}: {first.status}{reason}{more}; the table shows it and the rest"
        )
