"""Commands that read stored results and train nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.app import app
from bench.cli.options import Folder, Folders, Out, set_tables
from bench.errors import UserError


@app.command()
def tables(folder: Folder) -> None:
    """Set tables and figures again from the stored records. Trains nothing."""
    set_tables(folder, print, False)


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
def publish(
    folder: Folder,
    to: Annotated[Path, typer.Option(metavar="DIR", help="Where published results are kept.")] = Path("results"),
    replace: Annotated[bool, typer.Option("--replace", help="Replace a result that is published already.")] = False,
) -> None:
    """Copy a finished result, without weights, to results/<device>/<comparison>-<preset>/."""
    from bench.report.publish import publish as copy

    print(f"published: {copy(folder, to, replace=replace)}")


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
