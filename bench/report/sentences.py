"""What a table says in sentences: verdicts, crossovers, remarks on runs, and how it was measured."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from bench.contracts import Metric
from bench.report import text
from bench.report.settings import learning_rate_lines, option_lines, training_lines
from bench.report.summary import Pair, Summary, ViewStanding
from bench.stats import Crossover, PairedDifference

POLICIES = {
    "fill": "the optimizer batch is the largest micro-batch that fits the declared memory",
    "knee": "the smallest batch with at least 95 % of the best samples/s",
    "fixed": "the stated optimizer batch",
}
AGGREGATES = {
    "median": "the median over samples",
    "pooled": "sums over all samples, then their quotient",
    "frechet": "",
    "kernel": "",
}
COUNTED = "pixels of a class are counted over all samples"
"""Of every definition of `bench.class_counts`."""
VIEW_NAMES = {"time": "equal time", "steps": "equal steps", "samples": "equal samples", "flops": "equal FLOPs"}


FEW_WEIGHTS = 3
"""So many weights are named one by one."""


def verdict(difference: PairedDifference, metric: Metric, arm: str, reference: str) -> str:
    """What the paired difference allows to say, in plain words."""
    number, unit, digits = difference.count, text.unit(metric), metric.digits
    if number == 0:
        return f"no seed of both {arm} and {reference} finished: nothing can be compared"
    ahead = difference.mean > 0 if metric.higher_is_better else difference.mean < 0
    winner, loser = (arm, reference) if ahead else (reference, arm)
    size = text.fixed(abs(difference.mean), digits)
    if difference.interval is None or difference.detectable is None:
        return f"{winner} is ahead of {loser} by {size}{unit}, but 1 seed has no interval: no verdict"
    if difference.significant:
        ends = sorted((abs(difference.interval.low), abs(difference.interval.high)))
        shown = f"[{text.fixed(ends[0], digits)}, {text.fixed(ends[1], digits)}]"
        return f"{winner} is better by {size}{unit} {shown} than {loser} ({number} seeds)"
    seen = text.with_interval(
        text.fixed(difference.mean, digits, signed=True), text.ends(difference.interval, digits, signed=True)
    )
    least = text.fixed(difference.detectable, digits)
    return (
        f"no difference that {number} seeds can show between {arm} and {reference}: {seen}{unit}, "
        f"needs at least {least}{unit} (MDE)"
    )


def verdicts(summary: Summary, pairs: Sequence[Pair]) -> tuple[str, ...]:
    """What the headline metric says, one sentence an arm and policy: the first thing that a reader wants to know.

    Where the task's gate is not passed, that is the whole verdict.
    """
    if not summary.conclusive:
        return (f"Inconclusive, no ranking: {gate_sentence(summary)}.",)
    headline = summary.comparison.headline
    return tuple(
        f"At {pair.arm.arm.policy}: "
        f"{verdict(pair.differences[headline.name], headline, pair.arm.arm.label, pair.reference.arm.label)}."
        for pair in pairs
    )


def gate_sentence(summary: Summary) -> str:
    """How the reference arm stands to what it must beat before arms may be ranked; empty without such a gate."""
    gate = summary.gate
    if gate is None:
        return ""
    asked = f"arms are ranked from {gate.gate.margin:g} on"
    if gate.arm is None:
        return f"no run of {summary.comparison.record.reference} has finished under every batch policy, and {asked}"
    if gate.floor is None:
        return f"'{gate.label}', which learns nothing, was not scored, and {asked}"
    reached, floor, ahead = (text.fixed(value, gate.metric.digits) for value in (gate.reached, gate.floor, gate.ahead))
    return (
        f"{gate.arm.title} reaches {gate.metric.label} {reached}, '{gate.label}', which learns nothing, {floor}: "
        f"{ahead} ahead, and {asked}"
    )


def _definition(metric: Metric) -> str:
    """What a metric is, one line; empty where its label says it all."""
    pooled = "" if metric.aggregate == "mean" else AGGREGATES.get(metric.aggregate, COUNTED)
    parts = [metric.note.rstrip("."), pooled]
    return f"{metric.label}: {'; '.join(filter(None, parts))}." if any(parts) else ""


def crossover_sentence(crossover: Crossover | None, arm: str, reference: str, time: text.TimeScale) -> str:
    """Who takes the lead when: "A overtakes B at 37.0 s [33.0, 41.0], P = 0.94"."""
    if crossover is None:
        return "No common seed, no curves to compare"
    if crossover.winner is None:
        return f"No crossover before {time(crossover.end)}: the curves end level"
    winner, loser = (arm, reference) if crossover.winner == 0 else (reference, arm)
    sure = (
        "1 seed: no interval"
        if crossover.probability is None
        else f"P {text.probability(crossover.probability, equals=True)}"
    )
    if crossover.from_start:
        return (
            f"No crossover before {time(crossover.end)}: {winner} leads from the first evaluation "
            f"({time(crossover.start)}) on, {sure}"
        )
    shown = time(crossover.position)
    if crossover.interval is not None:
        high = crossover.interval.high
        late = time.number(high) if math.isfinite(high) else f"after {time.number(crossover.end)}"
        shown = text.with_interval(shown, (time.number(min(crossover.interval.low, crossover.end)), late))
    return f"{winner} overtakes {loser} at {shown}, {sure}"


def winner_changes(standings: Sequence[ViewStanding]) -> list[str]:
    """Whether all four views of a policy name the same leader, one sentence a policy."""
    sentences = []
    for policy in dict.fromkeys(standing.policy for standing in standings):
        leaders: dict[str, list[str]] = {}
        for standing in standings:
            if standing.policy == policy and standing.lead.mean != 0:
                leaders.setdefault(standing.arms[standing.leader].arm.label, []).append(VIEW_NAMES[standing.view])
        if len(leaders) > 1:
            parts = [f"{label} leads at {' and '.join(views)}" for label, views in leaders.items()]
            sentences.append(f"{policy}: the winner changes with the view: {', '.join(parts)}.")
        elif leaders:
            sentences.append(f"{policy}: {next(iter(leaders))} leads in every view.")
    return sentences


def pretraining_lines(summary: Summary) -> list[str]:
    """What arms start from, where something was trained for all of them before the budget."""
    told: dict[str, list[str]] = {}
    for arm in {summary.arm.label: summary.arm for summary in summary.arms}.values():
        for part in arm.pretrained_parts:
            if "seconds" in part:
                fresh = f" (of its own: {_weights(part['fresh'])})" if part["fresh"] else ""
                told.setdefault(f"{part['name']} ({part['seconds']:,.0f} s, charged to none)", []).append(
                    arm.label + fresh
                )
    return [f"Arms start from common weights, {name}: {', '.join(arms)}." for name, arms in told.items()]


def _weights(names: Sequence[str]) -> str:
    """A few weights by name, more of them by the modules that they belong to."""
    if len(names) <= FEW_WEIGHTS:
        return ", ".join(names)
    owners = Counter(name.partition(".")[0] for name in names)
    return ", ".join(f"{count} in {owner}" for owner, count in owners.items())


def run_notes(summary: Summary) -> tuple[str, ...]:
    """One line for each run that did not finish, was flagged, or came close to the end of its memory."""
    notes = []
    for arm in summary.arms:
        for run in arm.runs:
            reason = f" ({run.record.reason})" if run.record and run.record.reason else ""
            if not run.finished:
                notes.append(f"{arm.title}, seed {run.seed}: {run.status}{reason}; it contributes no number.")
                continue
            remarks = [f"flagged: {'; '.join(run.facts.flags)}"] if run.facts.flags else []
            if run.facts.alloc_retries:
                times = "once" if run.facts.alloc_retries == 1 else f"{run.facts.alloc_retries} times"
                remarks.append(f"the memory allocator flushed and retried {times}, which slows steps down")
            notes += [f"{arm.title}, seed {run.seed}: {'; '.join(remarks)}."] if remarks else []
    return tuple(notes)


def caption(summary: Summary) -> tuple[str, ...]:
    """What must be known to read the numbers: device, budget, memory, policies, training, options, metrics, warnings."""
    record = summary.comparison.record
    device = record.device
    about = [f"{device.kind}: {device.name}"]
    about += [f"{device.cores} cores"] if device.cores else []
    about += [f"{device.threads} thread{'s' if device.threads > 1 else ''}"] if device.threads else []
    about += [f"torch {device.torch}"] if device.torch else []
    about += [f"load {device.load_at_start:.1f} at the start"] if device.load_at_start is not None else []
    budget = f"{record.budget.get('amount', 0):g} {record.budget.get('unit', '')}"
    if record.budget_s is not None:
        budget = f"{text.TimeScale(record.budget_s)(record.budget_s)} charged"
    lines = [" ".join(record.description.split())] if record.description else []
    lines += [
        f"Device: {', '.join(about)}; {record.precision}. Protocol {record.protocol}.",
        f"Budget: {budget} a run, {len(record.seeds)} seed"
        f"{'s' if len(record.seeds) > 1 else ''}, evaluated at {', '.join(f'{x:g}' for x in record.eval_fractions)} of it.",
    ]
    lines += [" ".join(record.caption.split())] if record.caption else []
    if device.memory_limit_bytes:
        lines.append(f"Declared memory for training: {text.size(device.memory_limit_bytes)}.")
    for policy in summary.comparison.policies:
        meaning = POLICIES.get(policy.split(":")[0])
        lines += [f"Batch policy {policy}: {meaning}."] if meaning else []
    lines += pretraining_lines(summary)
    lines += [*learning_rate_lines(summary), *training_lines(summary), *option_lines(summary)]
    lines += [line for metric in summary.comparison.metrics if (line := _definition(metric))]
    if summary.gate is not None and summary.conclusive:
        lines.append(f"{gate_sentence(summary)}.")
    convention = {arm.measured.flops.convention for arm in summary.arms if arm.measured.flops.convention}
    lines += [f"FLOPs: {line}." for line in sorted(convention)]
    return (*lines, *(f"Warning: {line.rstrip('.')}." for line in record.warnings))
