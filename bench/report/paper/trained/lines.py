"""A published table beside a comparison of ours as numbers: a line a published row and column."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from bench import stats
from bench.contracts import Metric
from bench.errors import UserError
from bench.report.claims.folders import Trial
from bench.report.paper.trained.published import Measure, PublishedTable, Row
from bench.report.summary import ArmSummary, bold_arms
from bench.stats import Estimate

SAME, OPPOSITE, OPEN = "same direction", "opposite", "not settled"
TIE, NO_RANKING = "published as equal", "inconclusive"
UNCLEAR, NO_INTERVAL = "published unclear", "no interval"
AGREEMENTS = (SAME, OPPOSITE, OPEN, TIE, UNCLEAR, NO_INTERVAL, NO_RANKING)
"""What our difference says of a published one. `TIE`: theirs is 0, ours is not. `UNCLEAR`: theirs is within its uncertainty."""

ORACLES = ("depth-warp", "previous-truth")
"""Predictors that learn nothing and are told of the truth what no arm is told: that they are better says nothing of arms."""


class Beaten(NamedTuple):
    """A predictor that learns nothing and is better than the best trained arm of a table, in the published unit."""

    label: str
    value: float
    trained: float
    """What the best trained arm reaches."""


@dataclass(frozen=True)
class Line:
    """One row in one column; differences are those from the row it is compared with."""

    row: Row
    measure: Measure
    published: float | None
    published_difference: float | None
    uncertainty: float = 0.0
    """Of the published difference; 0: unknown."""
    metric: Metric | None = None
    """Ours; None where nothing of ours stands beside it."""
    arm: ArmSummary | None = None
    ours: Estimate | None = None
    """In the published unit. Mean over seeds with its interval; a predictor that learns nothing has none."""
    difference: Estimate | None = None
    """In the published unit, paired by seed."""
    agreement: str = ""
    """One of `AGREEMENTS`, or empty."""
    pair: tuple[str, ...] = ()
    """What `difference` is of: folder, batch policy, metric and both rows in alphabetical order; the same in several lines."""
    bold: bool = False
    beaten: Beaten | None = None
    """None where the best trained arm of the column is not beaten, and for predictors that learn nothing."""

    @property
    def digits(self) -> int:
        """Behind the point of ours in the published unit."""
        return max(0, self.metric.digits - round(math.log10(self.measure.factor))) if self.metric else 0


def make_lines(table: PublishedTable, trial: Trial | None) -> tuple[Line, ...]:
    """Every row that has something to show, column by column. Without a trial only what is published.

    Raises:
        UserError: the comparison has no metric of the name that a column asks for.
    """
    ours = _Ours(table, trial) if trial else None
    lines = []
    for measure in table.measures:
        for row in table.rows:
            theirs = row.value(measure), table.published_difference(row, measure), table.uncertainty(row, measure)
            line = Line(row, measure, *theirs)
            if ours and measure.ours and (row.arm or row.baseline):
                line = ours.beside(line)
            without = not (row.values or row.differences) or row.label == table.reference
            if (line.published, line.published_difference) != (None, None) or (without and line.ours is not None):
                lines.append(line)
    return tuple(lines)


class _Ours:
    """The arms and baselines of one comparison by what a table calls them."""

    def __init__(self, table: PublishedTable, trial: Trial) -> None:
        self.table, self.comparison, self.summary = table, trial.comparison, trial.summary
        self.policy = table.policy or trial.comparison.policies[0]
        of_policy = trial.summary.of_policy(self.policy)
        self.arms = {arm.arm.label: arm for arm in of_policy}
        shown = [self.arms[label] for label in dict.fromkeys(row.arm for row in table.rows) if label in self.arms]
        self.shown = shown
        asked = {measure.ours for measure in table.measures}
        metrics = tuple(metric for metric in trial.comparison.metrics if metric.name in asked)
        among = replace(trial.summary, arms=tuple(shown), comparison=replace(trial.comparison, metrics=metrics))
        self.bold = bold_arms(among) if len(shown) > 1 else {}

    def beside(self, line: Line) -> Line:
        """The line with ours."""
        metric = self._metric(line.measure)
        arm = self.arms.get(line.row.arm)
        values = self._values(line.row, metric)
        if not values:
            return replace(line, metric=metric, arm=arm)
        factor = line.measure.factor
        ours = stats.mean_interval(list(values.values())) if arm else Estimate(next(iter(values.values())), None, 0)
        difference = self._difference(line, metric, values)
        agreement = self._agreement(line, difference) if difference else ""
        beaten = self._beaten(metric, factor) if arm else None
        bold = arm is not None and self.bold.get(metric.name, {}).get(arm.arm.name, False)
        return replace(
            line, metric=metric, arm=arm, ours=ours.times(factor),
            difference=difference and difference.times(factor), agreement=agreement,
            pair=self._pair(line.row, metric) if difference else (), bold=bold, beaten=beaten,
        )  # fmt: skip

    def _difference(self, line: Line, metric: Metric, values: Mapping[int, float]) -> Estimate | None:
        other = self.table.against(line.row)
        against = self._values(other, metric) if other else {}
        if other is None or not against:
            return None
        found = stats.paired_difference(values, against)
        if found.count == 0:
            return None
        constant = bool(line.row.baseline and other.baseline)
        return Estimate(found.mean, None if constant else found.interval, found.count)

    def _agreement(self, line: Line, ours: Estimate) -> str:
        published = line.published_difference
        if published is None:
            return ""
        if not self.summary.conclusive:
            return NO_RANKING
        if ours.interval is None:
            return NO_INTERVAL
        if line.uncertainty and abs(published) <= line.uncertainty:
            return UNCLEAR
        if ours.interval.contains(0.0):
            return OPEN
        if published == 0:
            return TIE
        return SAME if (ours.value > 0) == (published > 0) else OPPOSITE

    def _pair(self, row: Row, metric: Metric) -> tuple[str, ...]:
        other = self.table.against(row)
        both = sorted(each.arm or each.baseline for each in (row, other) if each)
        return (str(self.comparison.folder), self.policy, metric.name, *both)

    def _beaten(self, metric: Metric, factor: float) -> Beaten | None:
        """By the best predictor that learns nothing, in the table or not, but no oracle; None where an arm is as good, rounded."""
        if metric.higher_is_better is None:
            return None
        finals = [arm.finals[metric.name] for arm in self.shown]
        trained = [(sum(values.values()) / len(values), "") for values in finals if values]
        entries = [
            (entry.value(metric), entry.label) for entry in self.comparison.learn_nothing if entry.name not in ORACLES
        ]
        untrained = [(value, label) for value, label in entries if value is not None]
        if not trained or not untrained:
            return None
        best = max if metric.higher_is_better else min
        (reached, _), (value, label) = best(trained), best(untrained)
        rounded = round(reached, metric.digits), round(value, metric.digits)
        if rounded[0] == rounded[1] or best(rounded) == rounded[0]:
            return None
        return Beaten(label, factor * value, factor * reached)

    def _values(self, row: Row, metric: Metric) -> Mapping[int, float]:
        """Seed -> what a row reaches; a predictor that learns nothing reaches the same at each."""
        if row.arm:
            return self.arms[row.arm].finals[metric.name] if row.arm in self.arms else {}
        entry = next((entry for entry in self.comparison.learn_nothing if entry.name == row.baseline), None)
        value = entry.value(metric) if entry else None
        return {} if value is None else dict.fromkeys(self.comparison.record.seeds, value)

    def _metric(self, measure: Measure) -> Metric:
        found = next((metric for metric in self.comparison.metrics if metric.name == measure.ours), None)
        if found is None:
            known = ", ".join(metric.name for metric in self.comparison.metrics)
            raise UserError(
                f"{self.table.name}: measures: {measure.ours!r} is no metric of {self.comparison.folder}; it has: {known}"
            )
        return found
