"""Checks of what a result has on record: files against their sums, steps, ledgers, and finals from sample records."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import LEDGER_TOLERANCE
from bench.aggregates import aggregate
from bench.errors import UserError
from bench.store.bundle import stays_inside
from bench.store.files import MANIFEST, read_json, read_lines, sha256

WEIGHTS = "checkpoint.safetensors"
"""May be absent from a published result; its sum stays in the manifest."""


@dataclass
class Verification:
    """What was checked, and what is wrong."""

    checked: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    covered: set[Path] = field(default_factory=set)
    """Files that a check was about: each has its sum in a manifest, or was made again."""
    sums: dict[Path, str] = field(default_factory=dict)
    """What manifests say of each file; a file of a run stands in two."""

    def note(self, passed: bool, text: str, problem: str = "") -> None:
        """Take note of one check."""
        if passed:
            self.checked.append(text)
        else:
            self.problems.append(f"{text}: {problem}" if problem else text)


def named(manifest: Path) -> dict[str, str]:
    """Path below the folder -> SHA-256, as a manifest says.

    Raises:
        UserError: the manifest names a path that leads out of its folder.
    """
    sums: dict[str, str] = read_json(manifest)["sha256"]
    if outside := [name for name in sums if not stays_inside(name)]:
        raise UserError(f"{manifest}: {outside[0]!r} is no path inside the folder; do not use the result")
    return sums


def verify_files(folder: Path, result: Verification, name: str = "") -> None:
    """Check every file that the manifest of `folder` names against its sum; `name` is what to call the folder."""
    title = name or folder.name
    if not (folder / MANIFEST).is_file():
        result.note(False, f"{title}: files", "there is no manifest.json; the result is not finished")
        return
    sums = named(folder / MANIFEST)
    result.covered |= {folder / MANIFEST, *(folder / name for name in sums)}
    wrong, absent = [], 0
    for name, expected in sums.items():
        path = folder / name
        if result.sums.setdefault(path, expected) != expected:
            wrong.append(f"{name} has another sum in another {MANIFEST}")
        if not path.is_file():
            absent += Path(name).name == WEIGHTS
            wrong += [] if Path(name).name == WEIGHTS else [f"{name} is missing"]
        elif sha256(path) != expected:
            wrong.append(f"{name} was changed")
    text = f"{title}: {len(sums)} files have their SHA-256 sums"
    result.note(not wrong, text + (f" ({absent} weight files are not at hand)" if absent else ""), "; ".join(wrong[:5]))


def verify_run(run: Path, result: Verification) -> None:
    """Check one run: its steps, its ledger, and its finals against the last evaluation's sample records."""
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
