"""The numbers behind tables and figures: what each arm reached, how arms differ, who leads in which view.

Only finished runs contribute numbers. Final values are recomputed from the per-sample records of the last evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bench import stats
from bench.aggregates import Value, aggregate
from bench.contracts import Gate, Metric
from bench.stats import Array, Crossover, Estimate, PairedDifference
from bench.store.read import Arm, Comparison, Run, metric_values
from bench.store.schema import Evaluation, Measured

View = Literal["time", "steps", "samples", "flops"]
VIEWS: tuple[View, ...] = ("time", "steps", "samples", "flops")

RATE_GROUPS = 10
"""Groups of consecutive steps a run is cut into for its samples/s: neighbouring steps share the machine's mood."""


@dataclass(frozen=True)
class ArmSummary:
    """One arm: its cost and what it reached."""

    arm: Arm
    measured: Measured
    runs: tuple[Run, ...]
    finals: Mapping[str, Mapping[int, float]]
    """Metric -> seed -> mean (or what the metric says) over the test samples; finished runs only."""
    train_rate: Estimate
    """Training samples a charged second."""

    @property
    def title(self) -> str:
        """``efficient-lvsm (knee)``."""
        return f"{self.arm.label} ({self.arm.policy})"

    @property
    def finished(self) -> tuple[Run, ...]:
        """The runs that count."""
        return tuple(run for run in self.runs if run.finished)


@dataclass(frozen=True)
class RunCurve:
    """Headline metric of one run at its evaluations, on the test samples that every evaluation scored."""

    positions: Mapping[View, Array]
    """Increasing, [N]: charged seconds (the last point stands at the budget), steps, samples, training FLOPs."""
    quality: Array
    annealed: tuple[bool, ...]


@dataclass(frozen=True)
class Pair:
    """An arm against the reference arm of the same batch policy: arm minus reference."""

    arm: ArmSummary
    reference: ArmSummary
    differences: Mapping[str, PairedDifference]
    """Metric -> paired by seed."""
    crossover: Crossover | None
    unit_differences: Mapping[str, PairedDifference]
    """Metric that is a mean -> paired by what samples have in common (`TaskRecord.pairing`), each the mean over common seeds;
    empty without that."""


@dataclass(frozen=True)
class ViewStanding:
    """Who leads among the arms of one policy at the largest position that all of them reach, seed by seed."""

    view: View
    policy: str
    arms: tuple[ArmSummary, ...]
    position: float
    """Mean over seeds, in the view's unit."""
    quality: tuple[float, ...]
    """Mean over the common seeds, one an arm."""
    annealed: tuple[bool, ...]
    """Whether the arm's value is that of its annealed end; otherwise it is interpolated on the way there."""
    leader: int
    lead: PairedDifference
    """Leader minus runner-up."""
    runner_up: int
    since: Crossover | None
    """Since which position the leader leads the runner-up."""


@dataclass(frozen=True)
class GateOutcome:
    """How far the reference arm is ahead of a predictor that learns nothing, at the policy where it is least so."""

    gate: Gate
    metric: Metric
    arm: ArmSummary | None
    """None where a policy has no finished run of the reference arm: then nothing is judged."""
    label: str
    """Of the predictor that learns nothing."""
    floor: float | None
    """What that reaches; None where it was not scored."""

    @property
    def reached(self) -> float:
        """Mean of the arm over its finished seeds; NaN without any."""
        return float(np.mean(list(self.arm.finals[self.metric.name].values()))) if self.arm else math.nan

    @property
    def ahead(self) -> float:
        """By how much the arm is better; NaN where that is not known."""
        if self.floor is None:
            return math.nan
        return (self.reached - self.floor) * (1 if self.metric.higher_is_better else -1)

    @property
    def passed(self) -> bool:
        """Whether that is enough; what is not known is not."""
        return self.ahead >= self.gate.margin


@dataclass(frozen=True)
class Summary:
    """Every arm of a comparison and the curve of every finished run."""

    comparison: Comparison
    arms: tuple[ArmSummary, ...]
    curves: Mapping[str, Mapping[int, RunCurve]]
    """Arm name -> seed -> curve."""
    curve_samples: frozenset[str]
    """The test samples that the curves are drawn on."""
    gate: GateOutcome | None = None
    """Whether arms may be ranked, where the task makes it depend on something."""

    @property
    def conclusive(self) -> bool:
        """Whether arms may be ranked."""
        return self.gate is None or self.gate.passed

    def of_policy(self, policy: str) -> tuple[ArmSummary, ...]:
        """The arms of one batch policy."""
        return tuple(summary for summary in self.arms if summary.arm.policy == policy)


def bold_arms(summary: Summary) -> dict[str, dict[str, bool]]:
    """Metric -> arm name -> whether the arm is not significantly worse than the best of all arms; of none without a ranking."""
    if not summary.conclusive:
        return {metric.name: {arm.arm.name: False for arm in summary.arms} for metric in summary.comparison.metrics}
    return {
        metric.name: dict(
            zip(
                (arm.arm.name for arm in summary.arms),
                stats.not_worse_than_best(
                    [arm.finals[metric.name] for arm in summary.arms],
                    higher_is_better=metric.higher_is_better,
                    digits=metric.digits,
                    correct=True,
                ),
                strict=True,
            )
        )
        for metric in summary.comparison.metrics
    }


def summarise(comparison: Comparison) -> Summary:
    """Read every finished run of a comparison."""
    arms = tuple(_summarise_arm(comparison, arm) for arm in comparison.arms)
    samples = common_samples(comparison)
    curves = {
        summary.arm.name: {
            run.seed: _curve(comparison, run, summary.measured.flops.training_per_sample, samples)
            for run in summary.finished
        }
        for summary in arms
    }
    return Summary(comparison, arms, curves, samples, _gate(comparison, arms))


def _gate(comparison: Comparison, arms: Sequence[ArmSummary]) -> GateOutcome | None:
    """What the task's gate says; None without one."""
    asked = comparison.record.task.gate
    if asked is None:
        return None
    gate = Gate(**asked)
    metric = next(metric for metric in comparison.metrics if metric.name == gate.metric)
    entry = next((entry for entry in comparison.learn_nothing if entry.name == gate.reference), None)
    floor = entry.value(metric) if entry else None
    label = entry.label if entry else gate.reference
    references = [arm for arm in arms if arm.arm.label == comparison.record.reference]
    if not references or not all(arm.finals[metric.name] for arm in references):
        return GateOutcome(gate, metric, None, label, floor)
    outcomes = [GateOutcome(gate, metric, arm, label, floor) for arm in references]
    return min(outcomes, key=lambda outcome: outcome.ahead)


def _summarise_arm(comparison: Comparison, arm: Arm) -> ArmSummary:
    """Read and average the finished runs of one arm."""
    runs = comparison.runs_of(arm)
    finished = [run for run in runs if run.finished]
    finals: dict[str, dict[int, float]] = {metric.name: {} for metric in comparison.metrics}
    for run in finished:
        for metric in comparison.metrics:
            values = metric_values(run.result.records, metric.key)
            if values:
                finals[metric.name][run.seed] = aggregate(list(values.values()), metric.aggregate)
    return ArmSummary(arm, comparison.measured(arm), runs, finals, training_rate(finished))


def training_rate(runs: list[Run]) -> Estimate:
    """Median samples/s over groups of consecutive steps of all `runs`, with its interval."""
    rates: list[float] = []
    for run in runs:
        if not run.events:
            continue
        table = np.array([(event.batch, event.seconds) for event in run.events])
        for group in np.array_split(table, min(RATE_GROUPS, len(table))):
            samples, seconds = group.sum(axis=0)
            if seconds > 0:
                rates.append(float(samples / seconds))
    return stats.median_interval(rates)


def common_samples(comparison: Comparison) -> frozenset[str]:
    """Test samples that every evaluation of every finished run scored; curves are drawn on these alone."""
    shared: frozenset[str] | None = None
    for run in comparison.runs:
        for evaluation in run.evaluations if run.finished else ():
            names = frozenset(metric_values(evaluation.records, comparison.headline.key))
            shared = names if shared is None else shared & names
    return shared or frozenset()


def _curve(comparison: Comparison, run: Run, flops_per_sample: float, samples: frozenset[str]) -> RunCurve:
    evaluations = run.evaluations
    seconds = [evaluation.spent for evaluation in evaluations]
    if evaluations[-1].fraction == 1.0 and comparison.record.budget_s is not None:
        # the last step ends up to half a step beside the budget; all ends stand at the same place
        seconds[-1] = max([comparison.record.budget_s, *seconds[:-1]])
    seen = np.array([evaluation.samples for evaluation in evaluations], dtype=np.float64)
    positions: dict[View, Array] = {
        "time": np.array(seconds, dtype=np.float64),
        "steps": np.array([evaluation.step for evaluation in evaluations], dtype=np.float64),
        "samples": seen,
        "flops": seen * flops_per_sample,
    }
    quality = np.array([_quality(evaluation, comparison.headline, samples) for evaluation in evaluations])
    # two evaluations may fall on one step of a slow arm: the later one stands
    keep = np.append(np.diff(positions["steps"]) > 0, True)
    annealed = tuple(evaluation.annealed for evaluation, kept in zip(evaluations, keep, strict=True) if kept)
    return RunCurve({view: values[keep] for view, values in positions.items()}, quality[keep], annealed)


def _quality(evaluation: Evaluation, metric: Metric, samples: frozenset[str]) -> float:
    values = metric_values(evaluation.records, metric.key)
    return aggregate([value for name, value in values.items() if name in samples], metric.aggregate)


def compare(summary: Summary) -> list[Pair]:
    """Every arm against the reference arm of its policy."""
    pairs = []
    for policy in summary.comparison.policies:
        arms = summary.of_policy(policy)
        reference = next((arm for arm in arms if arm.arm.label == summary.comparison.record.reference), None)
        if reference is not None:
            pairs += [_pair(summary, arm, reference) for arm in arms if arm is not reference]
    return pairs


def _pair(summary: Summary, arm: ArmSummary, reference: ArmSummary) -> Pair:
    differences = {
        metric.name: stats.paired_difference(
            arm.finals[metric.name], reference.finals[metric.name], higher_is_better=metric.higher_is_better
        )
        for metric in summary.comparison.metrics
    }
    crossover = _crossover(summary, arm, reference, "time")
    return Pair(arm, reference, differences, crossover, _unit_differences(summary.comparison, arm, reference))


def _unit_differences(comparison: Comparison, arm: ArmSummary, reference: ArmSummary) -> dict[str, PairedDifference]:
    """Metric -> difference over what samples have in common, each of these the mean over the seeds that both finished."""
    if not comparison.record.task.pairing:
        return {}
    seeds = {run.seed for run in arm.finished} & {run.seed for run in reference.finished}
    return {
        metric.name: stats.paired_difference(
            _unit_values(arm, metric, seeds),
            _unit_values(reference, metric, seeds),
            higher_is_better=metric.higher_is_better,
        )
        for metric in comparison.metrics
        if metric.aggregate == "mean"  # a quotient of sums, or a median, is no mean of its units'
    }


def _unit_values(arm: ArmSummary, metric: Metric, seeds: Collection[int]) -> dict[str, float]:
    """First two parts of a sample's name -> the metric over the samples that share them, mean over `seeds`."""
    found: dict[str, dict[int, list[Value]]] = {}
    for run in arm.finished:
        if run.seed in seeds:
            for sample, value in metric_values(run.result.records, metric.key).items():
                unit = "/".join(sample.split("/")[:2])
                found.setdefault(unit, {}).setdefault(run.seed, []).append(value)
    return {
        unit: float(np.mean([aggregate(values, metric.aggregate) for values in by_seed.values()]))
        for unit, by_seed in found.items()
    }


def _crossover(summary: Summary, first: ArmSummary, second: ArmSummary, view: View) -> Crossover | None:
    """Where one arm takes the lead over the other along one axis."""

    def along(arm: ArmSummary) -> dict[int, stats.Curve]:
        curves = summary.curves[arm.arm.name]
        return {seed: (curve.positions[view], curve.quality) for seed, curve in curves.items()}

    return stats.crossover(
        along(first), along(second), higher_is_better=bool(summary.comparison.headline.higher_is_better)
    )


def standings(summary: Summary) -> list[ViewStanding]:
    """The four views of each policy that has at least two arms with a common finished seed."""
    found = []
    for policy in summary.comparison.policies:
        curves = [summary.curves[arm.arm.name] for arm in summary.of_policy(policy)]
        seeds = [seed for seed in summary.comparison.record.seeds if all(seed in curve for curve in curves)]
        if len(curves) >= 2 and seeds:
            found += [_standing(summary, view, policy, seeds) for view in VIEWS]
    return found


def _standing(summary: Summary, view: View, policy: str, seeds: list[int]) -> ViewStanding:
    arms = summary.of_policy(policy)
    curves = [summary.curves[arm.arm.name] for arm in arms]
    ends = {seed: min(float(curve[seed].positions[view][-1]) for curve in curves) for seed in seeds}
    quality = [
        {seed: float(np.interp(ends[seed], curve[seed].positions[view], curve[seed].quality)) for seed in seeds}
        for curve in curves
    ]
    annealed = tuple(
        all(curve[seed].annealed[-1] and curve[seed].positions[view][-1] <= ends[seed] for seed in seeds)
        for curve in curves
    )
    means = [float(np.mean(list(values.values()))) for values in quality]
    higher = bool(summary.comparison.headline.higher_is_better)
    leader, runner_up = sorted(range(len(arms)), key=lambda index: -means[index] if higher else means[index])[:2]
    return ViewStanding(
        view=view,
        policy=policy,
        arms=arms,
        position=float(np.mean(list(ends.values()))),
        quality=tuple(means),
        annealed=annealed,
        leader=leader,
        runner_up=runner_up,
        lead=stats.paired_difference(quality[leader], quality[runner_up], higher_is_better=higher),
        since=_crossover(summary, arms[leader], arms[runner_up], view),
    )
