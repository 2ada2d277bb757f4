from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.engine.latency import measure, median_interval, order
from bench.engine.memory import Peak


class FakeClock:
    def __init__(self) -> None:
        self.time = 0

    def now(self) -> int:
        return self.time

    wall = cpu = now


def test_latency_and_throughput_of_interleaved_arms() -> None:
    clock, log = FakeClock(), []

    def arm(name: str, milliseconds: float) -> Callable[[], None]:
        def call() -> None:
            log.append(name)
            clock.time += int(milliseconds * 1e6)

        return call

    results = measure({"A": arm("A", 20.0), "B": arm("B", 5.0)}, 4, 8, clock, warmup=1)
    assert "".join(log) == "AB" + "ABBABAAB" * 2
    assert results["A"].latency_ms == (20.0, 20.0, 20.0)
    assert results["A"].samples_per_s == pytest.approx((200.0, 200.0, 200.0))
    assert results["B"].samples_per_s.median == pytest.approx(800.0)
    record = results["B"].to_record()
    assert set(record) == {"batch", "samples_per_s", "latency_ms", "peak_bytes"}
    assert set(record["latency_ms"]) == {"median", "low", "high"}


def test_a_machine_that_slows_down_slows_both_arms_alike() -> None:
    clock, calls = FakeClock(), []

    def call() -> None:
        calls.append(1)
        clock.time += int(1e6 * (1 + 0.02 * len(calls)))

    results = measure({"A": call, "B": call}, 1, 40, clock)
    a, b = (results[name].latency_ms for name in "AB")
    assert a.median == pytest.approx(b.median, rel=0.02)
    assert a.low < a.median < a.high


def test_the_device_is_waited_for() -> None:
    clock, pending = FakeClock(), []

    def synchronize() -> None:
        clock.time += int(sum(pending) * 1e6)
        pending.clear()

    models = {"A": lambda: pending.append(20.0), "B": lambda: pending.append(5.0)}
    results = measure(models, 1, 6, clock, synchronize=synchronize)
    assert (results["A"].latency_ms.median, results["B"].latency_ms.median) == (20.0, 5.0)


def test_peak_memory_is_measured_arm_by_arm() -> None:
    class Meter:
        def __init__(self) -> None:
            self.now = 0

        def limit(self) -> int:
            return 1

        def start(self) -> None:
            self.now = 0

        def peak(self) -> Peak:
            return Peak(self.now, 0)

    meter = Meter()

    def call(size: int) -> None:
        meter.now = max(meter.now, size)

    results = measure({"A": lambda: call(7), "B": lambda: call(3)}, 1, 6, FakeClockThatRuns(), meter=meter)
    assert (results["A"].peak_bytes, results["B"].peak_bytes) == (7, 3)


class FakeClockThatRuns(FakeClock):
    def now(self) -> int:
        self.time += 1000
        return self.time


@pytest.mark.parametrize("arms", [2, 3, 5])
def test_every_arm_has_every_place_equally_often(arms: int) -> None:
    names = "ABCDE"[:arms]
    places = Counter((name, place) for r in range(2 * arms) for place, name in enumerate(order(names, r)))
    assert set(places.values()) == {2}
    assert len(places) == arms * arms


@pytest.mark.parametrize(("n", "rank"), [(6, 1), (8, 1), (9, 2), (20, 6), (100, 40)])
def test_interval_has_the_tabulated_ranks(n: int, rank: int) -> None:
    interval = median_interval([float(value) for value in range(1, n + 1)])
    assert (interval.low, interval.high) == (rank, n + 1 - rank)


@given(st.lists(st.floats(0.1, 1e6), min_size=1, max_size=60))
def test_interval_holds_the_median(values: list[float]) -> None:
    interval = median_interval(values)
    assert min(values) <= interval.low <= interval.median <= interval.high <= max(values)
