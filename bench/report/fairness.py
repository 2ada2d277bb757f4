"""The checklist under every table: was each arm treated alike, and did the measurement hold?"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from bench import LEDGER_TOLERANCE, LOADER_WAIT_LIMIT, SENTINEL_DRIFT_LIMIT
from bench.report.summary import ArmSummary
from bench.report.text import percent
from bench.store.read import Comparison, Run

TUNING_SPREAD = 0.1
"""Share by which the tuning seconds of two arms may differ: a search's last step may end beyond its budget."""
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
        _precision(arms),
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
    return Check(name, shares[worst] < LOADER_WAIT_LIMIT, f"largest {percent(shares[worst], 2)}: {worst}")


def _sample_stream(runs: list[Run]) -> Check:
    name = "same sample stream for all arms, seed by seed"
    digests: dict[int, set[str | None]] = defaultdict(set)
    for run in runs:
        digests[run.seed].add(run.facts.stream_sha256)
    if not runs or any(None in found for found in digests.values()):
        return Check(name, None, "a run has no stream_sha256" if runs else "no finished run")
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


def _precision(arms: Sequence[ArmSummary]) -> Check:
    name = "same precision and compilation for all arms"
    found: dict[str, list[str]] = defaultdict(list)
    for summary in arms:
        training = summary.arm.training or {}
        if not {"precision", "compile"} <= training.keys():
            return Check(name, None, "comparison.json does not say")
        compiled = "compiled, charged" if training.get("charge_compilation") else "compiled, not charged"
        found[f"{training['precision']}, {compiled if training['compile'] else 'not compiled'}"].append(summary.title)
    if len(found) <= 1:
        return Check(name, True, "".join(found))
    return Check(name, False, "; ".join(f"{setting}: {', '.join(titles)}" for setting, titles in found.items()))


def _tuning(comparison: Comparison) -> Check:
    name = "same tuning seconds for all arms, within 10 %"
    seconds = comparison.record.tuning.seconds_per_arm
    if not isinstance(seconds, dict):
        return Check(name, None, f"{seconds:,.1f} s, not arm by arm") if seconds else Check(name, True, "no search")
    spent = {arm.name: seconds.get(arm.name, 0.0) for arm in comparison.arms}
    least, most = min(spent, key=lambda arm: spent[arm]), max(spent, key=lambda arm: spent[arm])
    value = f"{spent[least]:,.1f} s ({least}) to {spent[most]:,.1f} s ({most})"
    return Check(name, spent[most] <= (1 + TUNING_SPREAD) * spent[least], value)


def _pretrained(arms: Sequence[ArmSummary]) -> Check:
    name = "pretrained parts on none or all arms"
    if any(summary.arm.pretrained is None for summary in arms):
        return Check(name, None, "comparison.json does not say")
    have = [summary.title for summary in arms if summary.arm.pretrained]
    parts = {
        frozenset((part.get("name"), part.get("sha256")) for part in summary.arm.pretrained_parts) for summary in arms
    }
    value = ", ".join(have) if have else "none"
    if len(have) == len(arms) and len(parts) > 1:
        return Check(name, False, f"{value}, but not the same parts")
    return Check(name, len(have) in (0, len(arms)), value)


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
        name, drifts[worst] <= SENTINEL_DRIFT_LIMIT, f"largest {percent(drifts[worst])} from the median: block {worst}"
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
    passed = share <= LEDGER_TOLERANCE and all(run.ledger.valid and run.finished for run in runs)
    return Check(name, passed, f"largest {percent(share, 3)}: {_title(worst)}")


def _overshoot(runs: list[Run]) -> Check:
    name = "overshoot within what the stop rule allows, every run"
    if not runs:
        return Check(name, None, "no finished run")
    bounds = [run.facts.overshoot_bound_s for run in runs]
    for run, bound in zip(runs, bounds, strict=True):
        if bound is not None and run.facts.overshoot_s > bound + ROUNDING_S:
            return Check(name, False, f"{_title(run)}: {run.facts.overshoot_s:.4f} s, allowed {bound:.4f} s")
    if None in bounds:
        return Check(name, None, "a run has no overshoot_bound_s")
    worst = max(runs, key=lambda run: run.facts.overshoot_s)
    return Check(name, True, f"largest {worst.facts.overshoot_s:.3f} s: {_title(worst)}")
