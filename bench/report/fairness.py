"""The checklist under every table: was each arm treated alike, and did the measurement hold?"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from bench.report.summary import ArmSummary
from bench.report.text import percent
from bench.store.read import Comparison, Run

LOADER_WAIT = 0.02
SENTINEL_DRIFT = 0.03
UNACCOUNTED = 0.005
ROUNDING_S = 1e-6
"""Seconds by which stored numbers may miss a bound through rounding."""


@dataclass(frozen=True)
class Check:
    """One line of the checklist. ``passed`` is None where the result folder does not tell."""

    name: str
    passed: bool | None
    value: str

    @property
    def verdict(self) -> str:
        """``pass``, ``FAIL`` or ``not recorded``."""
        return "not recorded" if self.passed is None else "pass" if self.passed else "FAIL"


def checklist(comparison: Comparison, arms: Sequence[ArmSummary]) -> list[Check]:
    """Every promise of the protocol that the result folder can prove or refute, over the finished runs."""
    runs = [run for summary in arms for run in summary.finished]
    return [
        _loader_wait(arms),
        _sample_stream(runs),
        _evaluations(comparison, runs),
        Check("same precision for all arms", True, comparison.record.precision),
        _tuning(comparison),
        _pretrained(arms),
        _sentinel(comparison),
        _ledger(comparison),
        _overshoot(runs),
    ]


def _title(run: Run) -> str:
    return f"{run.arm.label} ({run.arm.policy}), seed {run.seed}"


def _loader_wait(arms: Sequence[ArmSummary]) -> Check:
    name = "loader wait below 2 % of charged time, every arm"
    shares = {}
    for summary in arms:
        charged = sum(run.ledger.charged for run in summary.finished)
        if charged > 0:
            shares[summary.title] = (
                sum(run.ledger.categories.get("data_wait", 0.0) for run in summary.finished) / charged
            )
    if not shares:
        return Check(name, None, "no finished run")
    worst = max(shares, key=lambda title: shares[title])
    return Check(name, shares[worst] < LOADER_WAIT, f"largest {percent(shares[worst], 2)}: {worst}")


def _sample_stream(runs: list[Run]) -> Check:
    name = "same sample stream for all arms, seed by seed"
    digests: dict[int, set[str | None]] = defaultdict(set)
    for run in runs:
        digests[run.seed].add(run.facts.stream_sha256)
    if not runs or any(None in found for found in digests.values()):
        return Check(name, None, "run.json holds no stream_sha256" if runs else "no finished run")
    unequal = sorted(seed for seed, found in digests.items() if len(found) > 1)
    return Check(name, not unequal, f"differs in seeds {unequal}" if unequal else "one digest a seed")


def _evaluations(comparison: Comparison, runs: list[Run]) -> Check:
    name = "same evaluations: number, fractions of the budget, test samples"
    if not runs:
        return Check(name, None, "no finished run")
    announced = comparison.record.eval_fractions
    names = {str(record["sample"]) for record in runs[0].result.records}
    for run in runs:
        if tuple(evaluation.fraction for evaluation in run.evaluations) != announced:
            return Check(name, False, f"{_title(run)}: {len(run.evaluations)} evaluations, announced {len(announced)}")
        if {str(record["sample"]) for record in run.result.records} != names:
            return Check(name, False, f"{_title(run)}: other test samples than {_title(runs[0])}")
    return Check(name, True, f"{len(announced)} in each run, {len(names)} test samples at the end")


def _tuning(comparison: Comparison) -> Check:
    name = "same tuning seconds for all arms"
    seconds = comparison.record.tuning.seconds_per_arm
    if isinstance(seconds, dict):
        low, high = min(seconds.values(), default=0.0), max(seconds.values(), default=0.0)
        return Check(name, high <= low * (1 + UNACCOUNTED), f"{low:,.1f} to {high:,.1f} s an arm")
    return Check(name, True, f"{seconds:,.1f} s an arm")


def _pretrained(arms: Sequence[ArmSummary]) -> Check:
    name = "pretrained parts on none or all arms"
    if any(summary.arm.pretrained is None for summary in arms):
        return Check(name, None, "comparison.json does not say")
    have = [summary.title for summary in arms if summary.arm.pretrained]
    return Check(name, len(have) in (0, len(arms)), ", ".join(have) if have else "none")


def _sentinel(comparison: Comparison) -> Check:
    name = "sentinel drift ≤ 3 % in every block"
    rates: dict[int, list[float]] = defaultdict(list)
    for measurement in comparison.sentinels:
        rates[measurement.block].append(measurement.rate)
    if not rates:
        return Check(name, None, "no sentinel.jsonl")
    drifts = {block: _drift(found) for block, found in rates.items()}
    worst = max(drifts, key=lambda block: drifts[block])
    return Check(
        name, drifts[worst] <= SENTINEL_DRIFT, f"largest {percent(drifts[worst])} from the median: block {worst}"
    )


def _drift(rates: list[float]) -> float:
    """Largest relative distance of a reading from the median of its block, as the engine flags it."""
    middle = statistics.median(rates)
    return max(abs(rate / middle - 1) for rate in rates) if middle > 0 else 1.0


def _ledger(comparison: Comparison) -> Check:
    name = "ledger balances within 0.5 % of wall time, every run"
    runs = [run for run in comparison.runs if run.finished or run.status == "invalid"]
    if not runs:
        return Check(name, None, "no finished run")
    worst = max(runs, key=lambda run: abs(run.ledger.unaccounted_fraction))
    share = abs(worst.ledger.unaccounted_fraction)
    passed = share <= UNACCOUNTED and all(run.ledger.valid and run.finished for run in runs)
    return Check(name, passed, f"largest {percent(share, 3)}: {_title(worst)}")


def _overshoot(runs: list[Run]) -> Check:
    name = "overshoot ≤ last step minus half the expected step, every run"
    if not runs:
        return Check(name, None, "no finished run")
    worst = max(runs, key=lambda run: run.facts.overshoot_s)
    bad = [run for run in runs if run.facts.overshoot_s > _overshoot_bound(run) + ROUNDING_S]
    if bad:
        run = bad[0]
        return Check(
            name, False, f"{_title(run)}: {run.facts.overshoot_s:.4f} s, allowed {_overshoot_bound(run):.4f} s"
        )
    return Check(name, True, f"largest {worst.facts.overshoot_s:.3f} s: {_title(worst)}")


def _overshoot_bound(run: Run) -> float:
    if run.facts.overshoot_bound_s is not None:
        return run.facts.overshoot_bound_s
    return max(0.0, run.facts.last_step_s - 0.5 * run.facts.expected_step_s)
