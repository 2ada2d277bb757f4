"""What commands have in common: options, and what follows from them."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

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


def cache_dir() -> Path:
    """Where rendered scenes and probe results are kept: ISOCHRON_CACHE, or the user's cache folder."""
    chosen = os.environ.get("ISOCHRON_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "isochron"


def overrides(
    budget: str | None, seeds: int | None, device: str | None, batch: str | None, changes: list[str] | None
) -> dict[str, Any]:
    """What options change of a comparison, as a mapping."""
    from bench.config import merge, parse_overrides

    named: dict[str, Any] = {
        "budget": budget,
        "seeds": seeds,
        "device": device,
        "batch": batch.split(",") if batch else None,
    }
    return merge({key: value for key, value in named.items() if value is not None}, parse_overrides(changes or []))


def load(source: str, preset: str | None, *rest: Any) -> Any:
    """The comparison that is meant, changed as `overrides` says of the rest."""
    from bench import config

    return config.load(source, preset=preset, overrides=overrides(*rest))


def parts(quiet: bool, to_stderr: bool) -> dict[str, Any]:
    """Console and cache folder, as a session takes them."""
    from bench.console import Console

    return {"console": Console(quiet=quiet, stderr=to_stderr), "cache_dir": cache_dir()}


def new_folder(comparison: Any, kind: str = "") -> Path:
    """A folder under ``runs/`` by name, preset and time."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{comparison.name}-{comparison.preset}{kind}-{stamp}"


def stop_on_signals() -> Callable[[], bool]:
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


def set_tables(folder: Path, say: Callable[[str], None], json_output: bool) -> None:
    """Set tables and figures of a folder, and show the table."""
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
