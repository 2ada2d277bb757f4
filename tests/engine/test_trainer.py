"""A run is the same whatever happens beside it: seeds, warm-up, slices and crashes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bench.engine.step import StepSettings
from tests.engine.fakes import SECOND, TinyNet, jitter, make_trainer, records, run, same, weights_of

EMA = StepSettings(learning_rate=0.05, ema_half_life=0.2)

pytestmark = pytest.mark.usefixtures("small_heap")


# ------------------------------------------------------------------------------------------------ sameness of runs


@pytest.mark.parametrize("step", [StepSettings(learning_rate=0.05), EMA])
def test_the_same_seed_gives_the_same_weights(step: StepSettings) -> None:
    torch.manual_seed(1)
    one = run(make_trainer(step=step))
    torch.manual_seed(2)
    other = run(make_trainer(step=step))
    assert same(weights_of(one), weights_of(other))
    assert records(one).events == records(other).events
    assert records(one).evaluations == records(other).evaluations


def test_seed_and_arm_change_the_weights_but_only_the_seed_changes_the_stream() -> None:
    base, twin, reseeded = run(make_trainer()), run(make_trainer(arm="twin")), run(make_trainer(seed=1))
    assert not same(weights_of(base), weights_of(twin))
    assert not same(weights_of(base), weights_of(reseeded))
    assert base.task.served == twin.task.served != reseeded.task.served  # type: ignore[attr-defined]
    digests = [records(trainer).summary["stream_sha256"] for trainer in (base, twin, reseeded)]
    assert digests[0] == digests[1] != digests[2]


def test_a_run_leaves_the_random_numbers_of_its_process_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run(make_trainer())
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("step", [StepSettings(learning_rate=0.05), EMA, StepSettings(0.05, optimizer="sgd")])
def test_warm_up_leaves_nothing_behind(step: StepSettings) -> None:
    """Two steps after a warm-up equal two steps of a run that never warmed up, with dropout, batch norm and average."""
    warm = make_trainer(step=step, unit="steps", budget=7)
    cold = make_trainer(step=step, unit="steps", budget=7, charge_compilation=True)
    for trainer in (warm, cold):
        trainer.set_up()
    assert same(weights_of(warm), weights_of(cold))
    for trainer in (warm, cold):
        trainer.advance(2 / 7)
        assert trainer.steps == 2
    assert same(weights_of(warm), weights_of(cold))
    assert warm.ledger.booked["warmup"] > 0 == cold.ledger.booked["warmup"]
    assert warm.ledger.charged == cold.ledger.charged
    assert records(warm).events == records(cold).events


def test_cold_mode_charges_the_first_step_in_full() -> None:
    """A first step that compiles costs charged seconds; with a warm-up it does not."""

    def costs() -> Iterator[float]:
        yield 0.7
        yield from jitter(0)

    cold = run(make_trainer(costs=costs(), charge_compilation=True))
    warm = run(make_trainer(costs=costs()))
    assert records(cold).events[0]["seconds"] == pytest.approx(0.7)
    assert records(warm).events[0]["seconds"] < 0.3
    assert warm.ledger.booked["warmup"] > 0.7 * SECOND


# ------------------------------------------------------------------------------------------------- slices and crashes


@settings(max_examples=15)
@given(slices=st.lists(st.floats(0.01, 0.3), min_size=1, max_size=6), ema=st.booleans())
def test_slices_change_nothing(slices: list[float], ema: bool) -> None:
    """Many slices, another run with dropout of its own in between, give the weights of one go, to the bit."""
    options: dict[str, Any] = {"step": EMA if ema else StepSettings(0.05), "unit": "steps", "budget": 20}
    whole = run(make_trainer(**options))
    sliced, between = make_trainer(**options), make_trainer(arm="other", seed=3, **options)
    sliced.set_up()
    between.set_up()
    reached = 0.0
    for part in slices:
        reached += part
        sliced.advance(reached)
        between.advance(reached)
    sliced.advance(1.0)
    assert same(weights_of(sliced), weights_of(whole))
    assert records(sliced).evaluations == records(whole).evaluations


@settings(max_examples=15)
@given(crash=st.floats(0.0, 1.0), ema=st.booleans(), optimizer=st.sampled_from(["adamw", "sgd"]))
def test_a_run_that_was_saved_goes_on_as_if_nothing_had_happened(crash: float, ema: bool, optimizer: str) -> None:
    step = StepSettings(learning_rate=0.05, optimizer=optimizer, ema_half_life=0.2 if ema else None)
    options: dict[str, Any] = {"step": step, "unit": "steps", "budget": 16}
    whole, first = run(make_trainer(**options)), make_trainer(**options)
    first.set_up()
    first.advance(crash)
    first.save()
    state = records(first).states[-1]
    saved_at = first.steps
    first.advance(1.0)  # what came after the state is gone

    torch.manual_seed(99)
    second = make_trainer(**options)
    second.set_up()
    second.restore(*state, lost_seconds=2.5)
    second.advance(1.0)
    second.finish("finished")
    assert same(weights_of(second), weights_of(whole))
    assert second.steps == whole.steps == 16
    events = records(whole).events
    assert [event["loss"] for event in records(second).events] == [event["loss"] for event in events[saved_at:]]
    assert second.samples == whole.samples
    assert second.evaluations == whole.evaluations
    assert second.ledger.booked["lost"] == 2.5 * SECOND
    assert second.ledger.charged == pytest.approx(whole.ledger.charged)
    assert second.ledger.balances


def test_a_state_keeps_weights_that_do_not_lie_in_order() -> None:
    """Fused optimisers walk weight and state in memory order: a state in another layout would mix them up silently."""

    class Transposed(TinyNet):
        def __init__(self) -> None:
            super().__init__()
            self.first.weight = nn.Parameter(torch.randn(4, 8).t())

    options: dict[str, Any] = {"build": Transposed, "unit": "steps", "budget": 8}
    whole, first, second = run(make_trainer(**options)), make_trainer(**options), make_trainer(**options)
    first.set_up()
    first.advance(0.5)
    first.save()
    second.set_up()
    second.restore(*records(first).states[-1], lost_seconds=0.0)
    second.advance(1.0)
    assert same(weights_of(second), weights_of(whole))
    assert all(tensor.is_contiguous() for tensor in records(first).states[-1][0].values())


def test_a_finished_run_that_is_restored_stays_finished() -> None:
    done = run(make_trainer())
    done.save()
    again = make_trainer()
    again.set_up()
    again.restore(*records(done).states[-1], lost_seconds=0.0)
    again.advance(1.0)
    assert again.finished
    assert again.steps == done.steps
    assert records(again).events == records(again).evaluations == []
    assert again.ledger.charged == done.ledger.charged


def test_a_stop_is_between_two_steps() -> None:
    trainer = make_trainer(budget=2.0)
    trainer.set_up()
    asked = iter([False] * 4 + [True] * 9)
    trainer.advance(1.0, lambda: next(asked))
    assert (trainer.steps, trainer.finished) == (4, False)
    trainer.advance(1.0)
    assert trainer.finished
