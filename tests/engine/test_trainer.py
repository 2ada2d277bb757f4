from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bench.engine.clock import Gaps
from bench.engine.ledger import CHARGED
from bench.engine.progress import Budget, ReplayedBudget
from bench.engine.step import StepSettings
from bench.engine.trainer import Diverged, OutOfMemory, Trainer
from tests.engine.fakes import (
    SECOND,
    CostlyNet,
    FailingNet,
    FakeClock,
    FakeTask,
    MemoryRecorder,
    TinyNet,
    jitter,
    make_trainer,
    same,
    weights_of,
)

EMA = StepSettings(learning_rate=0.05, ema_half_life=0.2)


pytestmark = pytest.mark.usefixtures("small_heap")


def run(trainer: Trainer) -> Trainer:
    """From nothing to the end."""
    trainer.set_up()
    trainer.advance(1.0)
    assert trainer.finished
    trainer.finish("finished")
    return trainer


def records(trainer: Trainer) -> MemoryRecorder:
    recorder = trainer._recorder
    assert isinstance(recorder, MemoryRecorder)
    return recorder


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


# ------------------------------------------------------------------------------------------------ runs that go wrong


def test_a_loss_that_is_not_finite_ends_the_run_and_is_recorded() -> None:
    task = FakeTask()

    def show(trainer: Trainer, loss: float, p: float) -> None:
        if trainer.steps == 3:
            task.loss_scale = float("nan")

    trainer = make_trainer(task=task, clock=task.clock, budget=2.0)
    trainer.on_step = show
    trainer.set_up()
    with pytest.raises(Diverged, match="nan at step 4"):
        trainer.advance(1.0)
    trainer.finish(Diverged.status, "the loss is nan")
    assert len(records(trainer).events) == 4
    assert records(trainer).summary["status"] == "diverged"
    assert trainer.ledger.balances
    assert not trainer.finished


def test_a_loss_that_is_not_finite_is_skipped_where_steps_may_be() -> None:
    task = FakeTask()

    def show(trainer: Trainer, loss: float, p: float) -> None:
        task.loss_scale = float("nan") if trainer.steps == 2 else 1.0

    step = StepSettings(learning_rate=0.05, gradient_skip=1e3)
    trainer = make_trainer(task=task, clock=task.clock, budget=5, unit="steps", step=step)
    trainer.on_step = show
    trainer.set_up()
    trainer.advance(1.0)
    trainer.finish("finished")
    assert [event["step"] for event in records(trainer).events if event.get("skipped")] == [3]
    assert records(trainer).summary["status"] == "finished"


def test_a_skipped_step_is_a_step_and_is_counted_also_after_a_crash() -> None:
    task = FakeTask()

    def show(trainer: Trainer, loss: float, p: float) -> None:
        task.loss_scale = 1e9 if trainer.steps in (2, 6) else 1.0

    def trainer_of(recorder: MemoryRecorder) -> Trainer:
        step = StepSettings(learning_rate=0.05, gradient_skip=1e3)
        trainer = make_trainer(task=task, clock=task.clock, recorder=recorder, budget=10, unit="steps", step=step)
        trainer.on_step = show
        trainer.set_up()
        return trainer

    recorder = MemoryRecorder()
    trainer = trainer_of(recorder)
    trainer.advance(0.5)
    trainer.save()
    trainer = trainer_of(recorder)
    trainer.restore(*recorder.states[-1], lost_seconds=0.0)
    trainer.advance(1.0)
    trainer.finish("finished")
    assert [event["step"] for event in recorder.events if event.get("skipped")] == [3, 7]
    assert (recorder.summary["steps"], recorder.summary["skipped_steps"]) == (10, 2)


def test_outputs_that_are_not_finite_end_the_run() -> None:
    trainer = make_trainer()
    trainer.set_up()
    trainer.advance(0.3)
    with torch.no_grad():
        trainer.model.second.bias.fill_(float("inf"))
    with pytest.raises(Diverged, match="test/0"):
        trainer.evaluate_on("test")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_out_of_memory_ends_the_run_with_its_status(error: Exception) -> None:
    trainer = make_trainer(build=lambda: FailingNet(error, at=3 + 5), unit="steps", budget=20)
    trainer.set_up()
    torch.manual_seed(4)
    outside = torch.get_rng_state()
    with pytest.raises(OutOfMemory, match="batch 4 does not fit at step 5"):
        trainer.advance(1.0)
    assert torch.equal(torch.get_rng_state(), outside)
    trainer.finish(OutOfMemory.status, "no room")
    assert records(trainer).summary["status"] == "out-of-memory"
    assert records(trainer).summary["steps"] == 4
    assert trainer.ledger.balances


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), KeyError("x"), ZeroDivisionError()])
@pytest.mark.parametrize("at", [1, 3 + 2])
def test_any_other_error_passes_through_at_once(error: Exception, at: int) -> None:
    trainer = make_trainer(build=lambda: FailingNet(error, at=at))

    def whole_run() -> None:
        trainer.set_up()
        trainer.advance(1.0)

    with pytest.raises(type(error)) as caught:
        whole_run()
    assert caught.value is error


def test_time_that_nothing_explains_makes_the_run_invalid() -> None:
    clock = FakeClock()
    trainer = make_trainer(clock=clock)
    trainer.on_step = lambda *_: clock.skew_ns(SECOND // 100)
    run(trainer)
    assert records(trainer).summary["status"] == "invalid"
    assert "unexplained" in records(trainer).summary["reason"]
    assert not records(trainer).ledger["valid"]


def test_a_stop_from_outside_is_not_charged() -> None:
    clock, gaps = FakeClock(), Gaps()
    trainer = make_trainer(clock=clock, gaps=gaps, costs=0.1, budget=1.0)

    def beat(trainer: Trainer, *_: object) -> None:
        gaps.beat(clock.now(), clock.cpu())
        if trainer.steps == 3:
            clock.sleep_ns(600 * SECOND)  # the lid is closed

    trainer.on_step = beat
    run(trainer)
    assert trainer.ledger.booked["idle"] == 600 * SECOND
    assert trainer.ledger.charged == pytest.approx(1.0 * SECOND, rel=0.2)
    assert trainer.ledger.balances


def test_the_budget_of_a_run_can_be_left_to_its_end() -> None:
    trainer = make_trainer(budget=Budget(1.0), costs=0.1)
    trainer.set_up()
    trainer.advance(0.35)
    assert trainer.budget.fraction == pytest.approx(0.4)
    trainer.advance(0.35)
    assert trainer.steps == 4, "nothing to do until the next slice"


def test_compiled_wrappers_do_not_change_the_stored_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_(model: nn.Module) -> nn.Module:
        wrapper = nn.Module()
        wrapper._orig_mod, wrapper.forward = model, model.forward
        return wrapper

    monkeypatch.setattr(torch, "compile", compile_)
    plain, compiled = run(make_trainer()), run(make_trainer(compile=True))
    assert same(records(plain).weights, records(compiled).weights)
    assert compiled.ledger.booked["compile"] > 0


def test_costly_net_is_counted_by_the_clock() -> None:
    """The stand-in itself: without it the tests above would prove nothing."""
    clock = FakeClock()
    net = CostlyNet(clock, 0.25)
    net(x=torch.zeros(2, 4))
    net.eval()(x=torch.zeros(2, 4))
    assert clock.now() == SECOND // 4
