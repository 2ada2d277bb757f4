"""The parts of a table as cells: quality, cost, paired differences, four views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench import FEW_STEPS, stats
from bench.report import text
from bench.report.sentences import VIEW_NAMES, crossover_sentence, winner_changes
from bench.report.summary import ArmSummary, Pair, Summary, ViewStanding
from bench.store.schema import Rate


@dataclass(frozen=True)
class Cell:
    """A formatted cell."""

    text: str
    bold: bool = False


@dataclass(frozen=True)
class Section:
    """A small table with a title and the sentences that belong under it."""

    title: str
    headings: tuple[str, ...]
    names: int
    """How many leading columns hold names (set left); the others hold numbers."""
    rows: tuple[tuple[Cell, ...], ...]
    rule_before: int | None = None
    """Row before which a rule sets the rest apart."""
    sentences: tuple[str, ...] = ()


ARROWS = {True: "↑", False: "↓", None: ""}
QUALITY_SENTENCE = (
    "Mean over the finished seeds [95 % interval over seeds]. Bold: not significantly worse than the best of the "
    "column (paired by seed, corrected by Holm for the number of rows; ties after rounding share it). An arm that lacks seeds is never the best against arms "
    "that have them, and is bold only where it is significantly better on the others."
)

NO_RANKING_SENTENCE = (
    "Mean over the finished seeds [95 % interval over seeds]. Nothing is bold: the comparison is inconclusive."
)


def quality_sections(summary: Summary, bold: Mapping[str, Mapping[str, bool]]) -> list[Section]:
    """Final quality of each arm, then the baselines that learn nothing; a table for each group of metrics."""
    groups = dict.fromkeys(metric.group for metric in summary.comparison.metrics)
    return [_quality_section(summary, bold, group) for group in groups]


def _quality_section(summary: Summary, bold: Mapping[str, Mapping[str, bool]], group: str) -> Section:
    metrics = [metric for metric in summary.comparison.metrics if metric.group == group]
    rows = []
    for arm in summary.arms:
        cells = [Cell(arm.arm.label), Cell(arm.arm.policy)]
        for metric in metrics:
            value = stats.mean_interval(list(arm.finals[metric.name].values()))
            cells.append(Cell(text.estimate(value, metric.digits), bold[metric.name][arm.arm.name]))
        rows.append((*cells, Cell(_seeds(arm))))
    for entry in summary.comparison.learn_nothing:
        values = [Cell(text.fixed(entry.value(metric), metric.digits)) for metric in metrics]
        rows.append((Cell(f"{entry.label} (learns nothing)"), Cell(text.NOTHING), *values, Cell(text.NOTHING)))
    headings = [f"{metric.label} {ARROWS[metric.higher_is_better]}".rstrip() for metric in metrics]
    return Section(
        title="Quality at the end of the budget" + f": {group}" * bool(group),
        headings=("arm", "batch policy", *headings, "seeds finished"),
        names=2,
        rows=tuple(rows),
        rule_before=len(summary.arms) if summary.comparison.learn_nothing else None,
        sentences=() if group else (QUALITY_SENTENCE,) if summary.conclusive else (NO_RANKING_SENTENCE,),
    )


def _seeds(arm: ArmSummary) -> str:
    remarks = [f"seed {run.seed} {run.status}" for run in arm.runs if not run.finished]
    flagged = [str(run.seed) for run in arm.finished if run.facts.flags]
    if flagged:
        remarks.append(f"seed{'s' if len(flagged) > 1 else ''} {', '.join(flagged)} flagged")
    counts = f"{len(arm.finished)}/{len(arm.runs)}"
    return f"{counts} ({'; '.join(remarks)})" if remarks else counts


def cost_section(summary: Summary) -> Section:
    """What each arm costs. Memory at inference has a column only where it was measured."""
    rows = []
    with_memory = any(arm.measured.inference and arm.measured.inference.peak_bytes for arm in summary.arms)
    unit = next((arm.measured.inference.unit for arm in summary.arms if arm.measured.inference), "samples")
    one = "one sample" if unit == "samples" else f"one sample, divided by its {unit}"
    for arm in summary.arms:
        measured, inference = arm.measured, arm.measured.inference
        train = arm.train_rate
        low, high = train.interval or (None, None)
        rate = measured.learning_rate
        peak = inference.peak_bytes if inference else None
        rows.append(
            (
                Cell(arm.arm.label),
                Cell(arm.arm.policy),
                Cell(f"{measured.parameters:,}"),
                Cell(text.significant(measured.flops.forward_per_sample / 1e9)),
                Cell(text.significant(measured.flops.training_per_sample / 1e9)),
                Cell(f"{measured.batch.micro_batch:,}"),
                Cell(_optimizer_batch(arm)),
                Cell(f"{rate.value:.3g}" if rate else text.NOTHING),
                Cell(text.percent(measured.batch.memory_filled)),
                Cell(text.rate(train.value, low, high)),
                Cell(_rate(inference.units_per_s if inference else None)),
                Cell(_rate(inference.unit_latency_ms if inference else None)),
                *([Cell(text.NOTHING if peak is None else text.size(peak))] if with_memory else []),
                Cell(_steps(arm)),
            )
        )
    return Section(
        title="Cost",
        headings=(
            "arm",
            "batch policy",
            "parameters",
            "GFLOP/sample (fwd), 1 MAC = 2 FLOPs",
            "GFLOP/sample (training)",
            "micro-batch",
            "optimizer batch",
            "learning rate (peak)",
            "memory filled",
            "samples/s training",
            f"{unit}/s inference",
            "latency (ms)" if unit == "samples" else f"ms/{unit.removesuffix('s')}",
            *(["memory at inference"] if with_memory else []),
            "steps (mean)",
        ),
        names=2,
        rows=tuple(rows),
        sentences=(
            "samples/s: median [interval of at least 95 %]; in training over tenths of each run, all charged time "
            f"included. Latency: {one}, median [interval]. Steps: mean over the finished seeds (each seed's own).",
        ),
    )


def _rate(rate: Rate | None) -> str:
    return text.rate(rate.median, rate.low, rate.high) if rate else text.NOTHING


def _optimizer_batch(arm: ArmSummary) -> str:
    chosen = arm.measured.batch.optimizer_batch
    other = {run.seed: run.facts.optimizer_batch for run in arm.finished}
    remarks = [f"seed {seed}: {batch:,}" for seed, batch in other.items() if batch not in (None, chosen)]
    return f"{chosen:,} ({'; '.join(remarks)})" if remarks else f"{chosen:,}"


def _steps(arm: ArmSummary) -> str:
    steps = {run.seed: run.facts.steps for run in arm.finished}
    if not steps:
        return text.NOTHING
    few = [str(seed) for seed, count in steps.items() if count < FEW_STEPS]
    each = f" ({', '.join(f'{count:,}' for count in steps.values())})" if 1 < len(steps) <= 5 else ""
    warning = f", fewer than {FEW_STEPS} in seed {', '.join(few)}" if few else ""
    return f"{text.fixed(sum(steps.values()) / len(steps), 0)}{each}{warning}"


def paired_section(summary: Summary, pairs: Sequence[Pair]) -> Section:
    """Differences against the reference arm of the same policy, and the crossover."""
    rows, sentences = [], []
    time = text.TimeScale(summary.comparison.span_s)
    for pair in pairs:
        for metric in summary.comparison.metrics:
            difference = pair.differences[metric.name]
            ends = text.ends(difference.interval, metric.digits, signed=True)
            value = text.with_interval(text.fixed(difference.mean, metric.digits, signed=True), ends)
            rows.append(
                (
                    Cell(f"{pair.arm.arm.label} - {pair.reference.arm.label}"),
                    Cell(pair.arm.arm.policy),
                    Cell(metric.label),
                    Cell(value if difference.count != 1 else f"{value} (1 seed: no interval)"),
                    Cell(_p_better(summary, difference)),
                    Cell(text.fixed(difference.detectable, metric.digits)),
                    Cell(str(difference.count)),
                )
            )
        names = pair.arm.arm.label, pair.reference.arm.label
        if summary.conclusive:
            sentences.append(f"{pair.arm.arm.policy}: {crossover_sentence(pair.crossover, *names, time)}.")
    return Section(
        title=f"Paired by seed, against {summary.comparison.record.reference}",
        headings=("difference", "batch policy", "metric", "mean [95 % interval]", "P(better)", "MDE", "pairs"),
        names=3,
        rows=tuple(rows),
        sentences=tuple(sentences),
    )


def _p_better(summary: Summary, difference: stats.PairedDifference) -> str:
    return text.probability(difference.p_better) if summary.conclusive else text.NOTHING


def unit_section(summary: Summary, pairs: Sequence[Pair]) -> Section:
    """Differences against the reference arm over what the test samples have in common, such as a clip."""
    unit, rows = summary.comparison.record.task.pairing, []
    for pair in pairs:
        for metric in summary.comparison.metrics:
            difference = pair.unit_differences.get(metric.name)
            if difference is None or not difference.count:
                continue
            ends = text.ends(difference.interval, metric.digits, signed=True)
            rows.append(
                (
                    Cell(f"{pair.arm.arm.label} - {pair.reference.arm.label}"),
                    Cell(pair.arm.arm.policy),
                    Cell(metric.label),
                    Cell(text.with_interval(text.fixed(difference.mean, metric.digits, signed=True), ends)),
                    Cell(_p_better(summary, difference)),
                    Cell(str(difference.count)),
                )
            )
    return Section(
        title=f"Paired by {unit}, against {summary.comparison.record.reference}",
        headings=("difference", "batch policy", "metric", "mean [95 % interval]", "P(better)", f"{unit}s"),
        names=3,
        rows=tuple(rows),
        sentences=(
            f"Each {unit} stands for the mean over the seeds that both arms finished; the interval is over test {unit}s (a paired bootstrap "
            f"from {stats.BOOTSTRAP_FROM} on, Student's t below). Only metrics that are means over samples. It says how sure the difference of these trained networks is on other {unit}s of the kind; whether other "
            "seeds would repeat it, the section above says.",
        ),
    )


def views_section(summary: Summary, standings: Sequence[ViewStanding]) -> Section:
    """Who leads at equal time, steps, samples and FLOPs."""
    metric = summary.comparison.headline
    labels = tuple(dict.fromkeys(arm.arm.label for arm in summary.arms))
    rows = []
    for standing in standings:
        values = dict(zip((arm.arm.label for arm in standing.arms), standing.quality, strict=True))
        annealed = dict(zip((arm.arm.label for arm in standing.arms), standing.annealed, strict=True))
        cells = [
            Cell(text.fixed(values[label], metric.digits) + ("" if annealed[label] else " †"))
            if label in values
            else Cell(text.NOTHING)
            for label in labels
        ]
        rows.append(
            (
                Cell(standing.policy),
                Cell(VIEW_NAMES[standing.view]),
                Cell(_position(summary, standing, standing.position)),
                *cells,
                _lead(summary, standing),
                _since(summary, standing),
            )
        )
    total = len(summary.curve_samples)
    sentences = [
        f"{metric.label} at the largest position that all arms of a policy reach, interpolated between evaluations, on the "
        f"{total} test samples that every evaluation scores. † not annealed: taken on the way, before the learning rate "
        "reached 0.",
        *(winner_changes(standings) if summary.conclusive else ()),
    ]
    return Section(
        title="Four views of the same runs",
        headings=("batch policy", "view", "at", *labels, "leader", "leads since"),
        names=2,
        rows=tuple(rows),
        sentences=tuple(sentences),
    )


def _position(summary: Summary, standing: ViewStanding, position: float) -> str:
    if standing.view == "time":
        return text.TimeScale(summary.comparison.span_s)(position)
    if standing.view == "flops":
        return f"{text.significant(position / 1e12)} TFLOP"
    return f"{text.fixed(position, 0)} {standing.view}"


def _since(summary: Summary, standing: ViewStanding) -> Cell:
    since = standing.since
    if not summary.conclusive or since is None or since.winner != 0 or standing.lead.mean == 0:
        return Cell(text.NOTHING)
    return Cell("first evaluation" if since.from_start else _position(summary, standing, since.position))


def _lead(summary: Summary, standing: ViewStanding) -> Cell:
    metric, lead = summary.comparison.headline, standing.lead
    if not summary.conclusive:
        return Cell("no ranking")
    if lead.mean == 0:
        return Cell("level")
    oriented = 1 if metric.higher_is_better else -1
    size = text.fixed(oriented * lead.mean, metric.digits)
    ends = None
    if lead.interval:
        ends = sorted((oriented * lead.interval.low, oriented * lead.interval.high))
    shown = text.with_interval(size, [text.fixed(end, metric.digits) for end in ends] if ends else None)
    doubt = "" if lead.significant else " (1 seed)" if lead.count == 1 else " (not significant)"
    return Cell(f"{standing.arms[standing.leader].arm.label} by {shown}{doubt}")
