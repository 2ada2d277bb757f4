"""The A/A gate: one arm under two names must tie. How often it does not is what the harness itself gets wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.config import Comparison
from bench.console import Console
from bench.errors import UserError
from bench.experiment import execute
from bench.stats import paired_difference
from bench.store.files import write_json
from bench.store.read import open_comparison


@dataclass(frozen=True)
class Repetition:
    """One A/A comparison."""

    folder: str
    difference: float
    """Mean paired difference of the headline metric."""
    low: float
    high: float
    """95 % interval."""
    ties: bool
    """Whether the interval contains 0."""


@dataclass(frozen=True)
class GateOutcome:
    """What the gate found."""

    arm: str
    metric: str
    seeds: int
    budget: str
    repetitions: tuple[Repetition, ...]

    @property
    def false_positive_rate(self) -> float:
        """Share of the repetitions that did not tie; 5 % is nominal."""
        return sum(not repetition.ties for repetition in self.repetitions) / len(self.repetitions)

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, for ``--json``."""
        return {**asdict(self), "false_positive_rate": self.false_positive_rate}

    def render(self) -> str:
        """For people."""
        lines = [f"A/A gate: {self.arm} against itself, {self.seeds} seeds, {self.budget} each, {self.metric}"]
        for number, repetition in enumerate(self.repetitions, start=1):
            verdict = "ties" if repetition.ties else "DIFFERS"
            lines.append(
                f"  {number:>3}  {repetition.difference:+.3f} [{repetition.low:+.3f}, {repetition.high:+.3f}]  {verdict}"
            )
        wrong = sum(not repetition.ties for repetition in self.repetitions)
        lines.append(
            f"false positives: {wrong} of {len(self.repetitions)} ({100 * self.false_positive_rate:.0f} %; 5 % is nominal)"
        )
        return "\n".join(lines)


def run_gate(
    comparison: Comparison,
    folder: Path,
    *,
    repetitions: int,
    arm: str | None,
    stop_requested: Callable[[], bool],
    console: Console,
    cache_dir: Path,
) -> GateOutcome:
    """Run the gate `repetitions` times with fresh seeds each time.

    Raises:
        UserError: fewer than two seeds, or no such arm.
        Interrupted: the user asked to stop.
    """
    from bench.engine.blocks import Interrupted

    if len(comparison.seeds) < 2:
        raise UserError(f"--seeds {len(comparison.seeds)}: the gate needs at least 2 seeds for an interval")
    label = arm or comparison.reference_arm
    chosen = next((candidate for candidate in comparison.arms if candidate.name == label), None)
    if chosen is None:
        raise UserError(f"--arm {label!r}: is none of {', '.join(candidate.name for candidate in comparison.arms)}")
    twins = tuple(chosen.model_copy(update={"name": f"{label}-{twin}"}) for twin in ("a", "b"))
    count = len(comparison.seeds)
    done = []
    metric = ""
    for number in range(repetitions):
        repeated = comparison.model_copy(
            update={
                "arms": twins,
                "reference": twins[0].name,
                "batch": comparison.batch[:1],
                "seeds": tuple(range(number * count, (number + 1) * count)),
            }
        )
        place = folder / f"repetition-{number + 1:02d}"
        session = execute.start(repeated, place, stop_requested=stop_requested, console=console, cache_dir=cache_dir)
        try:
            session.execute()
        except Interrupted:
            raise Interrupted(f"{folder}: the gate was stopped after {number} of {repetitions} repetitions") from None
        result = open_comparison(place)
        metric = result.headline.label
        finals = [
            {run.seed: run.facts.final[result.headline.name] for run in result.runs_of(arm_record) if run.finished}
            for arm_record in result.arms
        ]
        estimate = paired_difference(finals[1], finals[0], higher_is_better=result.headline.higher_is_better)
        if estimate.interval is None:
            raise UserError(
                f"{place}: fewer than two finished pairs, no interval; see its table for what became of the runs"
            )
        low, high = estimate.interval
        done.append(Repetition(str(place), estimate.mean, low, high, low <= 0.0 <= high))
        console.say(f"repetition {number + 1}/{repetitions}: {estimate.mean:+.3f} [{low:+.3f}, {high:+.3f}]")
    budget = f"{comparison.budget.amount:g} {comparison.budget.unit}"
    outcome = GateOutcome(label, metric, count, budget, tuple(done))
    write_json(folder / "aa.json", outcome.to_dict())
    return outcome
