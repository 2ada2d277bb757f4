"""What trained arms say of a claim: differences paired by seed, and what one arm reaches."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from bench import stats
from bench.contracts import Metric
from bench.errors import UserError
from bench.report import text
from bench.report.claims.folders import Trial
from bench.report.claims.measures import Difference, Paired, Reached, Trained, TwoBudgets
from bench.report.claims.outcome import Outcome, asked, decide
from bench.report.claims.read import Claim
from bench.report.paper.layout import as_printed
from bench.report.sentences import gate_sentence
from bench.report.summary import ArmSummary, Summary, View
from bench.stats import Interval

SEEDS = 5
"""A claim needs as many (protocol, section 4); fewer are a smoke run."""
MOST_SEEDS = 1000
"""A difference that needs more is too small to be told."""


def say(claim: Claim, measure: Trained, trial: Trial) -> Outcome:
    """What a comparison's arms say of a claim.

    Raises:
        UserError: the claim names a metric or a control that the comparison does not have.
    """
    match measure:
        case Difference():
            return _paired(claim, measure, trial)
        case Reached():
            return _reached(claim, measure, trial)
    raise TypeError(measure)


def _reached(claim: Claim, measure: Reached, trial: Trial) -> Outcome:
    """What one arm reaches, over its seeds."""
    metric, (arm,) = _metric(claim, measure, trial), trial.arms(measure)
    finals = list(arm.finals[metric.name].values())
    found = stats.mean_interval(finals)
    value = text.with_interval(text.fixed(found.value, metric.digits), text.ends(found.interval, metric.digits))
    shown = (
        f"{measure.arm}: {metric.label} {value}{_about(trial, (arm,), found.number)}; {asked(claim, measure.expected)}"
    )
    return _decided(claim, measure, shown, found.interval, finals)


def _paired(claim: Claim, measure: Difference, trial: Trial) -> Outcome:
    """One arm less another, seed by seed."""
    metric, (arm, reference) = _metric(claim, measure, trial), trial.arms(measure)
    view = measure.view if isinstance(measure, Paired) else "time"
    if view == "time":
        sides = arm.finals[metric.name], reference.finals[metric.name]
    else:
        sides = _at_common(trial.summary, arm, reference, view)
    found = stats.paired_difference(*sides, higher_is_better=metric.higher_is_better)
    difference = text.with_interval(
        text.fixed(found.mean, metric.digits, signed=True), text.ends(found.interval, metric.digits, signed=True)
    )
    where = "" if view == "time" else f" at equal {view}"
    shown = f"{measure.arm} - {measure.reference}: {metric.label} {difference}{where}"
    shown += f"{_about(trial, (arm, reference), found.count)}; {asked(claim, measure.expected)}"
    for summary in trial.summaries:
        if not summary.conclusive:
            return Outcome(None, shown, f"inconclusive: {gate_sentence(summary)}", found.count)
    beaten = _beaten(claim, measure, trial, metric)
    if beaten:
        return Outcome(None, shown, beaten, found.count)
    size = (
        "" if claim.value is None or isinstance(measure, TwoBudgets) else f", the claim is of {as_printed(claim.value)}"
    )
    least = f": a difference of {text.fixed(found.detectable, metric.digits)} would show (MDE){size}"
    differences = [value - sides[1][seed] for seed, value in sides[0].items() if seed in sides[1]]
    return _decided(claim, measure, shown, found.interval, differences, 0.0, "" if found.detectable is None else least)


def _decided(
    claim: Claim,
    measure: Trained,
    shown: str,
    interval: Interval | None,
    values: Sequence[float],
    nothing: float | None = None,
    least: str = "",
) -> Outcome:
    seeds = len(values)
    if seeds < SEEDS or interval is None:
        return Outcome(None, shown, f"{seeds} of the {SEEDS} seeds that a claim needs{least}", seeds)
    agrees = decide(claim, measure.expected, interval, nothing)
    if agrees is not None:
        return Outcome(agrees, shown, "", seeds)
    needed = _needed(claim, measure, values, nothing)
    enough = f"about {needed:,.0f} seeds would, by the scatter seen"
    if math.isinf(needed):
        enough = f"by the scatter seen more than {MOST_SEEDS:,} would have to: this difference is too small to be told"
    return Outcome(None, shown, f"{seeds} seeds cannot tell{least}; {enough}", seeds, needed)


def _needed(claim: Claim, measure: Trained, values: Sequence[float], nothing: float | None) -> float:
    """Seeds that find what lies between the mean and the bound that decides, with 80 % power; infinite beyond `MOST_SEEDS`."""
    mean = float(np.mean(values))
    if measure.expected is None:  # the interval holds the quoted value and no effect, and leaves the further one first
        assert claim.value is not None
        assert nothing is not None
        distance = max(abs(mean - claim.value) - claim.rounding, abs(mean - nothing))
    else:
        distance = min(abs(mean - end) for end in measure.expected.ends if math.isfinite(end))
    try:
        needed = max(stats.seeds_needed(values, distance), len(values) + 1)
    except UserError:  # no distance at all, or too small a one
        return math.inf
    return needed if needed <= MOST_SEEDS else math.inf


def _metric(claim: Claim, measure: Trained, trial: Trial) -> Metric:
    metrics = trial.comparison.metrics
    found = next((metric for metric in metrics if metric.name == measure.metric), None)
    if found is None:
        known = ", ".join(metric.name for metric in metrics)
        raise UserError(
            f"claims: {claim.id}: measure.metric: {measure.metric!r} is none of {trial.comparison.folder}; it has: {known}"
        )
    if isinstance(measure, Paired) and measure.view != "time" and found is not trial.comparison.headline:
        raise UserError(
            f"claims: {claim.id}: measure.view: curves are of {trial.comparison.headline.name} alone; name that metric"
        )
    return found


def _beaten(claim: Claim, measure: Difference, trial: Trial, metric: Metric) -> str:
    """Why the arms' difference means nothing: one of them does not beat the control."""
    if not measure.control:
        return ""
    entries = trial.comparison.learn_nothing
    control = next((entry for entry in entries if entry.name == measure.control), None)
    floor = None if control is None else control.value(metric)
    if control is None or floor is None:
        known = ", ".join(entry.name for entry in entries if entry.value(metric) is not None)
        raise UserError(
            f"claims: {claim.id}: measure.control: {measure.control!r} has no {metric.name} in {trial.comparison.folder}; "
            f"known: {known}"
        )
    sign = -1 if metric.higher_is_better is False else 1
    for arm in trial.arms(measure):
        mean = float(np.mean(list(arm.finals[metric.name].values()) or [np.nan]))
        if not sign * (mean - floor) > 0:
            return (
                f"{arm.arm.label} ({text.fixed(mean, metric.digits)}) does not beat {control.label}, which learns nothing "
                f"({text.fixed(floor, metric.digits)})"
            )
    return ""


def _at_common(
    summary: Summary, arm: ArmSummary, reference: ArmSummary, view: View
) -> tuple[dict[int, float], dict[int, float]]:
    """Headline metric of both, seed by seed, at the largest position that both reach."""
    curves = summary.curves[arm.arm.name], summary.curves[reference.arm.name]
    sides: tuple[dict[int, float], dict[int, float]] = ({}, {})
    for seed in sorted(curves[0].keys() & curves[1].keys()):
        end = min(float(curve[seed].positions[view][-1]) for curve in curves)
        for side, curve in zip(sides, curves, strict=True):
            side[seed] = float(np.interp(end, curve[seed].positions[view], curve[seed].quality))
    return sides


def _about(trial: Trial, arms: tuple[ArmSummary, ...], seeds: int) -> str:
    """What is behind a number."""
    runs = [run for arm in arms for run in arm.runs]
    flagged, lost = sum(bool(run.finished and run.facts.flags) for run in runs), sum(not run.finished for run in runs)
    said = f" ({trial.told}, {seeds} seed{'' if seeds == 1 else 's'}"
    said += f", {flagged} of {len(runs)} runs flagged" if flagged else ""
    return said + (f", {lost} of {len(runs)} not finished" if lost else "") + ")"
