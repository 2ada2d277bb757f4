"""Inference speed of several arms, interleaved so that a machine that changes speed changes it for all of them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from bench.contracts import Clock
from bench.engine.memory import MemoryMeter

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """A median and the interval that covers the true median with 95 % confidence."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class LatencyResult:
    """What one arm's inference costs."""

    batch: int
    """Samples of a call."""
    latency_ms: Interval
    """Milliseconds of a call."""
    peak_bytes: int | None = None
    """Memory that a call takes; None where it was not measured."""

    @property
    def samples_per_s(self) -> Interval:
        """Throughput: the same calls the other way up."""
        median, low, high = self.latency_ms
        return Interval(*(1e3 * self.batch / value for value in (median, high, low)))

    def to_record(self) -> dict[str, Any]:
        """The entry ``inference`` of ``arms/ARM.json``."""
        return {
            "batch": self.batch,
            "samples_per_s": self.samples_per_s._asdict(),
            "latency_ms": self.latency_ms._asdict(),
            "peak_bytes": self.peak_bytes,
        }


def _nothing() -> None:
    pass


def measure(
    models: Mapping[str, Callable[[], object]],
    samples_per_call: int,
    rounds: int,
    clock: Clock,
    *,
    synchronize: Callable[[], None] = _nothing,
    warmup: int = 2,
    meter: MemoryMeter | None = None,
) -> dict[str, LatencyResult]:
    """Time one call of every arm in every round.

    Two arms go A B, B A, then B A, A B: the second round of a pair runs backwards, and the order is rotated from one pair to
    the next, whatever the number of arms.

    Args:
        models: name to a call of the model on a prepared batch, in inference mode.
        samples_per_call: samples of that batch, the same for all arms.
        rounds: calls of every arm that count; 6 is the least for which the interval has 95 % confidence.
        clock: times the calls.
        synchronize: waits for the device, before and after every call.
        warmup: calls of every arm before that, untimed.
        meter: measures the peak memory of the warm-up calls, arm by arm.
    """
    names = list(models)
    peaks: dict[str, int | None] = dict.fromkeys(names)
    for name in names:
        if meter is not None:
            meter.start()
        for _ in range(warmup):
            models[name]()
        synchronize()
        if meter is not None:
            peaks[name] = meter.peak().bytes
    times: dict[str, list[float]] = {name: [] for name in names}
    for round_ in range(rounds):
        for name in order(names, round_):
            synchronize()
            start = clock.now()
            models[name]()
            synchronize()
            times[name].append((clock.now() - start) / 1e6)
    return {name: LatencyResult(samples_per_call, median_interval(times[name]), peaks[name]) for name in names}


def order(names: Sequence[str], round_: int) -> list[str]:
    """Order of the arms in a round: a balanced rotation, each followed by its reverse."""
    shift = (round_ // 2) % len(names)
    rotated = [*names[shift:], *names[:shift]]
    return rotated[::-1] if round_ % 2 else rotated


def median_interval(values: Sequence[float]) -> Interval:
    """Median with its distribution-free 95 % interval, made of order statistics.

    The interval from the k-th smallest to the k-th largest of n values misses the true median with probability
    2 * P(Binomial(n, 1/2) < k), whatever the distribution. With fewer than 6 values no k reaches 95 %, and the interval is
    the whole range.
    """
    if not values:
        raise ValueError("a median needs at least one value")
    ordered, n = sorted(values), len(values)
    k, tail = 0, 0.5**n
    while 2 * tail <= 1 - CONFIDENCE and k < (n - 1) // 2:
        k += 1
        tail += math.comb(n, k) * 0.5**n
    k = max(k, 1)
    return Interval(statistics.median(ordered), ordered[k - 1], ordered[n - k])
