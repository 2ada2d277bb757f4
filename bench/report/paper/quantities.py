"""What the tables and figures of view synthesis read from the measurements, under the names that they show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from bench.report.paper.published import Published
from bench.stats import Estimate, median_interval
from bench.store.efficiency import Call, Efficiency

LVSM, LATENTS, OURS = "lvsm-decoder-only", "lvsm-encoder-decoder", "efficient-lvsm"
FAMILIES = (LVSM, LATENTS, OURS)
CALLS = {
    (LVSM, "full"): "LVSM decoder-only",
    (LATENTS, "full"): "LVSM encoder-decoder",
    (LATENTS, "render"): "LVSM encoder-decoder, from latents",
    (OURS, "full"): "Efficient-LVSM, no cache",
    (OURS, "add"): "Efficient-LVSM, one view added",
    (OURS, "render"): "Efficient-LVSM, from cache",
}
"""Label and mode of what is timed -> its name in tables and figures."""
TARGETS, INPUTS = 8, 4
"""Target views where the input views vary, and the other way round."""
ASYMPTOTIC_FROM = 8
"""Views from which exponents are fitted: below, what does not grow with the views hides what does."""

INCREMENTAL = (4, 8, 16, 32, 48, 64)
"""Input views, the added one included, of the published table."""

Theirs = Mapping[str, Published]


def views(inputs: int, targets: int = TARGETS) -> dict[str, int]:
    """Sizes of a row or a group."""
    return {"input_views": inputs, "target_views": targets}


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


def tflop(efficiency: Efficiency, label: str, sizes: Mapping[str, int], mode: str = "full") -> float | None:
    """Counted forward TFLOP of a row."""
    row = efficiency.count(label, sizes, mode)
    return None if row is None else row.flops / 1e12


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


def here(efficiency: Efficiency) -> str:
    """The sentence that says where and how latencies were measured."""
    record, device = efficiency.record, efficiency.record.device
    loads = [group.load for group in efficiency.groups]
    threads = f"{device.threads} thread{'' if device.threads == 1 else 's'}"
    cores = f", {threads} on {device.cores} cores" if device.kind == "cpu" else ""
    return (
        f"Here: {device.name}{cores}, preset {record.preset} ({record.image_size} px), {record.precision}, torch "
        f"{device.torch}, eager, one scene; {record.timed_by}, median of {record.rounds} interleaved rounds [95 % interval]; load "
        f"average {min(loads, default=0):.1f} to {max(loads, default=0):.1f}."
    )


def sweep(efficiency: Efficiency, vary: str) -> dict[int, dict[tuple[str, str], Call]]:
    """Calls by number of views while `vary` (``input_views`` or ``target_views``) varies, fewest first."""
    fixed = {"target_views": TARGETS} if vary == "input_views" else {"input_views": INPUTS}
    found = {
        group.sizes[vary]: {(call.label, call.mode): call for call in group.calls}
        for group in efficiency.groups
        if fixed.items() <= group.sizes.items()
    }
    return dict(sorted(found.items()))
