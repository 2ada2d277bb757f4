"""What two results have in common and what not: everything that differs, and which of it forbids to compare them."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from bench.contracts import Metric
from bench.report import text
from bench.report.summary import ArmSummary, Summary
from bench.store.files import read_json
from bench.store.read import metric_values
from bench.store.results import ELSEWHERE

ABSENT = "not there"
DEFINITION = ("name", "higher_is_better", "aggregate", "key")
"""What a metric is; its label, digits and note are how it is told."""


class Difference(NamedTuple):
    """One thing that is not the same."""

    what: str
    a: str
    b: str


class Apart(NamedTuple):
    """A row that cannot be compared."""

    row: str
    reason: str


@dataclass(frozen=True)
class Circumstances:
    """What a result says of itself beside its numbers, each as text under a name."""

    values: Mapping[str, str]

    def differences(self, other: Circumstances) -> list[Difference]:
        """Everything that is not the same in `other`, in the order of both."""
        return [
            Difference(name, self.values.get(name, ABSENT), other.values.get(name, ABSENT))
            for name in dict.fromkeys([*self.values, *other.values])
            if self.values.get(name, ABSENT) != other.values.get(name, ABSENT)
        ]


def flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Names and texts of everything in a nested value. A folder or file of a machine is told by its last part alone."""
    if isinstance(value, BaseModel):
        value = value.model_dump()
    if isinstance(value, Mapping) and value:
        for key, part in value.items():
            yield from flat(part, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple) and any(isinstance(part, Mapping) for part in value):
        for number, part in enumerate(value, start=1):
            yield from flat(part, f"{name}[{number}]")
    elif isinstance(value, str):
        yield name, ELSEWHERE + Path(value).name if value.startswith(("/", "~")) else value or "empty"
    elif isinstance(value, float):
        yield name, f"{value:.12g}"
    elif isinstance(value, list | tuple):
        yield name, f"({', '.join(found for part in value for _, found in flat(part))})"
    else:
        yield (
            name,
            {None: "not set", True: "on", False: "off"}[value]
            if value is None or isinstance(value, bool)
            else str(value),
        )


def origin(folder: Path) -> dict[str, str]:
    """Commit, sources and software behind a result folder, as far as it tells."""
    found: dict[str, str] = {}
    if (path := folder / "provenance" / "git.json").is_file():
        git = read_json(path)
        found["commit"] = f"{str(git.get('commit') or 'none')[:12]}{', with changes' if git.get('dirty') else ''}"
        found["SHA-256 of the sources"] = str(git.get("code_sha256"))[:12]
    if (path := folder / "provenance" / "environment.json").is_file():
        environment = read_json(path)
        found |= {key: str(environment.get(key)) for key in ("python", "system")}
    return found


def fingerprints(folder: Path) -> dict[str, str]:
    """Split -> digest of its data, where the result pinned them."""
    path = folder / "pinned.json"
    return dict(read_json(path).get("data") or {}) if path.is_file() else {}


def circumstances(summary: Summary) -> Circumstances:
    """Everything about a comparison but its numbers; arms and their options only where they decide nothing."""
    comparison, record = summary.comparison, summary.comparison.record
    found = {"comparison": record.name, "preset": record.preset, "status": record.status, **origin(comparison.folder)}
    found |= {"protocol": record.protocol, "budget": budget(summary), "precision": record.precision}
    found |= {f"device.{name}": value for name, value in flat(record.device)}
    found |= dict(flat({"seeds": record.seeds, "evaluated at": record.eval_fractions, "tuning": record.tuning}))
    found |= {f"task.{name}": value for name, value in flat({"name": record.task.name, **record.task.options})}
    found |= {f"data, {split}": digest[:12] for split, digest in fingerprints(comparison.folder).items()}
    for metric in comparison.metrics:
        found |= {f"metric {metric.name}, {name}": value for name, value in flat(metric._asdict())}
    for arm in summary.arms:
        told = {"options": arm.arm.options, "training": arm.arm.training or {}, "weights": arm.arm.pretrained_parts}
        found |= {f"{arm.title}, {name}": value for name, value in flat(told)}
        found[f"{arm.title}, optimizer batch"] = f"{arm.measured.batch.optimizer_batch:,}"
    if rates := [measurement.rate for measurement in comparison.sentinels]:
        found["sentinel (median, 1/s)"] = text.significant(statistics.median(rates))
    found |= {f"warning {number}": line for number, line in enumerate(record.warnings, start=1)}
    return Circumstances(found)


def budget(summary: Summary) -> str:
    """What each run was given."""
    record = summary.comparison.record
    if record.budget_s is not None:
        return f"{record.budget_s:g} s"
    return f"{record.budget.get('amount', 0):g} {record.budget.get('unit', '')}"


def task_obstacles(a: Summary, b: Summary, vouched: Collection[str]) -> list[str]:
    """Why nothing of two comparisons but their counts can stand side by side: another task, preset, or option of the task.

    `vouched` are options (``task.data_seed``) that make no difference, as the reader says.
    """
    first, second = a.comparison, b.comparison
    found = [
        f"{what}: {one}, {other}"
        for what, one, other in (
            ("task", first.record.task.name, second.record.task.name),
            ("preset", first.record.preset, second.record.preset),
        )
        if one != other
    ]
    pinned = fingerprints(first.folder)
    same_data = bool(pinned) and pinned == fingerprints(second.folder)
    options, others = dict(flat(first.record.task.options)), dict(flat(second.record.task.options))
    for name in dict.fromkeys([*options, *others]):
        one, other = options.get(name, ABSENT), others.get(name, ABSENT)
        # Where the data lay says nothing once their digests agree.
        if f"task.{name}" in vouched:
            continue
        if one != other and not (same_data and (one.startswith(ELSEWHERE) or other.startswith(ELSEWHERE))):
            found.append(f"task.{name}: {one}, {other}")
    return found


def quality_obstacles(a: Summary, b: Summary) -> list[str]:
    """Why no quality can be compared, beside `task_obstacles`: other data, another budget."""
    found = [f"budget: {budget(a)}, {budget(b)}"] if budget(a) != budget(b) else []
    first, second = fingerprints(a.comparison.folder), fingerprints(b.comparison.folder)
    other = [split for split in first if split in second and first[split] != second[split]]
    return [*found, *([f"data: other {', '.join(other)}"] if other else [])]


def arm_obstacles(a: ArmSummary, b: ArmSummary, vouched: Collection[str]) -> list[str]:
    """Why two arms of one name are not the same arm."""
    told = [{"architecture": arm.arm.architecture, **arm.arm.options} for arm in (a, b)]
    return option_obstacles(told[0], told[1], vouched)


def option_obstacles(a: Mapping[str, Any], b: Mapping[str, Any], vouched: Collection[str]) -> list[str]:
    """Options that are not the same, but for those that make no difference, as the reader says."""
    differing = Circumstances(dict(flat(a))).differences(Circumstances(dict(flat(b))))
    return [f"{name}: {one}, {other}" for name, one, other in differing if name not in vouched]


def metric_obstacles(a: Metric, b: Metric) -> list[str]:
    """Why two metrics of one name are not the same metric."""
    return [
        f"{name}: {getattr(a, name)}, {getattr(b, name)}" for name in DEFINITION if getattr(a, name) != getattr(b, name)
    ]


def samples(arm: ArmSummary, metric: Metric) -> frozenset[str]:
    """Names of the test samples behind an arm's values of a metric."""
    return frozenset(name for run in arm.finished for name in metric_values(run.result.records, metric.key))


def same_streams(a: ArmSummary, b: ArmSummary) -> bool:
    """Whether both saw the same training samples in every seed that both finished, and there are two such seeds."""
    streams = [{run.seed: run.facts.stream_sha256 for run in arm.finished} for arm in (a, b)]
    common = streams[0].keys() & streams[1].keys()
    return len(common) >= 2 and all(streams[0][seed] and streams[0][seed] == streams[1][seed] for seed in common)


def same_runs(a: Summary, b: Summary) -> bool:
    """Whether the finished runs of both are the very same ones: equal to the nanosecond, record by record."""
    spent = [
        {(arm.title, run.seed): (run.facts.spent_s, run.result.records) for arm in side.arms for run in arm.finished}
        for side in (a, b)
    ]
    return bool(spent[0]) and spent[0] == spent[1]
