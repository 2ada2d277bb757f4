"""What the tables and figures of every task read from the measurements."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from bench.report.paper.published import Published
from bench.stats import Estimate, median_interval
from bench.store.efficiency import Call, Efficiency

Theirs = Mapping[str, Published]


def latency(call: Call | None) -> Estimate | None:
    """Milliseconds of a call: median over the rounds with its interval."""
    return median_interval(call.times_ms) if call is not None and call.times_ms else None


def memory(call: Call | None) -> float | None:
    """Bytes beyond the weights: the most that a call makes at once, and what is kept for it."""
    return None if call is None or call.live_bytes is None else float(call.live_bytes + call.held_bytes)


def quotient(first: Call | None, second: Call | None) -> Estimate | None:
    """First over second, round by round: both saw the same machine."""
    if first is None or second is None or not (first.times_ms and second.times_ms):
        return None
    return median_interval([one / other for one, other in zip(first.times_ms, second.times_ms, strict=True)])


def exponent(values: Mapping[int, Iterable[float]]) -> Estimate | None:
    """Slope of log value over log views: median over the rounds. Takes views -> a value a round; needs three views."""
    rounds = [list(series) for series in values.values()]
    if len(rounds) < 3:
        return None
    x = np.log(np.array(list(values), dtype=np.float64))
    slopes = np.polyfit(x, np.log(np.array(rounds, dtype=np.float64)), 1)[0]
    return median_interval(slopes)


def over(first: float | None, second: float | None) -> float | None:
    """Their quotient, None where one is missing."""
    return None if first is None or second is None else first / second


def sources(*entries: Published) -> tuple[str, ...]:
    """A sentence each on where published numbers come from."""
    return tuple(entry.sentence() for entry in entries)


def here(efficiency: Efficiency, size: str, call: str) -> str:
    """The sentence that says where and how times were measured, at which size, and what a call is made on."""
    record, device = efficiency.record, efficiency.record.device
    loads = [group.load for group in efficiency.groups]
    threads = f"{device.threads} thread{'' if device.threads == 1 else 's'}"
    cores = f", {threads} on {device.cores} cores" if device.kind == "cpu" else ""
    return (
        f"Here: {device.name}{cores}, {size}, {record.precision}, torch {device.torch}, eager, {call}; {record.timed_by}, "
        f"median of {record.rounds} interleaved rounds [95 % interval]; load average {min(loads, default=0):.1f} to "
        f"{max(loads, default=0):.1f}."
    )
