"""One training step: the same code in the timed run, in the probes, in the warm-up and in replay."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

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
    gradient_skip: float = 0.0
    """Above this norm before clipping, or where the norm is not finite, a step leaves weights and optimiser alone; 0: never."""
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
    """Optimizer over the model's trainable weights, matrices and vectors in groups of their own, by share of the rate."""
    shares: Mapping[str, float] = getattr(unwrap(model), "learning_rate_shares", dict)()
    groups: dict[tuple[float, bool], dict[str, Any]] = {}
    for matrices in (True, False):
        for name, weight in unwrap(model).named_parameters():
            if weight.requires_grad and (weight.ndim >= 2) == matrices:
                share = next((share for prefix, share in shares.items() if name.startswith(prefix)), 1.0)
                decay = settings.weight_decay if matrices else 0.0
                new = {"params": [], "weight_decay": decay, "share": share}
                groups.setdefault((share, matrices), new)["params"].append(weight)
    kind = OPTIMIZERS[settings.optimizer]
    if settings.optimizer == "sgd":
        return kind(groups.values(), lr=settings.learning_rate, momentum=settings.betas[0])  # type: ignore[call-arg]
    return kind(groups.values(), lr=settings.learning_rate, betas=settings.betas, fused=True)  # type: ignore[call-arg]


@dataclass(frozen=True)
class StepResult:
    """What a step leaves to record; tensors on the device, read only once the device is done."""

    loss: Tensor
    gradient_norm: Tensor
    skipped: Tensor
    """1.0 where the weights were left alone, else 0.0."""


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
        self._loss_follows, self._auxiliary_follows = map(_takes_progress, (task.loss, self._auxiliary))

    def loss(self, batch: Batch, progress: float = 0.0) -> Tensor:
        """The task's loss, plus the architecture's own where it has one, at this share of the budget."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16"):
            outputs = self.model(**{name: batch[name] for name in self.task.input_fields})
            position = {"progress": progress}
            asked = position if self._auxiliary_follows else {}
            auxiliary = self._auxiliary(batch, outputs, **asked) if self._auxiliary else None
        loss = self.task.loss(outputs, batch, **(position if self._loss_follows else {}))
        return loss if auxiliary is None else loss + auxiliary

    def __call__(
        self,
        batch: Batch,
        *,
        factor: float = 1.0,
        progress: float = 0.0,
        average_decay: float | None = None,
        lap: Lap = _no_lap,
    ) -> StepResult:
        """Take one step on a host batch with ``learning_rate * factor``, at the share `progress` of the budget.

        `average_decay` is what the average keeps of itself in this step (only where there is an average).
        """
        batch = self.task.transfer(batch, self.device)
        lap("h2d")
        loss = self.loss(batch, progress)
        lap("forward")
        loss.backward()
        lap("backward")
        clip = self.settings.gradient_clip
        norm = torch.nn.utils.clip_grad_norm_(self._weights, clip if clip > 0 else float("inf"))
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * factor * group["share"]
        skipped = self._update(norm)
        self.optimizer.zero_grad(set_to_none=True)
        lap("optimizer")
        if self.average is not None and average_decay is not None:
            averaged = [weight.detach() for weight in self.average.parameters()]
            current = [weight.detach() for weight in unwrap(self.model).parameters()]
            torch._foreach_lerp_(averaged, current, 1.0 - average_decay)
            for kept, buffer in zip(self.average.buffers(), unwrap(self.model).buffers(), strict=True):
                kept.copy_(buffer)  # e.g. running statistics, which average themselves
            lap("ema")
        return StepResult(loss.detach(), norm.detach(), skipped)

    def _update(self, norm: Tensor) -> Tensor:
        """Let the optimiser step unless the gradient's norm forbids it; 1.0 where it does."""
        limit = self.settings.gradient_skip
        if limit <= 0:
            self.optimizer.step()
            return torch.zeros_like(norm)
        skip = (~(norm <= limit)).float()  # so that a norm that is no number skips too
        if self.settings.optimizer == "sgd":
            if not skip.item():
                self.optimizer.step()
        else:
            # Fused kernels decide on the device, as for a gradient scaler: nobody waits, moments and step count stay.
            self.optimizer.found_inf = skip  # type: ignore[attr-defined]
            self.optimizer.step()
        return skip


def _takes_progress(loss: Callable[..., Tensor] | None) -> bool:
    return loss is not None and "progress" in inspect.signature(loss).parameters


def unwrap(model: nn.Module) -> nn.Module:
    """The architecture inside ``torch.compile`` and DistributedDataParallel wrappers."""
    while hasattr(model, "_orig_mod") or isinstance(model, nn.parallel.DistributedDataParallel):
        model = model._orig_mod if hasattr(model, "_orig_mod") else model.module  # type: ignore[assignment]
    return model
