"""What a page shows of a folder of `isochron measure-efficiency`: its tables beside the published numbers, and its figures."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from bench.errors import UserError
from bench.report.page.pictures import as_uri
from bench.report.page.provenance import Origin, origin
from bench.report.paper import TABLES
from bench.report.paper.layout import PaperTable
from bench.report.paper.published import read_published
from bench.store.efficiency import COUNTS, RENDERED, TIMINGS, Efficiency

WIDEST = 1600
"""Pixels; wider figures are reduced to it."""
TONES = 64
"""Colours that a figure of lines needs."""


@dataclass(frozen=True)
class Figure:
    """One figure as a ``data:`` address."""

    name: str
    uri: str
    size: tuple[int, int]


@dataclass(frozen=True)
class EfficiencyPage:
    """All that is shown of one folder."""

    id: str
    task: str
    preset: str
    tables: tuple[PaperTable, ...]
    figures: tuple[Figure, ...]
    origin: Origin
    files: tuple[str, ...]
    data: dict[str, Any]
    """What the script reads: where the numbers come from."""


def gather(efficiency: Efficiency, name: str) -> EfficiencyPage:
    """Set the tables from the records and take the figures that lie in the folder's ``paper``.

    Raises:
        UserError: the measurement is unfinished, or of a task without tables.
    """
    record, folder = efficiency.record, efficiency.folder
    if record.status != "finished":
        raise UserError(f"{folder}: is {record.status}, not finished; go on with `isochron measure-efficiency`")
    if record.task not in TABLES:
        raise UserError(f"{folder}: task {record.task!r} has no tables; known: {', '.join(sorted(TABLES))}")
    told = origin(folder, record.device, record.protocol)
    files = (COUNTS, TIMINGS, f"bench/published/{record.task}.yaml: published numbers")
    return EfficiencyPage(
        id=name,
        task=record.task,
        preset=record.preset,
        tables=tuple(TABLES[record.task](efficiency, read_published(record.task))),
        figures=tuple(_figure(path) for path in sorted((folder / RENDERED).glob("*.png"))),
        origin=told,
        files=files,
        data={"origin": asdict(told), "sources": [{"files": files, "runs": ["nothing is trained"]}]},
    )


def _figure(path: Path) -> Figure:
    try:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read as a picture ({error}); make it with `isochron paper-tables`"
        ) from None
    image.thumbnail((WIDEST, WIDEST * 4), Image.Resampling.LANCZOS)
    return Figure(path.stem, as_uri(image.quantize(TONES, dither=Image.Dither.NONE)), image.size)
