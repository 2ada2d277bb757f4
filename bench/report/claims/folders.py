"""Finds, among result folders, those that can test a claim; the best first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from bench.report.claims.measures import PLACEHOLDER, Trained, TwoBudgets
from bench.report.claims.read import SCALES
from bench.report.comparable import arm_obstacles, budget, fingerprints, task_obstacles
from bench.report.summary import ArmSummary, Summary, summarise
from bench.store.efficiency import RECORD as EFFICIENCY
from bench.store.efficiency import Efficiency, open_efficiency
from bench.store.read import Comparison, open_comparison
from bench.store.results import COMPARISON, expand, record_of
from bench.store.scaling import RECORD as SCALING
from bench.store.scaling import is_cost, open_scaling

__all__ = ["Shelf", "Trial", "expand", "name", "rank"]

SHARE_TOLERANCE = 0.01
"""A quoted share is rounded: 0.67 is two thirds."""


def rank(preset: str) -> int:
    """Place of a preset among the scales; -1: below all."""
    return next((place for place, scale in enumerate(SCALES) if scale == preset), -1)


def name(folder: Path) -> str:
    """Device and result, such as ``cpu-2core/nvs-tiny``; a scaling folder's part is named below it."""
    place = folder.resolve()
    whole = next((parent for parent in place.parents if (parent / SCALING).is_file()), place)
    return "/".join(place.parts[len(whole.parts) - 2 :])


class Trial:
    """A finished comparison, read when it is first asked for."""

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison
        self.rank = rank(comparison.record.preset)
        self.told = comparison.record.preset
        """Its scale, as a sentence says it."""

    @cached_property
    def summary(self) -> Summary:
        """Every arm with what it reached."""
        return summarise(self.comparison)

    @property
    def summaries(self) -> tuple[Summary, ...]:
        """Of all comparisons that it reads."""
        return (self.summary,)

    def arms(self, measure: Trained) -> tuple[ArmSummary, ...]:
        """The arms that a measure reads, under its batch policy; empty where one is not there."""
        policy = measure.policy or self.comparison.policies[0]
        by_label = {arm.arm.label: arm for arm in self.summary.of_policy(policy)}
        found = tuple(by_label[label] for label in measure.arms if label in by_label)
        return found if len(found) == len(measure.arms) else ()

    def tests(self, measure: Trained) -> bool:
        """Whether it has the arms, and the options of the task, that a measure is about."""
        return self.comparison.record.name == measure.comparison and self._fits(measure)

    def is_point_of(self, measure: TwoBudgets) -> bool:
        """Whether it is a point of the curve that a measure may read, and fits otherwise."""
        return self.comparison.folder.parent.name == measure.curve and self._fits(measure)

    def is_share_of(self, longer: Trial, measure: TwoBudgets) -> bool:
        """Whether its budget is the measure's share of that of `longer`, and nothing else differs: device, task, data, arms."""
        records = self.comparison.record, longer.comparison.record
        mine, other = (
            (record.budget.get("unit"), record.device.kind, record.device.name, record.device.threads)
            for record in records
        )
        share = records[0].budget["amount"] / records[1].budget["amount"]
        return (
            mine == other
            and abs(share / measure.share - 1) < SHARE_TOLERANCE
            and not task_obstacles(longer.summary, self.summary, ())
            and fingerprints(self.comparison.folder) == fingerprints(longer.comparison.folder)
            and not any(arm_obstacles(*pair, ()) for pair in zip(longer.arms(measure), self.arms(measure), strict=True))
        )

    def _fits(self, measure: Trained) -> bool:
        record = self.comparison.record
        wanted = {key: value for key, value in measure.options.items() if not str(value).startswith(PLACEHOLDER)}
        return all(record.task.options.get(key) == value for key, value in wanted.items()) and bool(self.arms(measure))


class Shortened(Trial):
    """A comparison, but for the first arm of a measure: that one is from another with a smaller budget, alike otherwise."""

    def __init__(self, trial: Trial, shorter: Trial) -> None:
        super().__init__(trial.comparison)
        self._shorter = shorter
        self.told += f", {budget(shorter.summary)} against {budget(trial.summary)}"

    @property
    def summaries(self) -> tuple[Summary, ...]:
        """Of the longer one and of the shorter."""
        return self.summary, self._shorter.summary

    def arms(self, measure: Trained) -> tuple[ArmSummary, ...]:
        """The measure's arm at the smaller budget, and its reference at the larger one."""
        found, short = super().arms(measure), self._shorter.arms(measure)
        return (short[0], *found[1:]) if found and short else ()


class Shelf:
    """Result folders, open for reading. Unfinished ones are left out."""

    def __init__(self, folders: Sequence[Path]) -> None:
        """Open `folders`.

        Raises:
            UserError: one is no result folder, or of another schema or protocol.
        """
        found: dict[str | None, list[Path]] = defaultdict(list)
        for folder in folders:
            found[record_of(folder)].append(folder)
        curves = [open_scaling(folder) for folder in found[SCALING]]
        parts = [part for scaling in curves if scaling.record.status == "finished" for part in scaling.parts()]
        swept = [folder for folder in found[EFFICIENCY] if is_cost(folder)]
        self._trials = _finished([*found[COMPARISON], *found[None]])
        self._points = _finished([part for part in parts if (part / COMPARISON).is_file()])
        self._measured = _measured([folder for folder in found[EFFICIENCY] if folder not in swept])
        self._swept = _measured([*swept, *(part for part in parts if (part / EFFICIENCY).is_file())])

    def trials(self, measure: Trained) -> list[Trial]:
        """Comparisons that a measure is about."""
        found = [trial for trial in self._trials if trial.tests(measure)]
        if not isinstance(measure, TwoBudgets):
            return found
        found += [trial for trial in self._points if trial.is_point_of(measure)]
        pairs = [(longer, shorter) for longer in found for shorter in found if shorter.is_share_of(longer, measure)]
        # of several pairs, the one with the largest budgets
        pairs.sort(key=lambda pair: -pair[0].comparison.record.budget["amount"])
        return sorted((Shortened(longer, shorter) for longer, shorter in pairs), key=lambda pair: _best(pair)[:3])

    def measured(self, task: str) -> list[Efficiency]:
        """Measurements of a task's efficiency, whole ones."""
        return [made for made in self._measured if made.record.task == task]

    def swept(self, task: str) -> list[Efficiency]:
        """Those of a task that hold the calls and rows of one scaling curve."""
        return [made for made in self._swept if made.record.task == task]


def _finished(folders: Sequence[Path]) -> list[Trial]:
    trials = [Trial(open_comparison(folder)) for folder in folders]
    return sorted((trial for trial in trials if trial.comparison.record.status == "finished"), key=_best)


def _measured(folders: Sequence[Path]) -> list[Efficiency]:
    found = [open_efficiency(folder) for folder in folders]
    return sorted((made for made in found if made.record.status == "finished"), key=_best_measured)


def _best(trial: Trial) -> tuple[int, int, bool, str]:
    record = trial.comparison.record
    return -trial.rank, -len(record.seeds), record.device.kind != "cuda", name(trial.comparison.folder)


def _best_measured(efficiency: Efficiency) -> tuple[int, bool, str]:
    record = efficiency.record
    return -rank(record.preset), record.device.kind != "cuda", name(efficiency.folder)
