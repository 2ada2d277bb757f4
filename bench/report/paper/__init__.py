"""Tables and figures that need no training, from what `isochron measure-efficiency` stored, beside the published numbers.

Everything is a function of the folder and of ``bench/published``: the same ones give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.errors import UserError
from bench.report.paper import hydrology, masked_image, nvs, openvocab, tracking, vos
from bench.report.paper.layout import to_files
from bench.report.paper.published import Published, read_published
from bench.store.efficiency import RECORD, RENDERED, Efficiency, open_efficiency

TASKS = {
    "nvs": nvs,
    "masked-image": masked_image,
    "hydrology": hydrology,
    "vos": vos,
    "tracking": tracking,
    "openvocab": openvocab,
}
TABLES = {task: module.make_tables for task, module in TASKS.items()}
"""Task -> what makes its tables; a task that registers here brings ``bench/published/TASK.yaml``."""
FIGURES = {task: module.write_figures for task, module in TASKS.items()}


def find(results: Path = Path("results"), runs: Path = Path("runs")) -> list[Path]:
    """Folders that are meant when none is named: the published ones, or else the newest finished one under `runs`.

    Raises:
        UserError: there is none.
    """
    published = sorted(path.parent for path in results.glob(f"*/*/{RECORD}"))
    if published:
        return published
    made = [
        path.parent for path in runs.glob(f"*/{RECORD}") if open_efficiency(path.parent).record.status == "finished"
    ]
    if not made:
        raise UserError(f"{results}, {runs}: hold no finished {RECORD}; run `make measure-efficiency` first")
    return [max(made, key=lambda folder: (folder / RECORD).stat().st_mtime)]


def write(folders: Sequence[Path], out: Path | None = None) -> list[Path]:
    """Write tables (``tables.md``, a ``.tex`` and a ``.csv`` each) and figures of every folder.

    Args:
        folders: of finished measurements.
        out: where to; by default the subfolder ``paper`` of each. With several folders, a subfolder of `out` each.

    Returns:
        The files.

    Raises:
        UserError: a folder holds no finished measurements, or those of a task without tables.
    """
    paths = []
    for folder in folders:
        efficiency, published = _read(folder)
        place = folder / RENDERED if out is None else out / folder.name if len(folders) > 1 else out
        place.mkdir(parents=True, exist_ok=True)
        for name, content in render(efficiency, published).items():
            (place / name).write_text(content, encoding="utf-8", newline="\n")
            paths.append(place / name)
        paths += FIGURES[efficiency.record.task](efficiency, published, place)
    return paths


def contents(folder: Path) -> dict[str, str]:
    """File name to content of all tables of a folder.

    Raises:
        UserError: the folder holds no finished measurements, or those of a task without tables.
    """
    return render(*_read(folder))


def render(efficiency: Efficiency, published: Mapping[str, Published]) -> dict[str, str]:
    """File name to content of all tables."""
    record = efficiency.record
    made = TABLES[record.task](efficiency, published)
    head = (
        f"# Efficiency without training: {record.task}, timed at preset {record.preset} on {record.device.name}\n\n"
        "Ours beside the published numbers. [README]: the authors' own; [note]: a third party quotes a paper; [run]: an "
        "independent run of the authors' code; [inferred]: worked out from the architecture. How to read them: "
        "docs/efficiency.md. A dash: there is no such number, or it was not measured.\n"
    )
    return to_files("tables.md", head, made)


def _read(folder: Path) -> tuple[Efficiency, Mapping[str, Published]]:
    efficiency = open_efficiency(folder)
    record = efficiency.record
    if record.status != "finished":
        raise UserError(
            f"{folder}: is {record.status}, not finished; go on with `isochron measure-efficiency {record.task} --out {folder}`"
        )
    if record.task not in TABLES:
        raise UserError(f"{folder}: task {record.task!r} has no tables; known: {', '.join(sorted(TABLES))}")
    return efficiency, read_published(record.task)
