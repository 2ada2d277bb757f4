"""Where each second of a run goes. Every second belongs to exactly one category, and the sum is checked against the wall."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from bench import LEDGER_TOLERANCE
from bench.contracts import Clock
from bench.engine.clock import NANOSECONDS, Gaps

CHARGED = ("data_wait", "h2d", "forward", "backward", "optimizer", "ema", "log")
UNCHARGED = ("setup", "probe", "eval", "checkpoint", "compile", "warmup", "sentinel", "switch", "idle", "lost")
CATEGORIES = CHARGED + UNCHARGED

SIMULTANEOUS = 20_000
"""Nanoseconds within which two readings count as one moment."""


@dataclass
class Ledger:
    """Booked nanoseconds by category, beside the wall time that an independent clock saw pass."""

    booked: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CATEGORIES, 0))
    wall: int = 0

    def book(self, category: str, nanoseconds: int) -> None:
        """Add a measured span to `category`."""
        if nanoseconds < 0:
            raise ValueError(f"ledger: cannot book {nanoseconds} ns of {category}; spans are >= 0")
        self.booked[category] += nanoseconds

    def book_apart(self, category: str, nanoseconds: int) -> None:
        """Add a span that passed outside this run's own spans (a share of set-up, lost time): to the wall as well."""
        self.book(category, nanoseconds)
        self.wall += nanoseconds

    def add(self, other: Ledger) -> None:
        """Add what another ledger of the same run holds (an earlier process's)."""
        for category, nanoseconds in other.booked.items():
            self.book(category, nanoseconds)
        self.wall += other.wall

    @property
    def charged(self) -> int:
        """Nanoseconds that count against the budget."""
        return sum(self.booked[category] for category in CHARGED)

    @property
    def accounted(self) -> int:
        """Nanoseconds in any category."""
        return sum(self.booked.values())

    @property
    def unaccounted_fraction(self) -> float:
        """(wall - accounted) / wall; negative if more was booked than passed."""
        return (self.wall - self.accounted) / self.wall if self.wall else 0.0

    @property
    def balances(self) -> bool:
        """Whether what is unaccounted stays within `bench.LEDGER_TOLERANCE`."""
        return abs(self.unaccounted_fraction) <= LEDGER_TOLERANCE

    def report(self) -> dict[str, Any]:
        """The ledger in seconds, as stored in ``ledger.json``."""
        return {
            "categories": {name: nanoseconds / NANOSECONDS for name, nanoseconds in self.booked.items()},
            "charged": self.charged / NANOSECONDS,
            "accounted": self.accounted / NANOSECONDS,
            "wall": self.wall / NANOSECONDS,
            "unaccounted": (self.wall - self.accounted) / NANOSECONDS,
            "unaccounted_fraction": self.unaccounted_fraction,
            "valid": self.balances,
        }

    def state(self) -> dict[str, Any]:
        """Exact state for a checkpoint (integers)."""
        return {"booked": dict(self.booked), "wall": self.wall}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Ledger:
        """Inverse of `state`."""
        return cls(booked={**dict.fromkeys(CATEGORIES, 0), **state["booked"]}, wall=int(state["wall"]))


class Timeline(Protocol):
    """Marks points in time on a device and tells, possibly later, how far apart they are."""

    def mark(self) -> Any:
        """Mark now on the device's timeline, without waiting for the device."""
        ...

    def elapsed(self, start: Any, end: Any) -> int | None:
        """Nanoseconds between two marks, or None while the device has not reached `end`."""
        ...

    def wait(self, mark: Any) -> None:
        """Block until the device has reached `mark`."""
        ...


class HostTimeline:
    """Timeline of a device that computes on the host's own time (a CPU)."""

    def __init__(self, clock: Clock) -> None:
        """Read `clock`."""
        self.mark = clock.now

    def elapsed(self, start: int, end: int) -> int:
        """Nanoseconds between two marks."""
        return end - start

    def wait(self, mark: int) -> None:
        """Return at once: the host is always where it is."""


class CudaTimeline:
    """Timeline of CUDA events: phases are told apart on the GPU without stopping it."""

    def mark(self) -> Any:
        """Record an event on the current stream."""
        import torch

        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def elapsed(self, start: Any, end: Any) -> int | None:
        """Nanoseconds between two events, or None while the second is still to come."""
        return int(start.elapsed_time(end) * 1_000_000) if end.query() else None

    def wait(self, mark: Any) -> None:
        """Wait for the event."""
        mark.synchronize()


@dataclass
class _Lap:
    category: str
    start: Any
    end: Any
    host_start: int
    host_end: int


class Stopwatch:
    """Books a run's time into its ledger, lap by lap.

    Laps are contiguous while the watch runs: `lap("forward")` books everything since the mark before it. So nothing can
    fall between two categories, and a second, independent clock checks the sum over each running span.
    """

    def __init__(self, ledger: Ledger, clock: Clock, timeline: Timeline, gaps: Gaps | None = None) -> None:
        """Book into `ledger`; `gaps` tells which part of a lap the process slept through."""
        self.ledger = ledger
        self._clock, self._timeline, self._gaps = clock, timeline, gaps or Gaps()
        self._last: Any = None
        self._host_last = 0
        self._wall_start = self._wall_last = 0
        self._pending: list[_Lap] = []

    @property
    def running(self) -> bool:
        """Whether a span is open."""
        return self._last is not None

    def start(self) -> None:
        """Open a span. The device must be idle."""
        if self.running:
            raise ValueError("stopwatch: started twice")
        self._wall_start, self._last = self._both_clocks()
        self._host_last = self._clock.now()

    def _both_clocks(self) -> tuple[int, Any]:
        """The second clock and a mark at one moment: read again where the process was held up between the two."""
        for _ in range(8):
            before, mark, after = self._clock.wall(), self._timeline.mark(), self._clock.wall()
            if after - before < SIMULTANEOUS:
                break
        return (before + after) // 2, mark

    def lap(self, category: str) -> None:
        """Book everything since the last mark to `category`."""
        if not self.running:
            raise ValueError(f"stopwatch: lap({category!r}) while it is stopped")
        self._wall_last, end = self._both_clocks()
        host_end = self._clock.now()
        if self._gaps.overdue(host_end):  # continued after a stop, and faster back at work than the heartbeat
            self._gaps.beat(host_end, self._clock.cpu())
        self._pending.append(_Lap(category, self._last, end, self._host_last, host_end))
        self._last, self._host_last = end, host_end
        if isinstance(self._timeline, HostTimeline):  # the host is always where it is: nothing to wait for
            self._settle(end)

    def _settle(self, mark: Any) -> None:
        """Book the laps up to the one that ends at `mark`, which the device has reached, and none behind it."""
        due = max((number for number, lap in enumerate(self._pending, start=1) if lap.end is mark), default=0)
        for lap in self._pending[:due]:
            span = self._timeline.elapsed(lap.start, lap.end)
            if span is None:
                raise RuntimeError(
                    f"stopwatch: the device has not finished the lap {lap.category!r} that was waited for"
                )
            idle = min(span, self._gaps.within(lap.host_start, lap.host_end))
            self.ledger.book("idle", idle)
            self.ledger.book(lap.category, max(0, span - idle))
        del self._pending[:due]

    @property
    def mark(self) -> Any:
        """The end of the last lap."""
        return self._last

    def wait(self, mark: Any = None) -> None:
        """Wait until the device has reached `mark` (default: the last one) and book the laps up to there, no further.

        So the ledger stands exactly where the device stood at `mark`, also while later work is under way.
        """
        mark = self._last if mark is None else mark
        if mark is not None:
            self._timeline.wait(mark)
            self._settle(mark)

    def stop(self, category: str) -> None:
        """Book the rest to `category`, wait for the device and close the span."""
        self.lap(category)
        self.wait()
        on_the_host = isinstance(self._timeline, HostTimeline)
        self.ledger.wall += (self._wall_last if on_the_host else self._clock.wall()) - self._wall_start
        self._last = None

    @contextmanager
    def booking(self, category: str) -> Iterator[None]:
        """Book the body to `category`: inside a running span, or as a span of its own."""
        own_span = not self.running
        if own_span:
            self.start()
        try:
            yield
        finally:
            if own_span:
                self.stop(category)
            else:
                self.lap(category)
