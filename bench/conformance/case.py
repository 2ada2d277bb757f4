"""What every check works with: models and batches of one architecture under one task, and how to compare outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from bench.contracts import Batch, Task


class Failure(Exception):
    """A check found a fault; the message is the finding's line."""


@dataclass(frozen=True)
class Case:
    """One architecture under one task, and how to make models and batches of it."""

    build: Callable[[], nn.Module]
    task: Task
    device: torch.device
    batch_size: int
    memory: Callable[[int], int] | None

    def model(self, seed: int = 0) -> nn.Module:
        """A fresh model whose weights come from `seed`."""
        torch.manual_seed(seed)
        return self.build().to(self.device)

    def host_batch(self, seed: int = 0, batch_size: int | None = None) -> Batch:
        """Random legal batch as `Task.collate` would give it."""
        size = batch_size or self.batch_size
        synthetic: Callable[[int, int], Batch] | None = getattr(self.task, "synthetic", None)
        return self.task.worst_case(size) if synthetic is None else synthetic(size, seed)

    def batch(self, seed: int = 0, batch_size: int | None = None) -> Batch:
        """Random legal batch on the device."""
        return self.task.transfer(self.host_batch(seed, batch_size), self.device)

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        """Copies, so that an architecture that writes into its inputs spoils no other check."""
        return {name: batch[name].clone() for name in self.task.input_fields}

    def outputs(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Outputs in eval mode, detached."""
        model.eval()
        with torch.inference_mode():
            return dict(model(**self.inputs(batch)))

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The task's loss and the architecture's own, as in training."""
        return self.losses(model, batch, model(**self.inputs(batch)))

    def losses(self, model: nn.Module, batch: Batch, outputs: Mapping[str, Tensor]) -> Tensor:
        """The task's loss of `outputs` and the architecture's own."""
        loss = self.task.loss(outputs, batch)
        auxiliary: Callable[..., Tensor] | None = getattr(model, "auxiliary_loss", None)
        return loss if auxiliary is None else loss + auxiliary(batch, outputs)


def fail(detail: str) -> NoReturn:
    """End the check with a line that says what is wrong and how to mend it."""
    raise Failure(detail)


def asks_for_target(field: str) -> str:
    """The line for a forward that wants a target."""
    return f"forward asks for the target field '{field}': only auxiliary_loss(batch, outputs) may see targets"


def difference(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float:
    """Largest difference between two sets of outputs, relative to their largest magnitude (at least 1)."""
    worst = 0.0
    for name, value in first.items():
        one, other = value.double(), second[name].double()
        scale = max(1.0, float(one.nan_to_num().abs().max()))
        gap = torch.where(one.isnan() & other.isnan(), 0.0, (one - other).abs()).max()
        worst = max(worst, float(gap.nan_to_num(nan=float("inf"))) / scale)
    return worst
