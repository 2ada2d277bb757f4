"""The memory and throughput curve of every arm, without training anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.config import Comparison
from bench.console import Console
from bench.experiment import measure, resolve


def survey(comparison: Comparison, *, console: Console, cache_dir: Path) -> dict[str, Any]:
    """Probe every arm and say what was found: label -> limit, line through the peaks, knee, and the curve."""
    expanded = resolve.expand(comparison)
    device = resolve.pick_device(expanded.device)
    expanded = expanded.model_copy(update={"threads": resolve.pick_threads(expanded.threads), "device": str(device)})
    task = resolve.make_task(expanded, cache_dir)
    found: dict[str, Any] = {}
    for arm in resolve.expand_arms(expanded):
        if arm.label in found:
            continue
        fit = measure.fit_batch(expanded, cache_dir, task, arm, device, console.say)
        found[arm.label] = {
            "limit_bytes": fit.limit_bytes,
            "max_fit": fit.max_fit,
            "knee": fit.knee,
            "fit": {"a": fit.a, "b": fit.b},
            "curve": [point.to_record() for point in fit.curve],
        }
        console.say(
            f"\n{arm.label}: memory limit {fit.limit_bytes / 2**20:.0f} MiB, peak = {fit.a / 2**20:.1f} MiB + batch x {fit.b / 2**20:.2f} MiB"
        )
        console.say(f"  {'batch':>7} {'peak MiB':>10} {'filled':>7} {'samples/s':>10}")
        for point in fit.curve:
            peak = "-" if point.peak_bytes is None else f"{point.peak_bytes / 2**20:.0f}"
            filled = "-" if point.peak_bytes is None else f"{100 * point.peak_bytes / fit.limit_bytes:.0f} %"
            rate = "-" if point.samples_per_s is None else f"{point.samples_per_s:.1f}"
            marks = [name for name, batch in (("fill", fit.max_fit), ("knee", fit.knee)) if batch == point.batch]
            console.say(
                f"  {point.batch:>7} {peak:>10} {filled:>7} {rate:>10}  {' '.join(marks) if point.fits else 'does not fit'}"
            )
    return found
