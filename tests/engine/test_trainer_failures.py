"""Runs that go wrong: losses that are not finite, memory that ends, time that nothing explains."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bench.engine.clock import Gaps
from bench.engine.progress import Budget
from bench.engine.step import StepSettings
from bench.engine.trainer import Diverged, OutOfMemory, Trainer
from tests.engine.fakes import (
    SECOND,
    CostlyNet,
    FailingNet,
    FakeClock,
    FakeTask,
    MemoryRecorder,
    make_trainer,
    records,
    run,
    same,
)

pytestmark = pytest.mark.usefixtures("small_heap")


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
