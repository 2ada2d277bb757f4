"""Tables and figures of scaling curves, from what `isochron scaling-curve` stored; the same folder gives the same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bench.errors import UserError
from bench.report import plots
from bench.report.paper.layout import to_files
from bench.report.scaling.figures import draw
from bench.report.scaling.fits import Fit, fit_curve
from bench.report.scaling.series import CurveData, read_curve_data
from bench.report.scaling.tables import make_tables, sentences
from bench.store.efficiency import RENDERED
from bench.store.files import write_bytes
from bench.store.scaling import open_scaling


def write(folder: Path, out: Path | None = None) -> list[Path]:
    """Write ``scaling.md``, a ``.tex`` and a ``.csv`` for each table, and a figure for each curve, into `out`.

    By default that is the subfolder ``paper``.

    Raises:
        UserError: the folder holds no finished curves.
    """
    place = out or folder / RENDERED
    curves = list(_read(folder))
    paths = []
    for name, content in _contents(curves).items():
        write_bytes(place / name, content.encode())
        paths.append(place / name)
    with plots.style():
        for data, fits in curves:
            if data.panels:
                figure = draw(data, fits)
                paths += plots.save(figure, place / data.curve.name)
    return paths


def render(folder: Path) -> dict[str, str]:
    """File name to content of all tables.

    Raises:
        UserError: the folder holds no finished curves.
    """
    return _contents(list(_read(folder)))


def summary(folder: Path) -> str:
    """What the fits say, curve by curve, for a terminal."""
    return "\n".join(
        "\n".join([f"{data.curve.title}:", *(f"  {line}" for line in sentences(data, fits))])
        for data, fits in _read(folder)
    )


def _read(folder: Path) -> Iterator[tuple[CurveData, list[Fit]]]:
    scaling = open_scaling(folder)
    if scaling.record.status != "finished":
        raise UserError(
            f"{folder}: is {scaling.record.status}, not finished; go on with `isochron scaling-curve --out {folder}`"
        )
    for curve in scaling.record.curves:
        data = read_curve_data(scaling, curve)
        yield data, fit_curve(data)


def _contents(curves: list[tuple[CurveData, list[Fit]]]) -> dict[str, str]:
    made = [table for data, fits in curves for table in make_tables(data, fits)]
    head = "# Scaling curves\n\nHow to read them: docs/scaling.md. A dash: there is no such number.\n"
    return to_files("scaling.md", head, made)
