"""What a page shows of a folder of `isochron measure-efficiency`: its tables beside the published numbers, and its figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from bench.errors import UserError
from bench.report import plots
from bench.report.page.figures import FigurePage, read
from bench.report.page.provenance import Origin, Source, of_source, origin
from bench.report.paper import TABLES
from bench.report.paper.hydrology import figures as hydrology
from bench.report.paper.layout import PaperTable
from bench.report.paper.masked_image import figures as masked_image
from bench.report.paper.nvs import figures as nvs
from bench.report.paper.openvocab import figures as openvocab
from bench.report.paper.published import Published, read_published
from bench.report.paper.tracking import figures as tracking
from bench.report.paper.vos import figures as vos
from bench.store.efficiency import COUNTS, TIMINGS, Efficiency

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES: Mapping[str, Mapping[str, Callable[[Efficiency, Mapping[str, Published]], Figure]]] = {
    "nvs": {
        "Cost over views": lambda measured, _: nvs.draw_views(measured),
        "What adding a view costs": nvs.draw_incremental,
    },
    "masked-image": {"What CrossMAE saves, and over what": masked_image.draw},
    "hydrology": {"What CrossMAE saves, and over what": hydrology.draw},
    "vos": {"What reading the memory costs": vos.draw},
    "tracking": {"Computation and time of a call": lambda measured, _: tracking.draw(measured)},
    "openvocab": {"Class attention, and the designs of the aggregator": lambda measured, _: openvocab.draw(measured)},
}
"""Task -> title of a figure -> what draws it."""


@dataclass(frozen=True)
class EfficiencyPage:
    """All that is shown of one folder."""

    id: str
    task: str
    preset: str
    tables: tuple[PaperTable, ...]
    figures: tuple[FigurePage, ...]
    origin: Origin
    files: tuple[str, ...]
    data: dict[str, Any]
    """What the script reads: where the numbers come from."""


def gather(efficiency: Efficiency, name: str) -> EfficiencyPage:
    """Set the tables and figures from the records; `name` is the address of its part of the page.

    Raises:
        UserError: the measurement is unfinished, or of a task without tables.
    """
    record, folder = efficiency.record, efficiency.folder
    if record.status != "finished":
        raise UserError(f"{folder}: is {record.status}, not finished; go on with `isochron measure-efficiency`")
    if record.task not in TABLES:
        raise UserError(f"{folder}: task {record.task!r} has no tables; known: {', '.join(sorted(TABLES))}")
    published = read_published(record.task)
    told = origin(folder, record.device, record.protocol)
    files = (COUNTS, TIMINGS, f"bench/published/{record.task}.yaml: published numbers")
    with plots.style():
        figures = tuple(
            read(title, draw(efficiency, published)) for title, draw in FIGURES.get(record.task, {}).items()
        )
    return EfficiencyPage(
        id=name,
        task=record.task,
        preset=record.preset,
        tables=tuple(TABLES[record.task](efficiency, published)),
        figures=figures,
        origin=told,
        files=files,
        data={"origin": asdict(told), "sources": [of_source(Source(files, ("nothing is trained",)))]},
    )
