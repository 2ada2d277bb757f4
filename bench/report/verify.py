"""Recomputes a result from its records: files against their sums, ledgers, finals, and every cell of the table."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from bench import LEDGER_TOLERANCE
from bench.aggregates import aggregate
from bench.errors import UserError
from bench.report import paper, scaling, tables
from bench.store.bundle import stays_inside, unpacked
from bench.store.files import MANIFEST, read_json, read_lines, sha256
from bench.store.read import open_comparison
from bench.store.scaling import is_cost, open_scaling

WEIGHTS = "checkpoint.safetensors"
"""May be absent from a published result; its sum stays in the manifest."""
RENDERED = {".md", ".csv", ".tex", ".png", ".pdf"}
"""Kinds of files that stand in no manifest: tables and figures, which can be made again."""


@dataclass
class Verification:
    """What was checked, and what is wrong."""

    checked: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def note(self, passed: bool, text: str, problem: str = "") -> None:
        """Take note of one check."""
        if passed:
            self.checked.append(text)
        else:
            self.problems.append(f"{text}: {problem}" if problem else text)


def verify(folder: Path) -> Verification:
    """Check a comparison's folder, that of one run, of `measure-efficiency`, of `scaling-curve`, or a bundle of such folders.

    Raises:
        UserError: it is none of them, or the bundle is not as it was packed (the line names the file inside).
    """
    result = Verification()
    (_verify_bundle if folder.is_file() else _verify_folder)(folder, result)
    return result


def _verify_folder(folder: Path, result: Verification) -> None:
    if (folder / "run.json").is_file():
        _verify_files(folder, result)
        _verify_run(folder, result)
    elif (folder / "efficiency.json").is_file():
        _verify_files(folder, result)
        if is_cost(folder):  # the tables of the task need more than a curve's measurements
            return
        wrong = paper.differences(folder)
        result.note(not wrong, "paper: every table follows from the records", f"{', '.join(wrong)} differ")
    elif (folder / "comparison.json").is_file():
        _verify_files(folder, result)
        for path in sorted(folder.glob("runs/*/seed-*/run.json")):
            _verify_run(path.parent, result)
        _verify_table(folder, result)
    elif (folder / "scaling.json").is_file():
        _verify_scaling(folder, result)
    else:
        raise UserError(
            f"{folder}: holds no comparison.json, efficiency.json, scaling.json or run.json; give a result folder, a run's or a bundle"
        )


def _verify_scaling(folder: Path, result: Verification) -> None:
    """Check the parts of a folder of scaling curves, each as if it stood alone, and the tables of all."""
    _verify_files(folder, result)
    opened = open_scaling(folder)
    for part in opened.parts():
        if (part / "efficiency.json").is_file():
            _verify_files(part, result)  # copied from a whole measurement, it has left that one's tables behind
        else:
            _verify_folder(part, result)
    if opened.record.status == "finished":
        wrong = scaling.differences(folder)
        result.note(
            not wrong, "paper: every table of the curves follows from the records", f"{', '.join(wrong)} differ"
        )


def strangers(folder: Path) -> list[str]:
    """Files below a result folder that none of its manifests names and that are no table or figure.

    Raises:
        UserError: a manifest names a path that leads out of its folder.
    """
    known = set()
    for manifest in folder.rglob(MANIFEST):
        names = [MANIFEST, *read_json(manifest)["sha256"]]
        if outside := [name for name in names if not stays_inside(name)]:
            raise UserError(f"{manifest}: {outside[0]!r} is no path inside the folder; do not use the result")
        known |= {manifest.parent / name for name in names}
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [path.relative_to(folder).as_posix() for path in files if path not in known and path.suffix not in RENDERED]


def _verify_bundle(path: Path, result: Verification) -> None:
    """Check the archive, then every folder in it as if it lay here."""
    with unpacked(path) as bundle:
        members = len(bundle.manifest.members)
        result.note(True, f"{path.name}: {members} files have their SHA-256 sums; the bundle's own is {sha256(path)}")
        for name, folder in bundle.folders.items():
            found = Verification()
            try:
                unknown = strangers(folder)
                found.note(not unknown, "manifest.json names every file", ", ".join(unknown[:5]))
                _verify_folder(folder, found)
            except UserError as error:
                found.note(False, str(error).replace(f"{folder}/", ""))
            except Exception as error:  # whoever wrote the records could write anything
                what = f"{type(error).__name__}: {' '.join(str(error).split())}"
                found.note(False, f"its records are not those of a result ({what})")
            result.checked += [f"{name}: {line.removeprefix(f'{folder.name}: ')}" for line in found.checked]
            result.problems += [f"{name}: {line.removeprefix(f'{folder.name}: ')}" for line in found.problems]


def _verify_files(folder: Path, result: Verification) -> None:
    if not (folder / MANIFEST).is_file():
        result.note(False, f"{folder.name}: files", "there is no manifest.json; the result is not finished")
        return
    sums = read_json(folder / MANIFEST)["sha256"]
    wrong, absent = [], 0
    for name, expected in sums.items():
        path = folder / name
        if not path.is_file():
            absent += Path(name).name == WEIGHTS
            wrong += [] if Path(name).name == WEIGHTS else [f"{name} is missing"]
        elif sha256(path) != expected:
            wrong.append(f"{name} was changed")
    text = f"{folder.name}: {len(sums)} files have their SHA-256 sums"
    result.note(not wrong, text + (f" ({absent} weight files are not at hand)" if absent else ""), "; ".join(wrong[:5]))


def _verify_run(run: Path, result: Verification) -> None:
    name = f"{run.parent.name}/{run.name}"
    outcome = read_json(run / "run.json")
    if outcome["status"] == "running":
        result.note(
            False, f"{name}: ended", "the run is still running or was cut off; `isochron resume` goes on with it"
        )
        return
    events = read_lines(run / "events.jsonl")
    result.note(
        len(events) == outcome["steps"]
        and all(event["step"] == number for number, event in enumerate(events, start=1)),
        f"{name}: {outcome['steps']} steps are on record",
        f"events.jsonl has {len(events)}",
    )
    ledger = read_json(run / "ledger.json")
    _verify_ledger(name, ledger, outcome, events, result)
    if outcome["status"] != "finished":
        return
    evaluations = read_lines(run / "evals.jsonl")
    last: dict[str, Any] = evaluations[-1] if evaluations else {"annealed": False, "records": []}
    result.note(last["annealed"], f"{name}: the last evaluation is the annealed one")
    wrong = []
    for metric, value in outcome["final"].items():
        key = outcome.get("sources", {}).get(metric, metric)
        values = [record[key] for record in last["records"] if key in record]
        how = outcome.get("aggregates", {}).get(metric, "mean")
        if not values or not math.isclose(aggregate(values, how), value, rel_tol=1e-9, abs_tol=1e-12):
            wrong.append(metric)
    result.note(
        not wrong,
        f"{name}: {', '.join(outcome['final'])} follow from {len(last['records'])} sample records",
        f"run.json has other values of {', '.join(wrong)} than evals.jsonl",
    )


def _verify_ledger(
    name: str, ledger: dict[str, Any], outcome: dict[str, Any], events: list[dict[str, Any]], result: Verification
) -> None:
    total = sum(ledger["categories"].values())
    result.note(
        math.isclose(total, ledger["accounted"], abs_tol=1e-6)
        and all(value >= 0 for value in ledger["categories"].values()),
        f"{name}: the ledger's categories add up to {ledger['accounted']:.3f} s",
        f"ledger.json: they give {total:.3f} s",
    )
    gap = abs(ledger["wall"] - total) / ledger["wall"]
    result.note(
        gap <= LEDGER_TOLERANCE or outcome["status"] == "invalid",
        f"{name}: the ledger balances within {100 * gap:.3f} % of wall time",
        "ledger.json: more than 0.5 % is unexplained but run.json does not say invalid",
    )
    if outcome.get("budget_s") and outcome["status"] == "finished":
        allowed = outcome["overshoot_bound_s"] + 1e-9
        result.note(
            outcome["overshoot_s"] <= allowed,
            f"{name}: overshoot {1000 * outcome['overshoot_s']:.0f} ms is within its bound",
            "run.json says more",
        )
        spent_by_steps = sum(event["seconds"] for event in events)
        result.note(
            abs(spent_by_steps - ledger["charged"]) <= 0.01 * ledger["charged"] + 0.01,
            f"{name}: {ledger['charged']:.2f} charged seconds are the sum of the steps'",
            f"the steps of events.jsonl took {spent_by_steps:.2f} s",
        )


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
            ours, theirs = content.splitlines(), (folder / name).read_text(encoding="utf-8").splitlines()
            pairs = enumerate(zip_longest(ours, theirs), start=1)
            wrong = [f"line {number}" for number, (new, old) in pairs if new != old]
            result.note(not wrong, f"{name}: every line follows from the records", f"{', '.join(wrong[:5])} differ")


def _present(path: Path, result: Verification) -> bool:
    if not path.is_file():
        result.note(False, f"{path.name}: present", f"make it with `isochron tables {path.parent}`")
    return path.is_file()


def _same_cell(old: Any, new: str | None) -> bool:
    """Whether two cells say the same; numbers may differ in their last digits (another NumPy sums in another order)."""
    if old == new:
        return True
    try:
        return math.isclose(float(old), float(new or ""), rel_tol=1e-9, abs_tol=1e-12)
    except (TypeError, ValueError):
        return False
