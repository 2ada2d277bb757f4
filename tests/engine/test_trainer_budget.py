"""What a run spends, at which rate it learns, when it is scored, and its replay."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.engine.ledger import CHARGED
from bench.engine.progress import ReplayedBudget
from bench.engine.step import StepSettings
from tests.engine.fakes import (
    SECOND,
    FakeClock,
    FakeTask,
    TinyNet,
    jitter,
    make_trainer,
    records,
    run,
    same,
    weights_of,
)

EMA = StepSettings(learning_rate=0.05, ema_half_life=0.2)

pytestmark = pytest.mark.usefixtures("small_heap")


# ------------------------------------------------------------------------------------------------ budget and replay


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), total=st.floats(0.5, 3.0), slice_=st.floats(0.05, 1.0))
def test_every_run_keeps_budget_and_books(seed: int, total: float, slice_: float) -> None:
    clock = FakeClock()
    trainer = make_trainer(
        clock=clock,
        task=FakeTask(clock, data_cost=0.01, eval_cost=0.4),
        costs=jitter(seed),
        budget=total,
        step=EMA,
    )
    started = clock.now()
    trainer.set_up()
    reached = 0.0
    while not trainer.finished:
        reached += slice_
        trainer.advance(reached)
    trainer.save()
    trainer.finish("finished")
    recorder = records(trainer)
    assert trainer.ledger.accounted == trainer.ledger.wall == clock.now() - started
    assert recorder.summary["status"] == "finished"
    assert recorder.summary["overshoot_s"] <= recorder.summary["overshoot_bound_s"] + 1e-9
    assert recorder.summary["spent_s"] == pytest.approx(trainer.ledger.charged / SECOND)
    assert recorder.summary["spent_s"] - total == pytest.approx(recorder.summary["overshoot_s"]) or (
        recorder.summary["spent_s"] < total
    )
    assert [event["step"] for event in recorder.events] == list(range(1, trainer.steps + 1))
    assert sum(event["seconds"] for event in recorder.events) == pytest.approx(recorder.summary["spent_s"])
    assert recorder.events[-1]["spent"] == pytest.approx(recorder.summary["spent_s"])
    booked = {name for name in CHARGED if trainer.ledger.booked[name]}
    assert booked == {"data_wait", "forward"}, "what the fake clock charges for, and nothing else"
    assert trainer.ledger.booked["eval"] == pytest.approx(len(trainer.task.scored) * 0.4 * SECOND)  # type: ignore[attr-defined]


def test_charged_time_is_the_sum_of_what_the_run_did() -> None:
    clock = FakeClock()
    trainer = run(make_trainer(clock=clock, task=FakeTask(clock, data_cost=0.02), costs=0.08, budget=1.0))
    assert trainer.steps == 10
    assert trainer.ledger.booked["data_wait"] == pytest.approx(0.2 * SECOND)
    assert trainer.ledger.booked["forward"] == pytest.approx(0.8 * SECOND)
    assert records(trainer).events[0]["p"] == pytest.approx(0.05, abs=0.02)


@pytest.mark.parametrize(("unit", "budget", "steps"), [("steps", 7, 7), ("samples", 28, 7), ("samples", 29, 7)])
def test_counted_budgets(unit: str, budget: int, steps: int) -> None:
    trainer = run(make_trainer(unit=unit, budget=budget, costs=jitter(1)))
    assert trainer.steps == steps
    assert trainer.samples == 4 * steps
    assert records(trainer).summary["budget_s"] is None


def test_the_rate_follows_the_position_and_ends_near_zero() -> None:
    trainer = run(make_trainer(costs=0.01, curve=lambda p: 1.0 - p))
    events = records(trainer).events
    assert len(events) == 100
    for event in events:
        assert event["lr"] == pytest.approx(0.05 * (1 - event["p"]))
    assert [event["p"] for event in events] == pytest.approx([(n + 0.5) / 100 for n in range(100)])


@pytest.mark.parametrize("step", [StepSettings(learning_rate=0.05), EMA])
def test_a_replay_gives_the_same_weights_on_another_clock(step: StepSettings) -> None:
    timed = run(make_trainer(costs=jitter(1), step=step, budget=2.0))
    trace = [event["p"] for event in records(timed).events]
    again = run(
        make_trainer(costs=jitter(2, 3.0, 50.0), step=step, budget=ReplayedBudget(trace), eval_fractions=(1.0,))
    )
    assert same(weights_of(again), weights_of(timed))
    assert [event["p"] for event in records(again).events] == trace


def test_a_replay_of_a_resumed_run_gives_the_same_weights() -> None:
    first = make_trainer(costs=jitter(1), step=EMA)
    first.set_up()
    first.advance(0.4)
    first.save()
    second = make_trainer(costs=jitter(9), step=EMA)
    second.set_up()
    second.restore(*records(first).states[-1], lost_seconds=0.0)
    second.advance(1.0)
    trace = [event["p"] for event in records(first).events + records(second).events]
    assert same(weights_of(run(make_trainer(step=EMA, budget=ReplayedBudget(trace)))), weights_of(second))


def test_the_average_has_its_half_life_in_shares_of_the_budget() -> None:
    """A weight that is still at its start until p, when it jumps, keeps 0.5 ** (rest / half-life) of the old value."""
    trainer = make_trainer(
        build=lambda: TinyNet(norm=False),
        budget=100,
        unit="steps",
        step=StepSettings(learning_rate=0.0, weight_decay=0.0, ema_half_life=0.2),
    )
    trainer.set_up()
    trainer.advance(0.6)
    assert trainer.average is not None
    with torch.no_grad():
        before = trainer.average.first.bias.clone()
        trainer.model.first.bias += 1.0
    trainer.advance(0.8)
    torch.testing.assert_close(trainer.average.first.bias, before + 0.5)


# --------------------------------------------------------------------------------------------------- evaluations


@pytest.mark.parametrize("costs", [0.01, 0.3, 5.0])
def test_every_run_is_evaluated_alike_however_long_its_steps(costs: float) -> None:
    fractions = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
    recorder = records(run(make_trainer(costs=costs, eval_fractions=fractions)))
    assert tuple(evaluation["fraction"] for evaluation in recorder.evaluations) == fractions
    assert [evaluation["quick"] for evaluation in recorder.evaluations] == [True] * 5 + [False]
    assert [evaluation["annealed"] for evaluation in recorder.evaluations] == [False] * 5 + [True]
    assert all(len(evaluation["records"]) == 6 for evaluation in recorder.evaluations)
    assert all(e["p"] >= e["fraction"] or e["annealed"] for e in recorder.evaluations if costs < 1)
    spent = [evaluation["spent"] for evaluation in recorder.evaluations]
    assert spent == sorted(spent)


def test_a_step_over_several_fractions_is_scored_once_for_them() -> None:
    trainer = run(make_trainer(costs=0.5, eval_fractions=(0.0, 0.1, 0.2, 0.3, 1.0)))
    assert len(trainer.task.scored) == 3  # type: ignore[attr-defined]
    assert len(records(trainer).evaluations) == 5


def test_evaluation_disturbs_nothing() -> None:
    often = run(make_trainer(eval_fractions=(0.0, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0), unit="steps", budget=12))
    never = run(make_trainer(eval_fractions=(), unit="steps", budget=12))
    assert same(weights_of(often), weights_of(never))
    assert often.model.training


def test_the_average_is_what_is_scored_and_stored() -> None:
    trainer = run(make_trainer(step=EMA))
    assert trainer.average is not None
    assert same(records(trainer).weights, dict(trainer.average.state_dict()))
    final = records(trainer).evaluations[-1]["records"]
    scores = trainer.evaluate_on("validation")
    assert [record["score"] for record in scores] == [record["score"] for record in final]
    assert scores[0]["sample"] == "validation/0"
