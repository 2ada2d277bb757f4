from __future__ import annotations

import pytest
import torch

from bench.engine.sentinel import drift, make_kernel, measure


class FakeClock:
    def __init__(self) -> None:
        self.time = 0

    def now(self) -> int:
        return self.time

    wall = cpu = now


def test_rate_is_iterations_per_second_of_the_fixed_time() -> None:
    clock, calls = FakeClock(), []

    def kernel() -> None:
        calls.append(clock.time)
        clock.time += 4_000_000

    assert measure(kernel, clock) == pytest.approx(250.0)
    assert 1.0e9 <= clock.time <= 1.1e9  # one second, the warm-up and at most one round too many


def test_an_asynchronous_device_is_waited_for() -> None:
    clock, pending = FakeClock(), []

    def synchronize() -> None:
        clock.time += 4_000_000 * len(pending)
        pending.clear()

    rate = measure(lambda: pending.append(1), clock, synchronize=synchronize)
    assert rate == pytest.approx(250.0)
    assert not pending


def test_warm_up_is_not_counted() -> None:
    clock, calls = FakeClock(), []

    def kernel() -> None:
        calls.append(1)
        clock.time += 10**9 if len(calls) == 1 else 10**7

    assert measure(kernel, clock, repeats=4) == pytest.approx(100.0)


def test_drift_is_the_largest_distance_from_the_median() -> None:
    assert drift([100.0, 101.0, 93.0]) == pytest.approx(0.07)
    assert drift([100.0, 100.0, 100.0, 120.0]) == pytest.approx(0.2)
    assert drift([5.0]) == drift([]) == 0.0


def test_the_kernel_runs_and_leaves_the_random_stream_alone() -> None:
    before = torch.get_rng_state()
    make_kernel(torch.device("cpu"))()
    assert torch.equal(before, torch.get_rng_state())
