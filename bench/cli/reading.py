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
def verify(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR|FILE...", help="Result folders, or bundles of them.")],
) -> None:
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
            metavar="[DIR]...", help="Folders of measure-efficiency (default: the published ones, else the newest)."
        ),
    ] = None,
    out: Out = None,
) -> None:
    """Set the tables and figures that need no training from stored measurements, beside the published numbers."""
    from bench.report import paper

    for folder in sorted({path.parent for path in paper.write(folders or paper.find(), out)}):
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
def claims(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[DIR]...", help="Results, or folders that hold some (default: results)."),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the verdicts.")] = Path("results/claims"),
) -> None:
    """Hold every quoted claim against stored results: reproduced, not reproduced, or what would test it. Trains nothing."""
    from bench.report import claims as ledger

    verdicts = ledger.judge(ledger.read_claims(), ledger.expand(folders or [Path("results")]))
    written = ledger.write(verdicts, out)
    print(f"{ledger.counts(verdicts)}\nWritten to {out}: {', '.join(path.name for path in written)}")


@app.command()
def report(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[DIR]...", help="Result folders (default: the published ones, else all under runs/)."),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The page to write.")] = Path("report.html"),
) -> None:
    """Write one HTML page that opens from disk: verdicts on claims, tables, curves, pictures and samples of result folders."""
    from bench.report import claims, page

    chosen = folders or page.find()
    print(f"Written: {page.write(chosen, out, claims.judge(claims.read_claims(), chosen))}")
