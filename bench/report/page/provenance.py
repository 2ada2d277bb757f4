"""Where each number of a comparison comes from: its runs, their seeds, and the files of the folder that hold it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.report.sections import Section
from bench.report.summary import ArmSummary, Summary
from bench.store.files import read_json
from bench.store.read import Run

UNKNOWN = "not recorded"
COST_FILES = ("arms/{arm}.json", "runs/{arm}/seed-*/events.jsonl")
QUALITY_FILES = ("runs/{arm}/seed-*/evals.jsonl: records of the last evaluation",)
CURVE_FILES = ("runs/{arm}/seed-*/evals.jsonl: every evaluation", "arms/{arm}.json: FLOPs a sample")
LEDGER_FILES = ("runs/{arm}/seed-*/ledger.json",)


@dataclass(frozen=True)
class Origin:
    """What all numbers of a result folder share."""

    folder: str
    device: str
    commit: str
    protocol: str


@dataclass(frozen=True)
class Source:
    """What stands behind the numbers of a row."""

    files: tuple[str, ...]
    """Relative to the result folder."""
    runs: tuple[str, ...]
    """``arm: seeds 0, 1, 2``"""
    origin: Origin | None = None
    """Where it differs from what the result folder's numbers share."""


FILES = {"quality": QUALITY_FILES, "cost": COST_FILES, "curves": CURVE_FILES, "ledger": LEDGER_FILES}
"""What is shown of a comparison -> its files."""
LEARNS_NOTHING = Source(("references.json",), ("learns nothing: no run",))


def shown_folder(folder: Path) -> str:
    """The last two parts of its path: what it is called on every machine."""
    return "/".join(folder.resolve().parts[-2:])


def of_source(source: Source) -> dict[str, Any]:
    """A source as the script reads it."""
    return {key: value for key, value in asdict(source).items() if value is not None}


def origin(folder: Path, device: Any, protocol: str) -> Origin:
    """Read what the folder says about itself; `device` has a name, threads and the version of torch."""
    told = [device.name] + [f"{device.threads} thread{'s' * (device.threads > 1)}"] * bool(device.threads)
    told += [f"torch {device.torch}"] * bool(device.torch)
    return Origin(shown_folder(folder), ", ".join(told), _commit(folder), protocol)


def _commit(folder: Path) -> str:
    path = folder / "provenance" / "git.json"
    if not path.is_file():
        return UNKNOWN
    found = read_json(path)
    commit = found.get("commit") or UNKNOWN
    return f"{commit}, with changes (provenance/git.diff)" if found.get("dirty") else commit


def of_arms(arms: Sequence[ArmSummary], files: Sequence[str]) -> Source:
    """The finished runs of `arms`; ``{arm}`` in a file stands for the name of each."""
    runs = tuple(f"{arm.arm.name}: {seeds(arm.finished)}" for arm in arms)
    return Source(tuple(file.format(arm=arm.arm.name) for arm in arms for file in files), runs)


def seeds(finished: Sequence[Run]) -> str:
    """The seeds of finished runs in words."""
    named = [str(run.seed) for run in finished]
    return f"seed{'s' * (len(named) > 1)} {', '.join(named)}" if named else "no finished run"


def of_rows(summary: Summary, section: Section) -> list[Source]:
    """One source a row of a table's section, told by the names that the row begins with."""
    arms: dict[tuple[str, str], tuple[ArmSummary, ...]] = {
        (arm.arm.label, arm.arm.policy): (arm,) for arm in summary.arms
    }
    for policy in summary.comparison.policies:
        for arm, other in itertools.permutations(summary.of_policy(policy), 2):
            arms[f"{arm.arm.label} - {other.arm.label}", policy] = (arm, other)
    cost, views = section.title.startswith("Cost"), section.title.startswith("Four views")
    files = COST_FILES if cost else CURVE_FILES if views else QUALITY_FILES
    return [_of_row(summary, arms, [cell.text for cell in row], files, views) for row in section.rows]


def _of_row(
    summary: Summary,
    arms: Mapping[tuple[str, str], tuple[ArmSummary, ...]],
    cells: Sequence[str],
    files: Sequence[str],
    views: bool,
) -> Source:
    if views:
        return of_arms(summary.of_policy(cells[0]), files)
    meant = arms.get((cells[0], cells[1]))
    return of_arms(meant, files) if meant else LEARNS_NOTHING


def of_samples(summary: Summary, titles: Sequence[str]) -> list[Source]:
    """One source an arm of those whose samples are shown."""
    arms = {arm.title: arm for arm in summary.arms}
    return [of_arms((arms[title],), QUALITY_FILES) if title in arms else LEARNS_NOTHING for title in titles]
