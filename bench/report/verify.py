"""Recomputes a result from its records: files against their sums, ledgers, finals, every cell of every table, and figures."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.report import claims, paper, plots, scaling, tables
from bench.report.verify_records import WEIGHTS, Verification, named, verify_files, verify_run
from bench.store import derived
from bench.store.bundle import unpacked
from bench.store.efficiency import RENDERED
from bench.store.files import MANIFEST, sha256
from bench.store.read import open_comparison
from bench.store.results import RECORDS, record_of
from bench.store.scaling import is_cost, open_scaling

__all__ = ["WEIGHTS", "Verification", "strangers", "verify"]

TABLES = {".md", ".csv", ".tex"}
FIGURES = {".png", ".pdf"}
"""Kinds of files that stand in no manifest: they can be made again."""


def verify(folder: Path, *, figures: bool = False) -> Verification:
    """Check a result folder, that of one run, of claims or paper tables, a bundle, or a folder that holds any of these.

    A result folder is that of a comparison, of `measure-efficiency` or of `scaling-curve`.

    Args:
        folder: it, or the bundle's file.
        figures: whether figures are drawn again as well and compared byte for byte. Another Matplotlib than the one that drew
            them may draw other bytes.

    Raises:
        UserError: it is none of them, or the bundle is not as it was packed (the line names the file inside).
    """
    result = Verification()
    if folder.is_file():
        _verify_bundle(folder, result, figures)
    elif _is_one(folder):
        _verify_folder(folder, result, figures)
    else:
        _verify_all(folder, result, figures)
    return result


def _is_one(folder: Path) -> bool:
    return bool(record_of(folder)) or (folder / "run.json").is_file() or (folder / derived.RECORD).is_file()


def _verify_folder(folder: Path, result: Verification, figures: bool) -> None:
    kind = record_of(folder)
    if kind == "comparison.json":
        verify_files(folder, result)
        for path in sorted(folder.glob(f"*/**/{MANIFEST}")):  # of runs and of what they started from
            verify_files(path.parent, result, path.parent.relative_to(folder).as_posix())
        for path in sorted(folder.glob("runs/*/seed-*/run.json")):
            verify_run(path.parent, result)
        _verify_table(folder, result)
        _verify_figures(folder, lambda place: plots.write(open_comparison(folder), place), result, figures)
    elif kind == "efficiency.json":
        verify_files(folder, result)
        if is_cost(folder):  # the tables of the task need more than a curve's measurements
            return
        _verify_rendered(
            folder / RENDERED, paper.contents(folder), "paper: every table follows from the records", result
        )
        _verify_figures(folder / RENDERED, lambda place: paper.write([folder], place), result, figures)
    elif kind == "scaling.json":
        _verify_scaling(folder, result, figures)
    elif (folder / "run.json").is_file():
        verify_files(folder, result)
        verify_run(folder, result)
    else:
        for record in sorted(folder.rglob(derived.RECORD)):  # tables of measurements lie below those of trained results
            _verify_derived(record.parent, result, figures)
    _verify_nothing_else(folder, result)


def _verify_scaling(folder: Path, result: Verification, figures: bool) -> None:
    """Check the parts of a folder of scaling curves, each as if it stood alone, and the tables of all."""
    verify_files(folder, result)
    opened = open_scaling(folder)
    for part in opened.parts():
        if (part / "efficiency.json").is_file():
            verify_files(part, result)  # copied from a whole measurement, it has left that one's tables behind
        else:
            _verify_folder(part, result, figures)
    if opened.record.status == "finished":
        text = "paper: every table of the curves follows from the records"
        _verify_rendered(folder / RENDERED, scaling.render(folder), text, result)
        _verify_figures(folder / RENDERED, lambda place: scaling.write(folder, place), result, figures)


def _verify_derived(folder: Path, result: Verification, figures: bool) -> None:
    """Check the tables of a folder that names the results which they were made from."""
    made = derived.read_derived(folder)
    result.covered.add(folder / derived.RECORD)
    contents: Mapping[str, str]
    if made.kind == "claims":
        contents = claims.contents(claims.judge(claims.read_claims(), made.folders))
    elif made.kind == "measurement":
        contents = paper.contents(made.folders[0])
        _verify_figures(folder, lambda place: paper.write(made.folders, place), result, figures)
    else:
        from bench.report.paper import trained

        contents = trained.render_trained(made.folders)
        _verify_figures(folder, lambda place: trained.write_trained(made.folders, place), result, figures)
    text = f"{folder.name}: every table follows from the {len(made.folders)} results that {derived.RECORD} names"
    _verify_rendered(folder, contents, text, result)


def _verify_all(root: Path, result: Verification, figures: bool) -> None:
    """Check everything below a folder that holds results; one line for each that is in order. No file may be left over."""
    marks = (*RECORDS, "run.json", derived.RECORD, MANIFEST)
    folders: list[Path] = []
    for mark in marks:
        marked = sorted(path.parent for path in root.rglob(mark))
        folders += [path for path in marked if not any(path.is_relative_to(one) for one in folders)]
    if not folders:
        raise UserError(f"{root}: holds none of {', '.join(marks)}; give results, or a folder that holds some")
    for folder in folders:
        name = folder.relative_to(root).as_posix()
        found = _checked(folder, figures)
        result.problems += [f"{name}: {line}" for line in found.problems]
        if not found.problems:
            checks = len(found.checked)
            result.note(True, f"{name}: {found.checked[0] if checks == 1 else f'{checks} checks passed'}")
        result.covered |= found.covered
    left = sorted(
        path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file() and path not in result.covered
    )
    result.note(
        not left,
        f"{root.name}: each of {len(result.covered)} files is on record or made again",
        f"nothing says what is in {', '.join(left[:5])}",
    )


def _checked(folder: Path, figures: bool, *, packed: bool = False) -> Verification:
    """What `verify` finds in a folder among several, whatever its records are like; lines do not repeat the folder's name.

    Files that belong to no result but have their sums beside them (ratios of a device) are held against those. One that was
    `packed` may hold no file that no manifest names.
    """
    found = Verification()
    try:
        if packed:
            unknown = strangers(folder)
            found.note(not unknown, "manifest.json names every file", ", ".join(unknown[:5]))
        if _is_one(folder):
            _verify_folder(folder, found, figures)
        else:
            verify_files(folder, found)
    except UserError as error:
        found.note(False, str(error).replace(f"{folder}/", ""))
    except Exception as error:  # whoever wrote the records could write anything
        what = f"{type(error).__name__}: {' '.join(str(error).split())}"
        found.note(False, f"its records are not those of a result ({what})")
    found.checked, found.problems = (
        [line.removeprefix(f"{folder.name}: ") for line in lines] for lines in (found.checked, found.problems)
    )
    return found


def _verify_nothing_else(folder: Path, result: Verification) -> None:
    """No table or figure may lie there that no check was about."""
    left = [path for path in _files(folder) if path.suffix in TABLES | FIGURES and path not in result.covered]
    names = ", ".join(path.relative_to(folder).as_posix() for path in left[:5])
    result.note(not left, "no other table or figure lies there", f"nothing makes {names}; remove it")


def _files(folder: Path) -> list[Path]:
    """Files of a folder, without what a run at work keeps there."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".") and path.suffix != ".tmp" and path.parent.name != "resume"
    )


def strangers(folder: Path) -> list[str]:
    """Files below a result folder that none of its manifests names and that are no table or figure.

    Raises:
        UserError: a manifest names a path that leads out of its folder.
    """
    known = set()
    for manifest in folder.rglob(MANIFEST):
        known |= {manifest, *(manifest.parent / name for name in named(manifest))}
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    rendered = TABLES | FIGURES
    return [path.relative_to(folder).as_posix() for path in files if path not in known and path.suffix not in rendered]


def _verify_bundle(path: Path, result: Verification, figures: bool) -> None:
    """Check the archive, then every folder in it as if it lay here."""
    with unpacked(path) as bundle:
        members = len(bundle.manifest.members)
        result.note(True, f"{path.name}: {members} files have their SHA-256 sums; the bundle's own is {sha256(path)}")
        for name, folder in bundle.folders.items():
            found = _checked(folder, figures, packed=True)
            result.checked += [f"{name}: {line}" for line in found.checked]
            result.problems += [f"{name}: {line}" for line in found.problems]


def _verify_table(folder: Path, result: Verification) -> None:
    table = tables.build(open_comparison(folder))
    if _present(folder / "table.csv", result):
        stored, again = tables.read_csv(folder / "table.csv"), tables.csv_cells(table)
        cells = sum(len(row) for row in again)
        wrong = [] if len(stored) == len(again) else [f"{len(stored)} rows instead of {len(again)}"]
        for number, (old, new) in enumerate(zip(stored, again, strict=False), start=2):
            names = [str(name) for name in {**new, **old} if not _same_cell(old.get(name), new.get(name))]
            wrong += [f"line {number}: {name}" for name in names]
        text = f"table.csv: all {cells} cells follow from the records"
        result.note(not wrong, text, f"{', '.join(wrong[:5])} differ")
    for name, content in (("table.md", tables.to_markdown(table)), ("table.tex", tables.to_latex(table))):
        if _present(folder / name, result):
            wrong = _other_lines(folder / name, content)
            result.note(not wrong, f"{name}: every line follows from the records", f"{', '.join(wrong[:5])} differ")


def _present(path: Path, result: Verification) -> bool:
    result.covered.add(path)
    if not path.is_file():
        result.note(False, f"{path.name}: present", f"make it with `isochron tables {path.parent}`")
    return path.is_file()


def _other_lines(path: Path, content: str) -> list[str]:
    """``line 3`` for each line of a file that `content` has otherwise; ``absent`` where there is none."""
    if not path.is_file():
        return ["absent"]
    stored = path.read_text(encoding="utf-8", errors="replace")
    pairs = enumerate(zip_longest(content.split("\n"), stored.split("\n")), start=1)
    return [f"line {number}" for number, (new, old) in pairs if new != old]


def _same_cell(old: Any, new: str | None) -> bool:
    """Whether two cells say the same; numbers may differ in their last digits (another NumPy sums in another order)."""
    if old == new:
        return True
    try:
        return math.isclose(float(old), float(new or ""), rel_tol=1e-9, abs_tol=1e-12)
    except (TypeError, ValueError):
        return False


def _verify_rendered(place: Path, contents: Mapping[str, str], text: str, result: Verification) -> None:
    """Hold stored tables against those of `contents`, name by name, line by line."""
    result.covered |= {place / name for name in contents}
    wrong = {name: lines for name, content in contents.items() if (lines := _other_lines(place / name, content))}
    where = "".join(f"; {name}: {', '.join(lines[:3])}" for name, lines in wrong.items())
    result.note(not wrong, text, f"{', '.join(wrong)} differ{where}")


def _verify_figures(place: Path, draw: Callable[[Path], Iterable[Path]], result: Verification, figures: bool) -> None:
    """Hold stored figures against what `draw` draws into a folder; take them as they are unless `figures`."""
    stored = {path.name: path for path in _files(place) if path.parent == place and path.suffix in FIGURES}
    if not figures:
        result.covered |= set(stored.values())
        return
    with tempfile.TemporaryDirectory(prefix="isochron-") as made:
        drawn = {path.name: path.read_bytes() for path in draw(Path(made)) if path.suffix in FIGURES}
    result.covered |= {place / name for name in drawn}
    wrong = [name for name, content in drawn.items() if name not in stored or stored[name].read_bytes() != content]
    result.note(not wrong, f"{len(drawn)} figures are drawn again to the same bytes", f"{', '.join(wrong)} differ")
