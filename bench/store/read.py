"""Read a result folder (layout: ``docs/store.md``). Typed, lazy, without torch; nothing here writes.

``open_comparison`` reads ``comparison.json`` and nothing else; every other file is read, checked and kept when it is first
asked for. A file that is missing, torn in the middle or of another schema or protocol is a `UserError` that names it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel
from pydantic_core import from_json

from bench.aggregates import Value
from bench.contracts import Metric, SampleRecord
from bench.errors import UserError
from bench.parse import checking
from bench.store.files import read_json, require_version
from bench.store.schema import (
    SCHEMA,
    Arm,
    ComparisonRecord,
    Evaluation,
    Event,
    LearnNothing,
    LedgerRecord,
    Measured,
    RunRecord,
    Sentinel,
)

MISSING = "not started"
"""Status of a run that the comparison announces but that has no folder yet."""

RecordT = TypeVar("RecordT", bound=BaseModel)


@dataclass(frozen=True)
class Run:
    """One arm, one seed. ``record`` is None where the run has not started."""

    folder: Path
    arm: Arm
    seed: int
    record: RunRecord | None

    @property
    def status(self) -> str:
        """``finished``, ``diverged``, ``out-of-memory``, ``failed``, ``invalid``, ``running`` or ``not started``."""
        return self.record.status if self.record else MISSING

    @property
    def finished(self) -> bool:
        """Whether the run's numbers may stand in a table."""
        return self.status == "finished"

    @property
    def facts(self) -> RunRecord:
        """``run.json``, or a `UserError` where the run has not started."""
        if self.record is None:
            raise UserError(f"{self.folder}: the run has not started; run `isochron resume` on the comparison")
        return self.record

    @cached_property
    def events(self) -> tuple[Event, ...]:
        """Every step, in order."""
        events = tuple(_read_lines(self.folder / "events.jsonl", Event))
        _require_increasing(self.folder / "events.jsonl", [event.step for event in events], "step")
        return events

    @cached_property
    def evaluations(self) -> tuple[Evaluation, ...]:
        """Every evaluation, in order of the budget."""
        evaluations = tuple(_read_lines(self.folder / "evals.jsonl", Evaluation))
        fractions = [evaluation.fraction for evaluation in evaluations]
        _require_increasing(self.folder / "evals.jsonl", fractions, "fraction")
        return evaluations

    @cached_property
    def result(self) -> Evaluation:
        """The last, annealed, full evaluation: the run's result."""
        path = self.folder / "evals.jsonl"
        last = self.evaluations[-1] if self.evaluations else None
        if last is None or last.quick or not last.annealed or last.fraction != 1.0:
            raise UserError(
                f"{path}: holds no final evaluation (fraction 1.0, annealed, not quick); the run is no result"
            )
        return last

    @cached_property
    def ledger(self) -> LedgerRecord:
        """Where the run's seconds went."""
        return _read_object(self.folder / "ledger.json", LedgerRecord)


@dataclass(frozen=True)
class Comparison:
    """A result folder. ``runs`` lists every announced arm and seed, also those that never started."""

    folder: Path
    record: ComparisonRecord
    metrics: tuple[Metric, ...]
    _measured: dict[str, Measured] = field(default_factory=dict, repr=False)

    @property
    def arms(self) -> tuple[Arm, ...]:
        """The arms in the order of the configuration."""
        return self.record.arms

    @property
    def headline(self) -> Metric:
        """The metric that curves, crossover and verdicts read."""
        return self.metrics[0]

    @property
    def policies(self) -> tuple[str, ...]:
        """The batch policies in the order in which the arms name them."""
        return tuple(dict.fromkeys(arm.policy for arm in self.arms))

    def measured(self, arm: Arm) -> Measured:
        """What was measured once for this arm."""
        if arm.name not in self._measured:
            self._measured[arm.name] = _read_object(self.folder / "arms" / f"{arm.name}.json", Measured)
        return self._measured[arm.name]

    @cached_property
    def span_s(self) -> float:
        """Seconds that a run was given or, where the budget counts something else, that the longest one took."""
        if self.record.budget_s is not None:
            return self.record.budget_s
        return max((run.facts.spent_s for run in self.runs if run.finished), default=1.0)

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """Every announced run, arm by arm, seed by seed."""
        return tuple(self._run(arm, seed) for arm in self.arms for seed in self.record.seeds)

    def runs_of(self, arm: Arm) -> tuple[Run, ...]:
        """The announced runs of one arm, by seed."""
        return tuple(run for run in self.runs if run.arm.name == arm.name)

    @cached_property
    def learn_nothing(self) -> tuple[LearnNothing, ...]:
        """Baselines that learn nothing; empty where the task offers none."""
        path = self.folder / "references.json"
        if not path.exists():
            return ()
        entries = read_json(path)
        if not isinstance(entries, list):
            raise UserError(f"{path}: must hold a list of baselines, holds {type(entries).__name__}; restore the file")
        return tuple(_validate(path, entry, LearnNothing) for entry in entries)

    @cached_property
    def sentinels(self) -> tuple[Sentinel, ...]:
        """Sentinel measurements in the order of time; empty where there is no file."""
        path = self.folder / "sentinel.jsonl"
        return tuple(_read_lines(path, Sentinel)) if path.exists() else ()

    def _run(self, arm: Arm, seed: int) -> Run:
        folder = self.folder / "runs" / arm.name / f"seed-{seed}"
        path = folder / "run.json"
        if not path.exists():
            return Run(folder, arm, seed, None)
        raw = read_json(path)
        require_version(path, raw, SCHEMA)
        record = _validate(path, raw, RunRecord)
        if (record.arm, record.seed) != (arm.name, seed):
            raise UserError(
                f"{path}: says arm {record.arm!r}, seed {record.seed}; its folder says otherwise: move it back"
            )
        return Run(folder, arm, seed, record)


def open_comparison(folder: str | Path) -> Comparison:
    """Open a result folder.

    Raises:
        UserError: the folder or its ``comparison.json`` is missing or damaged, or of another schema or protocol.
    """
    folder = Path(folder)
    path = folder / "comparison.json"
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the folder that `isochron run` printed")
    if not path.exists():
        raise UserError(f"{folder}: holds no comparison.json; give the folder of a comparison, not of a run")
    raw = read_json(path)
    require_version(path, raw, SCHEMA)
    record = _validate(path, raw, ComparisonRecord)
    names = [arm.name for arm in record.arms]
    if len(set(names)) < len(names):
        raise UserError(f"{path}: arms: two have the same name in {names}; names must be unique")
    if not record.task.metrics:
        raise UserError(f"{path}: task.metrics is empty; name at least the headline metric")
    try:
        metrics = tuple(Metric(**metric) for metric in record.task.metrics)
    except TypeError as error:
        raise UserError(f"{path}: task.metrics: {error}; see docs/store.md") from None
    if metrics[0].higher_is_better is None:
        raise UserError(
            f"{path}: task.metrics: the first, {metrics[0].name}, has no better side; put one first that has"
        )
    return Comparison(folder, record, metrics)


def metric_values(records: tuple[SampleRecord, ...], metric: str) -> dict[str, Value]:
    """The metric of each sample by name; samples for which it is undefined are left out."""
    return {str(record["sample"]): record[metric] for record in records if record.get(metric) is not None}


def _validate(path: Path, raw: Any, kind: type[RecordT], where: str = "") -> RecordT:
    with checking(f"{path}{where}", "see docs/store.md"):
        return kind.model_validate(raw)


def _read_object(path: Path, kind: type[RecordT]) -> RecordT:
    return _validate(path, read_json(path), kind)


def _read_lines(path: Path, kind: type[RecordT]) -> Iterator[RecordT]:
    """Objects of a .jsonl file. A last line that is torn (a crash while it was appended) is ignored."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError:
        raise UserError(f"{path}: is missing; restore it, or run the comparison again") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            raw = from_json(line)  # twice as fast as json, and most of what reading takes
        except ValueError:
            if number == len(lines):
                return
            raise UserError(f"{path}: line {number} is damaged; restore the file, or run again") from None
        yield _validate(path, raw, kind, where=f" line {number}")


def _require_increasing(path: Path, values: list[Any], key: str) -> None:
    for before, after in itertools.pairwise(values):
        if after <= before:
            raise UserError(f"{path}: {key} {after} follows {before}; the lines must be in order: restore the file")
