"""One training step: the same code in the timed run, in the probes, in the warm-up and in replay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.contracts import Batch, Task

Lap = Callable[[str], None]


def _no_lap(category: str) -> None:
    pass


@dataclass(frozen=True)
class StepSettings:
    """How an arm is optimised, apart from its batch and the position in the run."""

    learning_rate: float
    """Peak learning rate, already scaled to the optimiser batch."""
    optimizer: str = "adamw"
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.05
    """Applied to weights with two or more axes; norms and biases are left alone."""
    gradient_clip: float = 1.0
    """Largest L2 norm of the gradient; 0 switches clipping off (the norm is recorded all the same)."""
    precision: str = "fp32"
    """``fp32`` or ``bf16`` (autocast; parameters stay fp32)."""
    ema_half_life: float | None = None
    """Half-life of the averaged weights as a share of the budget; None: no average."""


OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
}


def make_optimizer(model: nn.Module, settings: StepSettings) -> torch.optim.Optimizer:
    """Optimizer over the model's trainable weights, matrices and vectors in groups of their own."""
    trainable = [weight for weight in model.parameters() if weight.requires_grad]
    groups = [
        {"params": [w for w in trainable if w.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [w for w in trainable if w.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    kind = OPTIMIZERS[settings.optimizer]
    if settings.optimizer == "sgd":
        return kind(groups, lr=settings.learning_rate, momentum=settings.betas[0])  # type: ignore[call-arg]
    return kind(groups, lr=settings.learning_rate, betas=settings.betas, fused=True)  # type: ignore[call-arg]


@dataclass(frozen=True)
class StepResult:
    """What a step leaves to record; tensors on the device, read only once the device is done."""

    loss: Tensor
    gradient_norm: Tensor


class TrainingStep:
    """Transfer, forward, backward and optimiser for one host batch, each phase marked on a stopwatch."""

    def __init__(
        self,
        task: Task,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        settings: StepSettings,
        device: torch.device,
        average: nn.Module | None = None,
    ) -> None:
        """Train `model` (possibly wrapped for several processes or compiled) on `device`; `average` follows its weights."""
        self.task, self.model, self.optimizer, self.device = task, model, optimizer, device
        self.settings, self.average = settings, average
        self._weights = [weight for weight in model.parameters() if weight.requires_grad]
        self._auxiliary = getattr(unwrap(model), "auxiliary_loss", None)

    def loss(self, batch: Batch) -> Tensor:
        """The task's loss, plus the architecture's own where it has one."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16"):
            outputs = self.model(**{name: batch[name] for name in self.task.input_fields})
            auxiliary = self._auxiliary(batch, outputs) if self._auxiliary else None
        loss = self.task.loss(outputs, batch)
        return loss if auxiliary is None else loss + auxiliary

    def __call__(
        self, batch: Batch, *, factor: float = 1.0, average_decay: float | None = None, lap: Lap = _no_lap
    ) -> StepResult:
        """Take one step on a host batch with ``learning_rate * factor``.

        `average_decay` is what the average keeps of itself in this step (only where there is an average).
        """
        batch = self.task.transfer(batch, self.device)
        lap("h2d")
        loss = self.loss(batch)
        lap("forward")
        loss.backward()
        lap("backward")
        clip = self.settings.gradient_clip
        norm = torch.nn.utils.clip_grad_norm_(self._weights, clip if clip > 0 else float("inf"))
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * factor
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        lap("optimizer")
        if self.average is not None and average_decay is not None:
            averaged = [weight.detach() for weight in self.average.parameters()]
            current = [weight.detach() for weight in unwrap(self.model).parameters()]
            torch._foreach_lerp_(averaged, current, 1.0 - average_decay)
            for kept, buffer in zip(self.average.buffers(), unwrap(self.model).buffers(), strict=True):
                kept.copy_(buffer)  # e.g. running statistics, which average themselves
            lap("ema")
        return StepResult(loss.detach(), norm.detach())


def unwrap(model: nn.Module) -> nn.Module:
    """The architecture inside ``torch.compile`` and DistributedDataParallel wrappers."""
    while hasattr(model, "_orig_mod") or isinstance(model, nn.parallel.DistributedDataParallel):
        model = model._orig_mod if hasattr(model, "_orig_mod") else model.module  # type: ignore[assignment]
    return model
