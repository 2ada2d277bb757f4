"""The command `isochron`: parses, calls, and turns mistakes into one line. The only reader of environment variables."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from bench import PROTOCOL, __version__
from bench.errors import UserError

PASSIVE_WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}
"""Threads that wait must sleep: two spinning ones on a busy two-core machine are ten times slower than one."""
DETERMINISTIC_CUBLAS = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
"""Without it cuBLAS refuses to work under `deterministic: true`. Read when CUDA starts; 32 MiB, as on Hopper anyway."""

app = typer.Typer(
    name="isochron",
    help="Give each architecture the same seconds and all the memory, and report what it made of them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Source = Annotated[
    str,
    typer.Argument(
        metavar="COMPARISON|FILE.yaml", help="A shipped comparison (isochron list comparisons) or your own YAML file."
    ),
]
Preset = Annotated[str | None, typer.Option(help="Size of task and architectures: tiny, small, paper.")]
BudgetOption = Annotated[
    str | None, typer.Option(metavar="DURATION", help="Charged time of each run: 45s, 10m, 24h (or '200 steps').")
]
Seeds = Annotated[int | None, typer.Option(help="Number of seeds; every seed is a block of all arms.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Batch = Annotated[str | None, typer.Option(metavar="POLICY[,POLICY]", help="Batch policies: fill, knee, fixed:N.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change any key of the YAML, e.g. training.learning_rate=3e-4."),
]
Out = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Folder for the result (default: a new one under runs/).")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")]
Json = Annotated[
    bool, typer.Option("--json", help="Print the result as JSON on standard output, everything else on standard error.")
]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A result folder.")]
Folders = Annotated[list[Path], typer.Argument(metavar="DIR...", help="Result folders.")]


@app.callback(invoke_without_command=True)
def _main(
    debug: Annotated[bool, typer.Option("--debug", help="Show the whole trace of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the versions of program and protocol.")] = False,
) -> None:
    if version:
        print(f"isochron {__version__}, protocol {PROTOCOL}")
        raise typer.Exit


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the console script and of ``python -m bench``."""
    for name, value in {**PASSIVE_WAITING, **DETERMINISTIC_CUBLAS}.items():
        os.environ.setdefault(name, value)
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    # --debug may stand anywhere, as people write it.
    arguments = ["--debug", *[argument for argument in arguments if argument != "--debug"]] if debug else arguments
    code, line = 1, ""
    try:
        app(args=arguments, prog_name="isochron")
    except KeyboardInterrupt:
        code, line = 130, "stopped"
    except Exception as error:
        if debug:
            traceback.print_exc()
        line = _one_line(error)
    if line:  # outside the handler, so that what the error held is free before the interpreter ends
        print(f"isochron: {line}", file=sys.stderr)
        raise SystemExit(code)


def _one_line(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):
        if error.errno == errno.ENOSPC:
            return "the disk is full; free some space and run `isochron resume` on the folder"
        return f"{error.filename or 'the system'}: {error.strerror or error}"
    where = "".join(f"{note}: " for note in getattr(error, "__notes__", ()))
    what = f"{type(error).__name__}: {' '.join(str(error).split()) or 'no message'}"
    return f"{where}{what} (isochron --debug shows where)"


# -------------------------------------------------------------------------------------------------------- helpers


def _cache_dir() -> Path:
    """Where rendered scenes and probe results are kept: ISOCHRON_CACHE, or the user's cache folder."""
    chosen = os.environ.get("ISOCHRON_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "isochron"


def _overrides(
    budget: str | None, seeds: int | None, device: str | None, batch: str | None, changes: list[str] | None
) -> dict[str, Any]:
    from bench.config import merge, parse_overrides

    named: dict[str, Any] = {
        "budget": budget,
        "seeds": seeds,
        "device": device,
        "batch": batch.split(",") if batch else None,
    }
    return merge({key: value for key, value in named.items() if value is not None}, parse_overrides(changes or []))


def _load(source: str, preset: str | None, *rest: Any) -> Any:
    from bench import config

    return config.load(source, preset=preset, overrides=_overrides(*rest))


def _parts(quiet: bool, to_stderr: bool) -> dict[str, Any]:
    from bench.console import Console

    return {"console": Console(quiet=quiet, stderr=to_stderr), "cache_dir": _cache_dir()}


def _new_folder(comparison: Any, kind: str = "") -> Path:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{comparison.name}-{comparison.preset}{kind}-{stamp}"


def _stop_on_signals() -> Callable[[], bool]:
    """Ask the work to stop between two steps on the first Ctrl-C or SIGTERM; a second one stops it at once."""
    asked: list[int] = []

    def ask(number: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        print("\nisochron: stopping after this step and saving (once more to stop at once)", file=sys.stderr)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask)
    return lambda: bool(asked)


def _execute(session: Any, json_output: bool) -> None:
    """Run a session to its end, set its tables, and say where everything is."""
    from bench.engine.blocks import Interrupted

    folder = session.folder.folder
    try:
        session.execute()
    except Interrupted:
        print(f"isochron: stopped and saved; go on with `isochron resume {folder}`", file=sys.stderr)
        raise SystemExit(130) from None
    _report(folder, session.console.say, json_output)
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


def _report(folder: Path, say: Callable[[str], None], json_output: bool) -> None:
    from bench.report import plots, tables
    from bench.store.read import open_comparison

    comparison = open_comparison(folder)
    written = [*tables.write(comparison, folder), *plots.write(comparison, folder)]
    if json_output:
        print(json.dumps({"folder": str(folder), "table": tables.read_csv(folder / "table.csv")}))
        return
    say("")
    say((folder / "table.md").read_text())
    say(f"Written to {folder}: {', '.join(path.name for path in written)}")


# ------------------------------------------------------------------------------------------------------- commands


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
    comparison = _load(source, preset, budget, seeds, device, batch, changes)
    from bench.experiment import execute

    folder = out or _new_folder(comparison)
    session = execute.start(comparison, folder, stop_requested=_stop_on_signals(), **_parts(quiet, json_output))
    _execute(session, json_output)


@app.command()
def resume(folder: Folder, quiet: Quiet = False, json_output: Json = False) -> None:
    """Continue a comparison that was stopped, interrupted or killed."""
    from bench.experiment import execute

    _execute(execute.reopen(folder, stop_requested=_stop_on_signals(), **_parts(quiet, json_output)), json_output)


@app.command()
def extend(
    folder: Folder,
    seeds: Annotated[int, typer.Option(help="Number of seeds that the comparison shall have in all.")],
    quiet: Quiet = False,
    json_output: Json = False,
) -> None:
    """Add blocks (seeds) to a finished comparison."""
    from bench.experiment import execute

    _execute(
        execute.extend(folder, seeds, stop_requested=_stop_on_signals(), **_parts(quiet, json_output)), json_output
    )


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
    comparison = _load(source, preset, budget, seeds, device, batch, changes)
    from bench.experiment import plan as planning

    print(planning.plan(comparison, _cache_dir(), out or _new_folder(comparison)))


@app.command()
def replay(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Folder of one run, DIR/runs/ARM/seed-S.")],
    quiet: Quiet = False,
) -> None:
    """Train a finished run again along its recorded progress and compare the weights bit for bit."""
    from bench.experiment.replay import replay as again

    result = again(run_dir, **_parts(quiet, False))
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
def verify(folders: Folders) -> None:
    """Recompute every number of a result from its records and check files, ledgers and sums."""
    from bench.report.verify import verify as check_folder

    wrong: list[str] = []
    for folder in folders:
        if len(folders) > 1:
            print(f"{folder}:")
        try:
            report = check_folder(folder)
        except UserError as error:
            wrong.append(str(error))
            continue
        for line in report.checked:
            print(f"ok    {line}")
        for line in report.problems:
            print(f"WRONG {line}")
        if report.problems:
            checks = len(report.problems) + len(report.checked)
            wrong.append(f"{folder}: {len(report.problems)} of {checks} checks failed; do not use its numbers")
    if wrong:
        raise UserError("; ".join(wrong))


@app.command()
def tables(folder: Folder) -> None:
    """Set tables and figures again from the stored records. Trains nothing."""
    _report(folder, print, False)


@app.command()
def tokens(folder: Folder) -> None:
    """Measure the norms of the tokens behind every block of the trained arms, and paint their principal components."""
    from bench.experiment.tokens import diagnose
    from bench.report.tokens import write

    diagnose(folder, **_parts(False, False))
    write(folder)
    print(f"Written to {folder / 'tokens'}: {', '.join(sorted(path.name for path in (folder / 'tokens').iterdir()))}")


@app.command()
def publish(
    folder: Folder,
    to: Annotated[Path, typer.Option(metavar="DIR", help="Where published results are kept.")] = Path("results"),
    replace: Annotated[bool, typer.Option("--replace", help="Replace a result that is published already.")] = False,
) -> None:
    """Copy a finished result, without weights, to results/<device>/<comparison>-<preset>/."""
    from bench.report.publish import publish as copy

    print(f"published: {copy(folder, to, replace=replace)}")


@app.command()
def parity(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Parity fixtures (.safetensors).")],
) -> None:
    """Check our architectures against outputs, losses and gradients of the published implementations."""
    from bench import interop

    failed = 0
    for path in files:
        try:
            report = interop.check_parity(path)
        except UserError as error:
            if len(files) == 1:
                raise
            print(f"not compared: {error}")
            failed += 1
            continue
        print("\n".join(report.lines()))
        failed += not report.passed
    if failed:
        raise UserError(f"parity: {failed} of {len(files)} fixtures missed, or could not be compared")


@app.command()
def check(
    architecture: Annotated[
        str, typer.Argument(metavar="ARCHITECTURE|pkg.file:Factory", help="A registered name or an importable factory.")
    ],
    task: Annotated[str, typer.Option(help="Task that it shall serve.")] = "nvs",
    preset: Annotated[str, typer.Option(help="Preset of task and architecture.")] = "tiny",
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="OPTION=VALUE", help="Options of the architecture, or task.OPTION=VALUE."),
    ] = None,
    json_output: Json = False,
) -> None:
    """Run the conformance kit: what every architecture must keep before its numbers mean anything."""
    from bench.experiment.check import check_architecture

    findings = check_architecture(architecture, task, preset, changes or [], _cache_dir())
    if json_output:
        print(json.dumps([finding._asdict() for finding in findings]))
    else:
        for finding in findings:
            print(f"{'pass' if finding.passed else 'FAIL'}  {finding.name}: {finding.detail}")
    failed = [finding.name for finding in findings if not finding.passed]
    if failed:
        raise UserError(f"{architecture}: fails {len(failed)} of {len(findings)} checks: {', '.join(failed)}")


@app.command()
def probe(
    source: Source, preset: Preset = None, device: Device = None, changes: Set = None, json_output: Json = False
) -> None:
    """Measure memory and throughput against batch for every arm, and say what each batch policy would choose."""
    comparison = _load(source, preset, None, None, device, None, changes)
    from bench.experiment.survey import survey

    curves = survey(comparison, **_parts(False, json_output))
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
    comparison = _load(source, preset, budget, seeds, device, batch, changes)
    from bench.engine.blocks import Interrupted
    from bench.experiment.gate import run_gate

    folder, stop_requested = out or _new_folder(comparison, "-aa"), _stop_on_signals()
    try:
        outcome = run_gate(
            comparison,
            folder,
            repetitions=repetitions,
            arm=arm,
            stop_requested=stop_requested,
            **_parts(quiet, json_output),
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

    console = _parts(quiet, False)["console"]
    try:
        folder = measure(
            task, preset=preset, device=device or "auto", out=out, console=console, stop_requested=_stop_on_signals()
        )
    except Interrupted as stopped:
        print(f"isochron: {stopped}", file=sys.stderr)
        raise SystemExit(130) from None
    paper.write([folder])
    console.say(f"Written to {folder / 'paper'}: tables.md, a .tex and a .csv for each table, figures")


@app.command("paper-tables")
def paper_tables(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[DIR]...", help="Folders of measure-efficiency (default: the published ones, else the newest)."
        ),
    ] = None,
    out: Out = None,
) -> None:
    """Set the tables and figures that need no training from stored measurements, beside the published numbers."""
    from bench.report import paper

    for folder in sorted({path.parent for path in paper.write(folders or paper.find(), out)}):
        print(f"Written: {folder}")


@app.command("convert-re10k")
def convert_re10k(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="Folder with pixelSplat's chunks in train/ and test/.")
    ],
    destination: Annotated[Path, typer.Argument(metavar="DESTINATION", help="Folder for LVSM's tree of PNGs.")],
    quiet: Quiet = False,
) -> None:
    """Convert RealEstate10K from pixelSplat's chunks to LVSM's tree; run again after an interruption, it goes on."""
    from bench.data.re10k import convert

    splits = [split for split in ("train", "test") if (source / split).is_dir()]
    if not splits:
        raise UserError(f"{source}: holds neither train nor test; give the folder that holds pixelSplat's chunks")
    console = _parts(quiet, False)["console"]
    for split in splits:
        with console.counting() as report:
            made = convert(source, destination, split, report=report)
        console.say(f"{split}: {made.scenes} scenes, {made.frames} frames written to {destination / split}")
        for failed in made.failed:
            console.say(f"{split}: could not be decoded and left out: {failed}")


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(metavar="architectures|tasks|comparisons|presets")],
    json_output: Json = False,
) -> None:
    """List what there is to compare."""
    from bench import config, registry

    presets = {
        "tiny": "two CPU cores, embedded data, minutes",
        "small": "one GPU, minutes",
        "paper": "the published dimensions",
    }
    known: dict[str, Callable[[], dict[str, str]]] = {
        "architectures": lambda: {
            name: f"{entry.summary} (task {entry.task or 'any'})" for name, entry in registry.architectures().items()
        },
        "tasks": lambda: {name: entry.summary for name, entry in registry.TASKS.items()},
        "comparisons": config.comparison_names,
        "presets": lambda: presets,
    }
    if what not in known:
        raise UserError(f"list {what!r}: is none of {', '.join(known)}")
    found = known[what]()
    if json_output:
        print(json.dumps(found))
        return
    for name, summary in found.items():
        print(f"{name:24} {summary}")


@app.command()
def doctor(json_output: Json = False) -> None:
    """Say what this machine offers, what is missing, and what follows."""
    from bench import doctor as examination

    findings = examination.examine(environment=os.environ)
    print(json.dumps(findings.to_dict()) if json_output else examination.render(findings))


if __name__ == "__main__":
    main()
