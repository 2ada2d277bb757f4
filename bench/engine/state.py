"""A run's state as named tensors, and the random numbers that belong to it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bench.contracts import Batch
from bench.engine.loader import host_copy
from bench.engine.step import TrainingStep


def collect(
    model: nn.Module, average: nn.Module | None, optimizer: torch.optim.Optimizer, random: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Copies on the host of everything that training changes, under ``part/name``."""
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    if average is not None:
        tensors |= {f"average/{name}": tensor for name, tensor in average.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{name}": value for name, value in state.items() if isinstance(value, Tensor)}
    tensors |= {f"random/{name}": state for name, state in random.items()}
    return host_copy(tensors)


def distribute(
    tensors: Mapping[str, Tensor], model: nn.Module, average: nn.Module | None, optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """Put collected tensors back where they came from; returns the random state."""
    model.load_state_dict(_below(tensors, "model/"))
    if average is not None:
        average.load_state_dict(_below(tensors, "average/"))
    state: dict[int, dict[str, Tensor]] = {}
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for key, value in _below(tensors, "optimizer/").items():
        index, name = key.split("/", 1)
        weight = weights[int(index)]
        if value.shape == weight.shape:  # fused kernels walk both in memory order, so the layouts must agree
            value = torch.empty_like(weight, dtype=value.dtype, device=value.device).copy_(value)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return _below(tensors, "random/")


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def move(device: torch.device, model: nn.Module, average: nn.Module | None, optimizer: torch.optim.Optimizer) -> None:
    """Put weights, averaged weights and the optimiser's state on `device`."""
    model.to(device)
    if average is not None:
        average.to(device)
    for state in optimizer.state.values():
        for name, value in state.items():
            if isinstance(value, Tensor):
                state[name] = value.to(device)


def claim_memory(step: TrainingStep, batch: Batch) -> None:
    """Have the allocator take from the device what a step on `batch` needs, and leave everything else as it was.

    After `move` the allocator holds nothing: without this the first steps of every slice would be charged for asking. One
    forward and backward on dummy data, whose gradients are dropped and whose changes to buffers and random numbers are undone.
    """
    buffers = {name: buffer.clone() for name, buffer in step.model.named_buffers()}
    random = random_state(step.device)
    step.loss(step.task.transfer(batch, step.device)).backward()
    step.optimizer.zero_grad(set_to_none=True)
    with torch.no_grad():
        for name, buffer in step.model.named_buffers():
            buffer.copy_(buffers[name])
    set_random_state(random, step.device)


def random_state(device: torch.device) -> dict[str, Tensor]:
    """State of torch's generators on the host and on `device`."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: Mapping[str, Tensor], device: torch.device) -> None:
    """Inverse of `random_state`."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
