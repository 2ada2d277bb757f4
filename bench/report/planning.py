"""How many seeds a comparison needs to find a difference, from the scatter that its finished seeds show."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import stats
from bench.contracts import Metric
from bench.errors import UserError
from bench.report import text
from bench.report.contrast import table
from bench.report.paper.layout import to_markdown
from bench.report.summary import ArmSummary, Summary, compare, summarise
from bench.stats import Interval
from bench.store.provenance import code_hash, code_of
from bench.store.read import open_comparison

SEEDS = (3, 5, 10, 20)
"""Where the minimum detectable difference is told."""
ALPHA = 1 - stats.CONFIDENCE


@dataclass(frozen=True)
class PairPlan:
    """What one pair of arms needs. Numbers of seeds are None beyond `stats.planning.MOST_SEEDS`."""

    arm: str
    reference: str
    policy: str
    seeds: int
    """Finished seeds that both have."""
    difference: float
    """Arm minus reference, observed."""
    interval: Interval | None
    scatter: float
    """Standard deviation of the paired differences."""
    scatter_interval: Interval | None
    asked: float
    """The difference to be found."""
    needed: int | None
    """At the scatter as observed, this pair by itself."""
    needed_low: int | None
    needed_high: int | None
    """At the ends of the scatter's 95 % interval."""
    needed_holm: int | None
    """At the scatter as observed, with Holm's correction at its hardest step: 5 % over the number of pairs."""
    detectable: dict[int, float]
    """Number of seeds -> minimum detectable difference at the scatter as observed, this pair by itself."""


@dataclass(frozen=True)
class Plan:
    """What all pairs need, and what that takes."""

    folder: Path
    comparison: str
    metric: Metric
    power: float
    pairs: tuple[PairPlan, ...]
    seeds: int
    """Announced seeds of the comparison."""
    arms: int
    """Runs that one more seed takes."""
    run_s: float
    """Charged seconds of a run."""
    extends: bool
    """Whether this code may add seeds to the folder. Code that has changed since has to begin anew, with its configuration."""

    def announced(self, pair: PairPlan) -> int | None:
        """Seeds that the comparison has to have for `pair` to get those that it needs; None for no number.

        Seeds that gave no pair (a run diverged) are not made up for by more of the same number.
        """
        return None if pair.needed is None else self.seeds + max(0, pair.needed - pair.seeds)

    def extra_s(self, seeds: int) -> float:
        """Charged seconds of `command` for so many announced seeds, 0 where none is missing."""
        if seeds <= self.seeds:
            return 0.0
        return (seeds - (self.seeds if self.extends else 0)) * self.arms * self.run_s

    def command(self, seeds: int) -> str:
        """What runs them."""
        words = ["extend", str(self.folder)] if self.extends else ["run", str(self.folder / "comparison.yaml")]
        return shlex.join(["isochron", *words, "--seeds", str(seeds)])


def plan(
    folder: Path,
    *,
    difference: float | None = None,
    metric: str | None = None,
    power: float = 0.8,
    arms: Sequence[str] = (),
) -> Plan:
    """Plan seeds for every arm against the reference of its batch policy, or for one pair of `arms`, by label.

    Args:
        folder: of a comparison.
        difference: to be found, in the metric's unit, not 0; its sign does not matter. Default: each pair's observed one.
        metric: name; default: the headline metric.
        power: probability of finding it, between 0.05 and 1.
        arms: none, or two labels.

    Raises:
        UserError: an unknown metric or arm, a value out of range, or no pair has two finished seeds in common.
    """
    if not ALPHA < power < 1:
        raise UserError(f"power must lie between {ALPHA:g} and 1, got {power:g}")
    if difference is not None and (not math.isfinite(difference) or difference == 0):
        raise UserError(f"difference must be a number other than 0, got {difference:g}")
    summary = summarise(open_comparison(folder))
    comparison = summary.comparison
    names = {each.name: each for each in comparison.metrics}
    if metric is not None and metric not in names:
        raise UserError(f"metric {metric!r} is not measured; choose one of {', '.join(names)}")
    chosen = names[metric] if metric else comparison.headline
    pairs = _pairs(summary, arms)
    usable = [
        (arm, reference, found) for arm, reference in pairs if len(found := _differences(arm, reference, chosen)) > 1
    ]
    if not usable:
        raise UserError(f"{folder}: no pair has two finished seeds in common: no scatter to plan with; add seeds first")
    return Plan(
        folder,
        f"{comparison.record.name} ({comparison.record.preset})",
        chosen,
        power,
        tuple(_plan_pair(*each, difference, power, len(usable)) for each in usable),
        len(comparison.record.seeds),
        len(comparison.arms),
        comparison.span_s,
        code_of(folder) == code_hash(),
    )


def _pairs(summary: Summary, arms: Sequence[str]) -> list[tuple[ArmSummary, ArmSummary]]:
    if not arms:
        return [(pair.arm, pair.reference) for pair in compare(summary)]
    if len(arms) != 2 or arms[0] == arms[1]:
        raise UserError(f"arms must be two different ones, got {', '.join(arms)}")
    labels = {arm.arm.label for arm in summary.arms}
    if unknown := [arm for arm in arms if arm not in labels]:
        raise UserError(f"arms: there is no {unknown[0]!r}; choose two of {', '.join(sorted(labels))}")
    found = []
    for policy in summary.comparison.policies:
        here = {arm.arm.label: arm for arm in summary.of_policy(policy)}
        if all(arm in here for arm in arms):
            found.append((here[arms[0]], here[arms[1]]))
    return found


def _differences(arm: ArmSummary, reference: ArmSummary, metric: Metric) -> list[float]:
    """Arm minus reference, by common seed."""
    ours, theirs = arm.finals[metric.name], reference.finals[metric.name]
    return [value - theirs[seed] for seed, value in ours.items() if seed in theirs]


def _plan_pair(
    arm: ArmSummary, reference: ArmSummary, found: list[float], asked: float | None, power: float, family: int
) -> PairPlan:
    mean, interval, count = stats.mean_interval(found)
    scatter, ends, _ = stats.scatter_interval(found)
    wanted = abs(mean if asked is None else asked)

    def needed(deviation: float, alpha: float = ALPHA) -> int | None:
        try:
            return stats.seeds_needed(deviation, wanted, power=power, alpha=alpha)
        except UserError:  # no difference at all, or too small a one
            return None

    low, high = ends or (scatter, scatter)
    return PairPlan(
        arm=arm.arm.label,
        reference=reference.arm.label,
        policy=arm.arm.policy,
        seeds=count,
        difference=mean,
        interval=interval,
        scatter=scatter,
        scatter_interval=ends,
        asked=wanted,
        needed=needed(scatter),
        needed_low=needed(low),
        needed_high=needed(high),
        needed_holm=needed(scatter, ALPHA / family),
        detectable={seeds: scatter * stats.detectable_at(seeds, power=power) for seeds in SEEDS},
    )


def to_json(found: Plan) -> dict[str, Any]:
    """Everything, with what the seeds of each pair take."""
    pairs = []
    for pair in found.pairs:
        row = asdict(pair)
        if (announced := found.announced(pair)) is not None:
            row |= {"more_charged_s": found.extra_s(announced)}
            row |= {"command": found.command(announced) if announced > found.seeds else ""}
        pairs.append(row)
    return {
        "comparison": found.comparison,
        "metric": found.metric.name,
        "power": found.power,
        "seeds": found.seeds,
        "arms": found.arms,
        "run_s": found.run_s,
        "pairs": pairs,
    }


def render(found: Plan, *, observed: bool) -> str:
    """The plan as a Markdown table; `observed` says that each pair's own difference is what is to be found."""
    digits, family = found.metric.digits, len(found.pairs)
    headings = ["pair", "policy", "seeds", "difference", "SD of paired differences", "to find"]
    headings += ["seeds needed (at the ends of the SD)", *(["with Holm"] if family > 1 else [])]
    headings += [*(f"MDE at {seeds}" for seeds in SEEDS), "more charged time"]
    rows: list[list[str]] = []
    commands: list[tuple[int, str]] = []
    for pair in found.pairs:
        ends = f" ({_seeds(pair.needed_low)} to {_seeds(pair.needed_high)})"
        row = [f"{pair.arm} - {pair.reference}", pair.policy, str(pair.seeds)]
        shown = text.fixed(pair.difference, digits, signed=True)
        row.append(text.with_interval(shown, text.ends(pair.interval, digits, signed=True)))
        row.append(text.with_interval(text.significant(pair.scatter), _significant(pair.scatter_interval)))
        row += [text.significant(pair.asked), _seeds(pair.needed) + ends]
        row += [_seeds(pair.needed_holm)] if family > 1 else []
        row += [text.significant(pair.detectable[seeds]) for seeds in SEEDS]
        announced = found.announced(pair)
        extra = math.inf if announced is None else found.extra_s(announced)
        row.append(text.TimeScale(extra)(extra) if 0 < extra < math.inf else "none" if extra == 0 else text.NOTHING)
        rows.append(row)
        if 0 < extra < math.inf and announced is not None:
            commands.append((announced, f"{pair.arm} - {pair.reference}, {pair.policy}"))
    alone = "each pair by itself, as the table's verdicts are"
    notes = [f"Power {text.percent(found.power, 0)}, two-sided 5 %, paired t-test; {alone}."]
    if family > 1:
        notes.append(
            f"With Holm: the hardest of its steps over these {family} pairs, 5 % / {family}, at the SD as it is."
        )
    if observed:
        notes.append(
            "To find: the difference that was observed. It is a guess too, and too large where it was noticed for its size; "
            "better name the smallest one that matters with --difference."
        )
    if min(pair.seeds for pair in found.pairs) < 10:
        notes.append(
            "The SD of few seeds is a guess: believe the range in brackets before the number (docs/statistics.md)."
        )
    time = text.TimeScale(found.run_s)(found.run_s)
    counted = "missing seeds" if found.extends else "all seeds"
    notes.append(f"More charged time: {counted} x {found.arms} arms x {time}; set-up and evaluation come on top.")
    if commands and not found.extends:
        notes.append(
            "Other code made these runs, and seeds of two codes are not one sample: the commands start a new comparison."
        )
    title = f"Seeds for a difference of {found.metric.label}: {found.comparison}"
    made = to_markdown(table("seeds", title, headings, rows, tuple(notes)))
    lines = [f"\n    {found.command(seeds)}  # enough for {what}" for seeds, what in sorted(commands)]
    return made + "".join(lines) + ("\n" if lines else "")


def _seeds(number: int | None) -> str:
    return "> 1,000,000" if number is None else f"{number:,}"


def _significant(interval: Interval | None) -> tuple[str, str] | None:
    return None if interval is None else (text.significant(interval.low), text.significant(interval.high))
