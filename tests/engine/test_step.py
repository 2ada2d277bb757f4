from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from bench.engine.step import OPTIMIZERS, StepSettings, TrainingStep, make_optimizer, unwrap
from tests.engine.fakes import CPU, FakeTask, TinyNet, same


def make_step(
    model: nn.Module | None = None, average: nn.Module | None = None, task: FakeTask | None = None, **settings: object
) -> TrainingStep:
    torch.manual_seed(0)
    model = TinyNet(dropout=0.0, norm=False) if model is None else model
    chosen = StepSettings(**({"learning_rate": 0.1, "weight_decay": 0.0} | settings))  # type: ignore[arg-type]
    return TrainingStep(task or FakeTask(), model, make_optimizer(model, chosen), chosen, CPU, average)


BATCH = FakeTask().worst_case(5)


def gradients(model: nn.Module, scale: float = 1.0) -> dict[str, Tensor]:
    task = FakeTask()
    task.loss_scale = scale
    model.zero_grad()
    task.loss(model(x=BATCH["x"]), BATCH).backward()
    found = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    return found


def test_phases_come_in_order() -> None:
    laps: list[str] = []
    make_step()(BATCH, lap=laps.append)
    assert laps == ["h2d", "forward", "backward", "optimizer"]
    laps.clear()
    make_step(average=TinyNet(norm=False))(BATCH, average_decay=0.5, lap=laps.append)
    assert laps == ["h2d", "forward", "backward", "optimizer", "ema"]


def test_a_step_is_plain_gradient_descent() -> None:
    step = make_step(optimizer="sgd", betas=(0.0, 0.0), gradient_clip=0.0)
    before = {name: weight.detach().clone() for name, weight in step.model.named_parameters()}
    slope = gradients(step.model)
    result = step(BATCH, factor=0.25)
    for name, weight in step.model.named_parameters():
        torch.testing.assert_close(weight.detach(), before[name] - 0.1 * 0.25 * slope[name])
        assert weight.grad is None
    norm = math.sqrt(sum(float(g.square().sum()) for g in slope.values()))
    assert float(result.gradient_norm) == pytest.approx(norm, rel=1e-5)
    assert not result.loss.requires_grad


def test_the_gradient_is_clipped_to_the_norm_and_recorded_unclipped() -> None:
    task = FakeTask()
    task.loss_scale = 1000.0
    step = make_step(task=task, optimizer="sgd", betas=(0.0, 0.0), gradient_clip=0.5)
    before = {name: weight.detach().clone() for name, weight in step.model.named_parameters()}
    result = step(BATCH)
    change = math.sqrt(sum(float((w.detach() - before[n]).square().sum()) for n, w in step.model.named_parameters()))
    assert change == pytest.approx(0.1 * 0.5, rel=1e-4)
    assert float(result.gradient_norm) > 100


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_only_matrices_decay(name: str) -> None:
    settings = StepSettings(learning_rate=0.1, optimizer=name, weight_decay=0.3)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.LayerNorm(4), nn.Linear(4, 4))
    model[2].bias.requires_grad_(False)
    groups = make_optimizer(model, settings).param_groups
    decays = {id(weight): group["weight_decay"] for group in groups for weight in group["params"]}
    for weight in model.parameters():
        if weight.requires_grad:
            assert decays.pop(id(weight)) == (0.3 if weight.ndim >= 2 else 0.0)
    assert not decays, "frozen weights are not optimised"


def test_an_architecture_may_ask_for_a_share_of_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = next(name for name, _ in TinyNet(norm=False).named_parameters())
    monkeypatch.setattr(TinyNet, "learning_rate_shares", lambda self: {slow: 0.01}, raising=False)
    step = make_step(optimizer="sgd", betas=(0.0, 0.0), gradient_clip=0.0)
    before = {name: weight.detach().clone() for name, weight in step.model.named_parameters()}
    slope = gradients(step.model)
    step(BATCH, factor=0.25)
    for name, weight in step.model.named_parameters():
        share = 0.01 if name == slow else 1.0
        torch.testing.assert_close(weight.detach(), before[name] - 0.1 * 0.25 * share * slope[name])


def test_decay_follows_the_rate() -> None:
    step = make_step(optimizer="adamw", weight_decay=0.5)
    task = step.task
    task.loss_scale = 0.0  # type: ignore[attr-defined]
    before = {name: weight.detach().clone() for name, weight in step.model.named_parameters()}
    step(BATCH, factor=0.5)
    for name, weight in step.model.named_parameters():
        shrink = 1 - 0.1 * 0.5 * 0.5 if weight.ndim >= 2 else 1.0
        torch.testing.assert_close(weight.detach(), before[name] * shrink)


def test_the_average_follows_weights_and_statistics() -> None:
    torch.manual_seed(1)
    model, average = TinyNet(), TinyNet()
    start = {name: weight.detach().clone() for name, weight in average.named_parameters()}
    step = make_step(model, average)
    step(BATCH, average_decay=0.75)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(dict(average.named_parameters())[name], 0.75 * start[name] + 0.25 * weight)
    assert same(dict(average.named_buffers()), dict(model.named_buffers())), "running statistics average themselves"
    assert model.norm.num_batches_tracked == 1


def test_an_average_rests_where_no_decay_is_given() -> None:
    average = TinyNet(norm=False)
    before = {name: value.clone() for name, value in average.state_dict().items()}
    make_step(average=average)(BATCH)
    assert same(before, average.state_dict())


class Auxiliary(TinyNet):
    def auxiliary_loss(self, batch, outputs):
        assert set(batch) == {"x", "y"}, "the one place that may see targets"
        return 7.0 + 0.0 * outputs["y"].sum()


def test_the_auxiliary_loss_is_added_in_training() -> None:
    plain, more = make_step(TinyNet(0.0, False)), make_step(Auxiliary(0.0, False))
    more.model.load_state_dict(plain.model.state_dict())
    assert more.loss(BATCH).item() == pytest.approx(plain.loss(BATCH).item() + 7.0)
    wrapper = nn.Module()
    wrapper._orig_mod, wrapper.forward = more.model, more.model.forward
    assert make_step(wrapper).loss(BATCH).item() == more.loss(BATCH).item()


def test_a_loss_that_asks_is_told_the_progress() -> None:
    told: list[float] = []

    class Follows(FakeTask):
        def loss(self, outputs, batch, progress=None):
            told.append(progress)
            return super().loss(outputs, batch)

    step = make_step(task=Follows())
    step.loss(BATCH, 0.25)
    step(BATCH, progress=0.5)
    assert told == [0.25, 0.5]


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_precision(precision: str, dtype: torch.dtype) -> None:
    seen: list[torch.dtype] = []

    class Task(FakeTask):
        def loss(self, outputs, batch):
            seen.append(outputs["y"].dtype)
            assert not torch.is_autocast_enabled("cpu")
            return super().loss(outputs, batch)

    step = make_step(task=Task(), precision=precision)
    result = step(BATCH)
    assert seen == [dtype]
    assert result.loss.dtype == torch.float32
    assert all(weight.dtype == torch.float32 for weight in step.model.parameters())


def test_targets_never_reach_the_model() -> None:
    class Nosy(TinyNet):
        def forward(self, **inputs):
            assert set(inputs) == {"x"}
            return super().forward(**inputs)

    make_step(Nosy())(BATCH)


def test_unwrap_finds_the_architecture() -> None:
    model, compiled = TinyNet(), nn.Module()
    compiled._orig_mod = model  # as torch.compile wraps it
    assert unwrap(compiled) is unwrap(model) is model


@pytest.mark.parametrize("name", list(OPTIMIZERS))
@pytest.mark.parametrize("scale", [1000.0, math.nan])
def test_a_step_with_too_large_a_gradient_leaves_weights_and_moments_alone(name: str, scale: float) -> None:
    task = FakeTask()
    step = make_step(task=task, optimizer=name, gradient_clip=1.0, gradient_skip=30.0, weight_decay=0.1)
    twin = make_step(task=FakeTask(), optimizer=name, gradient_clip=1.0, gradient_skip=30.0, weight_decay=0.1)
    for current in (step, twin):
        assert current(BATCH).skipped == 0.0
    before = {key: value.clone() for key, value in step.model.state_dict().items()}
    task.loss_scale = scale
    assert step(BATCH).skipped == 1.0
    assert same(before, step.model.state_dict())
    assert all(weight.grad is None for weight in step.model.parameters()), "nothing is left for the next step to add to"
    task.loss_scale = 1.0
    for current in (step, twin):  # as if the bad batch had never been
        assert current(BATCH).skipped == 0.0
    assert same(step.model.state_dict(), twin.model.state_dict())


def test_no_step_is_skipped_unless_asked() -> None:
    task = FakeTask()
    task.loss_scale = 1e6
    step = make_step(task=task)
    before = {key: value.clone() for key, value in step.model.state_dict().items()}
    assert step(BATCH).skipped == 0.0
    assert not same(before, step.model.state_dict())


def test_an_auxiliary_loss_that_asks_for_progress_is_told() -> None:
    told: list[float] = []

    class Curriculum(TinyNet):
        def auxiliary_loss(self, batch, outputs, progress=0.0):
            told.append(progress)
            return 0.0 * outputs["y"].sum()

    step = make_step(Curriculum(0.0, False))
    step(BATCH)
    step(BATCH, progress=0.75)
    assert told == [0.0, 0.75]
