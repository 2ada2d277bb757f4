"""What a comparison would run, how long it takes, and what memory and disk it needs, before anything starts."""

from __future__ import annotations

from pathlib import Path

from bench import config as configuration
from bench.config import Comparison
from bench.engine.memory import available
from bench.experiment import measure, resolve
from bench.machine import free_disk


def plan(comparison: Comparison, cache_dir: Path, out: Path) -> str:
    """The plan as text. Builds no data and trains nothing; parameters and FLOPs are counted on the meta device."""
    expanded = resolve.expand(comparison)
    device = resolve.pick_device(expanded.device)
    expanded = expanded.model_copy(update={"threads": resolve.pick_threads(expanded.threads), "device": str(device)})
    arms = resolve.expand_arms(expanded)
    runs = len(arms) * len(expanded.seeds)
    budget = expanded.budget
    lines = [f"{expanded.name} ({expanded.preset}): {expanded.description}".rstrip(": "), ""]
    weights = 0
    for label in dict.fromkeys(arm.label for arm in arms):
        arm = next(arm for arm in arms if arm.label == label)
        counted = measure.counts(expanded, cache_dir, arm)
        parameters, flops = counted["parameters"], counted["flops"]["forward_per_sample"]
        weights += parameters * 4 * len(expanded.batch) * len(expanded.seeds)
        lines.append(
            f"  {label}: {parameters / 1e6:.2f} M parameters, {flops / 1e9:.3g} GFLOP/sample forward (1 MAC = 2 FLOPs)"
        )
    each = f"{budget.amount:g} charged seconds" if budget.unit == "seconds" else f"{budget.amount:g} {budget.unit}"
    lines += [
        "",
        f"  runs: {len(arms)} arms ({', '.join(arm.name for arm in arms)}) x {len(expanded.seeds)} seeds = {runs}, {each} each",
    ]
    if (asked := expanded.pretraining) is not None:
        lines.append(
            f"  before: {asked.steps} steps of {asked.batch} samples of {asked.arm.name}, which all arms start from"
        )
    tuning = sum(len(arm.training.tune.candidates) * arm.training.tune.budget for arm in arms)
    if budget.unit == "seconds":
        charged = budget.amount * runs
        lines.append(
            f"  time: {_time(charged)} charged{f', {_time(tuning)} of tuning' if tuning else ''}; evaluation, probes and set-up come on "
            f"top (on two cores with the tiny preset about a third as much again, plus preparing the data once)"
        )
    of_arms = {arm.name: arm.options for arm in expanded.arms}
    missing = resolve.missing_places({"task": expanded.task, "arms": of_arms})
    limit = measure.memory_limit(expanded, device)
    lines += [
        f"  device: {device}, {expanded.threads} threads; memory that training may fill: {limit / 2**20:.0f} MiB "
        f"({available() / 2**30:.1f} GiB of main memory are available)",
        f"  batch policies: {', '.join(expanded.batch)}; at most 6 probes an arm, kept in the cache",
        f"  disk: about {(weights + weights // 2) / 2**20:.0f} MiB for weights, states and records under {out} ({free_disk(out) / 2**30:.0f} GiB free)",
        *(f"  not there: {place}; nothing runs before it is" for place in missing),
        "",
        "The resolved configuration:",
        "",
        configuration.dump(expanded),
    ]
    return "\n".join(lines)


def _time(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 600
        else f"{seconds / 60:.0f} min"
        if seconds < 36000
        else f"{seconds / 3600:.1f} h"
    )
