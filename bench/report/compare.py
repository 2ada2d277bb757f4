"""Two results beside each other: the same comparison, or efficiency measurement, of another commit, device or budget.

What differs comes first; only rows that mean the same thing are joined, all others are listed with the reason. The same
results give the same bytes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from bench import stats
from bench.contracts import Metric
from bench.errors import UserError
from bench.report import text
from bench.report.changes import Change, change, quotient, show_median, show_quotient, verdict
from bench.report.comparable import (
    Apart,
    arm_obstacles,
    circumstances,
    metric_obstacles,
    quality_obstacles,
    same_runs,
    same_streams,
    samples,
    task_obstacles,
)
from bench.report.compare_efficiency import contrast_efficiency
from bench.report.contrast import DEVICES_NOTE, TIMES_NOTE, Contrast, csv_row, table
from bench.report.sentences import gate_sentence
from bench.report.summary import ArmSummary, Summary, summarise
from bench.report.tables import Raw
from bench.stats import Estimate, Interval
from bench.store.bundle import unpacked
from bench.store.efficiency import RECORD, open_efficiency
from bench.store.files import read_json
from bench.store.read import open_comparison
from bench.store.scaling import RECORD as SCALING
from bench.store.schema import Rate

QUALITY_NOTE = (
    "A, B: mean over the finished seeds [95 % interval over seeds]. B - A: paired by seed where both saw the same training "
    "samples, else Welch's interval for two samples. Same: the whole interval is below half of the last digit. Cannot tell: "
    "it holds 0; the MDE is what so many seeds would have found in 8 of 10 cases. Each verdict stands at 95 % for itself."
)


def compare(a: Path, b: Path, vouched: Collection[str] = ()) -> list[Contrast]:
    """Compare two result folders or bundles; of bundles with several folders, those of the same name and preset.

    Args:
        a: the first.
        b: the second; differences are b - a, quotients b / a.
        vouched: options (``task.data_seed``, or an arm's ``align_input``) that make no difference, as the reader says, such as
            one that only the later version knows. They are listed all the same.

    Raises:
        UserError: one is no result, or they have nothing in common.
    """
    with _folders(a) as first, _folders(b) as second:
        if len(first) == len(second) == 1:
            second = dict(zip(first, second.values(), strict=True))
        common = [key for key in first if key in second]
        if not common:
            raise UserError(f"{a}, {b}: hold no result of the same name ({', '.join(first)}; {', '.join(second)})")
        lone = [Apart(key, "only in A") for key in first if key not in second]
        lone += [Apart(key, "only in B") for key in second if key not in first]
        found = []
        for key in common:
            kinds = [(side[key] / RECORD).is_file() for side in (first, second)]
            if kinds[0] != kinds[1]:
                raise UserError(f"{a}, {b}: {key}: one is a comparison, the other an efficiency measurement")
            found.append(
                contrast_efficiency(open_efficiency(first[key]), open_efficiency(second[key]), vouched)
                if kinds[0]
                else contrast(summarise(open_comparison(first[key])), summarise(open_comparison(second[key])), vouched)
            )
    if lone:
        found.append(Contrast("Results that only one of them holds", (), tuple(lone), (), (), ()))
    return found


@contextlib.contextmanager
def _folders(path: Path) -> Iterator[dict[str, Path]]:
    """Name and preset -> result folder, of a folder or of all in a bundle."""
    if path.is_dir():
        yield _named([path])
        return
    if not path.exists():
        raise UserError(f"{path}: is not there; give a result folder or a bundle")
    with unpacked(path) as bundle:
        try:
            yield _named([*bundle.folders.values()])
        except UserError as error:
            raise UserError(str(error).replace(f"{bundle.root}/", f"{path}: ")) from None


def _named(folders: Sequence[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in folders:
        name = next((name for name in (RECORD, "comparison.json") if (folder / name).is_file()), None)
        if (folder / SCALING).is_file():
            raise UserError(f"{folder}: holds scaling curves; compare their parts, costs/CURVE or points/CURVE/VALUE")
        if name is None:
            raise UserError(f"{folder}: holds neither comparison.json nor {RECORD}; give a result folder or a bundle")
        record = read_json(folder / name)
        key = f"{record['name']}-{record['preset']}"
        if key in found:
            raise UserError(f"{key}: is in the bundle twice; unpack it and compare the folders one by one")
        found[key] = folder
    return found


def contrast(a: Summary, b: Summary, vouched: Collection[str] = ()) -> Contrast:
    """Compare two comparisons arm by arm; see `compare`."""
    differing = circumstances(a).differences(circumstances(b))
    told, apart = task_obstacles(a, b, vouched), []
    about_quality = [*told, *quality_obstacles(a, b)]
    if about_quality:
        apart.append(Apart("quality of every arm", "; ".join(about_quality)))
    arms, others = ({(arm.arm.label, arm.arm.policy): arm for arm in side.arms} for side in (a, b))
    apart += [Apart(arm.title, "only in A") for key, arm in arms.items() if key not in others]
    apart += [Apart(arm.title, "only in B") for key, arm in others.items() if key not in arms]
    metrics = _metrics(a, b, apart)
    name = f"{a.comparison.record.name}-{a.comparison.record.preset}"
    device = a.comparison.record.device, b.comparison.record.device
    other_device = any(
        getattr(device[0], key) != getattr(device[1], key) for key in ("kind", "name", "cores", "threads")
    )
    quality: list[tuple[str, ...]] = []
    cost: list[tuple[str, ...]] = []
    verdicts: list[str] = []
    rows: list[dict[str, Raw]] = []
    for key in (key for key in arms if key in others):
        one, other = arms[key], others[key]
        if reasons := arm_obstacles(one, other, vouched):
            apart.append(Apart(one.title, "; ".join(reasons)))
            continue
        head: dict[str, Raw] = {"result": name, "row": key[0], "policy": key[1]}
        for metric in metrics if not about_quality else ():
            if samples(one, metric) != samples(other, metric):
                apart.append(Apart(f"{one.title}, {metric.label}", "other test samples"))
                continue
            found = change(one.finals[metric.name], other.finals[metric.name], paired=same_streams(one, other))
            quality.append(_quality_cells(one, other, metric, found))
            rows.append(head | _quality_row(one, other, metric, found))
            if metric.name == a.comparison.headline.name:
                ends = text.ends(found.interval, metric.digits, signed=True)
                size = text.with_interval(text.fixed(found.mean, metric.digits, signed=True), ends)
                verdicts.append(f"{one.title}: {verdict(found, metric)}; B - A: {size}{text.unit(metric)}")
        work = [(arm.measured.parameters, arm.measured.flops) for arm in (one, other)]
        timed = not told or work[0] == work[1]
        if not timed:
            apart.append(Apart(f"{one.title}, times", "; ".join(told)))
        cells, measured = _cost(one, other, timed)
        cost.append((*key, *cells))
        rows += [head | row for row in measured]
    if same_runs(a, b):
        verdicts.append("A and B hold the same runs: nothing was measured twice, and being equal says nothing")
    if vouched:
        verdicts.append(f"taken as equal, as asked: {', '.join(sorted(vouched))}")
    headline = a.comparison.headline.label
    for letter, side in (("A", a), ("B", b)):
        verdicts += [] if side.conclusive else [f"{letter} is inconclusive by itself: {gate_sentence(side)}"]
    rows += [{"result": name, "row": row, "not_comparable": reason} for row, reason in apart]
    tables = [
        table(
            "quality",
            f"Quality at the end of the budget (verdicts above: {headline})",
            QUALITY_HEADINGS,
            quality,
            (QUALITY_NOTE,),
        ),
        table("cost", "Cost", COST_HEADINGS, cost, (TIMES_NOTE, *([DEVICES_NOTE] if other_device else []))),
    ]
    return Contrast(
        f"{name}: A against B",
        tuple(differing),
        tuple(apart),
        tuple(verdicts),
        tuple(table for table in tables if table.rows),
        tuple(rows),
    )


def _metrics(a: Summary, b: Summary, apart: list[Apart]) -> list[Metric]:
    """The metrics that are the same on both sides; the others are told in `apart`."""
    metrics, others = ({metric.name: metric for metric in side.comparison.metrics} for side in (a, b))
    apart += [Apart(f"metric {name}", "only in A") for name in metrics if name not in others]
    apart += [Apart(f"metric {name}", "only in B") for name in others if name not in metrics]
    common = []
    for name in (name for name in metrics if name in others):
        if reasons := metric_obstacles(metrics[name], others[name]):
            apart.append(Apart(f"metric {name}", "; ".join(reasons)))
        else:
            common.append(metrics[name])
    return common


QUALITY_HEADINGS = (
    "arm",
    "batch policy",
    "metric",
    "A",
    "B",
    "B - A [95 % interval]",
    "MDE",
    "seeds A, B",
    "by",
    "B is",
)


def _quality_cells(a: ArmSummary, b: ArmSummary, metric: Metric, found: Change) -> tuple[str, ...]:
    values = [stats.mean_interval(list(arm.finals[metric.name].values())) for arm in (a, b)]
    ends = text.ends(found.interval, metric.digits, signed=True)
    return (
        a.arm.label,
        a.arm.policy,
        metric.label,
        *(text.estimate(value, metric.digits) for value in values),
        text.with_interval(text.fixed(found.mean, metric.digits, signed=True), ends),
        text.fixed(found.detectable, metric.digits),
        f"{len(a.finished)}/{len(a.runs)}, {len(b.finished)}/{len(b.runs)}",
        found.by,
        verdict(found, metric),
    )


def _quality_row(a: ArmSummary, b: ArmSummary, metric: Metric, found: Change) -> dict[str, Raw]:
    first, second = (stats.mean_interval(list(arm.finals[metric.name].values())) for arm in (a, b))
    row = csv_row(metric.name, first, second, "difference", Estimate(found.mean, found.interval, 0))
    counts = {"seeds_a": len(a.finals[metric.name]), "seeds_b": len(b.finals[metric.name])}
    return row | counts | {"mde": found.detectable, "method": found.method, "verdict": verdict(found, metric)}


COST_HEADINGS = (
    "arm", "batch policy", "parameters", "GFLOP/sample (fwd)", "GFLOP/sample (training)", "optimizer batch",
    "samples/s training A", "B", "B / A", "samples/s inference A", "B", "B / A", "latency (ms) A", "B", "B / A",
)  # fmt: skip


def _cost(a: ArmSummary, b: ArmSummary, timed: bool) -> tuple[list[str], list[dict[str, Raw]]]:
    """Cells and CSV rows of what two arms cost; quotients of times only where they are of the same work."""
    first, second = a.measured, b.measured
    counts = {
        "parameters": (first.parameters, second.parameters),
        "forward_flops_per_sample": (first.flops.forward_per_sample, second.flops.forward_per_sample),
        "training_flops_per_sample": (first.flops.training_per_sample, second.flops.training_per_sample),
        "optimizer_batch": (first.batch.optimizer_batch, second.batch.optimizer_batch),
    }
    cells: list[str] = []
    rows: list[dict[str, Raw]] = []
    for name, (one, other) in counts.items():
        cells.append(_count(one, other, 1e9 if "flops" in name else 1))
        rows.append({"quantity": name, "a": one, "b": other, "verdict": "same" if one == other else "different"})
    inference = [measured.inference for measured in (first, second)]
    times = {
        "train_samples_per_s": (a.train_rate, b.train_rate),
        "inference_samples_per_s": tuple(_rate(found.samples_per_s if found else None) for found in inference),
        "latency_ms": tuple(_rate(found.latency_ms if found else None) for found in inference),
    }
    for name, (before, after) in times.items():
        ratio = quotient(before, after) if timed else None
        cells += [show_median(before), show_median(after), show_quotient(ratio)]
        rows.append(csv_row(name, before, after, "quotient", ratio))
    return cells, rows


def _count(a: float, b: float, unit: float) -> str:
    """One number where both are equal to the last digit; else both, and how many times as much the second is."""
    shown = [text.significant(value / unit) if unit > 1 else f"{value:,}" for value in (a, b)]
    return shown[0] if a == b else f"A {shown[0]}, B {shown[1]} (× {text.significant(b / a, 6)})"


def _rate(rate: Rate | None) -> Estimate | None:
    if rate is None:
        return None
    interval = None if rate.low is None or rate.high is None else Interval(rate.low, rate.high)
    return Estimate(rate.median, interval, 0)
