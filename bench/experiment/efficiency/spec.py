"""What a task offers so that the cost of its architectures can be counted and timed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from bench import registry
from bench.contracts import Batch
from bench.errors import UserError

Sizes = Mapping[str, int]
"""Shape of a batch, such as ``{"input_views": 4, "target_views": 8}``; of one sample unless it says another ``batch``."""


@dataclass(frozen=True)
class Row:
    """One architecture at one size, to be counted on the meta device."""

    label: str
    """Names architecture and options; unique together with `mode` and `sizes`."""
    architecture: str
    """Registered name."""
    sizes: Sizes
    options: Mapping[str, Any] = field(default_factory=dict)
    """What differs from the published size."""
    mode: str = "full"
    """``full``: a forward pass; other modes are the task's own."""


class Counted(NamedTuple):
    """What `bench.engine.flops.triangulate` needs for a row."""

    build: Callable[[], nn.Module]
    """Makes the module; called under the meta device."""
    batch: Batch
    """Of one sample."""
    fields: tuple[str, ...]
    """Keys of the batch that ``forward`` receives."""


class Started(NamedTuple):
    """A call that is ready to be timed."""

    run: Callable[[], Tensor]
    """Makes the outputs (in training: the loss, detached); must not change what it works on."""
    held_bytes: int
    """Memory of what was prepared for it and is kept between calls (a key-value cache)."""


@dataclass(frozen=True)
class TimedCall:
    """One kind of call of one architecture on one batch."""

    label: str
    mode: str
    flops: int
    """Closed form of the call."""
    start_flops: int
    """Closed form of what `start` computes."""
    extent: int
    """Number that memory grows with, at most in proportion (views, tokens)."""
    start: Callable[[], Started]


def backward_too(forward: int) -> int:
    """FLOPs of forward and backward: every product has two in its gradient, as large as itself."""
    return 3 * forward


def training_call(module: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], Started]:
    """`TimedCall.start` of a step: the loss, and the gradients of all weights of `module`, which are dropped at once."""

    def step() -> Tensor:
        value = loss()
        torch.autograd.backward(value)
        module.zero_grad(set_to_none=True)
        return value.detach()

    return lambda: Started(step, 0)


class TaskEfficiency(Protocol):
    """A task's part: register it in `TASKS`."""

    rows: Sequence[Row]
    """To be counted, at the published size whatever the preset."""
    training: bool
    """Whether calls are timed with gradients, forward and backward, or in inference mode."""
    rounds: int
    """Timed rounds of a group; 6 is the least that gives a median a 95 % interval."""
    limit_seconds: Mapping[str, float]
    """Longest call that is timed, by the kind of device."""

    def groups(self, preset: str) -> Sequence[Sizes]:
        """Shapes to be timed, in a sensible order of reading."""
        ...

    def counted(self, row: Row) -> Counted:
        """Module and batch of a row."""
        ...

    def setting(self, preset: str) -> dict[str, Any]:
        """What the record says of the size that is timed, beside the preset's name."""
        ...

    def models(self, preset: str) -> dict[str, nn.Module]:
        """Label to a fresh module at the preset's size, on the CPU."""
        ...

    def calls(
        self, models: Mapping[str, nn.Module], sizes: Sizes, preset: str, device: torch.device, seed: int
    ) -> list[TimedCall]:
        """The calls of a group; a ``full`` one comes before the others of its label."""
        ...


TASKS = {
    "nvs": "bench.experiment.efficiency.nvs:ViewSynthesis",
    "masked-image": "bench.experiment.efficiency.masked_image:MaskedImage",
    "hydrology": "bench.experiment.efficiency.hydrology:Hydrology",
    "vos": "bench.experiment.efficiency.vos:VideoObjectSegmentation",
    "tracking": "bench.experiment.efficiency.tracking:Tracking",
    "openvocab": "bench.experiment.efficiency.openvocab:OpenVocabulary",
}


def task_efficiency(task: str) -> TaskEfficiency:
    """The part of a task.

    Raises:
        UserError: it has none.
    """
    if task not in TASKS:
        raise UserError(f"task {task!r}: has no efficiency tables; known: {', '.join(sorted(TASKS))}")
    made: TaskEfficiency = registry.load_object(TASKS[task], "efficiency")()
    return made
