"""Claiming a device's memory must leave no trace in the run."""

from __future__ import annotations

import torch

from bench.engine.state import claim_memory, random_state
from bench.engine.step import StepSettings, TrainingStep, make_optimizer
from tests.engine.fakes import FakeTask, TinyNet


def test_claiming_memory_leaves_weights_buffers_gradients_and_random_numbers_alone() -> None:
    task, model = FakeTask(), TinyNet(dropout=0.5)  # its batch norm counts what it sees
    settings = StepSettings(learning_rate=0.1)
    step = TrainingStep(task, model, make_optimizer(model, settings), settings, torch.device("cpu"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = random_state(step.device)["cpu"].clone()
    claim_memory(step, task.worst_case(4))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())
    assert torch.equal(random_state(step.device)["cpu"], random)
    assert not step.optimizer.state
