from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.contracts import Clock
from bench.engine.clock import Gaps, Heartbeat, SystemClock
from tests.engine.fakes import SECOND


def test_the_system_clock_keeps_its_promises() -> None:
    clock = SystemClock()
    assert isinstance(clock, Clock)
    for read in (clock.now, clock.wall, clock.cpu):
        first = read()
        assert isinstance(first, int)
        assert read() >= first


def beats(*pairs: tuple[float, float]) -> Gaps:
    gaps = Gaps()
    for now, cpu in pairs:
        gaps.beat(int(now * SECOND), int(cpu * SECOND))
    return gaps


def test_a_late_beat_without_cpu_time_is_a_gap() -> None:
    gaps = beats((0.0, 0.0), (0.2, 0.2), (5.2, 0.21), (5.4, 0.41))
    assert gaps.within(0, 10 * SECOND) == 5 * SECOND


def test_a_late_beat_of_a_busy_process_is_work() -> None:
    assert beats((0.0, 0.0), (0.2, 0.2), (5.2, 5.2)).within(0, 10 * SECOND) == 0
    assert beats((0.0, 0.0), (0.2, 0.2), (5.2, 1.5)).within(0, 10 * SECOND) == 0  # on a machine that others load


def test_many_threads_work_until_the_moment_of_the_stop() -> None:
    """Eight threads use 1.6 s of CPU time in the 0.2 s before a stop of 2 s; that does not hide the stop."""
    gaps = beats((0.0, 0.0), (0.2, 1.6), (2.4, 3.2))
    assert gaps.within(0, 10 * SECOND) == int(2.2 * SECOND)


def test_ordinary_beats_leave_no_gap() -> None:
    assert beats(*((0.2 * n, 0.0) for n in range(50))).within(0, 100 * SECOND) == 0


def test_a_rest_is_no_gap() -> None:
    gaps = beats((0.0, 0.0))
    assert gaps.overdue(2 * SECOND)
    gaps.rest()
    assert not gaps.overdue(2 * SECOND)
    gaps.beat(9 * SECOND, 0)
    assert gaps.within(0, 10 * SECOND) == 0


@given(
    spans=st.lists(st.tuples(st.integers(1, 20), st.integers(2, 50)), min_size=1, max_size=6),
    cuts=st.lists(st.integers(0, 400), max_size=8),
)
def test_the_parts_of_a_gap_add_up(spans: list[tuple[int, int]], cuts: list[int]) -> None:
    """However time is cut into spans, each second of a gap falls into exactly one of them."""
    gaps, now, cpu = Gaps(), 0, 0
    gaps.beat(now, cpu)
    for working_seconds, stopped_seconds in spans:
        for _ in range(2 * working_seconds):
            now, cpu = now + SECOND // 2, cpu + SECOND // 2
            gaps.beat(now, cpu)
        now += stopped_seconds * SECOND
        gaps.beat(now, cpu)
    edges = sorted([0, *(min(cut * SECOND, now) for cut in cuts), now])
    asleep = sum(stopped for _, stopped in spans) * SECOND
    assert sum(gaps.within(start, end) for start, end in itertools.pairwise(edges)) == asleep


SLEEPER = """
import signal, sys, time
from bench.engine.clock import Gaps, Heartbeat, SystemClock
from bench.engine.ledger import HostTimeline, Ledger, Stopwatch

clock, gaps, ledger = SystemClock(), Gaps(), Ledger()
watch = Stopwatch(ledger, clock, HostTimeline(clock), gaps)
done = False

def stop(*_):
    global done
    done = True

signal.signal(signal.SIGTERM, stop)
with Heartbeat(clock, gaps):
    watch.start()
    print("ready", flush=True)
    while not done:
        time.sleep(0.002)
        watch.lap("forward")
        watch.wait()
    watch.stop("log")
booked = {name: value / 1e9 for name, value in ledger.booked.items()}
print(booked["idle"], ledger.charged / 1e9, ledger.unaccounted_fraction)
"""


@pytest.mark.slow
def test_a_stopped_process_is_idle_and_not_charged(repo_root: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", SLEEPER], cwd=repo_root, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.7)
        os.kill(process.pid, signal.SIGSTOP)
        stopped = time.monotonic()
        time.sleep(2.5)
        os.kill(process.pid, signal.SIGCONT)
        asleep = time.monotonic() - stopped
        time.sleep(0.3)
        process.terminate()
        idle, charged, unaccounted = map(float, process.stdout.read().split())
        whole = idle + charged
    finally:
        process.kill()
        process.wait()
    # The last beat before the stop and the first one after it are at most a period away, more on a busy machine.
    assert 0.9 * asleep < idle < 1.5 * asleep
    assert charged < whole - 0.9 * asleep
    assert abs(unaccounted) < 0.005


def test_the_heartbeat_beats_from_the_first_moment_and_rests_at_the_end() -> None:
    class Slow(SystemClock):
        beats = 0

        def cpu(self) -> int:
            self.beats += 1
            return super().cpu()

    clock, gaps = Slow(), Gaps(threshold=0.05)
    with Heartbeat(clock, gaps, period=3600.0):
        assert clock.beats == 1
        assert gaps.overdue(clock.now() + SECOND)
    assert not gaps.overdue(clock.now() + SECOND)
