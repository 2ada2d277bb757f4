from __future__ import annotations

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import LEDGER_TOLERANCE
from bench.engine.clock import Gaps
from bench.engine.ledger import CATEGORIES, CHARGED, UNCHARGED, HostTimeline, Ledger, Stopwatch
from tests.engine.fakes import SECOND, FakeClock, LazyTimeline

nanoseconds = st.integers(0, 5 * SECOND)
actions = st.lists(
    st.one_of(
        st.tuples(st.just("work"), nanoseconds),
        st.tuples(st.just("lap"), st.sampled_from(CATEGORIES)),
        st.tuples(st.just("booking"), st.sampled_from(CATEGORIES), nanoseconds),
        st.tuples(st.just("stop"), st.sampled_from(CATEGORIES)),
        st.tuples(st.just("start")),
        st.tuples(st.just("away"), nanoseconds),
        st.tuples(st.just("asleep"), st.integers(2 * SECOND, 9 * SECOND)),
        st.tuples(st.just("catch up")),
        st.tuples(st.just("wait")),
    ),
    max_size=40,
)


class Play:
    """Plays a random life on a stopwatch and keeps book by itself, in the simplest way."""

    def __init__(self, lazy: bool) -> None:
        self.clock, self.gaps, self.ledger = FakeClock(), Gaps(), Ledger()
        self.timeline = LazyTimeline(self.clock) if lazy else HostTimeline(self.clock)
        self.watch = Stopwatch(self.ledger, self.clock, self.timeline, self.gaps)
        self.expected = dict.fromkeys(CATEGORIES, 0)
        self.open = self.open_idle = 0

    def pass_time(self, span: int, asleep: bool = False) -> None:
        """The heart beats every half second of work; a sleep is seen by the beat after it."""
        counts = self.watch.running
        if asleep:
            self.beat()
            self.clock.sleep_ns(span)
            self.beat()
            self.open_idle += span * counts
            return
        for part in [SECOND // 2] * (span // (SECOND // 2)) + [span % (SECOND // 2)]:
            self.clock.work_ns(part)
            self.beat()
        self.open += span * counts

    def beat(self) -> None:
        self.gaps.beat(self.clock.now(), self.clock.cpu())

    def book(self, category: str) -> None:
        self.expected[category] += self.open
        self.expected["idle"] += self.open_idle
        self.open = self.open_idle = 0

    def play(self, script: list[tuple]) -> None:
        self.beat()
        for name, *arguments in script:
            match name:
                case "work":
                    self.pass_time(arguments[0])
                case "asleep":
                    self.pass_time(arguments[0], asleep=True)
                case "lap" if self.watch.running:
                    self.watch.lap(arguments[0])
                    self.book(arguments[0])
                case "booking":
                    with self.watch.booking(arguments[0]):
                        self.pass_time(arguments[1])
                    self.book(arguments[0])
                case "stop" if self.watch.running:
                    self.watch.stop(arguments[0])
                    self.book(arguments[0])
                case "away" if not self.watch.running:
                    self.pass_time(arguments[0])
                case "start" if not self.watch.running:
                    self.watch.start()
                case "catch up" if isinstance(self.timeline, LazyTimeline):
                    self.timeline.catch_up()
                    self.watch.wait()
        if self.watch.running:
            self.watch.stop("log")
            self.book("log")


@given(script=actions, lazy=st.booleans())
def test_every_nanosecond_is_booked_once_and_where_it_belongs(script: list[tuple], lazy: bool) -> None:
    life = Play(lazy)
    life.play(script)
    assert life.ledger.booked == life.expected
    assert life.ledger.accounted == life.ledger.wall == sum(life.expected.values())
    assert min(life.ledger.booked.values()) >= 0
    assert life.ledger.balances
    assert life.ledger.charged == sum(life.expected[name] for name in CHARGED)


@given(script=actions)
def test_a_device_behind_the_host_books_the_same(script: list[tuple]) -> None:
    host, device = Play(lazy=False), Play(lazy=True)
    host.play(script)
    device.play(script)
    assert host.ledger == device.ledger


def test_laps_of_a_device_are_booked_in_order_and_only_when_reached() -> None:
    life = Play(lazy=True)
    life.watch.start()
    life.clock.work(1.0)
    life.watch.lap("forward")
    middle = life.watch.mark
    life.clock.work(2.0)
    life.watch.lap("backward")
    assert life.ledger.accounted == 0
    life.timeline.catch_up()  # whatever the device has done by now, the ledger stands where it was asked to
    life.watch.wait(middle)
    assert (life.ledger.booked["forward"], life.ledger.booked["backward"]) == (SECOND, 0)
    life.watch.wait()
    assert life.ledger.booked["backward"] == 2 * SECOND


@given(worked=st.integers(1, 1000), jump=st.floats(0.0, 3.0))
def test_a_jump_of_the_second_clock_unbalances_the_ledger(worked: int, jump: float) -> None:
    clock, ledger = FakeClock(), Ledger()
    watch = Stopwatch(ledger, clock, HostTimeline(clock))
    with watch.booking("forward"):
        clock.work(worked)
        clock.skew_ns(int(jump * worked * SECOND))
    unexplained = jump / (1 + jump)
    if not math.isclose(unexplained, LEDGER_TOLERANCE, rel_tol=1e-6):
        assert ledger.balances == (unexplained < LEDGER_TOLERANCE)
    assert ledger.unaccounted_fraction == pytest.approx(unexplained, abs=1e-6)
    assert ledger.report()["valid"] == ledger.balances


def test_more_booked_than_passed_is_no_balance_either() -> None:
    clock, ledger = FakeClock(), Ledger()
    with Stopwatch(ledger, clock, HostTimeline(clock)).booking("forward"):
        clock.work(100)
        clock.skew_ns(-SECOND)
    assert not ledger.balances


def test_a_stop_that_the_lap_sees_before_the_heartbeat_does_is_idle() -> None:
    life = Play(lazy=False)
    life.beat()
    life.watch.start()
    life.clock.sleep_ns(30 * SECOND)
    life.watch.lap("forward")
    life.beat()
    life.watch.stop("log")
    assert life.ledger.booked["idle"] == 30 * SECOND
    assert life.ledger.charged == 0


def test_nothing_falls_between_two_laps() -> None:
    """On a clock that moves with every look at it, only the looks at start and stop themselves stay unbooked."""

    class Ticking(FakeClock):
        def now(self) -> int:
            self.time += 1
            return self.time

    clock, ledger = Ticking(), Ledger()
    watch = Stopwatch(ledger, clock, HostTimeline(clock))
    watch.start()
    for _ in range(500):
        watch.lap("forward")
        watch.lap("backward")
    watch.stop("log")
    assert 2000 <= ledger.accounted <= ledger.wall <= ledger.accounted + 3


def test_without_a_heartbeat_a_long_lap_is_work() -> None:
    """A host that waits for its device uses no CPU time; only missing beats tell that from a stop."""
    clock, ledger = FakeClock(), Ledger()
    with Stopwatch(ledger, clock, HostTimeline(clock)).booking("forward"):
        clock.sleep_ns(30 * SECOND)
    assert ledger.booked["forward"] == 30 * SECOND


def test_a_booking_ends_when_its_body_fails() -> None:
    clock, ledger = FakeClock(), Ledger()
    watch = Stopwatch(ledger, clock, HostTimeline(clock))
    with contextlib.suppress(KeyError), watch.booking("probe"):
        clock.work(3)
        raise KeyError
    assert not watch.running
    assert ledger.booked["probe"] == ledger.wall == 3 * SECOND


def test_misuse_is_refused() -> None:
    clock = FakeClock()
    watch = Stopwatch(Ledger(), clock, HostTimeline(clock))
    with pytest.raises(ValueError, match="stopped"):
        watch.lap("forward")
    watch.start()
    with pytest.raises(ValueError, match="twice"):
        watch.start()
    with pytest.raises(ValueError, match=">= 0"):
        Ledger().book("forward", -1)
    with pytest.raises(KeyError):
        Ledger().book("coffee", 1)


def test_categories_are_charged_or_not_and_none_twice() -> None:
    assert len(set(CATEGORIES)) == len(CATEGORIES) == len(CHARGED) + len(UNCHARGED)


ledgers = st.builds(
    Ledger,
    booked=st.fixed_dictionaries({name: st.integers(0, 10**15) for name in CATEGORIES}),
    wall=st.integers(0, 10**16),
)


@given(one=ledgers, other=ledgers)
def test_ledgers_add_up_and_come_back(one: Ledger, other: Ledger) -> None:
    assert Ledger.from_state(one.state()) == one
    charged, wall = one.charged + other.charged, one.wall + other.wall
    one.add(other)
    assert (one.charged, one.wall) == (charged, wall)


def test_a_share_of_common_time_counts_on_both_sides() -> None:
    ledger = Ledger()
    ledger.book_apart("lost", 5 * SECOND)
    assert ledger.balances
    assert ledger.charged == 0
    assert ledger.report() == {
        "categories": dict.fromkeys(CATEGORIES, 0.0) | {"lost": 5.0},
        "charged": 0.0,
        "accounted": 5.0,
        "wall": 5.0,
        "unaccounted": 0.0,
        "unaccounted_fraction": 0.0,
        "valid": True,
    }
