"""Commands that read stored results and train nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.app import app
from bench.cli.options import Folder, Folders, Json, Out, set_tables
from bench.errors import UserError


@app.command()
def tables(folder: Folder) -> None:
    """Set tables and figures again from the stored records. Trains nothing."""
    set_tables(folder, print, False)


@app.command()
def verify(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR|FILE...", help="Results, folders that hold some, claims, paper tables, or bundles."
        ),
    ],
    figures: Annotated[bool, typer.Option("--figures", help="Draw figures again too (seconds a folder).")] = False,
) -> None:
    """Recompute every number of a result from its records and check files, ledgers and sums."""
    from bench.report.verify import verify as check_folder

    wrong: list[str] = []
    for folder in folders:
        if len(folders) > 1:
            print(f"{folder}:")
        try:
            report = check_folder(folder, figures=figures)
        except UserError as error:
            wrong.append(str(error))
            continue
        for line in report.checked:
            print(f"ok    {line}")
        for line in report.problems:
            print(f"WRONG {line}")
        if report.problems:
            checks = len(report.problems) + len(report.checked)
            wrong.append(
                f"{folder}: {len(report.problems)} of {checks} checks failed ({report.problems[0]}); do not use its numbers"
            )
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
            metavar="[DIR]...",
            help="Results, or folders that hold some (default: all in results, else the newest measurement).",
        ),
    ] = None,
    out: Out = None,
) -> None:
    """Set published tables with our numbers beside them: cost from stored measurements, quality from trained comparisons."""
    from bench.report.paper.results import write_all

    for folder in write_all(folders, out):
        print(f"Written: {folder}")


@app.command()
def bundle(
    folders: Folders,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The file (default: named after the result).")
    ] = None,
    weights: Annotated[bool, typer.Option("--weights", help="Pack trained weights as well.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a file that is there already.")] = False,
) -> None:
    """Pack finished results into one file that `isochron verify` accepts on another machine."""
    from bench.report.share import bundle as pack

    print(f"packed: {pack(folders, out, weights=weights, replace=replace)}")


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="A result folder, or a bundle.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another of the same comparison.")],
    same: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY", help="An option that makes no difference, as you say: align_input, task.data_seed."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write FILE.md or FILE.csv instead.")] = None,
) -> None:
    """Put two results of another commit, device or budget beside each other; only comparable rows are joined."""
    from bench.report import contrast
    from bench.report.compare import compare as put_beside

    found = put_beside(a, b, same or ())
    if out is None:
        print(contrast.render(found), end="")
    else:
        contrast.write(found, out)
        print(f"Written: {out}")


@app.command()
def seeds(
    folder: Folder,
    difference: Annotated[
        float | None, typer.Option(help="Difference to find, in the metric's unit (default: the observed one).")
    ] = None,
    metric: Annotated[str | None, typer.Option(help="Name of the metric (default: the headline one).")] = None,
    power: Annotated[float, typer.Option(help="Probability of finding it.")] = 0.8,
    arms: Annotated[
        tuple[str, str] | None, typer.Option(metavar="A B", help="One pair of arms (default: each with the reference).")
    ] = None,
    json_output: Json = False,
) -> None:
    """How many seeds a difference needs, by the scatter that a comparison shows, and what they cost. Trains nothing."""
    from bench.report import planning

    found = planning.plan(folder, difference=difference, metric=metric, power=power, arms=arms or ())
    if json_output:
        print(json.dumps(planning.to_json(found), indent=1))
    else:
        print(planning.render(found, observed=difference is None), end="")


@app.command()
def claims(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[DIR]...", help="Results, or folders that hold some (default: results)."),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the verdicts.")] = Path("results/claims"),
) -> None:
    """Hold every quoted claim against stored results: reproduced, not reproduced, or what would test it. Trains nothing."""
    from bench.report import claims as ledger

    results = ledger.expand(folders or [Path("results")])
    verdicts = ledger.judge(ledger.read_claims(), results)
    written = ledger.write(verdicts, results, out)
    print(f"{ledger.counts(verdicts)}\nWritten to {out}: {', '.join(path.name for path in written)}")


@app.command()
def report(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[DIR]...",
            help="Results, or folders that hold some (default: the published ones, else all under runs/).",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The page to write.")] = Path("report.html"),
) -> None:
    """Write one HTML page that opens from disk: verdicts on claims, tables, curves, pictures and samples of result folders."""
    from bench.report import claims, page
    from bench.report.page import size
    from bench.store.results import expand

    chosen = expand(folders) if folders else page.find()
    print(f"Written: {page.write(chosen, out, claims.judge(claims.read_claims(), chosen))}")
    if told := size.warning(out):
        print(f"isochron: {told}", file=sys.stderr)
