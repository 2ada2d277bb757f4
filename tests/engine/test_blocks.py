from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.engine.blocks import Interrupted, random_order, run_block, slice_order
from bench.engine.trainer import Trainer
from tests.engine.fakes import SECOND, FailingNet, FakeClock, MemoryRecorder, jitter, make_trainer, same, weights_of

pytestmark = pytest.mark.usefixtures("small_heap")


def rounds(arms: str, count: int) -> list[str]:
    return ["".join(round_) for round_ in itertools.islice(slice_order(arms), count)]


def test_two_arms_go_a_b_b_a() -> None:
    assert rounds("AB", 4) == ["AB", "BA", "BA", "AB"]


@given(count=st.integers(1, 7), pairs=st.integers(1, 4))
def test_every_arm_stands_everywhere_equally_often(count: int, pairs: int) -> None:
    arms = "ABCDEFG"[:count]
    order = rounds(arms, 2 * count * pairs)
    for place in range(count):
        assert set(Counter(round_[place] for round_ in order).values()) == {2 * pairs}
    for forth, back in zip(order[::2], order[1::2], strict=True):
        assert forth == back[::-1], "a drift of the machine that is linear in time hits all arms of a pair alike"
        assert sorted(forth) == list(arms)


@given(seed=st.integers(0, 10**6), count=st.integers(1, 8))
def test_the_first_order_is_drawn_from_the_seed(seed: int, count: int) -> None:
    arms = list(range(count))
    order = random_order(arms, seed)
    assert sorted(order) == arms
    assert order == random_order(arms, seed)


def test_seeds_give_different_orders() -> None:
    assert Counter(random_order("AB", seed)[0] for seed in range(100))["A"] == pytest.approx(50, abs=20)


class Block:
    """A block on a fake clock that takes note of what happens."""

    def __init__(self, *trainers: Trainer, clock: FakeClock, sentinel: float = 1.0) -> None:
        self.trainers, self.clock, self.sentinel = trainers, clock, sentinel
        self.visits: list[str] = []
        self.looks: list[tuple[str, int]] = []
        self.ends: list[tuple[str, str, str]] = []
        for trainer in trainers:
            trainer.set_up()
            self._watch(trainer)

    def _watch(self, trainer: Trainer) -> None:
        advance = trainer.advance

        def watched(until: float, stop_requested: Callable[[], bool]) -> None:
            self.visits.append(trainer.settings.arm)
            advance(until, stop_requested)

        trainer.advance = watched  # type: ignore[method-assign]

    def look(self, when: str) -> float:
        self.looks.append((when, self.clock.now()))
        self.clock.work(self.sentinel)
        return self.sentinel

    def end(self, trainer: Trainer, status: str, reason: str) -> None:
        self.ends.append((trainer.settings.arm, status, reason))
        trainer.finish(status, reason)

    def run(self, **options: Any) -> None:
        run_block(
            self.trainers,
            clock=self.clock,
            sentinel=self.look,
            on_end=self.end,
            **({"slice_fraction": 0.05, "sentinel_interval": 1e9, "checkpoint_interval": 1e9} | options),
        )


def arms(count: int, clock: FakeClock, costs: Callable[[int], Any] = jitter, **options: Any) -> list[Trainer]:
    return [
        make_trainer(clock=clock, arm="ABCDEF"[index], costs=costs(index), **({"budget": 10.0} | options))
        for index in range(count)
    ]


def states(trainer: Trainer) -> int:
    recorder = trainer._recorder
    assert isinstance(recorder, MemoryRecorder)
    return len(recorder.states)


def test_arms_are_interleaved_and_all_finish() -> None:
    clock = FakeClock()
    block = Block(*arms(3, clock), clock=clock)
    block.run()
    first = random_order("ABC", 0)
    expected = itertools.chain.from_iterable(slice_order(first))
    assert block.visits[:54] == list(itertools.islice(expected, 54))
    assert sorted(block.ends) == [("A", "finished", ""), ("B", "finished", ""), ("C", "finished", "")]
    assert len({trainer.ledger.charged // SECOND for trainer in block.trainers} - {9, 10}) == 0


@pytest.mark.slow
@pytest.mark.parametrize("cost", [0.01, 0.3, 4.0])
def test_arms_keep_abreast_however_long_their_steps(cost: float) -> None:
    """At no time is an arm further on than a slice and a step of its own beyond the others."""
    clock = FakeClock()
    quick, slow = (
        make_trainer(clock=clock, arm="A", costs=0.02, budget=10.0),
        make_trainer(clock=clock, arm="B", costs=cost, budget=10.0),
    )
    ahead: list[float] = []
    quick.on_step = slow.on_step = lambda *_: ahead.append(slow.budget.fraction - quick.budget.fraction)
    Block(quick, slow, clock=clock).run()
    assert max(ahead) <= 0.05 + cost / 10 + 0.01
    assert min(ahead) >= -0.05 - 0.01


def test_interleaving_changes_no_run() -> None:
    clock = FakeClock()
    together = Block(*arms(2, clock, unit="steps", budget=30), clock=clock)
    together.run()
    for trainer, alone in zip(together.trainers, arms(2, FakeClock(), unit="steps", budget=30), strict=True):
        alone.set_up()
        alone.advance(1.0)
        assert same(weights_of(trainer), weights_of(alone))


def test_the_sentinel_looks_at_start_and_end_and_between_and_its_time_is_shared() -> None:
    clock = FakeClock()
    block = Block(*arms(2, clock), clock=clock, sentinel=1.5)
    before = clock.now()
    block.run(sentinel_interval=4.0)
    whens = [when for when, _ in block.looks]
    assert (whens[0], whens[-1]) == ("start", "end")
    assert whens[1:-1] == ["between"] * (len(whens) - 2)
    assert len(whens) > 4
    times = [time for _, time in block.looks][:-1]
    assert all(4 * SECOND < later - earlier < 8 * SECOND for earlier, later in itertools.pairwise(times))
    for trainer in block.trainers:
        assert trainer.ledger.booked["sentinel"] == pytest.approx(1.5 * len(whens) / 2 * SECOND)
        assert trainer.ledger.balances
    # the two ledgers together hold the life of the block and the two set-ups, no less and no more
    setup = sum(trainer.ledger.booked["warmup"] for trainer in block.trainers)
    assert sum(trainer.ledger.accounted for trainer in block.trainers) == pytest.approx(clock.now() - before + setup)


def test_states_are_saved_at_intervals_and_at_the_end_of_each_run() -> None:
    clock = FakeClock()
    block = Block(*arms(2, clock), clock=clock)
    block.run(checkpoint_interval=5.0)
    for trainer in block.trainers:
        assert states(trainer) in (4, 5), "20 s of work, each 5 s and a bit, and once at its end"
    clock = FakeClock()
    block = Block(*arms(2, clock), clock=clock)
    block.run(checkpoint_interval=1e9)
    assert [states(trainer) for trainer in block.trainers] == [1, 1]


def test_an_interruption_saves_every_run_that_goes_on() -> None:
    clock = FakeClock()
    block = Block(*arms(3, clock), clock=clock)
    with pytest.raises(Interrupted):
        block.run(stop_requested=lambda: clock.now() > 12 * SECOND)
    assert [states(trainer) for trainer in block.trainers] == [1, 1, 1]
    assert block.ends == []
    for trainer in block.trainers:
        recorder = trainer._recorder
        assert isinstance(recorder, MemoryRecorder)
        _, meta = recorder.states[0]
        assert meta["steps"] == trainer.steps == len(recorder.events) > 0


def test_an_interrupted_block_goes_on_to_the_same_weights() -> None:
    def block_of(clock: FakeClock) -> Block:
        return Block(*arms(2, clock, unit="steps", budget=30), clock=clock)

    whole = block_of(FakeClock())
    whole.run()
    clock = FakeClock()
    first = block_of(clock)
    with pytest.raises(Interrupted):
        first.run(stop_requested=lambda: clock.now() > 3 * SECOND)
    torch.manual_seed(9)
    second = block_of(FakeClock())
    for trainer, before in zip(second.trainers, first.trainers, strict=True):
        trainer.restore(*before._recorder.states[-1], lost_seconds=0.0)  # type: ignore[attr-defined]
    second.run()
    for trainer, expected in zip(second.trainers, whole.trainers, strict=True):
        assert same(weights_of(trainer), weights_of(expected))


def test_a_run_that_fails_leaves_the_others_going() -> None:
    clock = FakeClock()
    failing = make_trainer(
        clock=clock,
        arm="X",
        build=lambda: FailingNet(torch.OutOfMemoryError("out of memory"), at=6),
        unit="steps",
        budget=9,
    )
    healthy = make_trainer(clock=clock, arm="A", unit="steps", budget=9)
    block = Block(failing, healthy, clock=clock)
    block.run(slice_fraction=0.2)
    assert [end[:2] for end in block.ends] == [("X", "out-of-memory"), ("A", "finished")]
    assert "batch 4" in block.ends[0][2]
    assert block.visits.count("X") == 2
    # looks after its end are for the runs that are left
    assert failing.ledger.booked["sentinel"] == SECOND // 2
    assert healthy.ledger.booked["sentinel"] == SECOND // 2 + SECOND


def test_an_ordinary_error_passes_through() -> None:
    clock = FakeClock()
    broken = make_trainer(clock=clock, build=lambda: FailingNet(KeyError("x"), at=6))
    with pytest.raises(KeyError):
        Block(broken, make_trainer(clock=clock, arm="A"), clock=clock).run()


def test_runs_that_had_finished_before_are_only_ended() -> None:
    clock = FakeClock()
    block = Block(*arms(2, clock), clock=clock)
    for trainer in block.trainers:
        trainer.advance(2.0, lambda: False)
    block.visits.clear()
    block.run()
    assert block.visits == []
    assert [end[1] for end in block.ends] == ["finished", "finished"]
