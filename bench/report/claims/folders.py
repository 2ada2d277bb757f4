"""Finds, among result folders, those that can test a claim; the best first."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from bench.errors import UserError
from bench.report.claims.measures import PLACEHOLDER, Trained
from bench.report.claims.read import SCALES
from bench.report.summary import ArmSummary, Summary, summarise
from bench.store.efficiency import RECORD, Efficiency, open_efficiency
from bench.store.read import Comparison, open_comparison

COMPARISON = "comparison.json"


def expand(folders: Sequence[Path]) -> list[Path]:
    """Result folders among `folders`, and those one or two levels below the others (``results`` holds devices).

    Raises:
        UserError: a folder holds none.
    """
    found: list[Path] = []
    for folder in folders:
        levels = ("", "*/", "*/*/")
        here = {path.parent for level in levels for name in (COMPARISON, RECORD) for path in folder.glob(level + name)}
        if not here:
            raise UserError(f"{folder}: holds no {COMPARISON} or {RECORD}; give results, or a folder of a result")
        found += sorted(here)
    return list(dict.fromkeys(found))


def rank(preset: str) -> int:
    """Place of a preset among the scales; -1: below all."""
    return next((place for place, scale in enumerate(SCALES) if scale == preset), -1)


def name(folder: Path) -> str:
    """Device and result, such as ``cpu-2core/nvs-tiny``."""
    return "/".join(folder.resolve().parts[-2:])


class Trial:
    """A finished comparison, read when it is first asked for."""

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison
        self.rank = rank(comparison.record.preset)

    @cached_property
    def summary(self) -> Summary:
        """Every arm with what it reached."""
        return summarise(self.comparison)

    def arms(self, measure: Trained) -> tuple[ArmSummary, ...]:
        """The arms that a measure reads, under its batch policy; empty where one is not there."""
        policy = measure.policy or self.comparison.policies[0]
        by_label = {arm.arm.label: arm for arm in self.summary.of_policy(policy)}
        found = tuple(by_label[label] for label in measure.arms if label in by_label)
        return found if len(found) == len(measure.arms) else ()

    def tests(self, measure: Trained) -> bool:
        """Whether it has the arms, and the options of the task, that a measure is about."""
        record = self.comparison.record
        if record.name != measure.comparison:
            return False
        wanted = {key: value for key, value in measure.options.items() if not str(value).startswith(PLACEHOLDER)}
        return all(record.task.options.get(key) == value for key, value in wanted.items()) and bool(self.arms(measure))


class Shelf:
    """Result folders, open for reading. Unfinished ones are left out."""

    def __init__(self, folders: Sequence[Path]) -> None:
        """Open `folders`.

        Raises:
            UserError: one is no result folder, or of another schema or protocol.
        """
        trials = [Trial(open_comparison(folder)) for folder in folders if not (folder / RECORD).is_file()]
        measured = [open_efficiency(folder) for folder in folders if (folder / RECORD).is_file()]
        self._trials = sorted((trial for trial in trials if trial.comparison.record.status == "finished"), key=_best)
        self._measured = sorted((made for made in measured if made.record.status == "finished"), key=_best_measured)

    def trials(self, measure: Trained) -> list[Trial]:
        """Comparisons that a measure is about."""
        return [trial for trial in self._trials if trial.tests(measure)]

    def measured(self, task: str) -> list[Efficiency]:
        """Measurements of a task's efficiency."""
        return [made for made in self._measured if made.record.task == task]


def _best(trial: Trial) -> tuple[int, int, bool, str]:
    record = trial.comparison.record
    return -trial.rank, -len(record.seeds), record.device.kind != "cuda", name(trial.comparison.folder)


def _best_measured(efficiency: Efficiency) -> tuple[int, bool, str]:
    record = efficiency.record
    return -rank(record.preset), record.device.kind != "cuda", name(efficiency.folder)
