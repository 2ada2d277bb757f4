"""Commands about architectures, data and the machine."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.app import app
from bench.cli.options import Json, Quiet, cache_dir, parts
from bench.errors import UserError


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(metavar="architectures|tasks|comparisons|curves|presets")],
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
        "curves": _curves,
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


def _curves() -> dict[str, str]:
    from bench.experiment.scaling.curves import curve_titles

    return curve_titles()


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

    findings = check_architecture(architecture, task, preset, changes or [], cache_dir())
    if json_output:
        print(json.dumps([finding._asdict() for finding in findings]))
    else:
        for finding in findings:
            print(f"{'pass' if finding.passed else 'FAIL'}  {finding.name}: {finding.detail}")
    failed = [finding.name for finding in findings if not finding.passed]
    if failed:
        raise UserError(f"{architecture}: fails {len(failed)} of {len(findings)} checks: {', '.join(failed)}")


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
    console = parts(quiet, False)["console"]
    for split in splits:
        with console.counting() as report:
            made = convert(source, destination, split, report=report)
        console.say(f"{split}: {made.scenes} scenes, {made.frames} frames written to {destination / split}")
        for failed in made.failed:
            console.say(f"{split}: could not be decoded and left out: {failed}")


@app.command()
def doctor(json_output: Json = False) -> None:
    """Say what this machine offers, what is missing, and what follows."""
    from bench import doctor as examination

    findings = examination.examine(environment=os.environ)
    print(json.dumps(findings.to_dict()) if json_output else examination.render(findings))
