"""Clocks, and the heartbeat that notices when the process was stopped from outside."""

from __future__ import annotations

import threading
import time

from bench.contracts import Clock

NANOSECONDS = 1_000_000_000


class SystemClock:
    """The machine's clocks (`bench.contracts.Clock`)."""

    def now(self) -> int:
        """Nanoseconds of ``perf_counter``: what is charged."""
        return time.perf_counter_ns()

    def wall(self) -> int:
        """Nanoseconds of a clock that ``perf_counter`` is not made from: raw hardware time where there is one."""
        if hasattr(time, "CLOCK_MONOTONIC_RAW"):
            return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        return time.time_ns()

    def cpu(self) -> int:
        """CPU time of this process in nanoseconds, over all its threads."""
        return time.process_time_ns()


class Gaps:
    """Collects the spans in which this process did not run at all (SIGSTOP, a suspended or frozen machine).

    Fed by regular beats. A beat that comes later than `threshold` seconds after the last one, while the process used
    next to no CPU time in between, is a gap; a late beat of a busy process (a long call that holds the interpreter) is
    not. What a busy process uses between two ordinary beats is allowed for: it may fall on either side of the gap.
    """

    def __init__(self, threshold: float = 1.0, busy_fraction: float = 0.1) -> None:
        """Take `threshold` in seconds; a span with more CPU than `busy_fraction` of itself counts as work."""
        self._threshold = int(threshold * NANOSECONDS)
        self._busy_fraction = busy_fraction
        self._last: tuple[int, int] | None = None
        self._ordinary = 0
        self._gaps: list[tuple[int, int]] = []
        self._lock = threading.Lock()

    def beat(self, now: int, cpu: int) -> None:
        """Take note that the process was alive at `now`, having used `cpu` nanoseconds of CPU time so far."""
        with self._lock:
            if self._last is not None:
                before, cpu_before = self._last
                span, used = now - before, cpu - cpu_before
                if span <= self._threshold:
                    self._ordinary = used
                elif used - self._ordinary < self._busy_fraction * span:
                    self._gaps.append((before, now))
            self._last = (now, cpu)

    def rest(self) -> None:
        """Take note that no beats come for a while: the time until the next one is no gap."""
        with self._lock:
            self._last = None

    def overdue(self, now: int) -> bool:
        """Whether the last beat is longer ago than an ordinary one can be, so that whoever asks should beat."""
        with self._lock:
            return self._last is not None and now - self._last[0] > self._threshold

    def within(self, start: int, end: int) -> int:
        """Nanoseconds of [start, end] that fall into gaps. Gaps that ended before `start` are forgotten."""
        with self._lock:
            self._gaps = [gap for gap in self._gaps if gap[1] > start]
            return sum(max(0, min(end, gap_end) - max(start, gap_start)) for gap_start, gap_end in self._gaps)


class Heartbeat:
    """A daemon thread that feeds `Gaps`; use as a context manager around the work."""

    def __init__(self, clock: Clock, gaps: Gaps, period: float = 0.2) -> None:
        """Beat every `period` seconds (well below the threshold of `gaps`)."""
        self._clock, self._gaps, self._period = clock, gaps, period
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="heartbeat", daemon=True)

    def _loop(self) -> None:
        while not self._stop.wait(self._period):
            self._gaps.beat(self._clock.now(), self._clock.cpu())

    def __enter__(self) -> Heartbeat:
        self._gaps.beat(self._clock.now(), self._clock.cpu())
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()
        self._gaps.rest()
